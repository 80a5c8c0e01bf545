// Invariant: what blocks tell each other through global memory, with the ordering in the instruction's name. `offset`,
// in bytes, is the instruction's own: as an address of its own it would take registers.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// PTX atom.add.acq_rel.gpu: the value before.
__device__ __forceinline__ u32 atom_add_acq_rel(u32* p, u32 v) {
    u32 old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
    return old;
}

/// PTX red.release.gpu.add: what the block wrote before is visible to whoever acquires the sum.
template <u32 offset>
__device__ __forceinline__ void red_add_release(u32* p, u32 v) {
    asm volatile("red.release.gpu.global.add.u32 [%0 + %2], %1;" ::"l"(p), "r"(v), "n"(offset) : "memory");
}

/// PTX ld.acquire.gpu.
__device__ __forceinline__ u32 ld_acquire(const u32* p) {
    u32 v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
template <u32 offset>
__device__ __forceinline__ u32 ld_acquire(const u32* p) {
    u32 v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1 + %2];" : "=r"(v) : "l"(p), "n"(offset) : "memory");
    return v;
}

/// PTX st.relaxed.gpu, of zero.
template <u32 offset>
__device__ __forceinline__ void st_relaxed_zero(u32* p) {
    asm volatile("st.relaxed.gpu.global.u32 [%0 + %1], 0;" ::"l"(p), "n"(offset) : "memory");
}

/// PTX membar.gl.
__device__ __forceinline__ void membar_gl() { asm volatile("membar.gl;" ::: "memory"); }

}  // namespace jitc
