// Invariant: a block owns a tile of rows with all of their slots, so the ordered gather stays inside the block: no
// counter, no other block. Every thread owns `rows` chains of one slot.
//
// Weights travel a row, or a few slots of eight rows, a copy. The copies of groups of rows are issued in order; the
// threads of a group wait for it alone, so that early groups compute while late ones travel.
#pragma once

#include <jitc/ptx/mbarrier.cuh>
#include <jitc/ptx/named_barrier.cuh>
#include <jitc/region.cuh>
#include <jitc/wo/decode.cuh>
#include <jitc/wo/layout.cuh>

namespace jitc {

// The chains of one thread over one chunk of 64 weights. `folded`: the activations hold the global scale already.
// \param weights  the thread's first row of the chunk in shared memory
// \param scales   likewise
// \param attn     the chunk's activations of the first token
// \param global   the global scale times pair_rest
// \param acc      the chains, [row][token]
template <typename C, bool folded>
__device__ __forceinline__ void tiled_chunk(const u8* weights, const u8* scales, const float* attn, float global,
                                            float (&acc)[C::row_chains][C::tokens]) {
    using L = TiledLayout<C>;
    using D = WeightDecode<C::packed>;
    typename D::Scales scale[L::rows];
    L::load_scales(scales, [&](u32 j, u32 bytes) { scale[j] = D::scales(bytes); });
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u32 words[L::rows][4];
#pragma unroll
        for (u32 j = 0; j < L::rows; ++j) {
            uint4 w = *reinterpret_cast<const uint4*>(weights + j * L::row_step + half * 16u);
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
                D::weights(words[j][i], scale[j].pair[half * 2 + i / 2], w[j]);
                if constexpr (!folded) {
#pragma unroll
                    for (u32 n = 0; n < 8; ++n) w[j][n] = __fmul_rn(w[j][n], global);
                }
            }
#pragma unroll
            for (u32 t = 0; t < C::tokens; ++t) {
                const float4* x = reinterpret_cast<const float4*>(attn + t * L::token_floats + half * 32u + i * 8u);
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

template <typename C, bool folded>
__device__ __forceinline__ void tiled_slot(typename TiledLayout<C>::Walk walk, const float* attn, float global,
                                           float (&acc)[C::row_chains][C::tokens]) {
    using L = TiledLayout<C>;
#pragma unroll 1
    for (u32 c = 0; c < L::slot_chunks; ++c) {
        tiled_chunk<C, folded>(walk.weights, walk.scales, attn, global, acc);
        walk.next();
        attn += chunk_len;
    }
}

// The chains of one thread over `count` scale groups, at most four, from the walk's own on. `masked`: over weights
// [first, end) of one group.
// \param attn  activations of the walk's group, of the first token
template <typename C, bool folded, u32 count, bool masked = false>
__device__ __forceinline__ void tiled_groups(const typename TiledLayout<C>::GroupWalk& walk, const float* attn,
                                             float global, float (&acc)[C::row_chains][C::tokens], u32 first = 0u,
                                             u32 end = group_len) {
    using L = TiledLayout<C>;
    using D = WeightDecode<C::packed>;
    static_assert(!masked || count == 1u, "one group is masked");
    // Groups of a load: sixteen bytes where slots allow it.
    constexpr u32 together = L::whole_pairs && count % 2u == 0u ? 2u : 1u;
    typename D::Scales scale[L::rows];
    load_group_scales<L, count>(walk, [&](u32 j, u32 bytes) { scale[j] = D::scales(bytes); });
#pragma unroll
    for (u32 of = 0; of < count; of += together) {
        u32 words[L::rows][together * 2u];
#pragma unroll
        for (u32 j = 0; j < L::rows; ++j) {
            const u8* from = walk.group_weights(of) + j * L::row_step;
            if constexpr (together == 2u) {
                const uint4 w = *reinterpret_cast<const uint4*>(from);
                words[j][0] = w.x;
                words[j][1] = w.y;
                words[j][2] = w.z;
                words[j][3] = w.w;
            } else {
                const uint2 w = *reinterpret_cast<const uint2*>(from);
                words[j][0] = w.x;
                words[j][1] = w.y;
            }
        }
#pragma unroll
        for (u32 i = 0; i < together * 2u; ++i) {
            float w[L::rows][8];
#pragma unroll
            for (u32 j = 0; j < L::rows; ++j) {
                D::weights(words[j][i], scale[j].pair[of + i / 2u], w[j]);
                if constexpr (!folded) {
#pragma unroll
                    for (u32 n = 0; n < 8; ++n) w[j][n] = __fmul_rn(w[j][n], global);
                }
            }
#pragma unroll
            for (u32 t = 0; t < C::tokens; ++t) {
                const float4* x = reinterpret_cast<const float4*>(attn + t * L::token_floats + of * group_len + i * 8u);
                const float4 a = x[0], b = x[1];
                const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
                for (u32 n = 0; n < 8; ++n) {
#pragma unroll
                    for (u32 j = 0; j < L::rows; ++j) {
                        const float next = chain_step<C::accumulate>(w[j][n], v[n], acc[j][t]);
                        acc[j][t] = !masked || (i * 8u + n >= first && i * 8u + n < end) ? next : acc[j][t];
                    }
                }
            }
        }
    }
}

// The chains of one thread over a slot that is not whole chunks. What does not fill a chunk goes by the group; a group
// that the slot shares with another is masked.
template <typename C, bool folded>
__device__ __forceinline__ void tiled_slot_by_groups(typename TiledLayout<C>::GroupWalk walk, u32 slot,
                                                     const float* attn, float global,
                                                     float (&acc)[C::row_chains][C::tokens]) {
    using L = TiledLayout<C>;
    using S = typename L::S;
    auto go_on = [&](u32 groups) {
        walk.group += groups;
        attn += groups * group_len;
    };
    if constexpr (L::whole_groups) {
        constexpr u32 slot_groups = S::k_head / S::split / group_len, rest = slot_groups % chunk_groups;
#pragma unroll 1
        for (u32 c = 0; c < L::slot_chunks; ++c) {
            tiled_groups<C, folded, chunk_groups>(walk, attn, global, acc);
            go_on(chunk_groups);
        }
        if constexpr (rest != 0u) tiled_groups<C, folded, rest>(walk, attn, global, acc);
    } else {
        // k of the slot that lie ahead: [begin, end), counted from the walk's group.
        u32 begin = S::slot_begin(slot) % group_len, end = S::slot_end(slot) - S::slot_begin(slot) + begin;
        auto part_of_group = [&] {
            tiled_groups<C, folded, 1u, true>(walk, attn, global, acc, begin, min(end, group_len));
            go_on(1u);
            begin = 0u;
            end -= min(end, group_len);
        };
        if (begin != 0u) part_of_group();
#pragma unroll 1
        for (; end >= chunk_len; end -= chunk_len) {
            tiled_groups<C, folded, chunk_groups>(walk, attn, global, acc);
            go_on(chunk_groups);
        }
#pragma unroll 1
        while (end != 0u) part_of_group();
    }
}

// Issues the copies of the tile's weights, group by group. Where there are bulk copies this is all that the block's
// last warp, the producer, does: whoever issues is held up as long as the memory is, so no consumer should.
template <typename C>
__device__ __forceinline__ void tiled_weights(u8* shared, const u8* weight) {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    if constexpr (has_bulk_copy) {
        u64* bars = reinterpret_cast<u64*>(shared + L::barriers_at);
        for (u32 i = threadIdx.x & 31u; i < L::copies; i += 32u) {
            const auto c = L::copy(i, blockIdx.x);
            const bool there = c.row < S::hidden;
            mbarrier_arrive_expect_tx(bars + c.group, there ? L::copy_bytes : 0u);
            if (there) cp_async_bulk(shared + c.to, weight + c.from, L::copy_bytes, bars + c.group);
        }
    } else {
        constexpr u32 pieces = L::copy_bytes / 16u;
        for (u32 i = threadIdx.x; i < L::copies * pieces; i += L::workers) {
            const auto c = L::copy(i / pieces, blockIdx.x);
            const u32 at = i % pieces * 16u;
            if (c.row < S::hidden) cp_async_cg_16(shared + c.to + at, weight + c.from + at);
        }
    }
}

// The global scale may go to the activations' side, one product for all rows, where nothing is rounded there: with at
// most 16 significant bits and everything far from the ends of the range, code * scale * global and global * x are
// both exact, so a step rounds the same number either way.
__device__ __forceinline__ bool global_folds(float global) {
    const float magnitude = fabsf(global);
    return (__float_as_uint(global) & 0xffu) == 0u && magnitude >= 0x1p-40f && magnitude <= 0x1p40f;
}

// Whether one of two packed bf16 is neither zero nor between 2^-60 and 2^60.
__device__ __forceinline__ bool far_from_one(u32 pair) {
    constexpr u32 low = 67u << 7, high = 187u << 7;
    const u32 a = pair & 0x7fffu, b = (pair >> 16) & 0x7fffu;
    return (a != 0u && a - low > high - low) || (b != 0u && b - low > high - low);
}

// Activations of the token tile, four a piece: fetched to registers, then stored as floats times `factor` (1, or a
// folded global scale), every slot's stretch padded by 16 bytes if it is whole groups.
template <typename C>
struct AttnPieces {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    static constexpr u32 row_pieces = S::k_total / 4u;
    static constexpr u32 all = C::tokens * row_pieces;
    static constexpr u32 mine = ceil_div(all, L::workers);
    static constexpr bool early = mine <= 12u;  // more would not fit in registers

    __device__ static uint2 fetch(const u16* attn, u32 piece, u32 first_token, u32 num_tokens) {
        u32 token = first_token + piece / row_pieces;
        if (piece >= all || token >= num_tokens) return make_uint2(0u, 0u);
        return *reinterpret_cast<const uint2*>(attn + u64(token) * S::k_total + piece % row_pieces * 4u);
    }
    __device__ static void store(u8* shared, u32 piece, uint2 v, float factor) {
        constexpr u32 slot_len = S::k_head / S::split;
        if (piece >= all) return;
        u32 token = piece / row_pieces, k = piece % row_pieces * 4u;
        float* to = reinterpret_cast<float*>(shared + L::attn_at);
        if constexpr (L::whole_groups) {
            to = to + (token * S::slots + L::x_place(k / slot_len)) * L::slot_floats + k % slot_len;
        } else {
            to = to + token * S::k_total + k;
        }
        *reinterpret_cast<float4*>(to) = make_float4(
            __fmul_rn(__uint_as_float(v.x << 16), factor), __fmul_rn(__uint_as_float(v.x & 0xffff0000u), factor),
            __fmul_rn(__uint_as_float(v.y << 16), factor), __fmul_rn(__uint_as_float(v.y & 0xffff0000u), factor));
    }
    // Where a slot's activations begin among a token's; where slots share groups, those of the first one's.
    __device__ static u32 of_slot(u32 slot) {
        if constexpr (L::whole_groups) {
            return L::x_place(slot) * L::slot_floats;
        } else {
            return S::slot_begin(slot) / group_len * group_len;
        }
    }
    // All of a token tile; whether any of them is far from one.
    __device__ static bool fill(u8* shared, const u16* attn, u32 first_token, u32 num_tokens, float factor) {
        bool far = false;
        for (u32 i = threadIdx.x; i < all; i += L::workers) {
            const uint2 v = fetch(attn, i, first_token, num_tokens);
            far |= far_from_one(v.x) || far_from_one(v.y);
            store(shared, i, v, factor);
        }
        return far;
    }
};

// Sums of the tile's slots in slot order, from zero.
template <typename C>
__device__ __forceinline__ void tiled_gather(const float* sums, float* output, u32 first_token, u32 num_tokens) {
    using L = TiledLayout<C>;
    using S = Shape<C>;
    for (u32 i = threadIdx.x; i < C::tokens * L::tile; i += L::workers) {
        u32 token = first_token + i / L::tile, local = i % L::tile;
        u32 row = L::global_row(blockIdx.x, local);
        if (row >= S::hidden || token >= num_tokens) continue;
        const float* from = sums + i / L::tile * S::slots * L::tile + local;
        float acc = 0.0f;
#pragma unroll 8
        for (u32 slot = 0; slot < S::slots; ++slot) acc = __fadd_rn(acc, from[slot * L::tile]);
        output[u64(token) * S::hidden + row] = acc;
    }
}

// Waits for the weights of a lane's group. Where a warp has items of two groups, its lanes leave the wait one group after
// the other and would stay apart, each part with chains of its own to run: they meet again here.
template <typename C>
__device__ __forceinline__ void wait_for_group(u64* barrier) {
    using L = TiledLayout<C>;
    if constexpr (has_bulk_copy) {
        mbarrier_wait_parity(barrier, 0u);
        if constexpr (L::group_lanes * Shape<C>::slots % 32u != 0u) __syncwarp();
    }
}

// Producer and consumers of one tile of rows: the last warp issues copies, all others run chains.
// \param attn          activations, bf16 [num_tokens, k_total]
// \param weight        codes, plain or packed
// \param scales        E4M3 scales, swizzled or packed
// \param global_scale  one float
// \param partials      [num_tokens, slots, hidden]
// \param output        [num_tokens, hidden]
// \param num_tokens    tokens of the launch
// \param timer         the kernel's regions
template <typename C>
__device__ __forceinline__ void wo_tiled(const u16* attn, const u8* weight, const u8* scales, const float* global_scale,
                                         float* partials, float* output, u32 num_tokens, RegionTimer<C>& timer) {
    timer.enter_at_start(region::phase1_wo_stage{});
    using L = TiledLayout<C>;
    using S = Shape<C>;
    static_assert(C::shared_bytes >= L::bytes, "shared_bytes in the family's TOML is too small");
    extern __shared__ __align__(128) u8 shared[];
    u64* bars = reinterpret_cast<u64*>(shared + L::barriers_at);
    float* sums = reinterpret_cast<float*>(shared + L::sums_at);

    using A = AttnPieces<C>;
    const bool loader = threadIdx.x >= L::workers;
    uint2 early[A::early ? A::mine : 1];
    if (loader) {
        // Before any copy is on its way: a fence would wait for it.
        const u32 group = threadIdx.x - L::workers;
        if (group < L::groups) mbarrier_init(bars + group, L::group_copies);
        fence_mbarrier_init();
    } else {
        L::copy_scales(shared, scales, blockIdx.x);
        if constexpr (A::early) {
#pragma unroll
            for (u32 i = 0; i < A::mine; ++i) early[i] = A::fetch(attn, threadIdx.x + i * L::workers, 0u, num_tokens);
        }
    }
    __syncthreads();
    if (loader) {
        if constexpr (has_bulk_copy) tiled_weights<C>(shared, weight);
        return;
    }
    if constexpr (!has_bulk_copy) tiled_weights<C>(shared, weight);
    const float global = *global_scale;
    const bool plain = !(fabsf(global) >= pair_limit);
    const float rest = __fmul_rn(global, pair_rest), factor = global_folds(global) ? rest : 1.0f;

    bool far = false;
    if constexpr (A::early) {
#pragma unroll
        for (u32 i = 0; i < A::mine; ++i) {
            far |= far_from_one(early[i].x) || far_from_one(early[i].y);
            A::store(shared, threadIdx.x + i * L::workers, early[i], factor);
        }
    } else {
        far = A::fill(shared, attn, 0u, num_tokens, factor);
    }
    cp_async_wait_all();
    far = named_barrier_any<1, L::workers>(far);
    timer.exit(region::phase1_wo_stage{});
    for (u32 first_token = 0; first_token < num_tokens; first_token += C::tokens) {
        if (first_token != 0u) {
            far = named_barrier_any<1, L::workers>(A::fill(shared, attn, first_token, num_tokens, factor));
        }
        bool folds = global_folds(global);
        if (far && folds) {
            folds = false;
            A::fill(shared, attn, first_token, num_tokens, 1.0f);
            named_barrier_sync<1, L::workers>();
        }
        constexpr u32 items = S::slots * L::lanes;
        timer.enter(region::phase1_wo_gemv{});
        // Whole warps stay together: lanes past the end repeat the last item and store nothing.
        for (u32 base = threadIdx.x & ~31u; base < items; base += L::workers) {
            const bool live = base + (threadIdx.x & 31u) < items;
            const u32 item = live ? base + (threadIdx.x & 31u) : items - 1u;
            const uint2 it = L::item(item);
            const u32 slot = it.x, l = it.y, group = l / L::group_lanes;
            float acc[L::rows][C::tokens];
#pragma unroll
            for (u32 j = 0; j < L::rows; ++j) {
#pragma unroll
                for (u32 t = 0; t < C::tokens; ++t) acc[j][t] = 0.0f;
            }
            if (plain) {
                if constexpr (L::whole_chunks) {
                    const typename L::Walk walk(shared, it);
                    const float* x =
                        reinterpret_cast<const float*>(shared + L::attn_at) + L::x_place(slot) * L::slot_floats;
                    wait_for_group<C>(bars + group);
                    if (folds) {
                        tiled_slot<C, true>(walk, x, rest, acc);
                    } else {
                        tiled_slot<C, false>(walk, x, rest, acc);
                    }
                } else {
                    const typename L::GroupWalk walk(shared, it);
                    const float* x = reinterpret_cast<const float*>(shared + L::attn_at) + A::of_slot(slot);
                    wait_for_group<C>(bars + group);
                    if (folds) {
                        tiled_slot_by_groups<C, true>(walk, slot, x, rest, acc);
                    } else {
                        tiled_slot_by_groups<C, false>(walk, slot, x, rest, acc);
                    }
                }
            } else {
                for (u32 j = 0; j < L::rows; ++j) {
                    u32 row = L::global_row(blockIdx.x, L::local(l, j));
                    for (u32 t = 0; t < C::tokens; ++t) {
                        if (row >= S::hidden || first_token + t >= num_tokens) continue;
                        float a = chain_scalar<C, C::packed>(attn + u64(first_token + t) * S::k_total, weight, scales,
                                                             global, row, S::slot_begin(slot), S::slot_end(slot));
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
                u32 row = L::global_row(blockIdx.x, L::local(l, j));
                if (!live) continue;
#pragma unroll
                for (u32 t = 0; t < C::tokens; ++t) {
                    sums[(t * S::slots + slot) * L::tile + L::local(l, j)] = acc[j][t];
                    if (row < S::hidden && first_token + t < num_tokens) {
                        partials[(u64(first_token + t) * S::slots + slot) * S::hidden + row] = acc[j][t];
                    }
                }
            }
        }
        named_barrier_sync<1, L::workers>();
        timer.exit(region::phase1_wo_gemv{});
        timer.enter(region::phase1_gather{});
        tiled_gather<C>(sums, output, first_token, num_tokens);
        named_barrier_sync<1, L::workers>();
        timer.exit(region::phase1_gather{});
    }
    if constexpr (has_bulk_copy) {
        // Nothing may still be in flight into this block's shared memory when it ends.
        for (u32 group = 0; group < L::groups; ++group) mbarrier_wait_parity(bars + group, 0u);
    }
}

// The same block structure without any alignment: scalar chains, and only the sums in shared memory. Arguments as of
// wo_tiled.
template <typename C>
__device__ __forceinline__ void wo_tiled_scalar(const u16* attn, const u8* weight, const u8* scales,
                                                const float* global_scale, float* partials, float* output,
                                                u32 num_tokens) {
    using S = Shape<C>;
    constexpr u32 tile = C::rows_per_cta;
    static_assert(C::shared_bytes >= S::slots * tile * 4u, "shared_bytes in the family's TOML is too small");
    extern __shared__ __align__(128) u8 shared[];
    float* sums = reinterpret_cast<float*>(shared);
    const float global = *global_scale;
    const u32 first_row = blockIdx.x * tile;
    for (u32 token = 0; token < num_tokens; ++token) {
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
