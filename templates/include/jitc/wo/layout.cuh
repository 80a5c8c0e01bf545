// Invariant: where a tile's weights, scales, activations and sums lie in shared memory, which rows and slots a thread
// has, and which copies bring them. A layout changes no bit.
//
// A tile's rows form groups, each with a barrier of its own. As checkpoints have them, rows come in units of four: rows
// m, m+32, m+64, m+96 of a 128-row block share the 16 scale bytes of four groups, so a tile is a run of units and its
// scales are whole 16-byte pieces. Unit u holds rows (u/32)*128 + 32q + u%32. Packed, a tile is a run of rows by eight:
// eight rows by 128 k are 512 bytes, 64 a row, their scales 64 bytes.
//
// Slots of whole chunks are walked by the chunk (Walk), others by the scale group (GroupWalk).
#pragma once

#include <jitc/ptx/cp_async.cuh>
#include <jitc/wo/chain.cuh>

namespace jitc {

constexpr u32 chunk_len = 64;  // weights between two scale loads of a row: four groups
constexpr u32 chunk_groups = chunk_len / group_len;

// What both layouts share. `weight_bytes`: a tile's weights, padding included.
template <typename C, u32 weight_bytes>
struct TileParts {
    using S = Shape<C>;
    static constexpr u32 tile = C::rows_per_cta;
    static constexpr u32 rows = C::row_chains;              // chains a thread runs side by side
    static constexpr u32 lanes = tile / rows;               // threads a slot takes
    static constexpr u32 workers = C::block_threads - 32u;  // the last warp is the producer
    static constexpr u32 slot_chunks = S::k_head / S::split / chunk_len;
    static constexpr u32 groups = C::row_groups;
    static constexpr u32 group_lanes = lanes / groups;  // of one slot in one group
    // Slots are whole chunks; or whole scale groups, or pairs of them; or they begin and end anywhere.
    static constexpr bool whole_chunks = S::k_head % (S::split * chunk_len) == 0;
    static constexpr bool whole_groups = S::k_head % (S::split * group_len) == 0;
    static constexpr bool whole_pairs = S::k_head % (S::split * group_len * 2u) == 0;
    // Activations of a slot; slots of whole groups are padded against bank conflicts, others lie in the order of k.
    static constexpr u32 slot_floats = S::k_head / S::split + 4u;
    static constexpr u32 token_floats = whole_groups ? S::slots * slot_floats : S::k_total;

    static constexpr u32 barriers_at = 0;
    static constexpr u32 weights_at = round_up(groups * 8u, 128u);
    static constexpr u32 scales_at = weights_at + weight_bytes;
    static constexpr u32 attn_at = scales_at + S::scale_tiles * tile * 4u;
    static constexpr u32 sums_at = attn_at + C::tokens * token_floats * 4u;
    static constexpr u32 bytes = sums_at + C::tokens * S::slots * tile * 4u;

    static_assert(lanes % groups == 0, "every group has the same number of rows");
    static_assert(rows == 1 || rows == 2 || rows == 4, "tile shape");
    static_assert(S::row_bytes % 16u == 0, "a row is whole 16-byte pieces");

