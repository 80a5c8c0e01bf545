// Invariant: programmatic dependent launch (PDL), and nothing of it unless the launch asks for it: before compute
// capability 9.0, or behind an ordinary launch, these do nothing. What stands before the wait touches nothing that the
// launch before writes.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// PTX griddepcontrol.launch_dependents: the next launch of the stream may start where a block has left.
__device__ __forceinline__ void pdl_launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// PTX griddepcontrol.wait: until the launch before is done and what it wrote can be read.
__device__ __forceinline__ void griddepcontrol_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace jitc
