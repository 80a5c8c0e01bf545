// Invariant: sums of a part depend on the shape and part_len alone, never on which warp or block works it out. A part is
// part_len consecutive k of a row. A piece is 128 k (64 bytes); lane t of a quad owns groups 2t and 2t + 1 of every
// piece. A lane's sum of a part takes its groups in ascending k: sum = fma(scale, dot of the group's 16, sum); the dot is
// the tensor core's, four products a step. The part is ((lane 0 + lane 1) + (lane 2 + lane 3)) * 2^(14 - s) * global, s
// the shift of its activations.
//
// The weight is operand A with a row a lane quad. In B, column 2t + i holds token i of lane t's groups and zeros for the
// other lanes': so a column never mixes lanes, and a scale is applied once a group and row instead of once a weight.
//
// A warp owns a range of k for all rows of its block, 16 rows (a tile) at a time, a last tile perhaps of 8.
// Weights as checkpoints have them: rows come in units of four (m, m+32, m+64, m+96), which share the 16 scale bytes of
// four groups. Packed: a block is a run of rows, and eight rows by a piece are 512 bytes in the order of the lanes, their
// scales 64 bytes.
#pragma once

#include <jitc/copy.cuh>
#include <jitc/mma.cuh>

namespace jitc {

constexpr u32 piece_len = 128;

// C: rows, k_total, part_len, k_warps, rows_per_cta, tokens, ring (pieces a lane has in flight), x_sets (sets of
// registers for activations), dependent (programmatic dependent launch), packed.
template <typename C>
struct MmaRows {
    static constexpr u32 rows = C::rows;
    static constexpr u32 k_total = C::k_total;
    static constexpr u32 row_bytes = k_total / 2;
    static constexpr u32 scale_tiles = k_total / 64;
    static constexpr u32 all_pieces = k_total / piece_len;
    static constexpr u32 tokens = C::tokens;
    static constexpr u32 pairs = ceil_div(tokens, 2u);  // tokens two a multiplication
    static constexpr u32 range_len = k_total / C::k_warps;
    static constexpr u32 pieces = range_len / piece_len;  // of a row, a warp's
    static constexpr u32 ring = C::ring;
    static constexpr u32 ring_tiles = ring < pieces ? 1 : ring / pieces;
    static constexpr u32 parts = k_total / C::part_len;
    static constexpr u32 parts_of_warp = range_len / C::part_len;
    static constexpr u32 part_halves = C::part_len / 64;
    static constexpr u32 cta_rows = C::rows_per_cta;
    static constexpr u32 units = cta_rows / 4;
    static constexpr u32 tiles = cta_rows / 16;
    static constexpr bool half_tile = cta_rows % 16 != 0;
    static constexpr u32 all_units = ceil_div(rows, 128u) * 32u;
    static constexpr bool whole = C::packed ? rows % cta_rows == 0 : rows % 128 == 0 && all_units % units == 0;
    static constexpr u32 threads = C::k_warps * 32;
    // Pieces in one turn of the inner loop: more than a few without a loop cost registers.
    static constexpr u32 run = ring >= pieces || pieces <= 6 ? pieces : ring;

    static constexpr u32 token_bytes = k_total * 2 + 16;
    static constexpr u32 rest_at = round_up(tokens * token_bytes, 16u);  // [token][part]
    static constexpr u32 sums_at = rest_at + round_up(tokens * parts * 4, 16u);
    static constexpr u32 bytes = sums_at + parts * tokens * cta_rows * 4;

    static_assert(k_total % (C::k_warps * piece_len) == 0, "a warp's range of k is whole pieces");
    static_assert(range_len % C::part_len == 0 && C::part_len % 64 == 0, "a warp's range of k is whole parts");
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
            local = tile * 16u + (half_tile && tile == tiles ? in % 4u * 4u + q : (q & 1u) * 8u + in % 4u * 2u + (q >> 1));
        }
    }
};

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

    // Tile L::tiles is the half one; tiles past it are not there.
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
        asm volatile("" : "+l"(f.weight), "+l"(f.scales));
        return f;
    }

    // Asks for piece j.
    __device__ __forceinline__ static void ask(MmaRing<L::ring>& r, u32 slot, const MmaFrom& f, u32 j) {
        constexpr u32 step = C::packed ? 512u : 64u, scale_step = C::packed ? 64u : 1024u;
        if (f.any) {
            r.weight[slot][0] = load_once(reinterpret_cast<const uint4*>(f.weight + j * step));
            if constexpr (C::packed) {
                r.scale[slot].x = load_once(reinterpret_cast<const u16*>(f.scales + j * scale_step));
            } else {
                r.scale[slot] = load_once(reinterpret_cast<const uint2*>(f.scales + j * scale_step));
            }
        }
        if (f.full) {
            r.weight[slot][1] = load_once(reinterpret_cast<const uint4*>(f.weight + f.second + j * step));
            if constexpr (C::packed) {
                r.scale[slot].y = load_once(reinterpret_cast<const u16*>(f.scales + f.second_scale + j * scale_step));
            }
        }
    }
};

