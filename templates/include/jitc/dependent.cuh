// Invariant: programmatic dependent launch, and nothing of it unless the launch asks for it: before compute capability 9.0, or
// behind an ordinary launch, these do nothing. What stands before the wait touches nothing that the launch before writes.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

__device__ __forceinline__ void dependents_may_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Until the launch before is done and what it wrote can be read.
__device__ __forceinline__ void wait_for_dependencies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace jitc
