// Invariant: every decode here is exact. A code's bits as a bf16 are its value times 2^-126, a scale is brought to
// 2^118 times itself, and of their product, 2^-8 times the weight, six bits are significant.
#pragma once

#include <jitc/nvfp4/decode.cuh>
#include <jitc/nvfp4/packed.cuh>

namespace jitc {

// Decoding: eight codes of one word as four bf16 pairs, each value times 2^-126; pair p holds codes p and p + 4.
// packed: see packed_pairs. plain: two codes a byte, as checkpoints have them. One multiplication moves sign and
// magnitude to their places.
template <bool packed>
__device__ __forceinline__ void fp4x8_to_bf16_pairs(u32 word, u32 (&pair)[4]) {
    constexpr u32 sign = 0x80008000u, magnitude = 0x01c001c0u;
    if constexpr (packed) {
        packed_pairs(word, pair);
    } else {
        pair[0] = ((word & 0x000f000fu) * (64u + 4096u)) & (sign | magnitude);
        pair[1] = ((word & 0x00f000f0u) * (4u + 256u)) & (sign | magnitude);
        const u32 upper = word >> 8;
        pair[2] = ((upper & 0x000f000fu) * (64u + 4096u)) & (sign | magnitude);
        pair[3] = ((upper & 0x00f000f0u) * (4u + 256u)) & (sign | magnitude);
    }
}

// Four signed E4M3 bytes as bf16, each times 2^118: bytes 0 and 2 in the halves of even, 1 and 3 in those of odd.
__device__ __forceinline__ void e4m3x4_to_bf16(u32 bytes, u32& even, u32& odd) {
    constexpr u32 sign = 0x80008000u, rest = 0x07f007f0u, half_way = 0x7b007b00u;  // 2^119; the bits are off by 2^-120
    even = ((bytes * 16u) & rest) | ((bytes * 256u) & sign);
    odd = ((bytes >> 4) & rest) | (bytes & sign);
    even = mul_bf16x2(mul_bf16x2(even, half_way), half_way);
    odd = mul_bf16x2(mul_bf16x2(odd, half_way), half_way);
}

// Four signed E4M3 bytes as floats.
__device__ __forceinline__ void e4m3x4_to_f32(u32 bytes, float (&d)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    const uint2 pairs = e4m3x4_to_f16_pairs(bytes);
    const float2 a = cvt_f32x2_f16x2(pairs.x), b = cvt_f32x2_f16x2(pairs.y);
    d[0] = a.x;
    d[1] = a.y;
    d[2] = b.x;
    d[3] = b.y;
#else
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        int bits = int(bytes << (24u - 8u * i)) >> 4;  // sign down to bit 27, then exponent and fraction
        d[i] = __fmul_rn(__uint_as_float(u32(bits) & 0x87f00000u), 0x1p120f);
    }
#endif
}

// What the powers of two of code and scale leave.
constexpr float weight_rest = 0x1p8f;

}  // namespace jitc
