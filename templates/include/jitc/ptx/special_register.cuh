// Invariant: special registers, read anew wherever the call stands: what the compiler reads once it keeps in a
// register, through phases that have none to spare.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// PTX %tid.x.
__device__ __forceinline__ u32 read_tid_x() {
    u32 i;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(i));
    return i;
}

/// PTX %ctaid.x.
__device__ __forceinline__ u32 read_ctaid_x() {
    u32 i;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(i));
    return i;
}

/// PTX %ctaid, all three: the block's number in its grid, x fastest. In one function, since handing the three on moves
/// instructions of the caller about.
__device__ __forceinline__ u64 read_linear_ctaid() {
    u32 x, y, z;
    asm volatile("mov.u32 %0, %%ctaid.x; mov.u32 %1, %%ctaid.y; mov.u32 %2, %%ctaid.z;" : "=r"(x), "=r"(y), "=r"(z));
    return (u64(z) * gridDim.y + y) * gridDim.x + x;
}

/// PTX %smid: the multiprocessor's number.
__device__ __forceinline__ u32 read_smid() {
    u32 sm;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    return sm;
}

/// PTX %globaltimer: nanoseconds.
__device__ __forceinline__ u64 read_globaltimer() {
    u64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}

/// PTX %globaltimer, in order with accesses to memory.
__device__ __forceinline__ u64 read_globaltimer_ordered() {
    u64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory");
    return t;
}

/// PTX %clock64, in order with accesses to memory.
__device__ __forceinline__ u64 read_clock64_ordered() {
    u64 t;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(t)::"memory");
    return t;
}

}  // namespace jitc
