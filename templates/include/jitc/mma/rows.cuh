// Invariant: sums of a part depend on the shape and part_len alone, never on which warp or block works it out, nor on
// how many tokens share a decode. A part is part_len consecutive k of a row. A piece is 128 k (64 bytes); lane t of a
// quad owns groups 2t and 2t + 1 of every piece. A part is four sums, of the even and the odd groups of its lower lanes
// (0 and 1) and of its upper ones. Each starts at +0 and takes its groups in ascending k, eight products a step: of two
// lanes the codes 0, 1, 4 and 5 of eight, then 2, 3, 6 and 7; how a step rounds is the tensor core's. The part is (even
// + odd of the lower lanes) + (even + odd of the upper ones).
//
// The weight is operand A with a row a lane quad, scale included. In B, column 4u + i holds token i of the activations
// of lanes 2u and 2u + 1, and zeros for the others: so a part may end in the middle of a piece, and four tokens cost
// one. Parts that end elsewhere: mma/cut.cuh.
//
// A warp owns a range of k for all rows of its block, 16 rows (a tile) at a time, a last tile perhaps of 8.
// Weights as checkpoints have them: rows come in units of four (m, m+32, m+64, m+96), which share the 16 scale bytes of
// four groups. Packed: a block is a run of rows, and eight rows by a piece are 512 bytes in the order of the lanes,
// their scales 64 bytes.
#pragma once

#include <jitc/mma/cut.cuh>
#include <jitc/ptx/griddepcontrol.cuh>
#include <jitc/ptx/ld_st.cuh>
#include <jitc/ptx/opaque.cuh>

namespace jitc {

// What a lane has in flight: two rows' weights of a piece, and scales (plain: four groups of both rows; packed: the
// lane's own two of either row).
template <u32 ring>
struct MmaRing {
    uint4 weight[ring][2];
    uint2 scale[ring];
};

// Where a lane reads a tile's first piece. Opaque to the compiler, which would work it out again for every load.
struct MmaFrom {
    const u8* weight;
    const u8* scales;
    u32 second, second_scale;  // bytes from row g to row g + 8
    bool any, full;
};

// A lane's place in the block: its rows of a tile, its range of k.
template <typename C>
struct MmaLane {
    using L = MmaRows<C>;
    const u8* weight;
    const u8* scales;
    u32 block, g, t;

    __device__ MmaLane(const u8* weight_, const u8* scales_, u32 block_, u32 k_warp) : block(block_) {
        g = (threadIdx.x & 31u) >> 2;
        t = threadIdx.x & 3u;
        if constexpr (C::packed) {
            weight = weight_ + k_warp * L::pieces * 512u + (threadIdx.x & 31u) * 16u;
            scales = scales_ + k_warp * L::pieces * 64u + (threadIdx.x & 31u) * 2u;
        } else {
            weight = weight_ + k_warp * (L::range_len / 2u) + t * 16u;
            scales = scales_ + (k_warp * L::pieces * 2u + (t >> 1)) * 512u;
        }
    }

    // Where tile `i` of the block begins for this lane. Tile L::tiles is the half one; tiles past it are not there.
    // \param i  number of the tile in the block
    __device__ __forceinline__ MmaFrom tile(u32 i) const {
        MmaFrom f;
        f.full = i < L::tiles;
        f.any = f.full || (L::half_tile && i == L::tiles);
        if constexpr (C::packed) {
            u32 eight = block * (L::cta_rows / 8u) + i * 2u;
            f.second = L::all_pieces * 512u;
            if constexpr (!L::whole) {
                // Rows past the end read the first rows; their sums go nowhere.
                if (eight + 1u >= L::rows / 8u) f.second = 0;
                if (eight >= L::rows / 8u) eight = 0;
            }
            f.second_scale = f.second / 8u;
            f.weight = weight + u64(eight) * (L::all_pieces * 512u);
            f.scales = scales + u64(eight) * (L::all_pieces * 64u);
        } else {
            u32 unit = block * L::units + i * 4u + (f.full ? g >> 1 : g >> 2);
            const u32 q = f.full ? (g & 1u) * 2u : g & 3u;
            u32 row = (unit >> 5) * 128u + q * 32u + (unit & 31u);
            f.second = 32u * L::row_bytes;
            f.second_scale = 0;
            if constexpr (!L::whole) {
                if (unit >= L::all_units) unit = 0;
                if (row + 32u >= L::rows) f.second = 0;
                if (row >= L::rows) row = 0;
            }
            f.weight = weight + u64(row) * L::row_bytes;
            f.scales = scales + u64(unit >> 5) * (L::scale_tiles * 512u) + (unit & 31u) * 16u + (q >> 1) * 8u;
        }
        opaque(f.weight, f.scales);
        return f;
    }

