// Invariant: a block has one ring of packed weights, filled by bulk copies in the order in which all of its warps use
// them, across phases. A pipeline stage is eight or sixteen rows by a run of K that all consumer warps share out. One
// thread of a producer warp issues the copies of a stage as soon as all consumers have released those that lay in its
// place. So a block that waits for other blocks has the weights of its next steps in flight, and no consumer is held up
// by issuing.
//
// Packed weights (packed64): eight rows by 64 k are 256 bytes of codes in the order of the lanes and 32 bytes of
// scales; runs of the same eight rows lie one behind the other. So a stage is two or four contiguous pieces of many
// kilobytes.
//
// The order of a block's stages: W_O (tensor-core mode only), 16 rows by all of K, or eight in a small ring; FC1, 8
// rows of gate and the same 8 of up by a part of H; FC2, 16 rows by a part of I. A kernel that runs fewer phases has
// fewer of them.
#pragma once

#include <jitc/layer/ring.cuh>
#include <jitc/ptx/mbarrier.cuh>
#include <jitc/ptx/named_barrier.cuh>
#include <jitc/ptx/setmaxnreg.cuh>

namespace jitc {
namespace layer {

// `total` runs in parts of at most `chunks` runs a warp, each shared out to all warps; parts and shares differ by one
// at most. Where warps can have alike, they have so in every part.
template <u32 total, u32 warps, u32 chunks>
struct BlockShare {
    static constexpr u32 parts = ceil_div(total, (warps * chunks));
    static constexpr u32 size = ceil_div(ceil_div(total, parts), warps), least = total / parts / warps;
    static constexpr bool whole = least == size, alike = total % warps == 0u;
    __device__ static u32 first(u32 part) {
        if constexpr (alike) return warps * (total / warps * part / parts);
        return parts == 1u ? 0u : total * part / parts;
    }
    __device__ static u32 length(u32 part) { return parts == 1u ? total : first(part + 1u) - first(part); }
    // A warp's runs, counted from the part's first.
    __device__ static u32 before(u32 warp, u32 part) { return whole ? warp * size : length(part) * warp / warps; }
    __device__ static u32 part_begin(u32 warp, u32 part) { return first(part) + before(warp, part); }
    __device__ static u32 part_size(u32 warp, u32 part) {
        return whole ? size : before(warp + 1u, part) - before(warp, part);
    }
};

// In shared memory, behind the ring.
struct BlockRingState {
    static constexpr u32 depth = 8;  // stages that may be on their way
    // Barriers: of a stage's first eight rows, and of its further ones; of the stage.
    u64 full[2u * depth], empty[depth];
    u32 end[depth];  // the producer's: where a stage ends, counted in all bytes ever handed out
};
static_assert(sizeof(BlockRingState) <= block_ring_state, "room for the state");

// Where a stage of so many bytes lies, if the one before it ended at `at`: at the ring's start, if the rest is too
// short. Producer and consumers work this out alike.
template <typename C>
__device__ __forceinline__ u32 place_of(u32 at, u32 bytes) {
    return at + bytes > Layout<C>::ring_bytes ? 0u : at;
}

// Named barrier 2: the consumer warps let the producer begin.
template <typename C>
__device__ __forceinline__ void release_producer() {
    named_barrier_arrive_aligned<2, C::launch_threads>();
}
template <typename C>
__device__ __forceinline__ void wait_for_release() {
    named_barrier_sync_aligned<2, C::launch_threads>();
}

// Where ring and state lie: constants, which take no registers.
template <typename C>
__device__ __forceinline__ u8* block_ring() {
    extern __shared__ __align__(128) u8 shared[];
    return shared + Layout<C>::ring_at;
}
template <typename C>
__device__ __forceinline__ BlockRingState& block_ring_state_of() {
    return *reinterpret_cast<BlockRingState*>(block_ring<C>() + Layout<C>::ring_bytes);
}

template <typename C, bool with_wo, bool with_fc1, bool with_fc2>
struct BlockRing {
    using N = Dims<C>;
    using L = Layout<C>;
    using S = BlockRingState;
    static constexpr bool by_unit = true;  // a stage has gate and up
    static constexpr u32 wo_runs = N::K / 64u, h_runs = N::H / 64u, i_runs = N::I / 64u;
    static constexpr u32 wo_eights = 2u * wo_runs * 576u <= L::ring_bytes ? 2u : 1u;
    static constexpr u32 wo_tiles = ceil_div(L::rows, 8u * wo_eights);
    using Fc1Share = BlockShare<h_runs, N::warps, L::chunks>;
    using Fc2Share = BlockShare<i_runs, N::warps, L::chunks>;
    static constexpr u32 largest =
        Layout<C>::max(L::mma ? wo_runs * wo_eights * 288u : 0u, (N::warps * L::chunks * 576u));
    static_assert(2u * largest <= L::ring_bytes, "a stage fits into the ring, wherever the one before it ends");

    u32 taken = 0, next_at = 0;  // stages; where the last one taken ends

