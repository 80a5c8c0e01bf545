// Invariant: partials are the chains of wo/chain.cuh with w = code * scale, bit for bit, whatever the tile, the ring and
// the number of warps; output their sum in slot order. A block owns rows with all of their slots, so the gather stays in
// it.
//
// A warp takes a unit at a time: 32 chains, a lane each, of up to four slots of neighboring rows. A stage of its ring is
// the next 128 weights of each, so that all of them move on together and the last stage is all that is left when the
// last weights arrive. Rings go on from unit to unit.
#pragma once

#include <jitc/ptx/opaque.cuh>
#include <jitc/wo/fp8.cuh>

namespace jitc {

template <typename C>
struct Fp8Chains : Fp8Parts<C, 32u, Shape<C>::slots> {
    using S = Shape<C>;
    static constexpr u32 tile = C::fp8_rows;
    static constexpr u32 unit_slots = S::slots < 4u ? S::slots : 4u, unit_rows = 32u / unit_slots;
    static constexpr u32 row_units = ceil_div(tile, unit_rows), units = row_units * (S::slots / unit_slots);
    // Slots of whole pieces begin at one; others share their first and last pieces with their neighbors.
    static constexpr bool whole = S::k_head % (S::split * 16u) == 0u;
    static constexpr u32 slot_len = ceil_div(S::k_head, S::split);
    static constexpr u32 slot_pieces = whole ? slot_len / 16u : ceil_div(slot_len, 16u) + 1u;
    static constexpr u32 stages = ceil_div(slot_pieces, line_pieces);  // of a unit

    static_assert(S::slots % unit_slots == 0u, "slots are a power of two");
    static_assert(unit_rows % 4u == 0u, "a copy of a warp is four lines of one slot");

    __device__ static u32 first_piece(u32 slot) { return S::slot_begin(slot) / 16u; }
    __device__ static u32 pieces_of(u32 slot) {
        if constexpr (whole) return slot_pieces;
        return S::slot_end(slot) == S::slot_begin(slot) ? 0u : ceil_div(S::slot_end(slot), 16u) - first_piece(slot);
    }
};

// A place in a warp's sequence of stages.
template <typename C>
struct Fp8Place {
    using L = Fp8Chains<C>;
    u32 unit, stage, slot;  // slot of the ring

    __device__ explicit Fp8Place(u32 warp) : unit(warp), stage(0u), slot(0u) {}
    __device__ __forceinline__ bool any() const { return unit < L::units; }
    __device__ __forceinline__ u32 first_row() const { return unit % L::row_units * L::unit_rows; }
    __device__ __forceinline__ u32 first_slot() const { return unit / L::row_units * L::unit_slots; }
    __device__ __forceinline__ void next() {
        slot = slot + 1u == C::ring ? 0u : slot + 1u;
        if (++stage == L::stages) {
            stage = 0u;
            unit += L::warps;
        }
    }
};

// A warp's place among its stages, as its copies see it. A copy of the warp is four lines of one slot.
template <typename C>
struct Fp8Ahead : Fp8Place<C> {
    using L = Fp8Chains<C>;
    using S = Shape<C>;
    static constexpr u32 row_bytes = S::k_total;
    const u8* from;  // the lane's piece of the unit's first row of its own and first slot
    u32 to[2];       // where it goes in a stage, of even and of odd lines of four
    u32 rows;        // rows of the unit from there on