    static constexpr u32 step = C::packed ? 512u : 64u, scale_step = C::packed ? 64u : 1024u;  // bytes of a piece

    // The same rows, some pieces on.
    __device__ __forceinline__ static MmaFrom later(MmaFrom f, u32 count) {
        f.weight += count * step;
        f.scales += count * scale_step;
        return f;
    }

    // Issues the loads of piece j of a tile into slot `slot` of the ring.
    template <u32 ring>
    __device__ __forceinline__ static void load(MmaRing<ring>& r, u32 slot, const MmaFrom& f, u32 j) {
        ld_global_no_allocate_if(r.weight[slot][0], f.weight + j * step, f.any);
        ld_global_no_allocate_if(r.weight[slot][1], f.weight + f.second + j * step, f.full);
        if constexpr (C::packed) {
            ld_global_no_allocate_if(r.scale[slot].x, f.scales + j * scale_step, f.any);
            ld_global_no_allocate_if(r.scale[slot].y, f.scales + f.second_scale + j * scale_step, f.full);
        } else {
            ld_global_no_allocate_if(r.scale[slot], f.scales + j * scale_step, f.any);
        }
    }
};

// Activations of a warp's range on their way to shared memory, there in the order of pieces, runs of eight within a
// lane's 32, lanes. A lane holds `mine` runs of eight.
template <typename C>
struct MmaStage {
    using L = MmaRows<C>;
    static constexpr u32 of_token = L::range_len / 8u;
    static constexpr u32 mine = ceil_div(of_token, 32u);

    uint4 held[mine];
    u32 k_begin;

    __device__ __forceinline__ void fetch(const u16* x, u32 token, u32 num_tokens) {
#pragma unroll
        for (u32 i = 0; i < mine; ++i) {
            const u32 at = i * 32u + (threadIdx.x & 31u);
            held[i] = ld_global_v4_if(x + u64(token) * L::k_total + k_begin + at * 8u,
                                      at < of_token && token < num_tokens);
        }
    }

