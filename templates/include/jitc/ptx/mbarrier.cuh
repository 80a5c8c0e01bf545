// Invariant: mbarriers in shared memory, by which consumers learn that a bulk copy has arrived. Before compute
// capability 9.0 there are none and these do nothing: their callers then copy by cp.async (has_bulk_copy).
#pragma once

#include <jitc/ptx/address.cuh>

namespace jitc {

/// PTX mbarrier.init: a phase ends after `arrivals` arrivals and all bytes expected.
__device__ __forceinline__ void mbarrier_init(u64* bar, u32 arrivals) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals) : "memory");
#endif
}

/// PTX fence.mbarrier_init, then fence.proxy.async: initialized barriers are visible to the copy engine.
__device__ __forceinline__ void fence_mbarrier_init() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// PTX mbarrier.arrive.expect_tx: one arrival, and `bytes` more bytes to wait for.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(u64* bar, u32 bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
                 : "memory");
#endif
}

/// PTX mbarrier.arrive.
__device__ __forceinline__ void mbarrier_arrive(u64* bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
#endif
}

/// PTX mbarrier.try_wait.parity, again and again until the phase of that parity has ended.
__device__ __forceinline__ void mbarrier_wait_parity(u64* bar, u32 parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred done;\n\t"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
        "@!done bra again; }" ::"r"(shared_address(bar)),
        "r"(parity)
        : "memory");
#endif
}

}  // namespace jitc
