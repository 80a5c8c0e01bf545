// Invariant: a block owns a tile of rows with all of their slots, so the ordered gather stays inside the block: no
// counter, no other block. Every thread owns `rows` chains of one slot.
//
// Rows come in units of four: rows m, m+32, m+64, m+96 of a 128-row block share the 16 scale bytes of four groups, so
// a tile is a run of units and its scales are whole 16-byte pieces. Unit u holds rows (u/32)*128 + 32q + u%32.
//
// Weights travel a row a copy. A tile's rows form groups, each with a barrier of its own, asked for in order; the threads
// of a group wait for it alone, so that early groups compute while late ones travel.
#pragma once

#include <jitc/copy.cuh>
#include <jitc/wo_chain.cuh>

namespace jitc {

constexpr u32 chunk_len = 64;  // weights between two scale loads of a row: four groups

template <typename C>
struct TiledLayout {
    using S = Shape<C>;
    static constexpr u32 tile = C::rows_per_cta;
    static constexpr u32 units = tile / 4;
    static constexpr u32 rows = C::row_chains;        // chains a thread runs side by side
    static constexpr u32 lanes = tile / rows;         // threads a slot takes
    static constexpr u32 slot_chunks = S::k_head / S::split / chunk_len;
    static constexpr u32 groups = C::row_groups;
    static constexpr u32 group_lanes = lanes / groups;  // of one slot in one group
    static constexpr u32 pitch = S::row_bytes + 16u;  // an odd number of 16-byte pieces: neighbours miss each other's banks
    static constexpr u32 slot_floats = S::k_head / S::split + 4u;

    static constexpr u32 barriers_at = 0;
    static constexpr u32 weights_at = round_up(groups * 8u, 128u);
    static constexpr u32 scales_at = weights_at + tile * pitch;
    static constexpr u32 attn_at = scales_at + (S::k_total / chunk_len) * units * 16u;
    static constexpr u32 sums_at = attn_at + C::tokens * S::slots * slot_floats * 4u;
    static constexpr u32 bytes = sums_at + C::tokens * S::slots * tile * 4u;

    static_assert(lanes % groups == 0, "every group has the same number of rows");
    static_assert(tile % 4 == 0 && (rows == 1 || rows == 2 || rows == 4), "tile shape");

    // The tile's rows in the order in which they are asked for: group by group.
    __device__ static u32 local_row(u32 i) {
        u32 group = i / (group_lanes * rows), in_group = i % (group_lanes * rows);
        return in_group / group_lanes * lanes + group * group_lanes + in_group % group_lanes;
    }

    __device__ static u32 global_row(u32 first_unit, u32 local) {
        u32 j = local / lanes, l = local % lanes;
        u32 unit = first_unit + l % units, q = (l / units) * rows + j;
        return (unit >> 5) * 128u + q * 32u + (unit & 31u);
    }
};

// The chains of one thread over one chunk of 64 weights.
template <typename C>
__device__ __forceinline__ void tiled_chunk(const u8* weights, const u8* scales, const float* attn, float global,
                                            float (&acc)[C::row_chains][C::tokens]) {
    using L = TiledLayout<C>;
    constexpr u32 token_floats = L::S::slots * L::slot_floats;
    E4m3x4 scale[L::rows];
    if constexpr (L::rows == 4) {
        uint4 s = *reinterpret_cast<const uint4*>(scales);
        scale[0] = e4m3x4_to_f16(s.x);
        scale[1] = e4m3x4_to_f16(s.y);
        scale[2] = e4m3x4_to_f16(s.z);
        scale[3] = e4m3x4_to_f16(s.w);
    } else if constexpr (L::rows == 2) {
        uint2 s = *reinterpret_cast<const uint2*>(scales);
        scale[0] = e4m3x4_to_f16(s.x);
        scale[1] = e4m3x4_to_f16(s.y);
    } else {
        scale[0] = e4m3x4_to_f16(*reinterpret_cast<const u32*>(scales));
    }
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u32 words[L::rows][4];
#pragma unroll
        for (u32 j = 0; j < L::rows; ++j) {
            uint4 w = *reinterpret_cast<const uint4*>(weights + j * L::lanes * L::pitch + half * 16u);
            words[j][0] = w.x;
            words[j][1] = w.y;
            words[j][2] = w.z;
            words[j][3] = w.w;
        }
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            float w[L::rows][8];
#pragma unroll
            for (u32 j = 0; j < L::rows; ++j) {
                Fp4x8 d = fp4x8_to_f16(words[j][i]);
                u32 s = scale[j].pair[half * 2 + i / 2];
#pragma unroll
                for (u32 p = 0; p < 2; ++p) {
                    float2 e = widen_f16x2(mul_f16x2(d.even[p], s));
                    float2 o = widen_f16x2(mul_f16x2(d.odd[p], s));
                    w[j][4 * p + 0] = __fmul_rn(e.x, global);
                    w[j][4 * p + 1] = __fmul_rn(o.x, global);
                    w[j][4 * p + 2] = __fmul_rn(e.y, global);
                    w[j][4 * p + 3] = __fmul_rn(o.y, global);
                }
            }
#pragma unroll
            for (u32 t = 0; t < C::tokens; ++t) {
                const float4* x = reinterpret_cast<const float4*>(attn + t * token_floats + half * 32u + i * 8u);
                float4 a = x[0], b = x[1];
                float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
                for (u32 n = 0; n < 8; ++n) {
#pragma unroll
                    for (u32 j = 0; j < L::rows; ++j) {
                        acc[j][t] = chain_step<C::accumulate>(w[j][n], v[n], acc[j][t]);
                    }
                }
            }
        }
    }
}

