// Invariant: one thread of a block, C::tick_thread, reads the clock and writes; a block writes its own row and nobody
// else's, and zeroes it before its first region, so no earlier launch shows through. Without regions every type here is
// empty and every call compiles to nothing. The thread is best not the one that arrives at barriers: its fences would
// wait for its ticks.
//
// The buffer, 64-bit words: a row a block (linear block index, x fastest) of region_count pairs (entry, exit); then a
// word a block with its multiprocessor; then the table's identity.
//
//     RegionTimer<C> timer(region_timing);  // first in the kernel; C has num_regions, tick_source, tick_thread
//
//     timer.enter(region::phase1_wo_gemv{});
//
//     timer.exit(region::phase1_wo_gemv{});
//
// and for a region of a loop that another region sums:
//
//     RegionSum<C> fc1;
//     for (...) { timer.enter(region::phase3_3a_fc1_silu{}, fc1); ...; timer.exit(region::phase3_3a_fc1_silu{}, fc1); }
//     timer.sum(region::phase3_3a_fc1_silu_per_call{}, fc1);
//
// A region may begin in one kernel and end in the next of the same stream, where nothing else shares the buffer: that
// is the wait at a kernel's boundary. It needs globaltimer, since the block's next multiprocessor may be another one.
//
// A thread other than 0 reads dynamic shared memory after a region of class barrier_wait: the kernel has to have some.
//
// A region that the compiled set lacks costs nothing, so both of two sets' names may stand side by side. Calls hold no
// barrier: put them where that thread passes, and put the block barrier inside or outside the region as is meant.
#pragma once

#include <jitc/ptx/ld_st.cuh>
#include <jitc/ptx/special_register.cuh>
#include <jitc/region_table.cuh>

namespace jitc {

// globaltimer: nanoseconds, one clock for the device, in steps of its own. clock64: cycles of one multiprocessor; only
// differences within a block mean anything.
enum class TickSource { globaltimer, clock64 };

template <TickSource source>
__device__ __forceinline__ u64 read_ticks() {
    if constexpr (source == TickSource::globaltimer) {
        return read_globaltimer_ordered();
    } else {
        return read_clock64_ordered();
    }
}

// The running sum of a loop's region: exits less entries. Two registers of the thread that reads.
template <typename C, bool on = (C::num_regions != 0u)>
struct RegionSum {};

template <typename C>
struct RegionSum<C, true> {
    u64 total = 0;
};

template <typename C, bool on = (C::num_regions != 0u)>
struct RegionTimer {
    __device__ __forceinline__ explicit RegionTimer(u64*, bool = true) {}
    template <typename R>
    __device__ __forceinline__ void enter_at_start(R) {}
    template <typename R>
    __device__ __forceinline__ void enter_at_start(R, RegionSum<C>&) {}
    template <typename R>
    __device__ __forceinline__ void enter(R) {}
    template <typename R>
    __device__ __forceinline__ void exit(R) {}
    template <typename R>
    __device__ __forceinline__ void enter(R, RegionSum<C>&) {}
    template <typename R>
    __device__ __forceinline__ void exit(R, RegionSum<C>&) {}
    template <typename R>
    __device__ __forceinline__ void sum(R, const RegionSum<C>&) {}
    template <typename R>
    __device__ __forceinline__ void leave_kernel(R) {}
    template <typename R>
    __device__ __forceinline__ void come_from_kernel(R) {}
    __device__ __forceinline__ void join() {}
};

template <typename C>
struct RegionTimer<C, true> {
    static_assert(C::num_regions == region_count, "the kernel's num_regions and its region table disagree");
    u64* buffer;
    u64 start;

