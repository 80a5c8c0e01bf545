// Invariant: more than eight tokens a pass: columns of eight tokens, by which a weight is multiplied while it is
// decoded. A sum takes its runs in the order that it has with eight tokens. Packed weights and bulk copies alone.
//
// Activations of sixteen tokens are too many for shared memory beside the ring: of W_O and FC1 those of the first eight
// are in registers, a warp's own runs, and shared memory holds the last eight's. FC2's are codes, which a warp reads
// from L2 a part ahead.
#pragma once

#include <jitc/layer/tile.cuh>

namespace jitc {
namespace layer {

// One run of 64 weights of a stage into accumulators. Without `full` the tile has eight rows.
// \param column  column(set): activations of the run of eight tokens
// \param acc     accumulators of every set, one behind the other
template <typename L, bool full, u32 floats, typename F>
__device__ __forceinline__ void tile_chunk_sets(const StageView& stage, u32 chunk, F&& column, float (&acc)[floats],
                                                u32 pick) {
    const u8* scale = stage.scales + chunk * L::scale_step;
    u32 a[8], b[8] = {};
    stage_codes<L>(stage, chunk, false, a);
    scale16(scale_pair(*reinterpret_cast<const u32*>(scale), pick), a);
    if constexpr (full) {
        stage_codes<L>(stage, chunk, true, b);
        scale16(scale_pair(*reinterpret_cast<const u32*>(scale + stage.scales_high), pick), b);
    }
#pragma unroll
    for (u32 set = 0; set < floats / 4u; ++set) {
        const Column x = column(set);
        float(&of)[4] = reinterpret_cast<float(&)[4]>(acc[set * 4u]);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            mma_m16n8k16_f16(of, a[2u * i], b[2u * i], a[2u * i + 1u], b[2u * i + 1u], x.pair[2u * i],
                             x.pair[2u * i + 1u]);
        }
    }
}

// A warp's runs of the first eight tokens in W_O, by piece, in registers.
template <typename C>
struct WoFirst {
    using N = Dims<C>;
    using L = Layout<C>;
    static constexpr u32 own = Walk<C>::own, size = N::K / 64u / L::pieces;
    Column column[own][size];

    static_assert(size * L::pieces * 64u == N::K, "more than eight tokens a pass: warps share K evenly");

    __device__ static u32 begin() { return thread_index() / 32u * own * size; }
    // \param x  their activations, permuted f16
    __device__ __forceinline__ explicit WoFirst(const u8* x) {
#pragma unroll
        for (u32 i = 0; i < own * size; ++i) {
            column[i / size][i % size] = column_f16<8u>(x, L::k_pitch, begin() + i, thread_index() & 31u);
        }
    }
};

// The same in FC1, by part.
template <typename C, typename R>
struct Fc1First {
    using Sh = typename R::Fc1Share;
    Column column[Sh::parts][Sh::size];

    __device__ __forceinline__ explicit Fc1First(const u8* x) {
        const u32 warp = thread_index() / 32u;
#pragma unroll
        for (u32 part = 0; part < Sh::parts; ++part) {
            const u32 count = Sh::part_size(warp, part);
#pragma unroll
            for (u32 c = 0; c < Sh::size; ++c) {
                if (!(c < Sh::least || c < count)) continue;
                column[part][c] =
                    column_f16<8u>(x, Layout<C>::h_pitch, Sh::part_begin(warp, part) + c, thread_index() & 31u);
            }
        }
    }
};

// W_O, 16 or eight rows a stage by all of K; sums are put when all are taken, in the activations' place. Arguments as of
// wo_units.
// \param first  the warp's runs of the first eight tokens; x has the others
template <typename C, typename R, typename F>
__device__ __forceinline__ void wo_units_wide(const u8* x, R& ring, u32 lane, u32 pick, const WoFirst<C>& first,
                                              F&& put) {
    using N = Dims<C>;
    using L = Layout<C>;
    constexpr u32 runs = N::K / 64u, own = WoFirst<C>::own, size = WoFirst<C>::size;
    const u32 piece = thread_index() / 32u * own, begin = piece * size;
    RowSums<N::tokens> kept[R::wo_tiles][own];
    const auto is_half = [](u32 tile) {
        return R::wo_eights == 1u || (L::rows % 16u != 0 && tile + 1u == L::row_tiles);
    };
#pragma unroll
    for (u32 tile = 0; tile < R::wo_tiles; ++tile) {
        const bool half = is_half(tile);
        const StageView stage = half ? ring.template consumer_wait<1u>(begin, runs)
                                     : ring.template consumer_wait<2u>(begin, runs);
        RowSums<N::tokens> sum[own];
#pragma unroll
        for (u32 i = 0; i < own * size; ++i) {
            const auto column = [&](u32 set) {
                return set == 0u ? first.column[i / size][i % size] : column_f16<8u>(x, L::k_pitch, begin + i, lane);
            };
            if (half) {
                tile_chunk_sets<L, false>(stage, i, column, sum[i / size].of, pick);
            } else {
                tile_chunk_sets<L, true>(stage, i, column, sum[i / size].of, pick);
            }
        }
        ring.template consumer_release<Phase::wo>();
        // Of eight rows the upper half of the sums is nothing.
#pragma unroll
        for (u32 i = 0; i < own; ++i) {
#pragma unroll
            for (u32 j = 0; j < 4u * N::sets; ++j) {
                if (!half || (j & 2u) == 0u) kept[tile][i].of[j] = sum[i].of[j];
            }
        }
    }
    block_sync<C>();
#pragma unroll
    for (u32 tile = 0; tile < R::wo_tiles; ++tile) {
#pragma unroll
        for (u32 i = 0; i < own; ++i) {
            const u32 last = is_half(tile) ? (tile * R::wo_eights + 1u) * 8u : L::rows;
            put(kept[tile][i], piece + i, tile * 8u * R::wo_eights, last);
        }
    }
}

// FC1: one tile of eight rows of gate and of up, then of the next eight.
// \param x      the last eight tokens' rows
// \param first  the warp's runs of the first eight
// \param sum    of either half, added to
template <typename C, typename R>
__device__ __forceinline__ void fc1_tile_wide(const u8* x, R& ring, u32 warp, u32 lane, u32 pick,
                                              const Fc1First<C, R>& first, RowSums<Dims<C>::tokens> (&sum)[2]) {
    using L = Layout<C>;
    using Sh = typename R::Fc1Share;
#pragma unroll
    for (u32 part = 0; part < Sh::parts; ++part) {
        const u32 count = Sh::part_size(warp, part), from = Sh::part_begin(warp, part);
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const StageView stage = ring.template consumer_wait<2u>(Sh::before(warp, part), Sh::length(part));
#pragma unroll
            for (u32 c = 0; c < Sh::size; ++c) {
                if (!(c < Sh::least || c < count)) continue;
                tile_chunk_sets<L, true>(
                    stage, c,
                    [&](u32 set) {
                        return set == 0u ? first.column[part][c] : column_f16<8u>(x, L::h_pitch, from + c, lane);
                    },
                    sum[half].of, pick);
            }
            ring.template consumer_release<Phase::fc1>();
        }
    }
}