// Starts the copies of the tile's scales. They go first: every thread needs some, and behind the weights they would come
// last.
template <typename C>
__device__ __forceinline__ void tiled_scales(u8* shared, const u8* scales, u32 first_unit) {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    constexpr u32 all_units = ceil_div(S::hidden, 128u) * 32u;
    constexpr u32 tiles = S::k_total / chunk_len;
    for (u32 i = threadIdx.x; i < tiles * L::units; i += C::block_threads) {
        u32 tile = i / L::units, local = i % L::units, unit = first_unit + local;
        if (unit < all_units) {
            copy16_async(shared + L::scales_at + i * 16u,
                         scales + (u64(unit >> 5) * tiles + tile) * 512u + (unit & 31u) * 16u);
        }
    }
}

// Starts the copies of the tile's weights. Barriers are initialised and visible before.
template <typename C>
__device__ __forceinline__ void tiled_weights(u8* shared, const u8* weight, u32 first_unit) {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    if constexpr (has_bulk_copy) {
        // One lane a warp; a row is one copy, since shorter ones cost as much each.
        if ((threadIdx.x & 31u) == 0u) {
            u64* bars = reinterpret_cast<u64*>(shared + L::barriers_at);
            for (u32 i = threadIdx.x / 32u; i < L::tile; i += C::block_threads / 32u) {
                u32 local = L::local_row(i), row = L::global_row(first_unit, local);
                if (row < S::hidden) {
                    copy_bulk(shared + L::weights_at + local * L::pitch, weight + u64(row) * S::row_bytes, S::row_bytes,
                              bars + i / (L::tile / L::groups));
                }
            }
        }
    } else {
        constexpr u32 pieces = S::row_bytes / 16u;
        for (u32 i = threadIdx.x; i < L::tile * pieces; i += C::block_threads) {
            u32 r = i / pieces, at = i % pieces * 16u;
            u32 row = L::global_row(first_unit, r);
            if (row < S::hidden) {
                copy16_async(shared + L::weights_at + r * L::pitch + at, weight + u64(row) * S::row_bytes + at);
            }
        }
    }
}

// Activations of the token tile, four a piece: fetched to registers before the weights are asked for, stored as floats
// after, every slot's stretch padded by 16 bytes.
template <typename C>
struct AttnPieces {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    static constexpr u32 row_pieces = S::k_total / 4u;
    static constexpr u32 all = C::tokens * row_pieces;
    static constexpr u32 mine = ceil_div(all, u32(C::block_threads));
    static constexpr bool early = mine <= 8u;  // more would not fit in registers