// Sums of a lane over one piece: two rows (one in a half tile) by tokens.
template <typename C, bool half, u32 sets>
__device__ __forceinline__ void mma_piece(const uint4 (&weight)[2], u32 scale_bytes, u32 x_at, bool own,
                                          uint4 (&x)[sets][MmaRows<C>::pairs][2], float (&sum)[2][2 * MmaRows<C>::pairs]) {
    using L = MmaRows<C>;
    float scale[4];  // row g: groups 2t, 2t + 1; row g + 8: the same
    e4m3x4_to_f32(scale_bytes, scale);
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
        uint4(&v)[L::pairs][2] = x[h % sets];
#pragma unroll
        for (u32 n = 0; n < L::pairs; ++n) {
            const bool wanted = own && (2u * n + 1u < L::tokens || (threadIdx.x & 4u) == 0u);
            const u32 at = x_at + n * 2u * L::token_bytes + h * 32u;
            load_shared_if(v[n][0], at, wanted);
            load_shared_if(v[n][1], at + 16u, wanted);
        }
        Mma4 dot[L::pairs];
#pragma unroll
        for (u32 n = 0; n < L::pairs; ++n) dot[n] = Mma4{{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            u32 a[4], b[4] = {0u, 0u, 0u, 0u};
            fp4x8_to_f16_pairs<C::packed>(
                h == 0 ? (i == 0 ? weight[0].x : weight[0].y) : (i == 0 ? weight[0].z : weight[0].w), a);
            if constexpr (!half) {
                fp4x8_to_f16_pairs<C::packed>(
                    h == 0 ? (i == 0 ? weight[1].x : weight[1].y) : (i == 0 ? weight[1].z : weight[1].w), b);
            }
#pragma unroll
            for (u32 n = 0; n < L::pairs; ++n) {
                mma_f16(dot[n], a[0], b[0], a[1], b[1], v[n][i].x, v[n][i].y);
                mma_f16(dot[n], a[2], b[2], a[3], b[3], v[n][i].z, v[n][i].w);
            }
        }
#pragma unroll
        for (u32 n = 0; n < L::pairs; ++n) {
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                sum[0][2 * n + i] = __fmaf_rn(scale[h], dot[n].v[i], sum[0][2 * n + i]);
                if constexpr (!half) sum[1][2 * n + i] = __fmaf_rn(scale[2 + h], dot[n].v[2 + i], sum[1][2 * n + i]);
            }
        }
    }
}

// Activations of a warp's range, as f16 in the order of the decoded pairs, and what each part's shift leaves to be
// multiplied back. A lane holds `mine` runs of eight.
template <typename C>
struct MmaStage {
    using L = MmaRows<C>;
    static constexpr u32 of_token = L::range_len / 8u;
    static constexpr u32 of_part = C::part_len / 8u;
    static constexpr u32 mine = ceil_div(of_token, 32u);

    uint4 held[mine];
    u32 k_begin;

    __device__ __forceinline__ void fetch(const u16* x, u32 token, u32 nat) {
#pragma unroll
        for (u32 i = 0; i < mine; ++i) {
            const u32 at = i * 32u + (threadIdx.x & 31u);
            held[i] = make_uint4(0u, 0u, 0u, 0u);
            if (at < of_token && token < nat) {
                held[i] = *reinterpret_cast<const uint4*>(x + u64(token) * L::k_total + k_begin + at * 8u);
            }
        }
    }

