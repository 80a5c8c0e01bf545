// Invariant: from sixteen tokens a pass on, a part is one sum, which starts at +0 and takes its pieces in ascending k,
// sixteen products a step: of each lane of a quad the codes 0, 1, 4 and 5 of eight, then 2, 3, 6 and 7, from the
// lane's first eight on. Where a part ends within a piece, the piece is multiplied once for each part in it, with zeros
// as the scales of groups that are not the part's. Sums depend on the shape and part_len alone.
//
// The scale is in the weight, operand A, decoded once for all tokens; a column of B is a token, so a column mixes the
// lanes of a quad. A warp walks its range of k piece by piece, and in each piece its tiles of rows, whose sums are all
// in registers: so activations come by the piece too, `x_stages` pieces at a time, which is why they fit.
//
// Shared memory is the warps', each for itself: [activations, then the last part's sums][sums of the parts before].
#pragma once

#include <jitc/mma/rows.cuh>

namespace jitc {

// C besides: x_stages (pieces of activations that a warp has in shared memory).
template <typename C>
struct MmaWide {
    using L = MmaRows<C>;
    static constexpr u32 tiles = ceil_div(L::cta_rows, 16u);  // the last one perhaps of eight rows
    static constexpr u32 stages = C::x_stages;
    static constexpr u32 stage_bytes = L::tokens * piece_len * 2u;
    static constexpr u32 sum_bytes = L::tokens * L::cta_rows * 4u;  // of a part: [token][row]
    static constexpr u32 x_bytes = stages * stage_bytes > sum_bytes ? stages * stage_bytes : sum_bytes;
    static constexpr u32 warp_bytes = x_bytes + (L::parts_of_warp - 1u) * sum_bytes;
    static constexpr u32 bytes = C::k_warps * warp_bytes;
    static constexpr u32 piece_groups = piece_len / group_len;
    static constexpr u32 part_groups = C::part_len / group_len;
    static constexpr bool whole_pieces = part_groups % piece_groups == 0;

    static_assert(L::tokens % 8u == 0, "columns of eight tokens");
    static_assert(stages >= 1u && stages <= L::pieces, "activations come by the piece");
    static_assert(tiles * L::sets <= 12u, "sums are in registers");

    // Where the sums of a warp's part begin: the last part's take the place of the activations.
    __host__ __device__ static constexpr u32 sums_of(u32 part) {
        return part + 1u == L::parts_of_warp ? 0u : x_bytes + part * sum_bytes;
    }
    // The same of any of the row's parts, from the block's beginning.
    __host__ __device__ static constexpr u32 sums_of_any(u32 part) {
        return part / L::parts_of_warp * warp_bytes + sums_of(part % L::parts_of_warp);
    }
};

// Where eight k of a token's piece lie, run `q` of lane `t`'s: in such places that eight neighboring lanes write, in the
// order of k, and read, the same run of two tokens, all banks.
__device__ __forceinline__ u32 wide_place(u32 token, u32 q, u32 t) {
    return token * 256u + (q >> 1) * 128u + ((q ^ token) & 1u) * 64u + (t ^ (q >> 1) * 2u) * 16u;
}

// Activations of a warp's range, which it brings to shared memory by the piece. Through registers: asynchronous copies of
// what all blocks read took 14 us of sixteen tokens, loads take two.
template <typename C>
struct WideActivations {
    using L = MmaRows<C>;
    using W = MmaWide<C>;
    static constexpr u32 copies = L::tokens / 2u;     // of a lane, for a piece
    static constexpr u32 first = copies * W::stages;  // before the first product
    // As many at a time as registers allow, before the products and between them.
    __host__ __device__ static constexpr u32 at_once(u32 all, u32 most) {
        return all % most == 0u ? most : at_once(all, most - 1u);
    }
    static constexpr u32 batch = at_once(first, L::tokens > 16u ? 8u : 12u);
    static constexpr u32 small_batch = at_once(copies, 4u);

    const u16* from;  // the lane's first copy
    u32 to;           // and where it goes
    u32 there;        // the launch's tokens from the lane's first on

    // \param own  the warp's place in shared memory
    __device__ WideActivations(const u16* x, u32 own, u32 k_warp, u32 first_token, u32 num_tokens) {
        const u32 token = threadIdx.x >> 4 & 1u, eight = threadIdx.x & 15u;
        there = num_tokens - min(first_token + token, num_tokens);
        from = x + u64(first_token + token) * L::k_total + k_warp * L::range_len + eight * 8u;
        to = own + wide_place(token, eight & 3u, eight >> 2);
    }