    __device__ static uint2 fetch(const u16* attn, u32 piece, u32 first_token, u32 nat) {
        u32 token = first_token + piece / row_pieces;
        if (piece >= all || token >= nat) return make_uint2(0u, 0u);
        return *reinterpret_cast<const uint2*>(attn + u64(token) * S::k_total + piece % row_pieces * 4u);
    }
    __device__ static void store(u8* shared, u32 piece, uint2 v) {
        constexpr u32 slot_len = S::k_head / S::split;
        if (piece >= all) return;
        u32 token = piece / row_pieces, k = piece % row_pieces * 4u;
        float* to = reinterpret_cast<float*>(shared + L::attn_at) +
                    (token * S::slots + k / slot_len) * L::slot_floats + k % slot_len;
        *reinterpret_cast<float4*>(to) =
            make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
                        __uint_as_float(v.y & 0xffff0000u));
    }
};

// Sums of the tile's slots in slot order, from zero.
template <typename C>
__device__ __forceinline__ void tiled_gather(const float* sums, float* output, u32 first_unit, u32 first_token, u32 nat) {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    for (u32 i = threadIdx.x; i < C::tokens * L::tile; i += C::block_threads) {
        u32 token = first_token + i / L::tile, local = i % L::tile;
        u32 row = L::global_row(first_unit, local);
        if (row >= S::hidden || token >= nat) continue;
        const float* from = sums + i / L::tile * S::slots * L::tile + local;
        float acc = 0.0f;
#pragma unroll 8
        for (u32 slot = 0; slot < S::slots; ++slot) acc = __fadd_rn(acc, from[slot * L::tile]);
        output[u64(token) * S::hidden + row] = acc;
    }
}

template <typename C>
__device__ __forceinline__ void wo_tiled(const u16* attn, const u8* weight, const u8* scales, const float* global_scale,
                                         float* partials, float* output, u32 nat) {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    static_assert(C::shared_bytes >= L::bytes, "shared_bytes in the family's TOML is too small");
    extern __shared__ __align__(128) u8 shared[];
    u64* bars = reinterpret_cast<u64*>(shared + L::barriers_at);
    float* sums = reinterpret_cast<float*>(shared + L::sums_at);
    const u32 first_unit = blockIdx.x * L::units;

    tiled_scales<C>(shared, scales, first_unit);
    if constexpr (has_bulk_copy) {
        for (u32 group = threadIdx.x; group < L::groups; group += C::block_threads) {
            u32 valid = 0;
            for (u32 i = 0; i < L::tile / L::groups; ++i) {
                valid += L::global_row(first_unit, L::local_row(group * (L::tile / L::groups) + i)) < S::hidden;
            }
            barrier_init(bars + group, 1u);
            barrier_init_fence();
            barrier_expect(bars + group, valid * S::row_bytes);
        }
    }
    using A = AttnPieces<C>;
    uint2 early[A::early ? A::mine : 1];
    if constexpr (A::early) {
#pragma unroll
        for (u32 i = 0; i < A::mine; ++i) early[i] = A::fetch(attn, threadIdx.x + i * C::block_threads, 0u, nat);
    }
    if constexpr (has_bulk_copy) __syncthreads();
    tiled_weights<C>(shared, weight, first_unit);
    const float global = *global_scale;
    const bool plain = !(fabsf(global) >= pair_limit);
    const float rest = __fmul_rn(global, pair_rest);

    for (u32 first_token = 0; first_token < nat; first_token += C::tokens) {
        bool stored = false;
        if constexpr (A::early) {
            if (first_token == 0) {
#pragma unroll
                for (u32 i = 0; i < A::mine; ++i) A::store(shared, threadIdx.x + i * C::block_threads, early[i]);
                stored = true;
            }
        }
        if (!stored) {
            for (u32 i = threadIdx.x; i < A::all; i += C::block_threads) {
                A::store(shared, i, A::fetch(attn, i, first_token, nat));
            }
        }
        if (first_token == 0) copy16_wait();
        __syncthreads();
        constexpr u32 items = S::slots * L::lanes;
        // Whole warps stay together: lanes past the end repeat the last item and store nothing.
        for (u32 base = threadIdx.x & ~31u; base < items; base += C::block_threads) {
            const bool live = base + (threadIdx.x & 31u) < items;
            const u32 item = live ? base + (threadIdx.x & 31u) : items - 1u;
            const u32 group = item / (S::slots * L::group_lanes), in_group = item % (S::slots * L::group_lanes);
            const u32 slot = in_group / L::group_lanes, l = group * L::group_lanes + in_group % L::group_lanes;
            float acc[L::rows][C::tokens];
#pragma unroll
            for (u32 j = 0; j < L::rows; ++j) {
#pragma unroll
                for (u32 t = 0; t < C::tokens; ++t) acc[j][t] = 0.0f;
            }
            if (plain) {
                const u32 first = slot * L::slot_chunks;
                const u8* w = shared + L::weights_at + l * L::pitch + first * (chunk_len / 2);
                const u8* s = shared + L::scales_at + (first * L::units + l % L::units) * 16u + l / L::units * L::rows * 4u;
                const float* x = reinterpret_cast<const float*>(shared + L::attn_at) + slot * L::slot_floats;
                if constexpr (has_bulk_copy) barrier_wait(bars + group, 0u);
#pragma unroll 1
                for (u32 c = 0; c < L::slot_chunks; ++c) {
                    tiled_chunk<C>(w, s, x, rest, acc);
                    w += chunk_len / 2;
                    s += L::units * 16u;
                    x += chunk_len;
                }
            } else {
                for (u32 j = 0; j < L::rows; ++j) {
                    u32 row = L::global_row(first_unit, j * L::lanes + l);
                    for (u32 t = 0; t < C::tokens; ++t) {
                        if (row >= S::hidden || first_token + t >= nat) continue;
                        float a = chain_scalar<C>(attn + u64(first_token + t) * S::k_total, weight, scales, global, row,
                                                  S::slot_begin(slot), S::slot_end(slot));
                        // Selected by comparison: a register array takes no run-time index.
#pragma unroll
                        for (u32 jj = 0; jj < L::rows; ++jj) {
#pragma unroll
                            for (u32 tt = 0; tt < C::tokens; ++tt) acc[jj][tt] = jj == j && tt == t ? a : acc[jj][tt];
                        }
                    }
                }
            }
#pragma unroll
            for (u32 j = 0; j < L::rows; ++j) {
                u32 row = L::global_row(first_unit, j * L::lanes + l);
                if (!live) continue;
#pragma unroll
                for (u32 t = 0; t < C::tokens; ++t) {
                    sums[(t * S::slots + slot) * L::tile + j * L::lanes + l] = acc[j][t];
                    if (row < S::hidden && first_token + t < nat) {
                        partials[(u64(first_token + t) * S::slots + slot) * S::hidden + row] = acc[j][t];
                    }
                }
            }
        }
        __syncthreads();
        tiled_gather<C>(sums, output, first_unit, first_token, nat);
        __syncthreads();
    }
    if constexpr (has_bulk_copy) {
        // Nothing may still be in flight into this block's shared memory when it ends.
        for (u32 group = 0; group < L::groups; ++group) barrier_wait(bars + group, 0u);
    }
}