    __device__ __forceinline__ void store(u8* shared, u32 token) const {
#pragma unroll
        for (u32 part = 0; part < L::parts_of_warp; ++part) {
            u32 largest = 0;
#pragma unroll
            for (u32 i = 0; i < mine; ++i) {
                const u32 at = i * 32u + (threadIdx.x & 31u);
                if (at / of_part == part) largest = max(largest, largest_bf16(held[i]));
            }
            const int shift = shift_of(__reduce_max_sync(0xffffffffu, largest));
            if ((threadIdx.x & 31u) == 0u) {
                reinterpret_cast<float*>(shared + L::rest_at)[token * L::parts + k_begin / C::part_len + part] =
                    power_of_two(int(code_shift) - shift);
            }
#pragma unroll
            for (u32 i = 0; i < mine; ++i) {
                const u32 at = i * 32u + (threadIdx.x & 31u);
                if (at / of_part == part && at < of_token) {
                    *reinterpret_cast<uint4*>(shared + token * L::token_bytes + (k_begin + at * 8u) * 2u) =
                        x_to_f16<C::packed>(held[i], power_of_two(shift));
                }
            }
        }
    }
};

// Sums of all parts of a warp's range, for all of its rows, into sums[part][token][row of the block]. Starts with the
// loads of the first pieces, then takes the activations in.
template <typename C>
__device__ __forceinline__ void mma_rows(const u16* x, const u8* weight, const u8* scales, const float* global_scale,
                                         u8* shared, u32 block, u32 first_token, u32 nat) {
    using L = MmaRows<C>;
    const u32 k_warp = threadIdx.x >> 5;
    const MmaLane<C> lane(weight, scales, block, k_warp);
    const u32 g = lane.g, t = lane.t;

    // Activations first, as many as registers hold: behind the weights they would come last.
    constexpr u32 early = L::tokens * MmaStage<C>::mine <= 8u ? L::tokens : 1u;
    MmaStage<C> stage[early];
#pragma unroll
    for (u32 token = 0; token < early; ++token) {
        stage[token].k_begin = k_warp * L::range_len;
        if constexpr (!C::dependent) stage[token].fetch(x, first_token + token, nat);
    }
    MmaRing<L::ring> r;
#pragma unroll
    for (u32 i = 0; i < L::ring; i += L::pieces) {
        const MmaFrom from = lane.tile(i / L::pieces);
#pragma unroll
        for (u32 j = 0; j < L::pieces && i + j < L::ring; ++j) lane.ask(r, i + j, from, j);
    }
    const float global = *global_scale;
    if constexpr (C::dependent) {
        wait_for_dependencies();
#pragma unroll
        for (u32 token = 0; token < early; ++token) stage[token].fetch(x, first_token + token, nat);
    }
#pragma unroll
    for (u32 token = 0; token < L::tokens; ++token) {
        if (token >= early) stage[0].fetch(x, first_token + token, nat);
        stage[token < early ? token : 0u].store(shared, token);
    }
    __syncwarp();

    // Lanes outside their own column keep zeros here for good.
    constexpr u32 sets = C::x_sets;
    uint4 b[sets][L::pairs][2];
#pragma unroll
    for (u32 h = 0; h < sets; ++h) {
#pragma unroll
        for (u32 n = 0; n < L::pairs; ++n) b[h][n][0] = b[h][n][1] = make_uint4(0u, 0u, 0u, 0u);
    }
    const bool own = g >> 1 == t;
    const u32 x_at = shared_address(shared) + (g & 1u) * L::token_bytes + k_warp * L::range_len * 2u + t * 64u;
    // Which scale bytes of a plain weight are the lane's: of a full tile, two of either row; of a half tile, two of its one.
    u32 full_bytes = C::packed ? 0x5410u : (t & 1u) ? 0x7632u : 0x5410u;
    u32 half_bytes = C::packed ? 0x5410u : ((t & 1u) ? 0x3232u : 0x1010u) + ((g & 1u) ? 0x4444u : 0u);
    asm volatile("" : "+r"(full_bytes), "+r"(half_bytes));

    float sum[2][2 * L::pairs], kept[2][2 * L::pairs];
    auto clear = [&] {
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
#pragma unroll
            for (u32 n = 0; n < 2 * L::pairs; ++n) sum[i][n] = 0.0f;
        }
    };
    // Value 2n + i of a lane is row g + 8i of token n. A quad sums its lanes' values while handing them round: afterwards
    // lane t holds value 4c + t.
    float* const mine = reinterpret_cast<float*>(shared + L::sums_at) + k_warp * L::parts_of_warp * L::tokens * L::cta_rows +
                        (t >> 1) * L::cta_rows + (t & 1u) * 8u + g;
    const float* const rest = reinterpret_cast<const float*>(shared + L::rest_at) + k_warp * L::parts_of_warp;
    auto put = [&](const float (&s)[2][2 * L::pairs], u32 tile, u32 part, bool is_half) {
        float pair[2 * L::pairs];
#pragma unroll
        for (u32 n = 0; n < L::tokens; ++n) {
            const float keep = (t & 1u) ? s[1][n] : s[0][n], give = (t & 1u) ? s[0][n] : s[1][n];
            pair[n] = __fadd_rn(keep, __shfl_xor_sync(0xffffffffu, give, 1));
        }
#pragma unroll
        for (u32 n = 0; n < L::tokens; n += 2) {
            const bool two = n + 1 < L::tokens;
            const float keep = two && t >= 2u ? pair[n + 1] : pair[n], give = two && t < 2u ? pair[n + 1] : pair[n];
            float v = __fadd_rn(keep, __shfl_xor_sync(0xffffffffu, give, 2));
            v = __fmul_rn(__fmul_rn(v, rest[(two ? n + (t >> 1) : n) * L::parts + part]), global);
            if ((two || t < 2u) && !(is_half && (t & 1u))) mine[(part * L::tokens + n) * L::cta_rows + tile * 16u] = v;
        }
    };
    // is_half is a constant wherever this is called.
    auto step = [&](bool is_half, u32 tile, u32 j, u32 slot) {
        const bool split_here = L::part_halves % 2u == 1u && (2u * j + 1u) % L::part_halves == 0u;
        const bool ends_here = (2u * j + 2u) % L::part_halves == 0u;
        if (split_here) {
            // The upper lanes' groups already belong to the next part.
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
#pragma unroll
                for (u32 n = 0; n < 2 * L::pairs; ++n) {
                    kept[i][n] = sum[i][n];
                    sum[i][n] = t < 2u ? sum[i][n] : 0.0f;
                }
            }
        }
        const uint2 s = r.scale[slot];
        const u32 bytes = C::packed ? (is_half ? s.x : s.x | s.y << 16) : __byte_perm(s.x, s.y, is_half ? half_bytes : full_bytes);
        if (is_half) {
            mma_piece<C, true>(r.weight[slot], bytes, x_at + j * 256u, own, b, sum);
        } else {
            mma_piece<C, false>(r.weight[slot], bytes, x_at + j * 256u, own, b, sum);
        }
        if (split_here) {
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
#pragma unroll
                for (u32 n = 0; n < 2 * L::pairs; ++n) {
                    const float done = t < 2u ? sum[i][n] : kept[i][n];
                    sum[i][n] = t < 2u ? 0.0f : sum[i][n];
                    kept[i][n] = done;
                }
            }
            put(kept, tile, (2u * j + 1u) / L::part_halves - 1u, is_half);
        }
        if (ends_here) {
            put(sum, tile, (2u * j + 2u) / L::part_halves - 1u, is_half);
            clear();
        }
    };
    clear();
    // While a tile is worked on, the one ring_tiles ahead of it is asked for, or its own rest if the ring is shorter.
    // The number of turns is hidden: unrolled, the compiler would put loads off until they are used.
    u32 turns = L::tiles / L::ring_tiles;
    asm volatile("" : "+r"(turns));
    MmaFrom here = lane.tile(0);
