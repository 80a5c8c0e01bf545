// Invariant: partials are the sums of mma/rows.cuh over the slots' ranges, output their sum in slot order; neither
// depends on tiling, warps, layout or the number of blocks. A block owns rows with all of their slots, so the gather
// stays in it.
#pragma once

#include <jitc/mma/gather.cuh>
#include <jitc/wo/chain.cuh>

namespace jitc {

template <typename C>
struct WoMma {
    static constexpr u32 rows = C::hidden;
    static constexpr u32 k_total = C::num_q_heads * C::head_dim;
    static constexpr u32 part_len = C::part_len;
    static constexpr u32 k_warps = C::k_warps;
    static constexpr u32 rows_per_cta = C::mma_rows;
    static constexpr u32 tokens = C::tokens;
    static constexpr u32 ring = C::ring;
    static constexpr bool dependent = C::dependent;
    static constexpr bool packed = C::packed;
    static constexpr u32 x_stages = C::x_stages;
};

template <typename C>
__device__ __forceinline__ void wo_mma(const u16* attn, const u8* weight, const u8* scales, const float* global_scale,
                                       float* partials, float* output, u32 num_tokens) {
    using M = WoMma<C>;
    using S = Shape<C>;
    static_assert(S::k_head / S::split % M::part_len == 0, "a slot is whole parts");
    static_assert(C::shared_bytes >= mma_bytes<M>(), "shared_bytes in the family's TOML is too small");
    static_assert(C::block_threads == MmaRows<M>::threads, "threads follow from the warps");
    extern __shared__ __align__(128) u8 shared[];
    mma_launch<M, S::k_head / S::split / M::part_len>(attn, weight, scales, global_scale, shared, partials, output,
                                                      blockIdx.x, num_tokens);
}

}  // namespace jitc
