// Invariant: what a part's sums are made of is said in mma/rows.cuh; here is their shape, and how one piece meets the
// tensor core.
#pragma once

#include <jitc/mma/operands.cuh>
#include <jitc/ptx/mma.cuh>

namespace jitc {

constexpr u32 piece_len = 128;

// C: rows, k_total, part_len, k_warps, rows_per_cta, tokens, ring (pieces that a lane has in flight), dependent
// (launched with PDL), packed.
template <typename C>
struct MmaRows {
    static constexpr u32 rows = C::rows;
    static constexpr u32 k_total = C::k_total;
    static constexpr u32 row_bytes = k_total / 2;
    static constexpr u32 scale_tiles = k_total / 64;
    static constexpr u32 all_pieces = k_total / piece_len;
    static constexpr u32 tokens = C::tokens;
    static constexpr bool scale_after_dot = tokens <= 2;  // descale the dot, not the weights
    static constexpr bool wide = tokens > 8;              // a column a token: mma/wide.cuh
    static constexpr u32 columns = scale_after_dot ? 2 : wide ? 8 : 4;  // tokens per multiplication
    static constexpr u32 sets = ceil_div(tokens, columns);
    static constexpr u32 part_sums =
        scale_after_dot ? 4 : wide ? 1 : 2;  // of a part and token, one for each of a row's lanes, or two, or four
    static constexpr u32 range_len = k_total / C::k_warps;
    static constexpr u32 pieces = range_len / piece_len;  // of a row, a warp's
    static constexpr u32 ring = C::ring;
    static constexpr u32 ring_tiles = ring < pieces ? 1 : ring / pieces;
    static constexpr u32 parts = k_total / C::part_len;
    static constexpr u32 parts_of_warp = range_len / C::part_len;
    static constexpr u32 part_halves = C::part_len / 64;
    static constexpr bool whole_halves = C::part_len % 64 == 0;  // parts end where halves of pieces do
    static constexpr u32 cta_rows = C::rows_per_cta;
    static constexpr u32 units = cta_rows / 4;
    static constexpr u32 tiles = cta_rows / 16;
    static constexpr bool half_tile = cta_rows % 16 != 0;
    static constexpr u32 all_units = ceil_div(rows, 128u) * 32u;
    static constexpr bool whole = C::packed ? rows % cta_rows == 0 : rows % 128 == 0 && all_units % units == 0;
    static constexpr u32 threads = C::k_warps * 32;
    // Pieces in one turn of the inner loop: more than a few without a loop cost registers.
    static constexpr u32 run = ring >= pieces || pieces <= 6 ? pieces : ring;

    // Four tokens' activations stay in registers, sixteen a piece, where a thread has 128, three pieces are all and
    // none is multiplied in parts.
    static constexpr bool x_held = run == pieces && pieces <= 3 && tokens == 4 && C::k_warps <= 16 && whole_halves;

    static constexpr u32 token_bytes = k_total * 2 + 32;
    static constexpr u32 sums_at = x_held || wide ? 0 : tokens * token_bytes;  // [part][token][row][part_sums]
    static constexpr u32 bytes = sums_at + parts * tokens * cta_rows * part_sums * 4;

    static_assert(k_total % (C::k_warps * piece_len) == 0, "a warp's range of k is whole pieces");
    static_assert(range_len % C::part_len == 0 && C::part_len % 16 == 0, "a warp's range of k is whole parts");
    static_assert(cta_rows % 8 == 0, "a block's rows come by eight");
    static_assert(!C::packed || rows % 8 == 0, "packed rows come by eight");
    static_assert(ring % pieces == 0 || pieces % ring == 0, "the ring turns with the pieces");
    static_assert(tiles % ring_tiles == 0, "the ring holds a tile or a divisor of the tiles");

    // Row of the whole weight and place among the block's sums of the i-th row in the order of stores.
    __device__ static void place(u32 block, u32 i, u32& row, u32& local) {
        if constexpr (C::packed) {
            row = block * cta_rows + i;
            local = i;
        } else {
            const u32 q = i / units, in = i % units, unit = block * units + in, tile = in / 4u;
            row = unit >= all_units ? rows : (unit >> 5) * 128u + q * 32u + (unit & 31u);
            local =
                tile * 16u + (half_tile && tile == tiles ? in % 4u * 4u + q : (q & 1u) * 8u + in % 4u * 2u + (q >> 1));
        }
    }
};

// A lane's scales of a piece: of groups 2t and 2t + 1, of rows g and g + 8.
template <typename C>
struct PieceScales {
    u32 pair[2];      // scales in the weights: a group each; low half row g, high half row g + 8
    float factor[4];  // scales after the dot: row g, then row g + 8