    // `first`: of the kernels that share the buffer, the one that runs first and zeroes the rows.
    __device__ __forceinline__ explicit RegionTimer(u64* buffer, bool first = true)
        : buffer(buffer), start(read_ticks<C::tick_source>()) {
        const u64 cta = block();
        const u64 ctas = u64(gridDim.x) * gridDim.y * gridDim.z;
        if (!first) return;
        if (threadIdx.x / 32u == C::tick_thread / 32u) {
            for (u32 i = threadIdx.x % 32u; i < 2u * region_count; i += 32u) buffer[cta * (2u * region_count) + i] = 0u;
            __syncwarp();
        }
        if (threadIdx.x == C::tick_thread) {
            u64* after = buffer + ctas * (2u * region_count);
            after[cta] = read_smid();
            if (cta == 0u) after[ctas] = region_identity;
        }
    }
    // The block's number, worked out anew for every tick: kernels with regions have no register to spare.
    __device__ __forceinline__ static u64 block() { return read_linear_ctaid(); }
    // Its row.
    __device__ __forceinline__ u64* row() const { return buffer + block() * (2u * region_count); }
    // From the kernel's first instruction on, the zeroing of the rows included.
    template <typename R>
    __device__ __forceinline__ void enter_at_start(R) {
        if constexpr (R::id != region_absent) {
            if (threadIdx.x == C::tick_thread) row()[2u * R::id] = start;
        }
    }
    template <typename R>
    __device__ __forceinline__ void enter_at_start(R r, RegionSum<C>& sum) {
        enter_at_start(r);
        sum.total -= start;
    }
    template <typename R>
    __device__ __forceinline__ void enter(R) {
        if constexpr (R::id != region_absent) {
            if (threadIdx.x == C::tick_thread) row()[2u * R::id] = read_ticks<C::tick_source>();
        }
    }
    template <typename R>
    __device__ __forceinline__ void exit(R) {
        if constexpr (R::id != region_absent) {
            if (threadIdx.x == C::tick_thread) {
                if constexpr (R::waits && C::tick_thread != 0u) settle();
                row()[2u * R::id + 1u] = read_ticks<C::tick_source>();
            }
        }
    }
    // A block barrier holds a warp only at the next instruction that needs it to be complete, and reading the clock
    // needs nothing: a thread that reads shared memory first (any; the start of the dynamic) reads the clock after the
    // wait. Thread 0 is the one that polls, and comes to the barrier last.
    __device__ __forceinline__ static void settle() {
        extern __shared__ unsigned char jitc_settle[];
        ld_volatile_shared(shared_address(jitc_settle));
    }
    template <typename R>
    __device__ __forceinline__ void enter(R, RegionSum<C>& sum) {
        if constexpr (R::id != region_absent) {
            if (threadIdx.x == C::tick_thread) {
                const u64 t = read_ticks<C::tick_source>();
                row()[2u * R::id] = t;
                sum.total -= t;
            }
        }
    }
    template <typename R>
    __device__ __forceinline__ void exit(R, RegionSum<C>& sum) {
        if constexpr (R::id != region_absent) {
            if (threadIdx.x == C::tick_thread) {
                const u64 t = read_ticks<C::tick_source>();
                row()[2u * R::id + 1u] = t;
                sum.total += t;
            }
        }
    }
    // As enter and exit, for a region that spans two kernels.
    template <typename R>
    __device__ __forceinline__ void leave_kernel(R r) {
        if constexpr (C::tick_source == TickSource::globaltimer) enter(r);
    }
    template <typename R>
    __device__ __forceinline__ void come_from_kernel(R) {
        if constexpr (C::tick_source == TickSource::globaltimer && R::id != region_absent) {
            if (threadIdx.x == C::tick_thread) row()[2u * R::id + 1u] = start;
        }
    }
    // Waits for the block, so that what follows is the block's time and not one thread's. Only with regions.
    __device__ __forceinline__ void join() { __syncthreads(); }
    // Entry 0 and exit the sum, so that the difference is the sum.
    template <typename R>
    __device__ __forceinline__ void sum(R, const RegionSum<C>& sum) {
        if constexpr (R::id != region_absent) {
            if (threadIdx.x == C::tick_thread) row()[2u * R::id + 1u] = sum.total;
        }
    }
};

}  // namespace jitc