    __device__ __forceinline__ BlockRing(const Params&, u8*) {
        if (threadIdx.x == 0) {
            S& state = block_ring_state_of<C>();
            for (u32 i = 0; i < 2u * S::depth; ++i) mbarrier_init(state.full + i, 1u);
            for (u32 i = 0; i < S::depth; ++i) mbarrier_init(state.empty + i, N::warps);
            fence_mbarrier_init();
        }
    }

    // By every consumer warp, once; between it and the first stage there is a barrier of the block.
    __device__ __forceinline__ void start() {
        if constexpr (!L::mma) fence_proxy_async();  // chains had the ring before
        if constexpr (with_wo || with_fc1 || with_fc2) release_producer<C>();
    }

    // Waits for the next stage: `units` times eight rows of `length` runs, of which the warp's begin at `before`.
    template <u32 units>
    __device__ __forceinline__ StageView consumer_wait(u32 before, u32 length) {
        const u32 lane = threadIdx.x & 31u, bytes = units * length * 288u, at = place_of<C>(next_at, bytes);
        next_at = at + bytes;
        u64* full = block_ring_state_of<C>().full + taken % S::depth * 2u;
#pragma unroll
        for (u32 half = 0; half < units; ++half) mbarrier_wait_parity(full + half, taken / S::depth & 1u);
        const u8* stage = block_ring<C>() + at;
        return {stage + before * 256u + lane * 8u, length * 256u,
                stage + units * length * 256u + before * 32u + (lane >> 2) * 4u, length * 32u};
    }

    // Hands its place back to the producer.
    template <Phase>
    __device__ __forceinline__ void consumer_release() {
        __syncwarp();
        if ((threadIdx.x & 31u) == 0u) mbarrier_arrive(block_ring_state_of<C>().empty + taken % S::depth);
        ++taken;
    }
};

// The producer: issues every stage of the block, in order, as soon as the ring has room.
template <typename C, bool with_wo, bool with_fc1, bool with_fc2>
struct Producer {
    using N = Dims<C>;
    using L = Layout<C>;
    using S = BlockRingState;
    using B = BlockRing<C, with_wo, with_fc1, with_fc2>;

    S& state = block_ring_state_of<C>();
    u32 issued = 0, released = 0;         // stages
    u32 head = 0, head_at = 0, tail = 0;  // bytes handed out, where the next ones lie, bytes given back
    // Halves of stages in flight at a time: a queue of many would hold up the loads of the consumer warps, attention's
    // above all.
    u32 in_flight = 1;

    struct Rows {
        const u8* weight;
        const u8* scales;
    };
    // Half `half` of the stage issued last, once few enough are in flight; without `there` it has no bytes and is full
    // at once.
    __device__ __forceinline__ void issue_half(Rows from, u8* codes, u8* scales, u32 length, u32 half, bool there) {
        const u32 number = (issued - 1u) * 2u + half;
        if (number >= in_flight) {
            const u32 before = number - in_flight;
            mbarrier_wait_parity(state.full + before % (2u * S::depth), before / (2u * S::depth) & 1u);
        }
        u64* full = state.full + number % (2u * S::depth);
        mbarrier_arrive_expect_tx(full, there ? length * 288u : 0u);
        if (there) {
            cp_async_bulk(codes, from.weight, length * 256u, full);
            cp_async_bulk(scales, from.scales, length * 32u, full);
        }
    }
    // `length` runs of eight rows, and of eight further ones; `live` of the two are there.
    __device__ __forceinline__ void push(Rows first, Rows second, u32 length, u32 units, u32 live) {
        const u32 bytes = units * length * 288u, from = place_of<C>(head_at, bytes);
        const u32 end = head + bytes + (from < head_at ? L::ring_bytes - head_at : 0u);
        while (end - tail > L::ring_bytes || issued - released == S::depth) {
            const u32 oldest = released % S::depth;
            mbarrier_wait_parity(state.empty + oldest, released / S::depth & 1u);
            tail = state.end[oldest];
            ++released;
        }
        state.end[issued++ % S::depth] = head = end;
        head_at = from + bytes;
        u8* codes = block_ring<C>() + from;
        u8* scales = codes + units * length * 256u;
        issue_half(first, codes, scales, length, 0u, live > 0u);
        issue_half(second, codes + length * 256u, scales + length * 32u, length, 1u, live > 1u);
    }
    __device__ __forceinline__ static Rows rows(const u8* weight, const u8* scales, u32 eight, u32 runs, u32 begin) {
        const u64 index = u64(eight) * runs + begin;
        return {weight + index * 256u, scales + index * 32u};
    }
    // A tile of the block's rows, `eights` times eight where there are as many.
    template <u32 eights>
    __device__ __forceinline__ void push_tile(const u8* weight, const u8* scales, u32 tile, u32 runs, u32 begin,
                                              u32 length) {
        const u32 row = blockIdx.x * L::rows + tile * 8u * eights, last = (blockIdx.x + 1u) * L::rows;
        const u32 end_row = last < N::H ? last : N::H;
        const u32 units = eights == 1u || (L::rows % 16u != 0u && tile + 1u == L::row_tiles) ? 1u : 2u;
        const u32 there = row < end_row ? (end_row - row) / 8u : 0u, eight = row / 8u;
        push(rows(weight, scales, eight, runs, begin), rows(weight, scales, eight + 1u, runs, begin), length, units,
             there < units ? there : units);
    }

