// Invariant: every warp owns a ring of pipeline stages and fills it itself, producer and consumer in one, in the order
// in which it will use them; `stages` groups of cp.async are in flight at the top of every step, whatever phase they
// belong to. So a warp that waits for other blocks has the weights of its next steps in flight, and no two warps ever
// wait for each other's weights.
//
// A stage is 16 neighboring rows of up to `stage_chunks` runs of 64 weights (32 bytes a row and run) and a word of
// four scales a row and run. Rows past the end are not read and hold what they held; no result depends on them.
//
// Packed weights (packed64) come the same way on GPUs without bulk copies; with them, by BlockRing.
//
// The flat order of a warp's stages: W_O (tensor-core mode only), then FC1, then FC2. A kernel that runs fewer phases
// has fewer of them.
#pragma once

#include <jitc/layer/types.cuh>
#include <jitc/ptx/cp_async.cuh>

namespace jitc {
namespace layer {

// A warp's share of `total` runs, cut into parts of `least` or `size` runs, which differ by one at most if all warps
// have the same.
template <u32 total, u32 shares, u32 chunks>
struct Share {
    static constexpr bool even = total % shares == 0;
    static constexpr u32 most = ceil_div(total, shares), parts = ceil_div(most, chunks), size = ceil_div(most, parts);
    static constexpr u32 least = even ? most / parts : 0u;  // in every part
    static constexpr bool whole = least == size;
    __device__ static u32 begin(u32 share) { return even ? share * most : total * share / shares; }
    __device__ static u32 part_begin(u32 share, u32 part) {
        const u32 from = begin(share);
        if (whole) return from + part * size;
        return from + (begin(share + 1u) - from) * part / parts;
    }
    __device__ static u32 part_size(u32 share, u32 part) {
        return whole ? size : part_begin(share, part + 1u) - part_begin(share, part);
    }
    // Of a block's stages (BlockShare); a warp's own begin where it begins.
    __device__ static u32 before(u32, u32) { return 0u; }
    __device__ static u32 length(u32) { return 0u; }
};

// Which parts of which matrices a warp walks.
template <typename C>
struct Walk {
    using N = Dims<C>;
    using L = Layout<C>;
    // W_O, tensor cores: `pieces` of a row's reduction, whole slots or equal parts of one; a warp has `own` of them.
    static constexpr u32 own = L::pieces / N::warps;
    using WoShare = Share<N::K / 64u, L::pieces, L::chunks>;
    static constexpr u32 wo_parts = WoShare::parts;
    static_assert(!L::mma || (L::pieces % N::warps == 0 && L::pieces % L::slots == 0), "warps share slots evenly");
    static_assert(!L::mma || L::slot_len % 64u == 0, "in the tensor-core mode a slot is whole runs of 64");
    static constexpr u32 wo_stages = own * wo_parts * L::row_tiles;  // a token tile
    // FC1: a tile is 16 rows of gate and the same 16 of up.
    static constexpr u32 fc1_tiles = N::I / 16u;
    using Fc1Share = Share<N::H / 64u, N::warps, L::chunks>;
    // FC2.
    using Fc2Share = Share<N::I / 64u, N::warps, L::chunks>;
    static constexpr u32 fc2_stages = Fc2Share::parts * L::row_tiles;

    __device__ static u32 fc1_count() {
        return blockIdx.x < fc1_tiles ? (fc1_tiles - blockIdx.x + N::ctas - 1u) / N::ctas : 0u;
    }
};

enum class Phase : u32 { wo, fc1, fc2 };

// Where a lane finds its part of a stage's first run: eight bytes of codes of row g and, so many bytes on, of row g +
// 8; the word of scales of either row. Later runs follow at L::code_step and L::scale_step.
struct StageView {
    const u8* codes;
    u32 codes_high;
    const u8* scales;
    u32 scales_high;
};

template <typename C, bool with_wo, bool with_fc1, bool with_fc2>
struct Ring {
    using N = Dims<C>;
    using L = Layout<C>;
    using W = Walk<C>;

    static constexpr bool swizzled = C::scale_layout == ScaleLayout::swizzled;
    static constexpr bool even_rows = N::H % L::rows == 0;  // a block has all of its rows, or none
    static constexpr u32 last_rows = L::rows - 16u * (L::row_tiles - 1u);

    static constexpr bool by_unit = false;  // gate and up are stages of their own
    using Fc1Share = typename W::Fc1Share;
    using Fc2Share = typename W::Fc2Share;