    // The group whose copies are issued in place `i`. Where a group is one warp, the schedulers that hold a warp more
    // than the others get theirs first.
    __device__ static u32 group_in_place(u32 i) {
        constexpr u32 extra = groups % 4u, deep = (groups + 3u) / 4u;
        if constexpr (extra == 0u || group_lanes * S::slots != 32u) {
            return i;
        } else {
            if (i < extra * deep) return i / extra * 4u + i % extra;
            u32 rest = i - extra * deep;
            return rest / (4u - extra) * 4u + extra + rest % (4u - extra);
        }
    }
};

// A copy of weights: its group, its first row, where to in shared memory, where from.
struct TileCopy {
    u32 group, row, to;
    u64 from;
};

// Hands on the scale bytes of `count` groups, at most four, from a walk's own on: of each of a thread's rows, the first
// group's in the lowest byte. They lie in one word of the row or in two.
template <typename L, u32 count, typename Take>
__device__ __forceinline__ void load_group_scales(const typename L::GroupWalk& walk, Take take) {
    u32 low[L::rows];
    L::load_scales(walk.scale_word(walk.group / chunk_groups), [&](u32 j, u32 bytes) { low[j] = bytes; });
    L::load_scales(walk.scale_word((walk.group + count - 1u) / chunk_groups), [&](u32 j, u32 bytes) {
        take(j, __funnelshift_r(low[j], bytes, walk.group % chunk_groups * 8u));
    });
}

// An odd number of 16-byte pieces: neighbors miss each other's banks.
__host__ __device__ constexpr u32 plain_pitch(u32 row_bytes) { return row_bytes + (row_bytes % 32u == 0 ? 16u : 0u); }

// As checkpoints have them. A row is a copy, since shorter ones cost as much each.
template <typename C>
struct PlainTile : TileParts<C, C::rows_per_cta * plain_pitch(Shape<C>::row_bytes)> {
    using S = Shape<C>;
    static constexpr u32 pitch = plain_pitch(S::row_bytes);
    using P = TileParts<C, C::rows_per_cta * pitch>;
    static constexpr u32 units = P::tile / 4;
    static constexpr u32 row_step = P::lanes * pitch;  // from one of a thread's rows to the next
    static constexpr u32 group_copies = P::tile / P::groups;

    static_assert(P::tile % 4 == 0, "whole units");

    // An item's slot and its place among the slot's threads.
    __device__ static uint2 item(u32 i) {
        u32 group = i / (S::slots * P::group_lanes), in_group = i % (S::slots * P::group_lanes);
        return make_uint2(in_group / P::group_lanes, group * P::group_lanes + in_group % P::group_lanes);
    }
    // Row j of a thread, in the tile and in the weight.
    __device__ static u32 local(u32 l, u32 j) { return j * P::lanes + l; }
    __device__ static u32 global_row(u32 block, u32 local) {
        u32 j = local / P::lanes, l = local % P::lanes;
        u32 unit = block * units + l % units, q = (l / units) * P::rows + j;
        return (unit >> 5) * 128u + q * 32u + (unit & 31u);
    }
    __device__ static u32 weights_of(uint2 it) {
        return P::weights_at + it.y * pitch + it.x * P::slot_chunks * (chunk_len / 2u);
    }
    __device__ static u32 scales_of(uint2 it) {
        return P::scales_at + (it.x * P::slot_chunks * units + it.y % units) * 16u + it.y / units * P::rows * 4u;
    }
    __device__ static u32 x_place(u32 slot) { return slot; }

    // Walks the chunks of a slot.
    struct Walk {
        const u8* weights;
        const u8* scales;
        __device__ Walk(u8* shared, uint2 it) : weights(shared + weights_of(it)), scales(shared + scales_of(it)) {}
        __device__ __forceinline__ void next() {
            weights += chunk_len / 2;
            scales += units * 16u;
        }
    };
    // Walks the scale groups of a row from the one that a slot begins in.
    struct GroupWalk {
        const u8* weights;  // of the thread's first row
        const u8* scales;
        u32 group;
        __device__ GroupWalk(u8* shared, uint2 it)
            : weights(shared + P::weights_at + it.y * pitch),
              scales(shared + P::scales_at + it.y % units * 16u + it.y / units * P::rows * 4u),
              group(S::slot_begin(it.x) / group_len) {}
        __device__ __forceinline__ const u8* group_weights(u32 ahead) const {
            return weights + (group + ahead) * (group_len / 2u);
        }
        __device__ __forceinline__ const u8* scale_word(u32 word) const { return scales + word * (units * 16u); }
    };
    // Hands on the scale bytes of each of a thread's rows, which lie side by side.
    template <typename Take>
    __device__ __forceinline__ static void load_scales(const u8* scales, Take take) {
        if constexpr (P::rows == 4) {
            const uint4 s = *reinterpret_cast<const uint4*>(scales);
            take(0u, s.x);
            take(1u, s.y);
            take(2u, s.z);
            take(3u, s.w);
        } else if constexpr (P::rows == 2) {
            const uint2 s = *reinterpret_cast<const uint2*>(scales);
            take(0u, s.x);
            take(1u, s.y);
        } else {
            take(0u, *reinterpret_cast<const u32*>(scales));
        }
    }

