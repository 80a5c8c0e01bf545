// Invariant: operands of the tensor cores as f16, each exact after a power of two that the sums take back.
#pragma once

#include <jitc/beta/types.cuh>

namespace jitc {
namespace beta {

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

// Four bytes of E4M3 as two f16 pairs, bytes 0 and 1, 2 and 3.
__device__ __forceinline__ uint2 e4m3x4_to_f16_pairs(u32 word) {
    uint2 d;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.rn.f16x2.e4m3x2 %0, low; cvt.rn.f16x2.e4m3x2 %1, high; }"
        : "=r"(d.x), "=r"(d.y)
        : "r"(word));
#else
    // Exponent and fraction moved to their place give the value times 2^-8, subnormals included.
    const u32 low = __byte_perm(word, 0, 0x1404), high = __byte_perm(word, 0, 0x3424);
    d.x = mul_f16x2(((low >> 1) & 0x3f803f80u) | (low & 0x80008000u), 0x5c005c00u);
    d.y = mul_f16x2(((high >> 1) & 0x3f803f80u) | (high & 0x80008000u), 0x5c005c00u);
#endif
    return d;
}

// A power of two that brings `peak` into [2^13, 2^14): f16 then keeps the eight bits of every bf16 down to 2^-30 of the
// peak, and nothing overflows. A peak that is no finite number gives results that are none.
__device__ __forceinline__ float activation_scale(float peak) {
    const u32 e = __float_as_uint(peak) >> 23;  // biased; the peak is not negative
    const u32 biased = e == 0u ? 127u : 267u - e;
    return __uint_as_float((biased > 253u ? 253u : biased) << 23);
}
__device__ __forceinline__ float inverse_power(float power) { return __uint_as_float((254u << 23) - __float_as_uint(power)); }

}  // namespace beta
}  // namespace jitc