    // The first four stages of a phase are issued two halves at a time, not more: they come while blocks wait for each
    // other and for rows. W_O's come beside attention, where it is one half, or, in a kernel of their own, after it.
    static constexpr u32 few = C::halves_in_flight < 2u ? C::halves_in_flight : 2u;
    __device__ static u32 soon(u32 stage) { return stage < 4u ? few : C::halves_in_flight; }

    // \param p  the launch's arguments
    __device__ __forceinline__ void run(const Params& p) {
        const u32 rounds = ceil_div(p.num_tokens, N::tokens);
        if constexpr (with_wo) {
            in_flight = with_fc1 ? 1u : few;
#pragma unroll 1
            for (u32 i = 0; i < rounds * B::wo_tiles; ++i) {
                push_tile<B::wo_eights>(p.wo_weight, p.wo_scales, i % B::wo_tiles, B::wo_runs, 0u, B::wo_runs);
            }
        }
        if constexpr (with_fc1) {
            using Sh = typename B::Fc1Share;
            const u32 tiles = Walk<C>::fc1_count();
#pragma unroll 1
            for (u32 i = 0; i < rounds * tiles * Sh::parts * 2u; ++i) {
                in_flight = soon(i);
                const u32 part = i / 2u % Sh::parts, tile = i / (2u * Sh::parts) % tiles, half = i & 1u;
                const u32 eight = (blockIdx.x + tile * N::ctas) * 2u + half, begin = Sh::first(part);
                push(rows(p.gate_weight, p.gate_scales, eight, B::h_runs, begin),
                     rows(p.up_weight, p.up_scales, eight, B::h_runs, begin), Sh::length(part), 2u, 2u);
            }
        }
        if constexpr (with_fc2) {
            using Sh = typename B::Fc2Share;
#pragma unroll 1
            for (u32 i = 0; i < rounds * Sh::parts * L::row_tiles; ++i) {
                in_flight = soon(i);
                const u32 part = i / L::row_tiles % Sh::parts;
                push_tile<2u>(p.down_weight, p.down_scales, i % L::row_tiles, B::i_runs, Sh::first(part),
                              Sh::length(part));
            }
        }
    }
};

// Registers of a thread: a launch gives all of a block's threads alike; the producer warps give theirs up to the
// consumers. A block has no more than it was launched with, and a warp that requests more waits for ever: launch bounds
// of 640 threads make it 96, and the host refuses a kernel that has fewer (Layer::new).
constexpr u32 launch_registers = 96u, producer_registers = 24u, consumer_registers = 112u;
static_assert(128u * producer_registers + 512u * consumer_registers <= 640u * launch_registers, "a block's registers");

template <bool more>
__device__ __forceinline__ void reallocate_registers() {
    if constexpr (more) {
        setmaxnreg_inc<consumer_registers>();
    } else {
        setmaxnreg_dec<producer_registers>();
    }
}

// True in the producer warps, once one thread of them has issued every stage. They are four because registers move
// between groups of four warps.
template <typename C, bool with_wo, bool with_fc1, bool with_fc2>
__device__ __forceinline__ bool producer_warp(const Params& p) {
    constexpr bool moves = C::block_threads == 512u;
    if constexpr (C::launch_threads == C::block_threads || !(with_wo || with_fc1 || with_fc2)) {
        return false;  // launched without producer warps
    } else {
        static_assert(C::launch_threads == C::block_threads + 128u, "four warps more");
        if (threadIdx.x < C::block_threads) {
            if constexpr (moves) reallocate_registers<true>();
            return false;
        }
        if constexpr (moves) reallocate_registers<false>();
        if constexpr (has_bulk_copy) {
            wait_for_release<C>();
            if (threadIdx.x == C::block_threads) {
                Producer<C, with_wo, with_fc1, with_fc2> producer;
                producer.run(p);
            }
        }
        return true;
    }
}

// Packed weights where there are bulk copies, else a ring a warp.
template <bool block>
struct RingKind {
    template <typename C, bool wo, bool fc1, bool fc2>
    using Of = Ring<C, wo, fc1, fc2>;
};
template <>
struct RingKind<true> {
    template <typename C, bool wo, bool fc1, bool fc2>
    using Of = BlockRing<C, wo, fc1, fc2>;
};
template <typename C, bool wo, bool fc1, bool fc2>
using RingOf = typename RingKind<Layout<C>::packed && has_bulk_copy>::template Of<C, wo, fc1, fc2>;

}  // namespace layer
}  // namespace jitc
