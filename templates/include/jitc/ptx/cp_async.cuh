// Invariant: asynchronous copies from global to shared memory, and the only place that knows which architecture has
// which. Addresses and sizes are multiples of 16 bytes, but for the copy of four.
#pragma once

#include <jitc/ptx/address.cuh>

namespace jitc {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool has_bulk_copy = true;
#else
constexpr bool has_bulk_copy = false;
#endif

/// PTX cp.async.cg: 16 bytes, past L1.
__device__ __forceinline__ void cp_async_cg_16(void* dst, const void* src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(dst)), "l"(src) : "memory");
}

/// PTX cp.async.cg.L2::128B: 16 bytes, past L1; L2 fetches the rest of the 128 at once.
__device__ __forceinline__ void cp_async_cg_16_ahead(u32 dst, const void* src) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}

/// PTX cp.async.ca: four bytes.
__device__ __forceinline__ void cp_async_ca_4(void* dst, const void* src) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(dst)), "l"(src) : "memory");
}

/// PTX cp.async.commit_group.
__device__ __forceinline__ void cp_async_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// PTX cp.async.wait_group: until at most `pending` of the thread's groups are in flight.
template <u32 pending>
__device__ __forceinline__ void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// PTX cp.async.wait_all.
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// PTX fence.proxy.async: what threads wrote to shared memory comes before what the async proxy writes there.
__device__ __forceinline__ void fence_proxy_async() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// PTX cp.async.bulk: `bytes` bytes by the copy engine, counted by the mbarrier `bar`. What is copied is read once: it
/// leaves L2 first (evict_first), so that what others share stays there.
__device__ __forceinline__ void cp_async_bulk(void* dst, const void* src, u32 bytes, u64* bar) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
            "r"(shared_address(dst)),
        "l"(src), "r"(bytes), "r"(shared_address(bar)), "l"(policy)
        : "memory");
#endif
}

}  // namespace jitc