    const Params& p;
    u8* base;      // of this warp
    u32 slot = 0;  // where the next stage to use lies; also where the next one issued goes
    u32 warp, first_row, end_row;
    // Stages still to be issued, and where in the walk that is.
    u32 wo_left = 0, fc1_left = 0, fc2_left = 0;
    u32 tile = 0, part = 0, turn = 0;  // turn: own piece of W_O; gate or up

    __device__ __forceinline__ Ring(const Params& params, u8* ring) : p(params) {
        warp = threadIdx.x / 32u;
        base = ring + warp * L::warp_ring;
        first_row = blockIdx.x * L::rows;
        end_row = first_row + L::rows < N::H ? first_row + L::rows : N::H;
        const u32 rounds = ceil_div(p.num_tokens, N::tokens);
        if constexpr (with_wo) wo_left = rounds * W::wo_stages;
        if constexpr (with_fc1) fc1_left = rounds * W::fc1_count() * W::Fc1Share::parts * 2u;
        if constexpr (with_fc2) fc2_left = rounds * W::fc2_stages;
    }

    // `rows` rows and `size` runs, of which `live` rows and `count` runs exist where they are not all there.
    // \param to      the stage in shared memory
    // \param weight  codes of the matrix
    // \param scales  its scales
    // \param row     first row
    // \param live    rows that exist
    // \param chunk   first run of 64
    // \param count   runs that exist
    template <u32 row_bytes, bool swizzle, u32 rows, u32 size, bool all_rows, bool all_runs>
    __device__ __forceinline__ void load(u8* to, const u8* weight, const u8* scales, u32 row, u32 live, u32 chunk,
                                         u32 count) {
        constexpr u32 pieces = 2u * size;                        // 16-byte pieces of a row
        constexpr u32 step = pieces <= 32u ? 32u / pieces : 1u;  // rows of one instruction
        constexpr u32 tiles = row_bytes / 32u;                   // scale words of a row
        static_assert(pieces <= 32u, "a row's part is at most 512 bytes");
        const u32 lane = threadIdx.x & 31u;
        {
            const u32 r = lane / pieces, at = lane % pieces * 16u;
            const u8* from = weight + (u64(row + r) * row_bytes + (chunk * 32u + at));
            u8* into = to + r * L::pitch + at;
            if (r < step && (all_runs || at < count * 32u)) {
#pragma unroll
                for (u32 i = 0; i < rows; i += step) {
                    const bool inside = (i + step <= rows || i + r < rows) && (all_rows || i + r < live);
                    if (inside) cp_async_cg_16(into + i * L::pitch, from + u64(i) * row_bytes);
                }
            }
        }
        const u32 r = lane & 15u, odd = lane >> 4, m = row + r;
        const u8* words;
        if constexpr (swizzle) {
            words = scales + ((u64(m >> 7) * tiles + (chunk + odd)) * 512u + ((m & 31u) * 16u + ((m >> 3) & 12u)));
        } else {
            words = scales + (u64(m) * (tiles * 4u) + (chunk + odd) * 4u);
        }
        u8* into = to + 16u * L::pitch + lane * 4u;
        if ((rows == 16u || r < rows) && (all_rows || r < live)) {
#pragma unroll
            for (u32 i = 0; i < size; i += 2) {
                if ((i + 2u <= size || i + odd < size) && (all_runs || i + odd < count)) {
                    cp_async_ca_4(into + i * 64u, words + i * (swizzle ? 512u : 4u));
                }
            }
        }
    }

    // Packed: `eights` times eight rows, at most two.
    template <u32 row_bytes>
    __device__ __forceinline__ void load_packed(u32 to_slot, const u8* weight, const u8* scales, u32 row, u32 eights,
                                                u32 chunk, u32 count) {
        constexpr u32 runs = row_bytes / 32u;
        const u32 lane = threadIdx.x & 31u;
        const u64 first = u64(row / 8u) * runs + chunk;
        u8* to = base + to_slot * L::stage_bytes;
        const u8* codes = weight + first * 256u;
        const u8* words = scales + first * 32u;
#pragma unroll 1
        for (u32 e = 0; e < eights; ++e) {
            for (u32 at = lane; at < count * 16u; at += 32u) {
                cp_async_cg_16(to + e * L::chunks * 256u + at * 16u, codes + e * (runs * 256u) + at * 16u);
            }
            if (lane < count * 2u) {
                cp_async_cg_16(to + L::chunks * 512u + e * L::chunks * 32u + lane * 16u,
                               words + e * (runs * 32u) + lane * 16u);
            }
        }
    }

