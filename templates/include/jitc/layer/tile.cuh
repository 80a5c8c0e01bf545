// Invariant: acc += W * x for 16 rows of NVFP4 weights and up to eight tokens, with every product exact: a weight is
// code * scale as f16 (times code_rest's reciprocal), an activation is f16 after a power of two of the row, or part of
// a row, that a warp's sums are over; sums are the tensor core's f32. The order of the sums is fixed by the shape, so
// the same inputs give the same bits.
//
// Lane t of a quad holds weights 16t..16t+15 of a run of 64: one scale group. Four of them, in the order 0 2 | 1 3, are
// its part of one mma; activations are stored in that order.
//
// With one token or two most of the eight columns would be idle. They hold a scale group each instead: with one token
// column n has the activations of group n of two runs of 64, with two those of group n / 2 of a run of token n mod 2.
// So the accumulators are the groups' sums and are multiplied by the groups' scales afterwards, a few products for
// sixteen rows instead of one for every weight. With more tokens a weight meets its scale before the product.
#pragma once

#include <jitc/layer/block_ring.cuh>
#include <jitc/layer/operands.cuh>
#include <jitc/nvfp4/packed.cuh>

namespace jitc {
namespace layer {

// A product of two codes' decodes carries 2^-14 of each; a code times its scale is a multiple of 2^-24 of at most six
// bits, so f16 holds it exactly, as a subnormal if need be.
constexpr float code_rest = 0x1p14f;

// Byte t of a word of scales as an f16 pair; `pick` is scale_pick(t).
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
__device__ __forceinline__ u32 scale_pick(u32 t) { return t | t << 4; }
__device__ __forceinline__ u32 scale_pair(u32 word, u32 pick) {
    return cvt_f16x2_e4m3x2(u16(__byte_perm(word, 0, pick)));
}
#else
__device__ __forceinline__ u32 scale_pick(u32 t) { return 0x0404u | t << 4 | t << 12; }
__device__ __forceinline__ u32 scale_pair(u32 word, u32 pick) {
    return mul_f16x2(e4m3_odd_to_f16(__byte_perm(word, 0, pick)), 0x5c005c00u);
}
#endif

// Sixteen codes as the eight f16 pairs of four mma steps.
__device__ __forceinline__ void decode16(uint2 codes, u32 (&out)[8]) {
    const Fp4x8 a = fp4x8_to_f16(codes.x), b = fp4x8_to_f16(codes.y);
    out[0] = a.even[0];
    out[1] = a.odd[0];
    out[2] = a.even[1];
    out[3] = a.odd[1];
    out[4] = b.even[0];
    out[5] = b.odd[0];
    out[6] = b.even[1];
    out[7] = b.odd[1];
}
// The same from packed words.
__device__ __forceinline__ void decode16_packed(uint2 codes, u32 (&out)[8]) {
    packed64_pairs(codes.x, out);
    packed64_pairs(codes.y, out + 4);
}

// Codes of rows g and g + 8 (`high`) of a run of a stage.
template <typename L>
__device__ __forceinline__ void stage_codes(const StageView& v, u32 chunk, bool high, u32 (&out)[8]) {
    const uint2 codes = *reinterpret_cast<const uint2*>(v.codes + (high ? v.codes_high : 0u) + chunk * L::code_step);
    if constexpr (L::packed) {
        decode16_packed(codes, out);
    } else {
        decode16(codes, out);
    }
}

__device__ __forceinline__ void scale16(u32 scale, u32 (&x)[8]) {
#pragma unroll
    for (u32 i = 0; i < 8; ++i) x[i] = mul_f16x2(x[i], scale);
}

// Activations of one run of 64 for the eight columns; with one token of two runs, in four columns each.
struct Column {
    u32 pair[8];
};
template <u32 tokens, u32 runs>
constexpr u32 columns_of = tokens == 1u ? ceil_div(runs, 2u) : runs;

// Which lanes hold activations: lane (g, t) those of group t, in column g.
template <u32 tokens>
__device__ __forceinline__ bool holds(u32 g, u32 t) {
    return tokens == 1u ? (g & 3u) == t : tokens == 2u ? g / 2u == t : g < tokens;
}
// And of which token.
template <u32 tokens>
__device__ __forceinline__ u32 held_token(u32 g) {
    return tokens <= 2u ? g % tokens : g;
}

// From rows of f16, permuted: run `at` of a row.
template <u32 tokens>
__device__ __forceinline__ Column column_f16(const u8* x, u32 pitch, u32 at, u32 lane) {
    Column c = {};
    const u32 g = lane >> 2, t = lane & 3u;
    if (holds<tokens>(g, t)) {
        const uint4* from = reinterpret_cast<const uint4*>(x + held_token<tokens>(g) * pitch + at * 128u + t * 32u);
        const uint4 a = from[0], b = from[1];
        c.pair[0] = a.x;
        c.pair[1] = a.y;
        c.pair[2] = a.z;
        c.pair[3] = a.w;
        c.pair[4] = b.x;
        c.pair[5] = b.y;
        c.pair[6] = b.z;
        c.pair[7] = b.w;
    }
    return c;
}

// All columns of a part, of `count` runs from `from` on.
template <u32 tokens, typename Sh>
__device__ __forceinline__ void columns_f16(Column (&column)[columns_of<tokens, Sh::size>], const u8* x, u32 pitch,
                                            u32 from, u32 count, u32 lane) {
    if constexpr (tokens == 1u) {
        const u32 odd = lane >> 4;
#pragma unroll
        for (u32 c = 0; c < Sh::size; c += 2) {
            column[c / 2u] = {};
            if (c + 2u <= Sh::least || c + odd < count) column[c / 2u] = column_f16<1u>(x, pitch, from + c + odd, lane);
        }
    } else {
#pragma unroll
        for (u32 c = 0; c < Sh::size; ++c) {
            if (c < Sh::least || c < count) column[c] = column_f16<tokens>(x, pitch, from + c, lane);
        }
    }
}

// From rows of codes and scales, of more tokens than one.
template <u32 tokens>
__device__ __forceinline__ Column column_fp4(const u8* codes, u32 pitch, const u8* scales, u32 scale_pitch, u32 at,
                                             u32 lane, u32 pick) {
    Column c = {};
    const u32 g = lane >> 2, t = lane & 3u;
    if (holds<tokens>(g, t)) {
        const u32 token = held_token<tokens>(g);
        const uint2 w = *reinterpret_cast<const uint2*>(codes + token * pitch + at * 32u + t * 8u);
        const u32 s = *reinterpret_cast<const u32*>(scales + token * scale_pitch + at * 4u);
        decode16(w, c.pair);
        scale16(scale_pair(s, pick), c.pair);
    }
    return c;
}

// The same from rows of codes and scales.
// \param column       where they go to
// \param codes        E2M1 codes in shared memory, `pitch` bytes a token
// \param pitch        bytes
// \param scales       their scales, `scale_pitch` bytes a token
// \param scale_pitch  bytes
// \param from         first run of 64
// \param count        runs that exist
// \param lane         the thread in its warp
// \param pick         scale_pick of the lane
template <u32 tokens, typename Sh>
__device__ __forceinline__ void columns_fp4(Column (&column)[columns_of<tokens, Sh::size>], const u8* codes, u32 pitch,
                                            const u8* scales, u32 scale_pitch, u32 from, u32 count, u32 lane,
                                            u32 pick) {
    if constexpr (tokens == 1u) {
        // Every lane decodes; where it holds nothing its scale is zero. A lane that has no second run decodes the
        // first.
        const u32 g = lane >> 2, t = lane & 3u, odd = g >> 2;
#pragma unroll
        for (u32 c = 0; c < Sh::size; c += 2) {
            const bool second = c + 1u < Sh::size && (c + 1u < Sh::least || c + 1u < count);
            const u32 at = from + c + (second ? odd : 0u);
            const uint2 w = *reinterpret_cast<const uint2*>(codes + at * 32u + t * 8u);
            const u32 s =
                holds<1u>(g, t) && (second || odd == 0u) ? *reinterpret_cast<const u32*>(scales + at * 4u) : 0u;
            decode16(w, column[c / 2u].pair);
            scale16(scale_pair(s, pick), column[c / 2u].pair);
        }
    } else {
#pragma unroll
        for (u32 c = 0; c < Sh::size; ++c) {
            if (c < Sh::least || c < count) {
                column[c] = column_fp4<tokens>(codes, pitch, scales, scale_pitch, from + c, lane, pick);
            }
        }
    }
}

// A lane's sums for 16 rows: with one token or two those of rows g and g + 8 over its groups, else the accumulators
// themselves.
template <u32 tokens>
struct RowSums {
    float of[4] = {};
};
template <>
struct RowSums<1u> {
    float low = 0.0f, high = 0.0f;
};
template <>
struct RowSums<16u> {
    float of[8] = {};  // of the first eight tokens, then of the others
};
template <>
struct RowSums<2u> {
    float low[2] = {}, high[2] = {};  // of either token
};

// Hands every sum to `put(row, token, value)`, in whole warps.
template <typename F>
__device__ __forceinline__ void each_sum(const RowSums<1u>& s, u32 lane, F&& put) {
    float low = s.low, high = s.high;
#pragma unroll
    for (u32 i = 1; i < 4; i *= 2) {
        low = __fadd_rn(low, __shfl_xor_sync(~0u, low, i));
        high = __fadd_rn(high, __shfl_xor_sync(~0u, high, i));
    }
    if ((lane & 3u) == 0u) {
        put(lane >> 2, 0u, low);
        put((lane >> 2) + 8u, 0u, high);
    }
}
template <typename F>
__device__ __forceinline__ void each_sum(const RowSums<2u>& s, u32 lane, F&& put) {
#pragma unroll
    for (u32 token = 0; token < 2; ++token) {
        each_sum(RowSums<1u>{s.low[token], s.high[token]}, lane,
                 [&](u32 row, u32, float value) { put(row, token, value); });
    }
}
template <typename F>
__device__ __forceinline__ void each_sum(const RowSums<16u>& s, u32 lane, F&& put) {
#pragma unroll
    for (u32 j = 0; j < 8; ++j) {
        put((lane >> 2) + (j >> 1 & 1u) * 8u, j / 4u * 8u + 2u * (lane & 3u) + (j & 1u), s.of[j]);
    }
}
template <u32 tokens, typename F>
__device__ __forceinline__ void each_sum(const RowSums<tokens>& s, u32 lane, F&& put) {
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        const u32 token = 2u * (lane & 3u) + (j & 1u);
        if (token < tokens) put((lane >> 2) + (j >> 1) * 8u, token, s.of[j]);
    }
}

// Two scales of a word's half as floats.
__device__ __forceinline__ float2 scale_floats(u32 half) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    return cvt_f32x2_f16x2(cvt_f16x2_e4m3x2(u16(half)));
#else
    return make_float2(e4m3_to_f32(half & 0xffu), e4m3_to_f32(half >> 8));
#endif
}

