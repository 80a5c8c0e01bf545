// Invariant: operands of the tensor cores as f16, each exact after a power of two that the sums take back.
#pragma once

#include <jitc/layer/types.cuh>

namespace jitc {
namespace layer {

__device__ __forceinline__ void mma_f16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 pack_f16(float low, float high) {
    u32 d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}

// Element `i` of neighbouring bf16, two a word.
__device__ __forceinline__ float bf16_at(const u32* words, u32 i) {
    return __uint_as_float(i & 1u ? words[i / 2u] & 0xffff0000u : words[i / 2u] << 16);
}

// A power of two that brings `peak` into [2^13, 2^14): f16 then keeps the eight bits of every bf16 down to 2^-30 of the
// peak, and nothing overflows. A peak that is no finite number gives results that are none.
__device__ __forceinline__ float activation_scale(float peak) {
    const u32 e = __float_as_uint(peak) >> 23;  // biased; the peak is not negative
    const u32 biased = e == 0u ? 127u : 267u - e;
    return __uint_as_float((biased > 253u ? 253u : biased) << 23);
}
__device__ __forceinline__ float inverse_power(float power) { return __uint_as_float((254u << 23) - __float_as_uint(power)); }

}  // namespace layer
}  // namespace jitc