#pragma unroll 1
    for (u32 turn = 0; turn < turns; ++turn) {
#pragma unroll
        for (u32 f = 0; f < L::ring_tiles; ++f) {
            const u32 tile = turn * L::ring_tiles + f;
            const MmaFrom there = lane.tile(tile + L::ring_tiles);
#pragma unroll 1
            for (u32 first = 0; first < L::pieces; first += L::run) {
#pragma unroll
                for (u32 i = 0; i < L::run; ++i) {
                    const u32 j = first + i, slot = (f * L::pieces + i) % L::ring;
                    step(false, tile, j, slot);
                    const bool rest_of_tile = j + L::ring < L::pieces;
                    MmaFrom from;  // chosen field by field: a choice between structures would put them into memory
                    from.weight = rest_of_tile ? here.weight : there.weight;
                    from.scales = rest_of_tile ? here.scales : there.scales;
                    from.second = rest_of_tile ? here.second : there.second;
                    from.second_scale = rest_of_tile ? here.second_scale : there.second_scale;
                    from.any = rest_of_tile || there.any;
                    from.full = rest_of_tile || there.full;
                    lane.ask(r, slot, from, rest_of_tile ? j + L::ring : j + L::ring - L::pieces * ((j + L::ring) / L::pieces));
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
                if (j + L::ring < L::pieces) lane.ask(r, i % L::ring, here, j + L::ring);
            }
        }
    }
}