    // The rows of tile `tile` of this block.
    template <u32 row_bytes, bool swizzle, typename Sh>
    __device__ __forceinline__ void load_rows(u32 to_slot, const u8* weight, const u8* scales, u32 share) {
        const u32 row = first_row + 16u * tile, chunk = Sh::part_begin(share, part), count = Sh::part_size(share, part);
        if constexpr (L::packed) {
            const u32 live = row < end_row ? (end_row - row) / 8u : 0u;
            load_packed<row_bytes>(to_slot, weight, scales, row, live < 2u ? live : 2u, chunk, count);
            return;
        }
        if (row >= end_row) return;
        u8* to = base + to_slot * L::stage_bytes;
        if constexpr (!even_rows) {
            load<row_bytes, swizzle, 16u, Sh::size, false, Sh::whole>(to, weight, scales, row, end_row - row, chunk,
                                                                      count);
        } else if (last_rows == 16u || tile + 1u < L::row_tiles) {
            load<row_bytes, swizzle, 16u, Sh::size, true, Sh::whole>(to, weight, scales, row, 16u, chunk, count);
        } else {
            load<row_bytes, swizzle, last_rows, Sh::size, true, Sh::whole>(to, weight, scales, row, 16u, chunk, count);
        }
    }

    // Issues the copies of the next stage, if there is one. A phase issues nothing of phases before it.
    // \param to_slot  the slot that is free
    template <Phase from>
    __device__ __forceinline__ void issue(u32 to_slot) {
        if (with_wo && from <= Phase::wo && wo_left > 0u) {
            --wo_left;
            load_rows<N::K / 2u, true, typename W::WoShare>(to_slot, p.wo_weight, p.wo_scales, warp * W::own + turn);
            if (++tile == L::row_tiles) {
                tile = 0;
                if (++part == W::wo_parts) {
                    part = 0;
                    turn = turn + 1u == W::own || wo_left == 0u ? 0u : turn + 1u;
                }
            }
        } else if (with_fc1 && from <= Phase::fc1 && fc1_left > 0u) {
            --fc1_left;
            using Sh = typename W::Fc1Share;
            const u8* weight = turn ? p.up_weight : p.gate_weight;
            const u8* scales = turn ? p.up_scales : p.gate_scales;
            const u32 row = (blockIdx.x + tile * N::ctas) * 16u, chunk = Sh::part_begin(warp, part),
                      count = Sh::part_size(warp, part);
            if constexpr (L::packed) {
                load_packed<N::H / 2u>(to_slot, weight, scales, row, 2u, chunk, count);
            } else {
                load<N::H / 2u, swizzled, 16u, Sh::size, true, Sh::whole>(base + to_slot * L::stage_bytes, weight,
                                                                          scales, row, 16u, chunk, count);
            }
            turn ^= 1u;
            if (turn == 0u && ++part == Sh::parts) {
                part = 0;
                if (++tile == W::fc1_count()) tile = 0;
            }
        } else if (with_fc2 && fc2_left > 0u) {
            --fc2_left;
            load_rows<N::I / 2u, swizzled, typename W::Fc2Share>(to_slot, p.down_weight, p.down_scales, warp);
            if (++tile == L::row_tiles) {
                tile = 0;
                if (++part == W::Fc2Share::parts) part = 0;
            }
        }
        cp_async_commit_group();
    }

    __device__ __forceinline__ void start() {
#pragma unroll 1
        for (u32 i = 0; i < C::stages; ++i) issue<Phase::wo>(i);
    }

    // Waits for the next stage.
    template <u32>
    __device__ __forceinline__ StageView consumer_wait(u32, u32) {
        cp_async_wait_group<C::stages - 1u>();
        __syncwarp();
        const u8* stage = base + slot * L::stage_bytes;
        const u32 lane = threadIdx.x & 31u, g = lane >> 2;
        if constexpr (L::packed) {
            return {stage + lane * 8u, L::chunks * 256u, stage + L::chunks * 512u + g * 4u, L::chunks * 32u};
        } else {
            return {stage + g * L::pitch + (lane & 3u) * 8u, 8u * L::pitch, stage + 16u * L::pitch + g * 4u, 32u};
        }
    }

    // Refills its place.
    template <Phase now>
    __device__ __forceinline__ void consumer_release() {
        __syncwarp();
        issue<now>(slot);
        slot = slot + 1u == C::stages ? 0u : slot + 1u;
    }
};

}  // namespace layer
}  // namespace jitc