    __device__ __forceinline__ void store(u8* shared, u32 token) const {
#pragma unroll
        for (u32 i = 0; i < mine; ++i) {
            const u32 at = i * 32u + (threadIdx.x & 31u);
            const u32 to = (at >> 4) * 256u + (at & 3u) * 64u + ((at >> 2) & 3u) * 16u;
            if (at < of_token) {
                *reinterpret_cast<ulonglong2*>(shared + token * L::token_bytes + k_begin * 2u + to) = [&] {
                    const XPairs v = x_in_pairs<L::scale_after_dot>(held[i]);
                    return make_ulonglong2(v.first, v.second);
                }();
            }
        }
    }
};

// Sums of all parts of a warp's range, for all of its rows, into sums[part][token][row of the block]. Starts with the
// activations and the loads of the first pieces. Returns the global scale, loaded early enough to be there when needed.
// \param x             activations, bf16 [num_tokens, k_total]
// \param weight        codes, plain or packed
// \param scales        E4M3 scales, swizzled or packed
// \param global_scale  one float
// \param shared        the block's dynamic shared memory, MmaRows<C>::bytes
// \param block         number of the block's rows
// \param first_token   first of the C::tokens tokens of this pass
// \param num_tokens    tokens of the launch
template <typename C>
__device__ __forceinline__ float mma_rows(const u16* x, const u8* weight, const u8* scales, const float* global_scale,
                                          u8* shared, u32 block, u32 first_token, u32 num_tokens) {
    using L = MmaRows<C>;
    const u32 k_warp = threadIdx.x >> 5;
    const MmaLane<C> lane(weight, scales, block, k_warp);
    const u32 g = lane.g, t = lane.t;
    // The lanes of a column of B.
    const u32 column = L::scale_after_dot ? g & 1u : g & 3u;
    const bool own = (L::scale_after_dot ? g >> 1 == t : g >> 2 == t >> 1) && column < L::tokens;

    // Activations first, of all tokens or of one, as registers allow: behind the weights they would come last.
    constexpr bool all_early = L::tokens * MmaStage<C>::mine <= 8u;
    constexpr u32 early = all_early ? L::tokens : 1u;
    uint4 raw[L::x_held ? L::pieces : 1][4];
    MmaStage<C> stage[early];
    auto fetch = [&] {
        if constexpr (L::x_held) {
            const u16* from = x + u64(first_token + column) * L::k_total + k_warp * L::range_len + t * 32u;
            const bool wanted = own && first_token + column < num_tokens;
#pragma unroll
            for (u32 j = 0; j < L::pieces; ++j) {
#pragma unroll
                for (u32 q = 0; q < 4; ++q) {
                    raw[j][q] = ld_global_v4_if(from + j * piece_len + q * 8u, wanted);
                }
            }
        } else {
#pragma unroll
            for (u32 token = 0; token < early; ++token) {
                stage[token].k_begin = k_warp * L::range_len;
                stage[token].fetch(x, first_token + token, num_tokens);
            }
        }
    };
    if constexpr (!C::dependent) fetch();
    MmaRing<L::ring> r;
#pragma unroll
    for (u32 i = 0; i < L::ring; i += L::pieces) {
        const MmaFrom from = lane.tile(i / L::pieces);
#pragma unroll
        for (u32 j = 0; j < L::pieces && i + j < L::ring; ++j) lane.load(r, i + j, from, j);
    }
    if constexpr (!L::whole_halves && MmaCut<C>::may_miss) clear_sums<C>(shared + L::sums_at);
    if constexpr (C::dependent) {
        griddepcontrol_wait();
        fetch();
    }
    const float global = ld_global(global_scale);
    XPairs held[L::x_held ? L::pieces : 1][4];
    if constexpr (L::x_held) {
#pragma unroll
        for (u32 j = 0; j < L::pieces; ++j) {
#pragma unroll
            for (u32 q = 0; q < 4; ++q) held[j][q] = x_in_pairs<L::scale_after_dot>(raw[j][q]);
        }
    } else {
        if constexpr (all_early) keep_loads_here(num_tokens == 0xffffffffu);
#pragma unroll
        for (u32 token = 0; token < L::tokens; ++token) {
            if (token >= early) stage[0].fetch(x, first_token + token, num_tokens);
            stage[token < early ? token : 0u].store(shared, token);
        }
        __syncwarp();
    }

    // Lanes outside their own columns keep zeros here for good.
    uint4 b[L::sets][2];
#pragma unroll
    for (u32 n = 0; n < L::sets; ++n) b[n][0] = b[n][1] = make_uint4(0u, 0u, 0u, 0u);
    const u32 x_at = shared_address(shared) + column * L::token_bytes + k_warp * L::range_len * 2u + t * 16u;
    // Which scale bytes of a plain weight are the lane's: of a full tile, two of either row; of a half tile, two of its
    // one.
    u32 full_bytes = C::packed ? 0x5410u : (t & 1u) ? 0x7632u : 0x5410u;
    u32 half_bytes = C::packed ? 0x5410u : ((t & 1u) ? 0x3232u : 0x1010u) + ((g & 1u) ? 0x4444u : 0u);
    opaque(full_bytes, half_bytes);

    // Value 2r + i is row g + 8r. Scales in the weights: [even and odd groups][tokens from 4n], token 2 (t mod 2) + i,
    // the lanes of half t / 2. Scales after the dot: [0][0], token i, lane t.
    Mma4 sum[2][L::sets];
    // Where they go to; opaque like the above.
    const u32 first = k_warp * L::parts_of_warp * L::tokens + (L::scale_after_dot ? 0u : (t & 1u) * 2u);
    u32 mine = shared_address(shared) + L::sums_at +
               ((first * L::cta_rows + g) * L::part_sums + (L::scale_after_dot ? t : t >> 1)) * 4u;
    mine = opaque(mine);
    // Puts a part's sums down and clears them, in the lanes that are done with it.
    auto put = [&](bool is_half, u32 tile, u32 part, bool done) {
        const u32 to = mine + tile * (64u * L::part_sums);
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const u32 token = L::columns * n + i % 2u;
                if (token >= L::tokens) continue;
                const bool there = L::scale_after_dot || token + 2u < L::tokens || (t & 1u) == 0u;
                const u32 at = (part * L::tokens + token) * L::cta_rows + i / 2u * 8u;
                float v = sum[0][n].v[i];
                if constexpr (!L::scale_after_dot) v = __fadd_rn(v, sum[1][n].v[i]);
                if (!(is_half && i >= 2u)) st_shared_if(to + at * (L::part_sums * 4u), v, done && there);
                sum[0][n].v[i] = done ? 0.0f : sum[0][n].v[i];
                sum[1][n].v[i] = done ? 0.0f : sum[1][n].v[i];
            }
        }
    };
    // is_half is a constant wherever this is called.
    auto step = [&](bool is_half, u32 tile, u32 j, u32 slot) {
        constexpr u32 halves = L::whole_halves ? L::part_halves : 1u;
        const bool split_here = L::whole_halves && halves % 2u == 1u && (2u * j + 1u) % halves == 0u;
        const bool ends_here = L::whole_halves && (2u * j + 2u) % halves == 0u;
        const u32 part = (2u * j + 1u) / halves;  // of the upper lanes
        if (split_here) put(is_half, tile, part - 1u, t >= 2u);
        const uint2 s = r.scale[slot];
        const u32 bytes =
            C::packed ? (is_half ? s.x : s.x | s.y << 16) : __byte_perm(s.x, s.y, is_half ? half_bytes : full_bytes);
        auto activations = [&](u32 q, u32 n) {
            if constexpr (L::x_held) {
                return held[j][q];
            } else {
                if (q % 2u == 0u) {
                    const u32 from = x_at + n * (L::columns * L::token_bytes) + j * 256u + q * 64u;
                    ld_shared_v4_if(b[n][0], from, own);
                    ld_shared_v4_if(b[n][1], from + 64u, own);
                }
                const uint4& v = b[n][q % 2u];
                return XPairs{two_registers(v.x, v.y), two_registers(v.z, v.w)};
            }
        };
        if constexpr (!L::whole_halves) {
            auto put_part = [&](u32 of, bool done) { put(is_half, tile, of, done); };
            if (is_half) {
                mma_cut_piece<C, true>(r.weight[slot], bytes, activations, sum, j, t, put_part);
            } else {
                mma_cut_piece<C, false>(r.weight[slot], bytes, activations, sum, j, t, put_part);
            }
        } else if (is_half) {
            mma_piece<C, true>(r.weight[slot], bytes, activations, sum);
        } else {
            mma_piece<C, false>(r.weight[slot], bytes, activations, sum);
        }
        if (split_here) put(is_half, tile, part - 1u, t < 2u);
        if (ends_here) put(is_half, tile, part, true);
    };