// A part of a row one weight at a time, in ascending k with one rounding a step, w = (code * scale) * global: for sums
// that are not finite above.
template <typename C>
__device__ __noinline__ float part_scalar(const u16* x_row, const u8* weight, const u8* scales, float global, u32 row,
                                          u32 begin, u32 end) {
    using L = MmaRows<C>;
    float a = 0.0f;
    for (u32 k = begin; k < end; ++k) {
        u32 code;
        u64 scale_at;
        if constexpr (C::packed) {
            const u32 piece = k / piece_len, lane = row % 8u * 4u + k % piece_len / 32u, in = k % 32u;
            const u64 block = u64(row / 8u) * L::all_pieces + piece;
            const u32 word = reinterpret_cast<const u32*>(weight + block * 512u + lane * 16u)[in / 8u] >> (in % 2u * 16u);
            const u32 pair = in % 8u / 2u, sign = pair == 0u ? 15u : 11u + pair;
            code = ((word >> (9u - 3u * pair)) & 7u) | ((word >> sign) & 1u) << 3;
            scale_at = block * 64u + lane * 2u + in / 16u;
        } else {
            const u32 byte = weight[u64(row) * L::row_bytes + (k >> 1)];
            code = (k & 1u) ? byte >> 4 : byte & 15u;
            scale_at = scale_offset(row, k / group_len, L::scale_tiles);
        }
        const float w = __fmul_rn(__fmul_rn(fp4_to_f32(code), e4m3_to_f32(scales[scale_at])), global);
        a = __fmaf_rn(w, bf16_to_f32(x_row[k]), a);
    }
    return a;
}

__device__ __forceinline__ void store_result(float* to, float v) { *to = v; }
__device__ __forceinline__ void store_result(u16* to, float v) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(*to) : "f"(v));
}

// Gathers the parts behind a block barrier: a slot is slot_parts parts, first to last; the output is 0, plus slot 0, plus
// slot 1, and so on. partials, [nat, slots, rows], may be null.
template <typename C, u32 slot_parts, typename Out>
__device__ __forceinline__ void mma_gather(const u16* x, const u8* weight, const u8* scales, const float* global_scale,
                                           const u8* shared, float* partials, Out* output, u32 block, u32 first_token,
                                           u32 nat) {
    using L = MmaRows<C>;
    constexpr u32 slots = L::parts / slot_parts, pitch = L::tokens * L::cta_rows;
    constexpr u32 at_once = L::tokens == 1 ? 32 : 8;
    const float* sums = reinterpret_cast<const float*>(shared + L::sums_at);
    for (u32 i = threadIdx.x; i < L::tokens * L::cta_rows; i += L::threads) {
        const u32 local_token = i / L::cta_rows, token = first_token + local_token;
        u32 row, local;
        L::place(block, i % L::cta_rows, row, local);
        if (row >= L::rows || token >= nat) continue;
        const float* from = sums + local_token * L::cta_rows + local;
        float* to = partials == nullptr ? nullptr : partials + u64(token) * slots * L::rows + row;
        float total = 0.0f;
#pragma unroll at_once
        for (u32 slot = 0; slot < slots; ++slot) {
            float v = from[slot * slot_parts * pitch];
#pragma unroll 8
            for (u32 p = 1; p < slot_parts; ++p) v = __fadd_rn(v, from[(slot * slot_parts + p) * pitch]);
            if (to != nullptr) to[u64(slot) * L::rows] = v;
            total = __fadd_rn(total, v);
        }
        if (!(fabsf(total) < __uint_as_float(0x7f800000u))) {
            // Rare: the activations are not finite, or the result is not.
            total = 0.0f;
            for (u32 slot = 0; slot < slots; ++slot) {
                const u32 len = slot_parts * C::part_len;
                float v = part_scalar<C>(x + u64(token) * L::k_total, weight, scales, *global_scale, row, slot * len,
                                         slot * len + len);
                if (to != nullptr) to[u64(slot) * L::rows] = v;
                total = __fadd_rn(total, v);
            }
        }
        store_result(output + u64(token) * L::rows + row, total);
    }
}

}  // namespace jitc
