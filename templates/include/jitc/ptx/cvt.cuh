// Invariant: conversions between floats of 8, 16 and 32 bits. In a pair the first number is the low half.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// PTX cvt.rn.bf16.f32.
__device__ __forceinline__ u16 cvt_bf16(float v) {
    u16 d;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(d) : "f"(v));
    return d;
}

/// PTX cvt.rn.bf16x2.f32.
__device__ __forceinline__ u32 cvt_bf16x2(float low, float high) {
    u32 d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}

/// PTX cvt.rn.f16x2.f32.
__device__ __forceinline__ u32 cvt_f16x2(float low, float high) {
    u32 d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}

/// PTX cvt.f32.f16, of both halves.
__device__ __forceinline__ float2 cvt_f32x2_f16x2(u32 pair) {
    float2 d;
    asm("{ .reg .b16 l, h;\n\t"
        "mov.b32 {l, h}, %2;\n\t"
        "cvt.f32.f16 %0, l;\n\t"
        "cvt.f32.f16 %1, h; }"
        : "=f"(d.x), "=f"(d.y)
        : "r"(pair));
    return d;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
/// PTX cvt.rn.f16x2.e4m3x2: two bytes.
__device__ __forceinline__ u32 cvt_f16x2_e4m3x2(u16 bytes) {
    u32 d;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(d) : "h"(bytes));
    return d;
}

/// PTX cvt.rn.f16x2.e4m3x2, twice: four bytes.
__device__ __forceinline__ uint2 cvt_f16x4_e4m3x4(u32 word) {
    uint2 d;
    asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.rn.f16x2.e4m3x2 %0, low; cvt.rn.f16x2.e4m3x2 %1, high; }"
        : "=r"(d.x), "=r"(d.y)
        : "r"(word));
    return d;
}
#endif

}  // namespace jitc
