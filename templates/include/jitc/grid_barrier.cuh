// Invariant: everything any block of the group wrote before the barrier is visible to every thread of every block
// after it, and both counters are zero again once the last block has left. The blocks must be resident together
// (cooperative launch).
#pragma once

#include <jitc/types.cuh>

namespace jitc {

constexpr u32 grid_barrier_counters = 2;  // arrivals, departures

__device__ __forceinline__ u32 add_release(u32* p, u32 v) {
    u32 old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
    return old;
}

__device__ __forceinline__ u32 load_acquire(const u32* p) {
    u32 v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

// `counters` points at this group's pair. The departure count can only reach `blocks` after all of them have seen the
// arrivals complete, so its last holder may clear both without anybody still spinning.
__device__ __forceinline__ void grid_barrier(u32* counters, u32 blocks) {
    __syncthreads();
    if (threadIdx.x == 0) {
        add_release(counters, 1u);
        while (load_acquire(counters) < blocks) {
        }
        if (add_release(counters + 1, 1u) == blocks - 1u) {
            counters[0] = 0u;
            counters[1] = 0u;
        }
    }
    __syncthreads();
}

}  // namespace jitc