    __device__ Fp8Ahead(u32 warp, const u8* weight, u32 all_rows) : Fp8Place<C>(warp) {
        const u32 line = (threadIdx.x & 31u) / 8u, in_line = threadIdx.x % 8u;
        to[0] = line_place(line, in_line);
        to[1] = line_place(line + 4u, in_line);
        opaque(to[0], to[1]);
        begin(weight, all_rows);
    }
    __device__ __forceinline__ void begin(const u8* weight, u32 all_rows) {
        const u32 row = this->first_row() + (threadIdx.x & 31u) / 8u;
        rows = this->any() && row < all_rows ? all_rows - row : 0u;
        from = weight + row * row_bytes + threadIdx.x % 8u * 16u;
        if constexpr (L::whole) from += this->first_slot() * L::slot_len;
    }
    // Issues the copies of the next stage, and closes their group even if there are none.
    // \param ring      shared address of the warp's ring
    // \param weight    the block's first row
    // \param all_rows  rows that the block has
    __device__ __forceinline__ void next(u32 ring, const u8* weight, u32 all_rows) {
        const u32 piece = this->stage * line_pieces + threadIdx.x % 8u;
#pragma unroll
        for (u32 i = 0; i < 8u; ++i) {
            constexpr u32 in_slot = L::unit_rows / 4u;  // copies of a slot
            const u32 row = i % in_slot * 4u, local = i / in_slot;
            const u32 stage = ring + this->slot * L::stage_bytes + to[i % 2u] + i / 2u * (8u * line_len);
            if constexpr (L::whole) {
                if (row < rows && piece < L::slot_pieces) {
                    cp_async_cg_16_ahead(stage, from + row * row_bytes + local * L::slot_len);
                }
            } else {
                const u32 slot = this->first_slot() + local;
                if (row < rows && piece < L::pieces_of(slot)) {
                    cp_async_cg_16_ahead(stage, from + row * row_bytes + L::first_piece(slot) * 16u);
                }
            }
        }
        cp_async_commit_group();
        from += line_len;
        const u32 unit = this->unit;
        Fp8Place<C>::next();
        if (this->unit != unit) begin(weight, all_rows);
    }
};

// Works a stage off.
// \param stage  shared address of the stage
// \param x      shared address of the activations
template <typename C>
__device__ __forceinline__ void fp8_work(const Fp8Place<C>& at, u32 stage, u32 x, float scale, u32 slot,
                                         float (&acc)[C::tokens]) {
    using L = Fp8Chains<C>;
    const u32 line = threadIdx.x & 31u, from = at.stage * line_pieces;
    const u32 pieces = L::pieces_of(slot), count = pieces <= from ? 0u : min(pieces - from, line_pieces);
    const u32 first = L::first_piece(slot) + from;
    auto codes = [&](u32 i) {
        const float4 v = ld_shared<float4>(stage + line_place(line, i));
        return make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z), __float_as_uint(v.w));
    };
    if constexpr (L::whole) {
        constexpr u32 whole_stages = L::slot_pieces / line_pieces, rest = L::slot_pieces % line_pieces;
        if (at.stage < whole_stages) {
#pragma unroll
            for (u32 i = 0; i < line_pieces; ++i) {
                fp8_steps<C, L::token_bytes, false>(codes(i), scale, x + (first + i) * 32u, acc);
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < rest; ++i) {
                fp8_steps<C, L::token_bytes, false>(codes(i), scale, x + (first + i) * 32u, acc);
            }
        }
    } else {
        const u32 begin = L::S::slot_begin(slot), end = L::S::slot_end(slot);
        for (u32 i = 0; i < count; ++i) {
            const u32 k = (first + i) * 16u;
            if (k >= begin && k + 16u <= end) {
                fp8_steps<C, L::token_bytes, false>(codes(i), scale, x + k * 2u, acc);
            } else {
                fp8_steps<C, L::token_bytes, true>(codes(i), scale, x + k * 2u, acc, k, begin, end);
            }
        }
    }
}

// \param attn          activations, bf16 [num_tokens, k_total]
// \param weight        E4M3 [hidden, k_total]
// \param scale         one float, or one a row
// \param partials      [num_tokens, slots, hidden]
// \param output        [num_tokens, hidden]
// \param num_tokens    tokens of the launch
template <typename C>
__device__ __forceinline__ void wo_fp8_chains(const u16* attn, const u8* weight, const float* scale, float* partials,
                                              float* output, u32 num_tokens) {
    using L = Fp8Chains<C>;
    using S = Shape<C>;
    extern __shared__ __align__(128) u8 shared[];
    const u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u;
    const u32 first_row = blockIdx.x * L::tile, rows = min(L::tile, S::hidden - first_row);
    const u32 ring = shared_address(shared) + warp * L::ring_bytes, x = shared_address(shared) + L::x_at;
    const u8* block_weight = weight + u64(first_row) * S::k_total;
    float* sums = reinterpret_cast<float*>(shared + L::sums_at);
    for (u32 first_token = 0; first_token < num_tokens; first_token += C::tokens) {
        Fp8Stage<L, C> activations;
        activations.fetch_scales(scale);
        activations.fetch(shared, attn, first_token, num_tokens);
        Fp8Ahead<C> ahead(warp, block_weight, rows);
        Fp8Place<C> at(warp);
#pragma unroll 1
        for (u32 i = 0; i + 1u < C::ring; ++i) ahead.next(ring, block_weight, rows);
        activations.store_scales(shared);
        activations.store(shared);
        __syncthreads();
        float acc[C::tokens];
        u32 row = 0u, slot = 0u;
        float own_scale = 0.0f;
#pragma unroll 1
        for (; at.any(); at.next()) {
            cp_async_wait_group<C::ring - 2u>();
            __syncwarp();
            ahead.next(ring, block_weight, rows);
            if (at.stage == 0u) {
                row = at.first_row() + lane % L::unit_rows;
                slot = at.first_slot() + lane / L::unit_rows;
                own_scale = reinterpret_cast<const float*>(shared + L::scales_at)[min(row, L::tile - 1u)];
#pragma unroll
                for (u32 t = 0; t < C::tokens; ++t) acc[t] = 0.0f;
            }
            fp8_work<C>(at, ring + at.slot * L::stage_bytes, x, own_scale, slot, acc);
            if (at.stage + 1u == L::stages && row < rows) {
#pragma unroll
                for (u32 t = 0; t < C::tokens; ++t) {
                    if (first_token + t >= num_tokens) continue;
                    sums[(t * S::slots + slot) * L::tile + row] = acc[t];
                    partials[(u64(first_token + t) * S::slots + slot) * S::hidden + first_row + row] = acc[t];
                }
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < C::tokens * L::tile; i += L::threads) {
            const u32 token = i / L::tile, of = i % L::tile;
            if (of >= rows || first_token + token >= num_tokens) continue;
            float total = 0.0f;
#pragma unroll 8
            for (u32 s = 0; s < S::slots; ++s) total = __fadd_rn(total, sums[(token * S::slots + s) * L::tile + of]);
            output[u64(first_token + token) * S::hidden + first_row + of] = total;
        }
        // Before the next pass overwrites activations and sums.
        if (first_token + C::tokens < num_tokens) __syncthreads();
    }
}

}  // namespace jitc