    // Starts the copies of the tile's scales, by all who compute. They go first: every thread needs some, and behind
    // the weights they would come last.
    __device__ static void copy_scales(u8* shared, const u8* scales, u32 block) {
        constexpr u32 all_units = ceil_div(S::hidden, 128u) * 32u;
        constexpr u32 tiles = S::scale_tiles;
        for (u32 i = threadIdx.x; i < tiles * units; i += P::workers) {
            u32 tile = i / units, local = i % units, unit = block * units + local;
            if (unit < all_units) {
                cp_async_cg_16(shared + P::scales_at + i * 16u,
                               scales + (u64(unit >> 5) * tiles + tile) * 512u + (unit & 31u) * 16u);
            }
        }
    }
    // The i-th copy of weights in the order of issue, group by group.
    static constexpr u32 copies = P::tile, copy_bytes = S::row_bytes;
    __device__ static TileCopy copy(u32 i, u32 block) {
        u32 group = P::group_in_place(i / (P::group_lanes * P::rows)), in_group = i % (P::group_lanes * P::rows);
        u32 local = in_group / P::group_lanes * P::lanes + group * P::group_lanes + in_group % P::group_lanes;
        u32 row = global_row(block, local);
        return {group, row, P::weights_at + local * pitch, u64(row) * S::row_bytes};
    }
};

// Packed. Eight rows come in a few copies, each of whole slots, and each 16 bytes further than the one before ends: so
// eight neighboring threads, two rows of four such segments, read different banks.
__host__ __device__ constexpr u32 packed_segments(u32 slots, u32 k_total) {
    return slots % 4u == 0u && k_total % 512u == 0u ? 4u : slots % 2u == 0u && k_total % 256u == 0u ? 2u : 1u;
}

template <typename C>
struct PackedTile : TileParts<C, C::rows_per_cta * Shape<C>::row_bytes +
                                     C::rows_per_cta / 8u * packed_segments(Shape<C>::slots, Shape<C>::k_total) * 16u> {
    using S = Shape<C>;
    static constexpr u32 segments = packed_segments(S::slots, S::k_total);
    static constexpr u32 eights = C::rows_per_cta / 8u;
    using P = TileParts<C, C::rows_per_cta * S::row_bytes + eights * segments * 16u>;
    static constexpr u32 segment_slots = S::slots / segments;
    static constexpr u32 segment_bytes = S::row_bytes * 8u / segments, pitch = segment_bytes + 16u;
    static constexpr u32 eight_scales = S::k_total / group_len * 8u;
    static constexpr u32 lane_rows = 8u / P::rows;  // threads that eight rows of a slot take
    static constexpr u32 row_step = lane_rows * 64u;
    static constexpr u32 group_copies = eights / P::groups * segments;

    static_assert(P::tile % 8u == 0u && eights % P::groups == 0u, "a group has whole eights of rows");
    static_assert(S::k_total % 128u == 0u && S::hidden % 8u == 0u, "whole packed blocks");

    __device__ static uint2 item(u32 i) {
        constexpr u32 in_eight = S::slots * lane_rows;
        const u32 eight = i / in_eight, in = i % in_eight, rest = in / (segments * lane_rows);
        const u32 slot = in / 2u % segments * segment_slots + rest;
        return make_uint2(slot, eight * lane_rows + in / (2u * segments) % (lane_rows / 2u) * 2u + in % 2u);
    }
    __device__ static u32 local(u32 l, u32 j) { return l / lane_rows * 8u + j * lane_rows + l % lane_rows; }
    __device__ static u32 global_row(u32 block, u32 local) { return block * P::tile + local; }
    // Slots of different segments, which neighboring threads have, beside each other.
    __device__ static u32 x_place(u32 slot) { return slot % segment_slots * segments + slot / segment_slots; }

    struct Walk {
        const u8* weights;
        const u8* scales;
        u32 step;  // half a piece of 128 k, then to the next piece
        __device__ Walk(u8* shared, uint2 it) {
            const u32 eight = it.y / lane_rows, row = it.y % lane_rows, segment = it.x / segment_slots;
            const u32 first = it.x % segment_slots * P::slot_chunks;
            weights = shared + P::weights_at + (eight * segments + segment) * pitch + first / 2u * 512u +
                      first % 2u * 32u + row * 64u;
            scales = shared + P::scales_at + eight * eight_scales + segment * (eight_scales / segments) +
                     first / 2u * 64u + first % 2u * 4u + row * 8u;
            step = first % 2u == 0u ? 4u : 60u;
        }
        __device__ __forceinline__ void next() {
            weights += step * 8u;
            scales += step;
            step = 64u - step;
        }
    };
    // The same by groups, which are counted from the start of the slot's segment.
    struct GroupWalk {
        const u8* weights;
        const u8* scales;
        u32 group;
        __device__ GroupWalk(u8* shared, uint2 it) {
            const u32 eight = it.y / lane_rows, row = it.y % lane_rows, segment = it.x / segment_slots;
            weights = shared + P::weights_at + (eight * segments + segment) * pitch + row * 64u;
            scales = shared + P::scales_at + eight * eight_scales + segment * (eight_scales / segments) + row * 8u;
            group = (S::slot_begin(it.x) - segment * (S::k_total / segments)) / group_len;
        }
        __device__ __forceinline__ const u8* group_weights(u32 ahead) const {
            return weights + (group + ahead) / 8u * 512u + (group + ahead) % 8u * 8u;
        }
        __device__ __forceinline__ const u8* scale_word(u32 word) const {
            return scales + word / 2u * 64u + word % 2u * 4u;
        }
    };
    template <typename Take>
    __device__ __forceinline__ static void load_scales(const u8* scales, Take take) {
#pragma unroll
        for (u32 j = 0; j < P::rows; ++j) take(j, *reinterpret_cast<const u32*>(scales + j * lane_rows * 8u));
    }

    __device__ static void copy_scales(u8* shared, const u8* scales, u32 block) {
        const u32 there = min(P::tile, S::hidden - min(S::hidden, block * P::tile)) / 8u * eight_scales;
        const u8* from = scales + u64(block) * (eights * eight_scales);
        for (u32 at = threadIdx.x * 16u; at < there; at += P::workers * 16u) {
            cp_async_cg_16(shared + P::scales_at + at, from + at);
        }
    }
    static constexpr u32 copies = eights * segments, copy_bytes = segment_bytes;
    __device__ static TileCopy copy(u32 i, u32 block) {
        constexpr u32 of_group = eights / P::groups;
        const u32 group = P::group_in_place(i / group_copies), in = i % group_copies;
        const u32 eight = group * of_group + in / segments, segment = in % segments;
        return {group, block * P::tile + eight * 8u, P::weights_at + (eight * segments + segment) * pitch,
                (u64(block) * eights + eight) * (S::row_bytes * 8u) + segment * segment_bytes};
    }
};

template <typename C, bool packed = C::packed>
struct TiledLayoutOf {
    using type = PlainTile<C>;
};
template <typename C>
struct TiledLayoutOf<C, true> {
    using type = PackedTile<C>;
};
template <typename C>
using TiledLayout = typename TiledLayoutOf<C>::type;

}  // namespace jitc
