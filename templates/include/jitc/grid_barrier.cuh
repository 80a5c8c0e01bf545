// Invariant: everything any block of the group wrote before the barrier is visible to every thread of every block
// after it, and both counters are zero again once the last block has left. The blocks must be resident together
// (cooperative launch).
#pragma once

#include <jitc/ptx/memory_model.cuh>

namespace jitc {

constexpr u32 grid_barrier_counters = 2;  // arrivals, departures

// `counters` points at this group's pair. The departure count can only reach `blocks` after all of them have seen the
// arrivals complete, so its last holder may clear both without anybody still spinning.
__device__ __forceinline__ void grid_barrier(u32* counters, u32 blocks) {
    __syncthreads();
    if (threadIdx.x == 0) {
        atom_add_acq_rel(counters, 1u);
        while (ld_acquire(counters) < blocks) {
        }
        if (atom_add_acq_rel(counters + 1, 1u) == blocks - 1u) {
            counters[0] = 0u;
            counters[1] = 0u;
        }
    }
    __syncthreads();
}

}  // namespace jitc