    // `count` copies from the i-th on, piece by piece.
    template <u32 count>
    __device__ __forceinline__ void load(uint4 (&held)[count], u32 i) const {
#pragma unroll
        for (u32 n = 0; n < count; ++n) {
            const u32 piece = (i + n) / copies, at = (i + n) % copies * 2u;
            held[n] = ld_global_v4_if(from + piece * piece_len + at * L::k_total, at < there);
        }
    }
    template <u32 count>
    __device__ __forceinline__ void store(const uint4 (&held)[count], u32 i) const {
#pragma unroll
        for (u32 n = 0; n < count; ++n) {
            const XPairs v = x_in_pairs<false>(held[n]);
            st_shared_u64x2(to + (i + n) / copies * W::stage_bytes + (i + n) % copies * 512u, v.first, v.second);
        }
    }
    // A piece, in place of one that is done with.
    __device__ __forceinline__ void replace(u32 piece, u32 stage) const {
        WideActivations of = *this;
        of.from += piece * piece_len;
        of.to += stage * W::stage_bytes;
#pragma unroll 1
        for (u32 i = 0; i < copies; i += small_batch) {
            uint4 held[small_batch];
            of.load(held, 0u);
            of.store(held, 0u);
            of.from += small_batch * 2u * L::k_total;
            of.to += small_batch * 512u;
            of.there -= min(of.there, small_batch * 2u);
        }
    }
};

// Where a lane reads its tiles: the first one's place, and how far from it the others lie.
template <typename C>
struct WideFrom {
    using L = MmaRows<C>;
    using W = MmaWide<C>;
    using Lane = MmaLane<C>;
    static constexpr bool even = C::packed && L::whole;  // a tile is as far from the next as that from its next

    MmaFrom first;
    u32 second[even ? 1 : W::tiles];
    int weight[even ? 1 : W::tiles], scales[even ? 1 : W::tiles];