__device__ __forceinline__ float scale_float(u32 byte) { return scale_floats(byte).x; }

// One run of 64 weights of a stage into accumulators. Without `full` the tile has eight rows.
template <typename L, bool full>
__device__ __forceinline__ void group_chunk(const StageView& stage, u32 chunk, const Column& x, float (&acc)[4]) {
    u32 a[8], b[8] = {};
    stage_codes<L>(stage, chunk, false, a);
    if constexpr (full) stage_codes<L>(stage, chunk, true, b);
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        mma_m16n8k16_f16(acc, a[2u * i], b[2u * i], a[2u * i + 1u], b[2u * i + 1u], x.pair[2u * i],
                         x.pair[2u * i + 1u]);
    }
}

template <typename L, bool full>
__device__ __forceinline__ void tile_chunk(const StageView& stage, u32 chunk, const Column& x, float (&acc)[4],
                                           u32 pick) {
    const u8* scale = stage.scales + chunk * L::scale_step;
    u32 a[8], b[8] = {};
    stage_codes<L>(stage, chunk, false, a);
    scale16(scale_pair(*reinterpret_cast<const u32*>(scale), pick), a);
    if constexpr (full) {
        stage_codes<L>(stage, chunk, true, b);
        scale16(scale_pair(*reinterpret_cast<const u32*>(scale + stage.scales_high), pick), b);
    }
    // One chain of sums: two hide no more latency than other warps do, and cost the registers of another stage's loads.
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        mma_m16n8k16_f16(acc, a[2u * i], b[2u * i], a[2u * i + 1u], b[2u * i + 1u], x.pair[2u * i],
                         x.pair[2u * i + 1u]);
    }
}

