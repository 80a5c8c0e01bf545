// Invariant: asynchronous copies from global to shared memory, and the only place that knows which architecture has
// which. Addresses and sizes are multiples of 16 bytes.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool has_bulk_copy = true;
#else
constexpr bool has_bulk_copy = false;
#endif

__device__ __forceinline__ u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

__device__ __forceinline__ void copy16_async(void* dst, const void* src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(dst)), "l"(src) : "memory");
}

__device__ __forceinline__ void copy16_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// An mbarrier of one phase: expect once, wait any number of times.
__device__ __forceinline__ void barrier_init(u64* bar, u32 arrivals) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals) : "memory");
#endif
}

// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void barrier_init_fence() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

__device__ __forceinline__ void barrier_expect(u64* bar, u32 bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
                 : "memory");
#endif
}

__device__ __forceinline__ void barrier_arrive(u64* bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
#endif
}

__device__ __forceinline__ void barrier_wait(u64* bar, u32 phase) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred done;\n\t"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
        "@!done bra again; }" ::"r"(shared_address(bar)),
        "r"(phase)
        : "memory");
#endif
}

// What threads wrote to shared memory, before the copy engine writes there.
__device__ __forceinline__ void copy_engine_fence() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// A barrier of the first `threads` threads of the block; the others need not come. Barrier 0 is __syncthreads'.
template <u32 threads>
__device__ __forceinline__ void sync_first() {
    asm volatile("barrier.cta.sync 1, %0;" ::"n"(threads) : "memory");
}

// The same, and whether any of them says so.
template <u32 threads>
__device__ __forceinline__ bool sync_first_any(bool says) {
    u32 any;
    asm volatile(
        "{ .reg .pred p, q;\n\t"
        "setp.ne.u32 p, %1, 0;\n\t"
        "barrier.cta.red.or.pred q, 1, %2, p;\n\t"
        "selp.u32 %0, 1, 0, q; }"
        : "=r"(any)
        : "r"(u32(says)), "n"(threads)
        : "memory");
    return any != 0u;
}

// One piece, by the engine. What is copied is read once: it leaves L2 first, so that what others share stays there.
__device__ __forceinline__ void copy_bulk(void* dst, const void* src, u32 bytes, u64* bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
            shared_address(dst)),
        "l"(src), "r"(bytes), "r"(shared_address(bar)), "l"(policy)
        : "memory");
#endif
}

}  // namespace jitc
