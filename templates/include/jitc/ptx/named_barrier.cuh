// Invariant: hardware barriers of a part of the block's warps. A block has sixteen; barrier 0 is __syncthreads'.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// PTX barrier.cta.sync: barrier `id` of `threads` threads.
template <u32 id, u32 threads>
__device__ __forceinline__ void named_barrier_sync() {
    asm volatile("barrier.cta.sync %1, %0;" ::"n"(threads), "n"(id) : "memory");
}

/// PTX barrier.cta.sync.aligned: the same, by whole warps that run it together.
template <u32 id, u32 threads>
__device__ __forceinline__ void named_barrier_sync_aligned() {
    asm volatile("barrier.cta.sync.aligned %1, %0;" ::"n"(threads), "n"(id) : "memory");
}

/// The same, of a barrier chosen at run time.
template <u32 threads>
__device__ __forceinline__ void named_barrier_sync_aligned(u32 id) {
    asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "n"(threads) : "memory");
}

/// PTX barrier.cta.arrive.aligned: counts as come, and does not wait.
template <u32 id, u32 threads>
__device__ __forceinline__ void named_barrier_arrive_aligned() {
    asm volatile("barrier.cta.arrive.aligned %1, %0;" ::"n"(threads), "n"(id) : "memory");
}

/// PTX barrier.cta.red.or: the barrier, and whether any of its threads says so.
template <u32 id, u32 threads>
__device__ __forceinline__ bool named_barrier_any(bool says) {
    u32 any;
    asm volatile(
        "{ .reg .pred p, q;\n\t"
        "setp.ne.u32 p, %1, 0;\n\t"
        "barrier.cta.red.or.pred q, %3, %2, p;\n\t"
        "selp.u32 %0, 1, 0, q; }"
        : "=r"(any)
        : "r"(u32(says)), "n"(threads), "n"(id)
        : "memory");
    return any != 0u;
}

}  // namespace jitc
