// Invariant: an output is 0, plus slot 0, plus slot 1, and so on; a slot is its parts, first to last, times the power
// of two that operands leave and the global scale. An output that is not finite is worked out again as the exact fma
// chain of its slots.
#pragma once

#include <jitc/mma/wide.cuh>

namespace jitc {

// A part of a row one weight at a time, in ascending k with one rounding a step, w = (code * scale) * global: for sums
// that are not finite above.
template <typename C>
__device__ __noinline__ float part_scalar(const u16* x_row, const u8* weight, const u8* scales, float global, u32 row,
                                          u32 begin, u32 end) {
    using L = MmaRows<C>;
    float a = 0.0f;
    for (u32 k = begin; k < end; ++k) {
        u32 code;
        u64 scale_at;
        if constexpr (C::packed) {
            const PackedCode at = packed_code<L::k_total>(weight, row, k);
            code = at.code;
            scale_at = at.scale_at;
        } else {
            const u32 byte = weight[u64(row) * L::row_bytes + (k >> 1)];
            code = (k & 1u) ? byte >> 4 : byte & 15u;
            scale_at = scale_offset(row, k / group_len, L::scale_tiles);
        }
        const float w = __fmul_rn(__fmul_rn(fp4_to_f32(code), e4m3_to_f32(scales[scale_at])), global);
        a = __fmaf_rn(w, bf16_to_f32(x_row[k]), a);
    }
    return a;
}

__device__ __forceinline__ void store_result(float* to, float v) { *to = v; }
__device__ __forceinline__ void store_result(u16* to, float v) { *to = cvt_bf16(v); }

// Gathers the parts, behind a block barrier: each output element by one thread.
// \param x, weight, scales  as in mma_rows, for sums that are not finite
// \param global       the global scale
// \param shared       where mma_rows left its sums
// \param partials     [num_tokens, slots, rows], or null
// \param output       [num_tokens, rows]
// \param block        number of the block's rows
// \param first_token  first of the tokens of this pass
// \param num_tokens   tokens of the launch
template <typename C, u32 slot_parts, typename Out>
__device__ __forceinline__ void mma_gather(const u16* x, const u8* weight, const u8* scales, float global,
                                           const u8* shared, float* partials, Out* output, u32 block, u32 first_token,
                                           u32 num_tokens) {
    using L = MmaRows<C>;
    constexpr u32 slots = L::parts / slot_parts, items = L::tokens * L::cta_rows;
    constexpr u32 stride = L::wide ? 0u : items * L::part_sums * 4u;  // from part to part; wide sums lie by warp
    const float factor = __fmul_rn(global, L::scale_after_dot ? weight_rest_after_dot : weight_rest);
    auto part_sum = [&](u32 from, u32 part) {
        if constexpr (L::wide) {
            return ld_shared<float>(from + MmaWide<C>::sums_of_any(part));
        } else if constexpr (L::scale_after_dot) {
            const float4 v = ld_shared<float4>(from);
            return __fadd_rn(__fadd_rn(v.x, v.y), __fadd_rn(v.z, v.w));
        } else {
            const float2 v = ld_shared<float2>(from);
            return __fadd_rn(v.x, v.y);
        }
    };
    // Opaque, or addresses would be worked out before the first weights are loaded.
    const u32 thread = opaque(threadIdx.x);
#pragma unroll 1
    for (u32 i = thread; i < items; i += L::threads) {
        const u32 local_token = L::tokens == 1 ? 0 : i / L::cta_rows, token = first_token + local_token;
        u32 row, local;
        L::place(block, L::tokens == 1 ? i : i % L::cta_rows, row, local);
        if (row >= L::rows || token >= num_tokens) continue;
        u32 from = shared_address(shared) + L::sums_at + (local_token * L::cta_rows + local) * (L::part_sums * 4u);
        float* to = partials + u64(token) * slots * L::rows + row;
        const bool wanted = partials != nullptr;
        float total = 0.0f;
        u32 part = 0;
        // Not without a loop: instructions that run once have to be fetched first.
#pragma unroll 8
        for (u32 slot = 0; slot < slots; ++slot) {
            float v = part_sum(from, part++);
            from += stride;
#pragma unroll 8
            for (u32 p = 1; p < slot_parts; ++p, from += stride) v = __fadd_rn(v, part_sum(from, part++));
            v = __fmul_rn(v, factor);
            st_global_if(to, v, wanted);
            to += L::rows;
            total = __fadd_rn(total, v);
        }
        if (!(fabsf(total) < __uint_as_float(0x7f800000u))) {
            // Rare: the activations are not finite, or the result is not.
            total = 0.0f;
            to = partials + u64(token) * slots * L::rows + row;
#pragma unroll 1
            for (u32 slot = 0; slot < slots; ++slot, to += L::rows) {
                const u32 len = slot_parts * C::part_len;
                const float v = part_scalar<C>(x + u64(token) * L::k_total, weight, scales, global, row, slot * len,
                                               slot * len + len);
                st_global_if(to, v, wanted);
                total = __fadd_rn(total, v);
            }
        }
        store_result(output + u64(token) * L::rows + row, total);
    }
}

// Shared memory of a block.
template <typename C>
__host__ __device__ constexpr u32 mma_bytes() {
    if constexpr (MmaRows<C>::wide) {
        return MmaWide<C>::bytes;
    } else {
        return MmaRows<C>::bytes;
    }
}

// One launch: sums, then their gather, `tokens` tokens at a time.
template <typename C, u32 slot_parts, typename Out>
__device__ __forceinline__ void mma_launch(const u16* x, const u8* weight, const u8* scales, const float* global_scale,
                                           u8* shared, float* partials, Out* output, u32 block, u32 num_tokens) {
    if constexpr (C::dependent) pdl_launch_dependents();
    for (u32 first_token = 0; first_token < num_tokens; first_token += C::tokens) {
        float global;
        if constexpr (MmaRows<C>::wide) {
            global = mma_wide_rows<C>(x, weight, scales, global_scale, shared, block, first_token, num_tokens);
        } else {
            global = mma_rows<C>(x, weight, scales, global_scale, shared, block, first_token, num_tokens);
        }
        __syncthreads();
        mma_gather<C, slot_parts>(x, weight, scales, global, shared, partials, output, block, first_token, num_tokens);
        if (first_token + C::tokens < num_tokens) __syncthreads();
    }
}

}  // namespace jitc
