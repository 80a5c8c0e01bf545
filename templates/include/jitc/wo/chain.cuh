// Invariant: the one place that says what a slot's chain is; a slot is one part of the split-K sum. a starts at +0 and
// takes k in ascending order; w = (code * scale) * global, rounded once after each product; then one rounding (fma) or
// two (mul_add) a step.
#pragma once

#include <jitc/nvfp4/decode.cuh>

namespace jitc {

template <Accumulate mode>
__device__ __forceinline__ float chain_step(float w, float x, float a) {
    if constexpr (mode == Accumulate::mul_add) {
        return __fadd_rn(a, __fmul_rn(w, x));
    } else {
        return __fmaf_rn(w, x, a);
    }
}

// Shape of the problem, all of it known at compile time.
template <typename C>
struct Shape {
    static constexpr u32 hidden = C::hidden;
    static constexpr u32 k_total = C::num_q_heads * C::head_dim;
    static constexpr u32 k_head = k_total / C::num_kv_heads;
    static constexpr u32 split = C::wo_split;
    static constexpr u32 slots = C::num_kv_heads * C::wo_split;
    static constexpr u32 row_bytes = k_total / 2;
    static constexpr u32 scale_tiles = ceil_div(k_total / group_len, 4u);

    static_assert(k_total % group_len == 0, "whole scale groups only");
    static_assert(C::num_q_heads % C::num_kv_heads == 0, "heads come in whole groups");

    // First and one-past-last k of a slot. Integer division keeps the ranges exact for every length.
    __device__ static constexpr u32 slot_begin(u32 slot) {
        u32 head = slot / split, part = slot % split;
        return head * k_head + u32(u64(k_head) * part / split);
    }
    __device__ static constexpr u32 slot_end(u32 slot) {
        u32 head = slot / split, part = slot % split;
        return head * k_head + u32(u64(k_head) * (part + 1u) / split);
    }
};

// A whole chain, one weight at a time straight from global memory: right for every shape and every global scale.
template <typename C, bool packed = false>
__device__ __noinline__ float chain_scalar(const u16* attn_row, const u8* weight, const u8* scales, float global,
                                           u32 row, u32 begin, u32 end) {
    using S = Shape<C>;
    const u8* bytes = weight + u64(row) * S::row_bytes;
    float a = 0.0f;
    for (u32 k = begin; k < end; ++k) {
        float code, scale;
        if constexpr (packed) {
            const PackedCode at = packed_code<S::k_total>(weight, row, k);
            code = fp4_to_f32(at.code);
            scale = e4m3_to_f32(scales[at.scale_at]);
        } else {
            u32 byte = bytes[k >> 1];
            code = fp4_to_f32((k & 1u) ? byte >> 4 : byte & 15u);
            scale = e4m3_to_f32(scales[scale_offset(row, k / group_len, S::scale_tiles)]);
        }
        float w = __fmul_rn(__fmul_rn(code, scale), global);
        a = chain_step<C::accumulate>(w, bf16_to_f32(attn_row[k]), a);
    }
    return a;
}

}  // namespace jitc
