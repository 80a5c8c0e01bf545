// Invariant: arithmetic that C++ has no exact word for: pairs of 16-bit floats, and the fast approximations.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// PTX fma.rn.bf16x2 with -0 added: the product of two pairs, exact where the factors are chosen so; subnormals count
/// in full.
__device__ __forceinline__ u32 mul_bf16x2(u32 a, u32 b) {
    u32 d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u));
    return d;
}

/// PTX mul.rn.f16x2.
__device__ __forceinline__ u32 mul_f16x2(u32 a, u32 b) {
    u32 d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

/// PTX ex2.approx.ftz: 2^x.
__device__ __forceinline__ float ex2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// PTX rcp.approx.ftz: 1 / x.
__device__ __forceinline__ float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// PTX mov.b32: the low half of a pair in both halves.
__device__ __forceinline__ u32 low_twice(u32 pair) {
    u32 d;
    asm("{ .reg .b16 l, h;\n\tmov.b32 {l, h}, %1;\n\tmov.b32 %0, {l, l}; }" : "=r"(d) : "r"(pair));
    return d;
}

/// PTX mov.b32: the high half of a pair in both halves.
__device__ __forceinline__ u32 high_twice(u32 pair) {
    u32 d;
    asm("{ .reg .b16 l, h;\n\tmov.b32 {l, h}, %1;\n\tmov.b32 %0, {h, h}; }" : "=r"(d) : "r"(pair));
    return d;
}

}  // namespace jitc