// One stage: `least` runs for certain, up to `size`.
// \param stage   the stage
// \param column  activations of its runs
// \param count   runs that exist
// \param sums    the lane's sums, added to
template <typename L, bool full, u32 least, u32 size>
__device__ __forceinline__ void tile_stage(const StageView& stage, const Column* column, u32 count, RowSums<1u>& sums,
                                           u32) {
    const u32 t = threadIdx.x & 3u;
#pragma unroll
    for (u32 c = 0; c < size; c += 2) {
        const bool second = c + 1u < size && (c + 1u < least || c + 1u < count);
        float acc[4] = {};
        if (c < least || c < count) group_chunk<L, full>(stage, c, column[c / 2u], acc);
        // Either run's weights meet both runs' activations. Lane (g, t) has groups 2t and 2t + 1 of the eight, the
        // first run's or the second's, and keeps the products of these. Where the second run is missing they are zeros,
        // and the scales that they meet are the first run's.
        if (second) {
            float other[4] = {};
            group_chunk<L, full>(stage, c + 1u, column[c / 2u], other);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) acc[i] = t < 2u ? acc[i] : other[i];
        }
        const u32 run = second ? c + (t >> 1) : c;
        const u8* scale = stage.scales + run * L::scale_step + (t & 1u) * 2u;
        const float2 low = scale_floats(*reinterpret_cast<const u16*>(scale));
        if (c < least || c < count) {
            sums.low = __fmaf_rn(acc[1], low.y, __fmaf_rn(acc[0], low.x, sums.low));
            if constexpr (full) {
                const float2 high = scale_floats(*reinterpret_cast<const u16*>(scale + stage.scales_high));
                sums.high = __fmaf_rn(acc[3], high.y, __fmaf_rn(acc[2], high.x, sums.high));
            }
        }
    }
}
template <typename L, bool full, u32 least, u32 size>
__device__ __forceinline__ void tile_stage(const StageView& stage, const Column* column, u32 count, RowSums<2u>& sums,
                                           u32) {
    const u32 t = threadIdx.x & 3u;
#pragma unroll
    for (u32 c = 0; c < size; ++c) {
        if (!(c < least || c < count)) continue;
        float acc[4] = {};
        group_chunk<L, full>(stage, c, column[c], acc);
        // Lane (g, t) has group t of both tokens.
        const u8* scale = stage.scales + c * L::scale_step + t;
        const float low = scale_float(*scale);
        sums.low[0] = __fmaf_rn(acc[0], low, sums.low[0]);
        sums.low[1] = __fmaf_rn(acc[1], low, sums.low[1]);
        if constexpr (full) {
            const float high = scale_float(scale[stage.scales_high]);
            sums.high[0] = __fmaf_rn(acc[2], high, sums.high[0]);
            sums.high[1] = __fmaf_rn(acc[3], high, sums.high[1]);
        }
    }
}
template <typename L, bool full, u32 least, u32 size, u32 tokens>
__device__ __forceinline__ void tile_stage(const StageView& stage, const Column* column, u32 count,
                                           RowSums<tokens>& sums, u32 pick) {
#pragma unroll
    for (u32 c = 0; c < size; ++c) {
        if (c < least || c < count) tile_chunk<L, full>(stage, c, column[c], sums.of, pick);
    }
}