    // \param bytes  four scales, E4M3: two groups of row g, then of row g + 8
    __device__ __forceinline__ explicit PieceScales(u32 bytes) {
        if constexpr (MmaRows<C>::scale_after_dot) {
            e4m3x4_to_f32(bytes, factor);
        } else {
            e4m3x4_to_bf16(bytes, pair[0], pair[1]);
        }
    }
};

// Adds 16 rows by eight k's of each of a quad's lanes, times a multiplication's tokens, to `to`.
// \param a, b  codes of rows g and g + 8, in pairs
__device__ __forceinline__ void mma_eight(Mma4& to, const u32 (&a)[4], const u32 (&b)[4], XPairs x) {
    mma_m16n8k16_bf16(to, a[0], b[0], a[1], b[1], x.first);
    mma_m16n8k16_bf16(to, a[2], b[2], a[3], b[3], x.second);
}

// Multiplies one of a lane's two groups of a piece.
// \param weight    the lane's 32 codes of rows g and g + 8
// \param h         which group
// \param scales    its scales of the piece
// \param x         x(q, n): activations of eight k from 8q of the lane's, of the n-th set of tokens
// \param multiply  multiply(n, a, b, x): what becomes of eight k
template <typename C, bool half, typename X, typename Multiply>
__device__ __forceinline__ void mma_group(const uint4 (&weight)[2], u32 h, const PieceScales<C>& scales, X x,
                                          Multiply multiply) {
    using L = MmaRows<C>;
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
        const u32 q = 2u * h + i;
        auto word = [&](u32 row) {
            return q == 0 ? weight[row].x : q == 1 ? weight[row].y : q == 2 ? weight[row].z : weight[row].w;
        };
        u32 a[4], b[4] = {0u, 0u, 0u, 0u};
        fp4x8_to_bf16_pairs<C::packed>(word(0), a);
        if constexpr (!half) fp4x8_to_bf16_pairs<C::packed>(word(1), b);
        if constexpr (!L::scale_after_dot) {
#pragma unroll
            for (u32 p = 0; p < 4; ++p) {
                a[p] = mul_bf16x2(a[p], low_twice(scales.pair[h]));
                if constexpr (!half) b[p] = mul_bf16x2(b[p], high_twice(scales.pair[h]));
            }
        }
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) multiply(n, a, b, x(q, n));
    }
}

// Adds one group to a lane's sums: two rows (one in a half tile) by tokens. Arguments as of mma_group.
// \param sum  accumulators, [even and odd groups][tokens from 4n]
template <typename C, bool half, typename X>
__device__ __forceinline__ void add_group(const uint4 (&weight)[2], u32 h, const PieceScales<C>& scales, X x,
                                          Mma4 (&sum)[2][MmaRows<C>::sets]) {
    using L = MmaRows<C>;
    Mma4 dot[L::sets];
#pragma unroll
    for (u32 n = 0; n < L::sets; ++n) dot[n] = Mma4{{0.0f, 0.0f, 0.0f, 0.0f}};
    mma_group<C, half>(weight, h, scales, x, [&](u32 n, const u32(&a)[4], const u32(&b)[4], XPairs v) {
        mma_eight(L::scale_after_dot ? dot[n] : sum[h][n], a, b, v);
    });
    if constexpr (L::scale_after_dot) {
#pragma unroll
        for (u32 i = 0; i < L::tokens; ++i) {
            sum[0][0].v[i] = __fmaf_rn(scales.factor[h], dot[0].v[i], sum[0][0].v[i]);
            if constexpr (!half)
                sum[0][0].v[2 + i] = __fmaf_rn(scales.factor[2 + h], dot[0].v[2 + i], sum[0][0].v[2 + i]);
        }
    }
}

// Adds one piece. Arguments as of add_group.
// \param scale_bytes  as PieceScales takes them
template <typename C, bool half, typename X>
__device__ __forceinline__ void mma_piece(const uint4 (&weight)[2], u32 scale_bytes, X x,
                                          Mma4 (&sum)[2][MmaRows<C>::sets]) {
    const PieceScales<C> scales(scale_bytes);
#pragma unroll
    for (u32 h = 0; h < 2; ++h) add_group<C, half>(weight, h, scales, x, sum);
}

}  // namespace jitc