    __device__ __forceinline__ explicit WideFrom(const Lane& lane) : first(lane.tile(0u)) {
        if constexpr (!even) {
#pragma unroll
            for (u32 i = 0; i < W::tiles; ++i) {
                const MmaFrom f = lane.tile(i);
                weight[i] = int(f.weight - first.weight);
                scales[i] = int(f.scales - first.scales);
                second[i] = f.second;
            }
        }
    }
    // Piece `j` of tile `i`.
    // \param wanted  whether the warp has it
    __device__ __forceinline__ MmaFrom tile(u32 i, u32 j, bool wanted) const {
        MmaFrom f = first;
        f.full = wanted && i < L::tiles;
        f.any = wanted;
        if constexpr (even) {
            f.weight += j * Lane::step + i * (2u * L::all_pieces * 512u);
            f.scales += j * Lane::scale_step + i * (2u * L::all_pieces * 64u);
        } else {
            f.weight += weight[i] + int(j * Lane::step);
            f.scales += scales[i] + int(j * Lane::scale_step);
            f.second = second[i];
            if constexpr (C::packed) f.second_scale = second[i] / 8u;
        }
        return f;
    }
};

// Sums of all parts of a warp's range, for all of its rows, into shared memory. Returns the global scale. Arguments as
// of mma_rows.
template <typename C>
__device__ __forceinline__ float mma_wide_rows(const u16* x, const u8* weight, const u8* scales,
                                               const float* global_scale, u8* shared, u32 block, u32 first_token,
                                               u32 num_tokens) {
    using L = MmaRows<C>;
    using W = MmaWide<C>;
    const u32 k_warp = threadIdx.x >> 5;
    const MmaLane<C> lane(weight, scales, block, k_warp);
    const u32 g = lane.g, t = lane.t;
    const u32 own = shared_address(shared) + k_warp * W::warp_bytes;
    const WideActivations<C> activations(x, own, k_warp, first_token, num_tokens);
    using A = WideActivations<C>;
    uint4 held[A::batch];
    if constexpr (!C::dependent) activations.load(held, 0u);
    MmaRing<W::tiles> r;
    const WideFrom<C> from(lane);
#pragma unroll
    for (u32 i = 0; i < W::tiles; ++i) lane.load(r, i, from.tile(i, 0u, true), 0u);
    if constexpr (C::dependent) {
        griddepcontrol_wait();
        activations.load(held, 0u);
    }
    const float global = ld_global(global_scale);
    activations.store(held, 0u);
#pragma unroll
    for (u32 i = A::batch; i < A::first; i += A::batch) {
        activations.load(held, i);
        activations.store(held, i);
    }
    __syncwarp();

    // As in mma_rows.
    u32 full_bytes = C::packed ? 0x5410u : (t & 1u) ? 0x7632u : 0x5410u;
    u32 half_bytes = C::packed ? 0x5410u : ((t & 1u) ? 0x3232u : 0x1010u) + ((g & 1u) ? 0x4444u : 0u);
    opaque(full_bytes, half_bytes);

    // Value 2r + i is row g + 8r, token 8n + 2t + i.
    Mma4 sum[W::tiles][L::sets];
#pragma unroll
    for (u32 i = 0; i < W::tiles; ++i) {
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) sum[i][n] = Mma4{{0.0f, 0.0f, 0.0f, 0.0f}};
    }
    auto put = [&](u32 tile, u32 part) {
        const bool is_half = L::half_tile && tile == L::tiles;
        const u32 to = own + W::sums_of(part) + (2u * t * L::cta_rows + tile * 16u + g) * 4u;
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const u32 at = ((8u * n + i % 2u) * L::cta_rows + i / 2u * 8u) * 4u;
                if (!(is_half && i >= 2u)) st_shared_if(to + at, sum[tile][n].v[i], true);
                sum[tile][n].v[i] = 0.0f;
            }
        }
    };
    // Eight activations of the lane's own k, of token g of each eight.
    const u32 x_at[4] = {own + wide_place(g, 0u, t), own + wide_place(g, 1u, t), own + wide_place(g, 2u, t),
                         own + wide_place(g, 3u, t)};
    // The tile is a constant wherever this is called.
    auto step = [&](u32 tile, u32 j, u32 stage) {
        const bool is_half = L::half_tile && tile == L::tiles;
        const uint2 s = r.scale[tile];
        const u32 bytes =
            C::packed ? (is_half ? s.x : s.x | s.y << 16) : __byte_perm(s.x, s.y, is_half ? half_bytes : full_bytes);
        const PieceScales<C> all(bytes);
        auto x_of = [&](u32 q, u32 n) {
            const ulonglong2 v = ld_shared_u64x2(x_at[q] + stage * W::stage_bytes + n * 2048u);
            return XPairs{v.x, v.y};
        };
        auto add = [&](const PieceScales<C>& part) {
            auto multiply = [&](u32 n, const u32(&a)[4], const u32(&b)[4], XPairs v) {
                mma_eight(sum[tile][n], a, b, v);
            };
#pragma unroll
            for (u32 h = 0; h < 2; ++h) {
                if (is_half) {
                    mma_group<C, true>(r.weight[tile], h, part, x_of, multiply);
                } else {
                    mma_group<C, false>(r.weight[tile], h, part, x_of, multiply);
                }
            }
        };
        if constexpr (W::whole_pieces) {
            add(all);
            const u32 done = (j + 1u) * W::piece_groups;
            if (done % W::part_groups == 0u && done < L::pieces * W::piece_groups) put(tile, done / W::part_groups - 1u);
        } else {
            // Of the parts in this piece those groups that are theirs.
            const u32 begin = j * W::piece_groups, end = begin + W::piece_groups;
#pragma unroll 1
            for (u32 part = begin / W::part_groups; part * W::part_groups < end; ++part) {
                const u32 part_end = (part + 1u) * W::part_groups;
                PieceScales<C> own_scales = all;
#pragma unroll
                for (u32 h = 0; h < 2; ++h) {
                    const u32 group = begin + 2u * t + h;
                    own_scales.pair[h] = group / W::part_groups == part ? all.pair[h] : 0u;
                }
                add(own_scales);
                if (part_end <= end && part + 1u < L::parts_of_warp) put(tile, part);
            }
        }
    };
    const bool never = num_tokens == 0xffffffffu;
    u32 stage = 0;
#pragma unroll 1
    for (u32 j = 0; j < L::pieces; ++j) {
#pragma unroll
        for (u32 i = 0; i < W::tiles; ++i) {
            step(i, j, stage);
            lane.load(r, i, from.tile(i, j + 1u, j + 1u < L::pieces), 0u);
            keep_loads_here(never);
        }
        if constexpr (W::stages < L::pieces) {
            __syncwarp();
            if (j + W::stages < L::pieces) activations.replace(j + W::stages, stage);
            __syncwarp();
        }
        stage = stage + 1u == W::stages ? 0u : stage + 1u;
    }
    // No lane reads activations any more.
    __syncwarp();
#pragma unroll
    for (u32 i = 0; i < W::tiles; ++i) put(i, L::parts_of_warp - 1u);
    return global;
}

}  // namespace jitc