// Codes and scales of a part of FC2, of the lane's own k, on their way from L2.
template <typename C, typename Sh>
struct Fc2Codes {
    using N = Dims<C>;
    uint2 codes[N::sets][Sh::size];
    u32 scales[N::sets][Sh::size];

    __device__ __forceinline__ void load(const Params& p, u32 first_token, u32 warp, u32 part, u32 lane) {
        const u32 from = Sh::part_begin(warp, part), count = Sh::part_size(warp, part);
#pragma unroll
        for (u32 set = 0; set < N::sets; ++set) {
            const u32 token = first_token + set * 8u + (lane >> 2);
            const u8* row = p.inter_codes + u64(token) * (N::I / 2u) + (lane & 3u) * 8u;
            const u8* row_scales = p.inter_scales + u64(token) * (N::I / 16u);
#pragma unroll
            for (u32 c = 0; c < Sh::size; ++c) {
                codes[set][c] = make_uint2(0u, 0u);
                scales[set][c] = 0u;
                if (token < p.num_tokens && (c < Sh::least || c < count)) {
                    codes[set][c] = __ldcg(reinterpret_cast<const uint2*>(row + (from + c) * 32u));
                    scales[set][c] = __ldcg(reinterpret_cast<const u32*>(row_scales + (from + c) * 4u));
                }
            }
        }
    }
    __device__ __forceinline__ void decode(Column (&column)[N::sets][Sh::size], u32 pick) const {
#pragma unroll
        for (u32 set = 0; set < N::sets; ++set) {
#pragma unroll
            for (u32 c = 0; c < Sh::size; ++c) {
                decode16(codes[set][c], column[set][c].pair);
                scale16(scale_pair(scales[set][c], pick), column[set][c].pair);
            }
        }
    }
};

// FC2: all parts of the block's rows. A part's codes are requested while the one before it is worked on.
// \param acc  of every tile of rows, added to
template <typename C, typename R>
__device__ __forceinline__ void fc2_tiles_wide(const Params& p, R& ring, u32 first_token, u32 warp, u32 lane, u32 pick,
                                               RowSums<Dims<C>::tokens> (&acc)[Layout<C>::row_tiles]) {
    using N = Dims<C>;
    using L = Layout<C>;
    using Sh = typename R::Fc2Share;
    Fc2Codes<C, Sh> next;
    next.load(p, first_token, warp, 0u, lane);
#pragma unroll 1
    for (u32 part = 0; part < Sh::parts; ++part) {
        const u32 count = Sh::part_size(warp, part);
        Column column[N::sets][Sh::size];
        next.decode(column, pick);
        if (part + 1u < Sh::parts) next.load(p, first_token, warp, part + 1u, lane);
#pragma unroll
        for (u32 tile = 0; tile < L::row_tiles; ++tile) {
            const bool half = L::rows % 16u != 0u && tile + 1u == L::row_tiles;
            const StageView stage = half ? ring.template consumer_wait<1u>(Sh::before(warp, part), Sh::length(part))
                                         : ring.template consumer_wait<2u>(Sh::before(warp, part), Sh::length(part));
#pragma unroll
            for (u32 c = 0; c < Sh::size; ++c) {
                if (!(c < Sh::least || c < count)) continue;
                const auto of = [&](u32 set) { return column[set][c]; };
                if (half) {
                    tile_chunk_sets<L, false>(stage, c, of, acc[tile].of, pick);
                } else {
                    tile_chunk_sets<L, true>(stage, c, of, acc[tile].of, pick);
                }
            }
            ring.template consumer_release<Phase::fc2>();
        }
    }
}

}  // namespace layer
}  // namespace jitc
