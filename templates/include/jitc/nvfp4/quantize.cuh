// Invariant: FP4 requantization exactly as the table of the reference: scale = E4M3(peak / 6 with IEEE division, at
// least 1e-12), round to nearest even, saturating; code = E2M1(value / decoded scale with IEEE division), ties to even,
// sign kept. The same bits on every architecture: no conversion instruction is used.
#pragma once

#include <jitc/nvfp4/decode.cuh>

namespace jitc {

// A non-negative number as an E4M3 byte; NaN gives 0x7f.
__device__ __forceinline__ u32 e4m3_code(float x) {
    if (x != x) return 0x7fu;
    x = fminf(x, 448.0f);
    // Below 2^-6 the step is 2^-9: adding 2^23 leaves no bits below the unit, so the addition is the one rounding.
    if (x < 0x1p-6f) return __float_as_uint(__fadd_rn(__fmul_rn(x, 512.0f), 8388608.0f)) - 0x4b000000u;
    const u32 bits = __float_as_uint(x);
    return ((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - (120u << 3);
}

__device__ __forceinline__ u32 block_scale(float peak) { return e4m3_code(fmaxf(__fdiv_rn(peak, 6.0f), 1e-12f)); }

__device__ __forceinline__ u32 fp4_code(float value, float scale) {
    const float q = __fdiv_rn(value, scale), m = fabsf(q);
    if (q != q) return 7u;
    const u32 code = m <= 0.25f   ? 0u
                     : m < 0.75f  ? 1u
                     : m <= 1.25f ? 2u
                     : m < 1.75f  ? 3u
                     : m <= 2.5f  ? 4u
                     : m < 3.5f   ? 5u
                     : m <= 5.0f  ? 6u
                                  : 7u;
    return code | (__float_as_uint(q) >> 28 & 8u);
}

}  // namespace jitc