// The same block structure without any alignment: scalar chains, and only the sums in shared memory.
template <typename C>
__device__ __forceinline__ void wo_tiled_scalar(const u16* attn, const u8* weight, const u8* scales,
                                                const float* global_scale, float* partials, float* output, u32 nat) {
    using S = Shape<C>;
    constexpr u32 tile = C::rows_per_cta;
    static_assert(C::shared_bytes >= S::slots * tile * 4u, "shared_bytes in the family's TOML is too small");
    extern __shared__ __align__(128) u8 shared[];
    float* sums = reinterpret_cast<float*>(shared);
    const float global = *global_scale;
    const u32 first_row = blockIdx.x * tile;
    for (u32 token = 0; token < nat; ++token) {
        for (u32 item = threadIdx.x; item < S::slots * tile; item += C::block_threads) {
            u32 slot = item / tile, row = first_row + item % tile;
            if (row >= S::hidden) continue;
            float a = chain_scalar<C>(attn + u64(token) * S::k_total, weight, scales, global, row, S::slot_begin(slot),
                                      S::slot_end(slot));
            sums[item] = a;
            partials[(u64(token) * S::slots + slot) * S::hidden + row] = a;
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < tile && first_row + i < S::hidden; i += C::block_threads) {
            float acc = 0.0f;
            for (u32 slot = 0; slot < S::slots; ++slot) acc = __fadd_rn(acc, sums[slot * tile + i]);
            output[u64(token) * S::hidden + first_row + i] = acc;
        }
        __syncthreads();
    }
}

}  // namespace jitc
