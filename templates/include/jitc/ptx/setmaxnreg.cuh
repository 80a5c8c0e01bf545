// Invariant: registers of a thread move between groups of four warps; a block has no more than it was launched with,
// and a warp that asks for more waits for ever.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(__CUDA_ARCH_FEAT_SM100_ALL) || defined(__CUDA_ARCH_FEAT_SM103_ALL)
constexpr bool has_setmaxnreg = true;
#else
constexpr bool has_setmaxnreg = false;
#endif

/// PTX setmaxnreg.inc: up to `registers` a thread, once others have given them up.
template <u32 registers>
__device__ __forceinline__ void setmaxnreg_inc() {
    if constexpr (has_setmaxnreg) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

/// PTX setmaxnreg.dec: down to `registers` a thread.
template <u32 registers>
__device__ __forceinline__ void setmaxnreg_dec() {
    if constexpr (has_setmaxnreg) asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

}  // namespace jitc
