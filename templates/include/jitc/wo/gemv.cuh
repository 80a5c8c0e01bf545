// Invariant: output = the slots' partials summed in slot order, whatever the geometry; partials hold the chains of
// wo/chain.cuh bit for bit, in mma mode the sums of mma/rows.cuh, or of wo/fp8_mma.cuh. Which body runs is decided at compile time.
#pragma once

#include <jitc/region.cuh>
#include <jitc/wo/fp8_chain.cuh>
#include <jitc/wo/fp8_mma.cuh>
#include <jitc/wo/mma.cuh>
#include <jitc/wo/original.cuh>
#include <jitc/wo/tiled.cuh>

namespace jitc {

// \param attn           activations, bf16 [num_tokens, k_total]
// \param weight         codes, plain or packed; FP8: E4M3 [hidden, k_total]
// \param scales         E4M3 scales, swizzled or packed; FP8: null
// \param global_scale   one float; FP8 with row_scales: one a row
// \param partials       [num_tokens, slots, hidden]
// \param output         [num_tokens, hidden]
// \param counters       grid barriers of `geometry = original`, zero
// \param region_timing  the region buffer, null without regions
// \param num_tokens     tokens of the launch
template <typename C>
__device__ __forceinline__ void wo_gemv(const u16* attn, const u8* weight, const u8* scales, const float* global_scale,
                                        float* partials, float* output, u32* counters, u64* region_timing,
                                        u32 num_tokens) {
    RegionTimer<C> timer(region_timing);
    if constexpr (C::geometry == Geometry::original) {
        wo_original<C>(attn, weight, scales, global_scale, partials, output, counters, timer);
    } else if (blockIdx.z != 0u) {
        // A grid with a layer a token, as nvllm's have: one layer keeps its weights and walks all tokens.
    } else {
        if constexpr (C::staged && !C::by_mma && !C::fp8) {
            wo_tiled<C>(attn, weight, scales, global_scale, partials, output, num_tokens, timer);
            return;
        }
        timer.enter_at_start(region::phase1_wo_gemv{});
        if constexpr (C::fp8 && C::by_mma) {
            wo_fp8_mma<C>(attn, weight, global_scale, partials, output, num_tokens);
        } else if constexpr (C::fp8) {
            wo_fp8_chains<C>(attn, weight, global_scale, partials, output, num_tokens);
        } else if constexpr (C::by_mma) {
            wo_mma<C>(attn, weight, scales, global_scale, partials, output, num_tokens);
        } else {
            wo_tiled_scalar<C>(attn, weight, scales, global_scale, partials, output, num_tokens);
        }
        timer.join();
        timer.exit(region::phase1_wo_gemv{});
    }
}

}  // namespace jitc
