// Invariant: where a part is not whole halves of pieces, its sums are the four of mma/rows.cuh, of the groups that are
// its own: in each, groups in ascending k, and nothing of a neighbor's. A lane that has no group of a part leaves zeros.
//
// A part ends at a scale group. Where the scale comes after the dot, a column of B holds one lane's groups, so a lane
// puts its sum down between two groups. Where it is in the weight, columns hold the four groups of half a piece, even
// and odd ones in two accumulators: a half that a part's end cuts is multiplied twice, with activations of the one part
// and of the next.
#pragma once

#include <jitc/mma/piece.cuh>

namespace jitc {

// Parts of the groups that a lane's sums of one piece are of: its own two, or the four of its half.
template <typename C>
struct MmaCut {
    using L = MmaRows<C>;
    static constexpr u32 part_groups = C::part_len / group_len;
    static constexpr u32 groups = L::scale_after_dot ? 2 : 4;
    // A lane may miss a shorter part: its groups of two pieces lie apart by `piece_groups - groups`.
    static constexpr u32 piece_groups = piece_len / group_len;
    static constexpr bool may_miss = part_groups < piece_groups;

    static_assert(part_groups >= 2, "at most one end among a lane's groups of a piece");

    u32 part;    // of the first group, counted in the warp's range
    u32 before;  // groups of that part; `groups` where no end is among them
    u32 last;    // the last group's part
    bool ends;   // whether the lane has no group of it in the piece that follows

    __device__ __forceinline__ MmaCut(u32 j, u32 t) {
        const u32 first = j * piece_groups + (L::scale_after_dot ? 2u * t : t / 2u * 4u);
        part = first / part_groups;
        before = min((part + 1u) * part_groups - first, groups);
        last = before < groups ? part + 1u : part;
        ends = (first + piece_groups) / part_groups != last;
    }

    // Whether an end lies within either half of a piece.
    __device__ __forceinline__ static bool any(u32 j) {
        const u32 lower = j * piece_groups % part_groups, upper = (j * piece_groups + 4u) % part_groups;
        return lower + 3u >= part_groups || upper + 3u >= part_groups;
    }
};

// Clears the sums of a warp's parts.
// \param sums  where they begin in shared memory
template <typename C>
__device__ __forceinline__ void clear_sums(u8* sums) {
    using L = MmaRows<C>;
    constexpr u32 bytes = L::parts_of_warp * L::tokens * L::cta_rows * L::part_sums * 4u;
    static_assert(bytes % 16u == 0, "rows come by eight");
    for (u32 at = (threadIdx.x & 31u) * 16u; at < bytes; at += 512u) {
        *reinterpret_cast<uint4*>(sums + (threadIdx.x >> 5) * bytes + at) = make_uint4(0u, 0u, 0u, 0u);
    }
    __syncwarp();
}

// Adds one piece to a lane's sums and puts down those that are done with.
// \param weight, scale_bytes, x, sum  as of mma_piece
// \param j    number of the piece in the warp's range
// \param t    the lane in its quad
// \param put  put(part, done): puts a part's sums down and clears them, in lanes that are done with it
template <typename C, bool half, typename X, typename Put>
__device__ __forceinline__ void mma_cut_piece(const uint4 (&weight)[2], u32 scale_bytes, X x,
                                              Mma4 (&sum)[2][MmaRows<C>::sets], u32 j, u32 t, Put put) {
    using L = MmaRows<C>;
    const MmaCut<C> cut(j, t);
    const bool inside = MmaCut<C>::any(j);
    const PieceScales<C> scales(scale_bytes);
    if constexpr (L::scale_after_dot) {
#pragma unroll
        for (u32 h = 0; h < 2; ++h) {
            if (h == 1u && inside) put(cut.part, cut.before == 1u);
            add_group<C, half>(weight, h, scales, x, sum);
        }
    } else {
        Mma4 later[2][L::sets];
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) later[0][n] = later[1][n] = Mma4{{0.0f, 0.0f, 0.0f, 0.0f}};
        if (inside) {
#pragma unroll
            for (u32 h = 0; h < 2; ++h) {
                // Of the half's groups the lane's activations are of number 2 (t mod 2) + h.
                const u32 now = 2u * (t & 1u) + h < cut.before ? ~0u : 0u;
                const u64 kept = two_registers(now, now);
                mma_group<C, half>(weight, h, scales, x, [&](u32 n, const u32(&a)[4], const u32(&b)[4], XPairs v) {
                    mma_eight(sum[h][n], a, b, XPairs{v.first & kept, v.second & kept});
                    mma_eight(later[h][n], a, b, XPairs{v.first & ~kept, v.second & ~kept});
                });
            }
            const bool done = cut.before < MmaCut<C>::groups;
            put(cut.part, done);
#pragma unroll
            for (u32 n = 0; n < L::sets; ++n) {
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    // Without an end in its half a lane's `later` is zero.
                    sum[0][n].v[i] = done ? later[0][n].v[i] : sum[0][n].v[i];
                    sum[1][n].v[i] = done ? later[1][n].v[i] : sum[1][n].v[i];
                }
            }
        } else {
#pragma unroll
            for (u32 h = 0; h < 2; ++h) add_group<C, half>(weight, h, scales, x, sum);
        }
    }
    put(cut.last, cut.ends);
}

}  // namespace jitc
