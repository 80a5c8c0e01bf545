// Invariant: whatever a block wrote before `arrive` is visible to every thread of a block that left `wait_for` on the
// same counter. The chain is: block barrier, release add by thread 0, acquire load by thread 0, block barrier; results
// of other blocks are then read past L1 (load_l2), never through the read-only path.
//
// Counters start at zero and only grow between their first arrival and their last wait. All blocks pass the same waits,
// so a counter is cleared between the next wait for all and the one after it, when nobody looks at it: no block has to
// count itself out. In `geometry = original` every block leaves through `arrive_last`, and the last one clears its
// token's.
#pragma once

#include <jitc/layer/types.cuh>
#include <jitc/ptx/griddepcontrol.cuh>
#include <jitc/ptx/memory_model.cuh>
#include <jitc/ptx/named_barrier.cuh>

extern "C" __device__ void __assertfail(const char* message, const char* file, unsigned line, const char* function,
                                        size_t char_size);

namespace jitc {
namespace layer {

// Counters lie 128 bytes apart; those of (token, head) are packed behind them.
constexpr u32 counter_stride = 32;
enum Counter : u32 { sums_done = 0, codes_done = 1, rows_done = 2, first_head = 3 };

// Counter `which` from an address. The distance is the instruction's: as an address of its own it would be kept from
// phase to phase, and spilled.
template <u32 which>
__device__ __forceinline__ u32 load_counter(const u32* counters) {
    return ld_acquire<which * counter_stride * 4u>(counters);
}

template <u32 which>
__device__ __forceinline__ void clear_counter(u32* counters) {
    st_relaxed_zero<which * counter_stride * 4u>(counters);
}

// One spin. With a time-out the launch fails with the barrier's name instead of spinning for ever.
template <u32 timeout_ms, u32 which>
__device__ __forceinline__ void spin_until(const u32* counters, u32 target, const char* name) {
    if constexpr (timeout_ms == 0) {
        while (load_counter<which>(counters) < target) {
        }
    } else {
        const u64 start = read_globaltimer();
        while (load_counter<which>(counters) < target) {
            if (read_globaltimer() - start > u64(timeout_ms) * 1000000u)
                __assertfail(name, "layer/sync.cuh", 0u, "wait_for", 1);
        }
    }
}

// Named barrier 1: all consumer warps. Producer warps are in no barrier of the block.
template <typename C>
__device__ __forceinline__ void block_sync() {
    named_barrier_sync_aligned<1, C::block_threads>();
}

// By the consumer warps, before all that touches memory but weights. Under PDL: the launch before this one is done, and
// the next may start where a block has left.
template <typename C>
__device__ __forceinline__ void begin() {
    if constexpr (C::dependent) {
        pdl_launch_dependents();
        griddepcontrol_wait();
    }
}

template <typename C, u32 which = 0u>
__device__ __forceinline__ void arrive(u32* counters, u32 amount) {
    block_sync<C>();
    if (thread_index() == 0) red_add_release<which * counter_stride * 4u>(counters, amount);
}

template <typename C, u32 which = 0u>
__device__ __forceinline__ void wait_for(const u32* counters, u32 target, const char* name) {
    if (thread_index() == 0) spin_until<C::timeout_ms, which>(counters, target, name);
    block_sync<C>();
}

// Counts this block in; true in every thread of the last of `blocks` to arrive.
template <typename C>
__device__ __forceinline__ bool arrive_last(u32* counter, u32 blocks, u32* flag) {
    block_sync<C>();
    if (thread_index() == 0) *flag = atom_add_acq_rel(counter, 1u) == blocks - 1u;
    block_sync<C>();
    return *flag != 0u;
}

__device__ __forceinline__ u32* counter_at(u32* counters, u32 which) { return counters + which * counter_stride; }

__device__ __forceinline__ float load_l2(const float* p) { return __ldcg(p); }

}  // namespace layer
}  // namespace jitc