// One part of the block's rows: a stage a tile of 16, the last tile of eight rows where they do not divide.
template <typename L, Phase now, typename Sh, typename R, u32 tokens>
__device__ __forceinline__ void row_tiles(R& ring, const Column (&column)[columns_of<tokens, Sh::size>], u32 count,
                                          u32 before, u32 length, RowSums<tokens> (&sums)[L::row_tiles], u32 pick) {
#pragma unroll
    for (u32 tile = 0; tile < L::row_tiles; ++tile) {
        if (L::rows % 16u != 0 && tile + 1u == L::row_tiles) {
            tile_stage<L, false, Sh::least, Sh::size>(ring.template consumer_wait<1u>(before, length), column, count,
                                                      sums[tile], pick);
        } else {
            tile_stage<L, true, Sh::least, Sh::size>(ring.template consumer_wait<2u>(before, length), column, count,
                                                     sums[tile], pick);
        }
        ring.template consumer_release<now>();
    }
}

// Eight neighboring activations to f16 in the permuted order.
__device__ __forceinline__ uint4 permuted_f16(const float (&v)[8], float scale) {
    u32 w[4];
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
#pragma unroll
        for (u32 j = 0; j < 2; ++j) {
            const float a = __fmul_rn(v[4u * i + j], scale), b = __fmul_rn(v[4u * i + 2u + j], scale);
            w[2u * i + j] = cvt_f16x2(a, b);
        }
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
}

}  // namespace layer
}  // namespace jitc