#pragma unroll
    for (u32 n = 0; n < L::sets; ++n) sum[0][n] = sum[1][n] = Mma4{{0.0f, 0.0f, 0.0f, 0.0f}};
    // A turn of the inner loop that is less than a tile is as long as the ring, and loads pieces of one tile.
    constexpr bool in_turns = L::run < L::pieces;
    static_assert(!in_turns || L::run == L::ring, "a turn is a tile or the ring");
    // Software pipeline: while a tile is worked on, the one ring_tiles ahead of it is loaded, or its own rest if the
    // ring is shorter. The number of turns is hidden: unrolled, the compiler would put loads off until they are used.
    const bool never = num_tokens == 0xffffffffu;
    const u32 turns = opaque(L::tiles / L::ring_tiles);
    MmaFrom here = lane.tile(0);
#pragma unroll 1
    for (u32 turn = 0; turn < turns; ++turn) {
#pragma unroll
        for (u32 f = 0; f < L::ring_tiles; ++f) {
            const u32 tile = turn * L::ring_tiles + f;
            const MmaFrom there = lane.tile(tile + L::ring_tiles);
#pragma unroll 1
            for (u32 first = 0; first < L::pieces; first += L::run) {
                MmaFrom next = there;
                if constexpr (in_turns) {
                    if (first + L::ring < L::pieces) next = lane.later(here, first + L::ring);
                    opaque(next.weight, next.scales);
                }
#pragma unroll
                for (u32 i = 0; i < L::run; ++i) {
                    const u32 slot = (f * L::pieces + i) % L::ring;
                    step(false, tile, first + i, slot);
                    if constexpr (in_turns) {
                        lane.load(r, slot, next, i);
                    } else if (i + L::ring < L::pieces) {
                        lane.load(r, slot, here, i + L::ring);
                    } else {
                        lane.load(r, slot, there, (i + L::ring) % L::pieces);
                    }
                    keep_loads_here(never);
                }
            }
            here = there;
        }
    }
    if constexpr (L::half_tile) {
#pragma unroll 1
        for (u32 first = 0; first < L::pieces; first += L::run) {
#pragma unroll
            for (u32 i = 0; i < L::run; ++i) {
                const u32 j = first + i;
                step(true, L::tiles, j, i % L::ring);
                if (j + L::ring < L::pieces) lane.load(r, i % L::ring, here, j + L::ring);
                if (L::ring < L::pieces) keep_loads_here(never);
            }
        }
    }
    return global;
}

}  // namespace jitc
