// Invariant: every decode here is exact for every finite scale, -0 included: a weight comes out as code times scale
// times 2^-8 as a float, and the caller's global scale takes the 2^8. `pair` of a scale is the scale in both halves of
// a register.
#pragma once

#include <jitc/nvfp4/bf16.cuh>

namespace jitc {

template <bool packed>
struct WeightDecode;

// As checkpoints have them: f16, which the bytes of a word spread to.
template <>
struct WeightDecode<false> {
    using Scales = E4m3x4;
    // Four scale bytes: groups 0..3 of a row.
    __device__ static Scales scales(u32 bytes) { return e4m3x4_to_f16(bytes); }
    // Eight weights of a word, in ascending k.
    __device__ static void weights(u32 word, u32 scale, float (&w)[8]) {
        const Fp4x8 d = fp4x8_to_f16(word);
#pragma unroll
        for (u32 p = 0; p < 2; ++p) {
            const float2 e = cvt_f32x2_f16x2(mul_f16x2(d.even[p], scale));
            const float2 o = cvt_f32x2_f16x2(mul_f16x2(d.odd[p], scale));
            w[4 * p + 0] = e.x;
            w[4 * p + 1] = o.x;
            w[4 * p + 2] = e.y;
            w[4 * p + 3] = o.y;
        }
    }
};

// Packed: bf16, which a shift or a mask makes a float of.
template <>
struct WeightDecode<true> {
    struct Scales {
        u32 pair[4];
    };
    __device__ static Scales scales(u32 bytes) {
        u32 even, odd;
        e4m3x4_to_bf16(bytes, even, odd);
        return {{low_twice(even), low_twice(odd), high_twice(even), high_twice(odd)}};
    }
    __device__ static void weights(u32 word, u32 scale, float (&w)[8]) {
        u32 pair[4];
        fp4x8_to_bf16_pairs<true>(word, pair);
#pragma unroll
        for (u32 p = 0; p < 4; ++p) {
            const u32 both = mul_bf16x2(pair[p], scale);
            w[p] = __uint_as_float(both << 16);
            w[p + 4] = __uint_as_float(both & 0xffff0000u);
        }
    }
};
static_assert(pair_rest == weight_rest, "both leave the same power of two");

}  // namespace jitc
