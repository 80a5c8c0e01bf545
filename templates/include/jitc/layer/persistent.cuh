// Invariant: the phases of a decode layer over one persistent grid of `num_ctas` blocks, whatever the number of tokens.
// Each phase reads what another block wrote only behind a counter (sync.cuh) or, in the separate kernels, behind a
// kernel's end; both run the same code in the same order, so both give the same bits.
//
//     attention unit -> [its head's other units] -> merge -> [all units] -> W_O, sums -> [all blocks] -> norm, FC1,
//     quantization -> [all blocks] -> FC2
//
// In brackets: what is waited for.
#pragma once

#include <jitc/layer/merge.cuh>
#include <jitc/layer/mlp.cuh>
#include <jitc/region.cuh>

namespace jitc {
namespace layer {

template <typename C>
struct Shared {
    using L = Layout<C>;
    u8* base;
    __device__ u8* x() const { return base + L::x_at; }
    __device__ float* sums() const { return reinterpret_cast<float*>(base + L::sums_at); }
    __device__ float* phase_sums() const { return reinterpret_cast<float*>(base + L::phase_sums_at); }
    __device__ SmallArea<C>& small() const { return *reinterpret_cast<SmallArea<C>*>(base + L::small_at); }
    __device__ float* scratch() const { return small().reductions.scratch; }
    __device__ float* inv_scale() const { return small().reductions.inv_scale; }
    __device__ u8* ring() const { return base + L::ring_at; }
    __device__ u8* warp_ring() const { return ring() + thread_index() / 32u * L::warp_ring; }
};

template <typename C>
__device__ __forceinline__ Shared<C> shared_memory() {
    extern __shared__ __align__(128) u8 shared[];
    static_assert(sizeof(SmallArea<C>) <= Layout<C>::small_bytes, "small_bytes is the size of SmallArea, rounded up");
    static_assert(sizeof(Statistics<C>) <= 1024u && Dims<C>::warps <= 16u && Dims<C>::tokens <= 16u, "small areas");
    return Shared<C>{shared};
}

// nvllm's phase 0: RMSNorm of hidden + residual, by one block.
template <typename C>
__device__ __forceinline__ void input_norm_row(const Params& p, float* scratch, u32 token) {
    using N = Dims<C>;
    const u64 row = u64(token) * N::H;
    const auto sum = [&](u32 i) {
        return __fadd_rn(bf16_to_f32(p.hidden_in[row + i]), bf16_to_f32(p.residual_in[row + i]));
    };
    float square = 0.0f;
    for (u32 i = thread_index(); i < N::H; i += N::threads) square = __fmaf_rn(sum(i), sum(i), square);
    for (u32 i = 16; i > 0; i /= 2) square = __fadd_rn(square, __shfl_xor_sync(~0u, square, i));
    if ((thread_index() & 31u) == 0u) scratch[thread_index() / 32u] = square;
    block_sync<C>();
    square = scratch[0];
    for (u32 w = 1; w < N::warps; ++w) square = __fadd_rn(square, scratch[w]);
    const float inverse = rsqrtf(__fadd_rn(__fdiv_rn(square, float(N::H)), p.rms_eps));
    for (u32 i = thread_index(); i < N::H; i += N::threads) {
        p.attn_input[row + i] =
            to_bf16(__fmul_rn(__fmul_rn(sum(i), inverse), __fadd_rn(1.0f, bf16_to_f32(p.input_gamma[i]))));
    }
    block_sync<C>();
}

// A token a block, from the last block on: the first ones have most of attention to do.
template <typename C>
__device__ __forceinline__ void input_norm(const Params& p, float* scratch) {
    for (u32 token = gridDim.x - 1u - blockIdx.x; token < p.num_tokens; token += gridDim.x)
        input_norm_row<C>(p, scratch, token);
}

// `entered`: the first region of the first pass is under way already, from the kernel's start on.
// \param p      the launch's arguments
// \param s      the block's shared memory
// \param ring   the ring of weights
// \param timer  the kernel's regions
template <typename C, bool entered = false, typename R, typename T>
__device__ __forceinline__ void wo_phase(const Params& p, const Shared<C>& s, R& ring, T& timer) {
    using N = Dims<C>;
    using L = Layout<C>;
    const float global = *p.wo_global;
#pragma unroll 1
    for (u32 first = 0; first < p.num_tokens; first += N::tokens) {
        if (!entered || first != 0u) timer.enter(region::phase1_wo_gemv{});
        const Residual<C> residual(p, first);
        if constexpr (L::mma) {
            float* inv_scale = s.inv_scale();
            if constexpr (N::wide) {
                load_rows_f16<C>(p.attn_rows, s.x(), inv_scale, s.scratch(), first, p.num_tokens);
                const WoFirst<C> of_first(s.x());
                block_sync<C>();
                load_rows_f16<C>(p.attn_rows, s.x(), inv_scale + 8, s.scratch(), first + 8u, p.num_tokens);
                wo_mma<C>(p, s.x(), inv_scale, s.phase_sums(), ring, global, of_first);
            } else if constexpr (N::tokens == 1u) {
                inv_scale += thread_index() / 32u;
                load_pieces_f16<C>(p, s.x(), inv_scale, first);
            } else {
                load_rows_f16<C>(p.attn_rows, s.x(), inv_scale, s.scratch(), first, p.num_tokens);
            }
            if constexpr (!N::wide) wo_mma<C>(p, s.x(), inv_scale, s.sums(), ring, global);
        } else {
            wo_exact<C>(p, s.x(), s.sums(), s.warp_ring(), global, first);
            // The ring is free once the last chain is done; what comes next may travel while sums are taken.
            if (first + N::tokens >= p.num_tokens) ring.start();
        }
        timer.exit(region::phase1_wo_gemv{});
        timer.enter(region::phase1_gather_reduce{});
        wo_finish<C>(p, s.phase_sums(), first, residual);
        timer.exit(region::phase1_gather_reduce{});
    }
}

template <typename C, bool entered = false, typename R, typename T>
__device__ __forceinline__ void fc1_phase(const Params& p, const Shared<C>& s, R& ring, T& timer) {
    using N = Dims<C>;
    RegionSum<C> passes;
#pragma unroll 1
    for (u32 first = 0; first < p.num_tokens; first += N::tokens) {
        if (!entered || first != 0u) timer.enter(region::phase3_load_x{});
        norm_rows<C>(p, s.x(), s.inv_scale(), s.scratch(), first);
        float* sums = reinterpret_cast<float*>(s.x() + Layout<C>::fc1_sums_at);
        if constexpr (N::wide) {
            const Fc1First<C, R> of_first(s.x());
            block_sync<C>();
            norm_rows<C>(p, s.x(), s.inv_scale() + 8, s.scratch(), first + 8u);
            timer.exit(region::phase3_load_x{});
            timer.enter(region::phase3_3a_fc1_silu{}, passes);
            fc1<C>(p, s.x(), s.inv_scale(), sums, ring, first, of_first);
        } else {
            timer.exit(region::phase3_load_x{});
            timer.enter(region::phase3_3a_fc1_silu{}, passes);
            fc1<C>(p, s.x(), s.inv_scale(), sums, ring, first, 0);
        }
        timer.exit(region::phase3_3a_fc1_silu{}, passes);
    }
    timer.sum(region::phase3_3a_fc1_silu_per_call{}, passes);
}

template <typename C, bool entered = false, typename R, typename T>
__device__ __forceinline__ void fc2_phase(const Params& p, const Shared<C>& s, R& ring, T& timer) {
    using N = Dims<C>;
    RegionSum<C> passes;
    if constexpr (entered) timer.enter_at_start(region::phase3_3c_fc2_atomic{});
    if constexpr (entered) timer.enter_at_start(region::phase3_3c_fc2_last_iter{}, passes);
#pragma unroll 1
    for (u32 first = 0; first < p.num_tokens; first += N::tokens) {
        if (!entered || first != 0u) timer.enter(region::phase3_3c_fc2_atomic{});
        if (!entered || first != 0u) timer.enter(region::phase3_3c_fc2_last_iter{}, passes);
        if constexpr (!N::wide) load_codes<C>(p, s.x(), first);
        fc2<C>(p, s.x(), s.phase_sums(), ring, first);
        timer.exit(region::phase3_3c_fc2_last_iter{}, passes);
        timer.exit(region::phase3_3c_fc2_atomic{});
    }
    timer.sum(region::phase3_3c_fc2_per_call{}, passes);
}

template <typename C>
__device__ __forceinline__ u32* head_counter(const Params& p, u32 token, u32 head) {
    return counter_at(p.counters, first_head) + token * Dims<C>::kv_heads + head;
}

// The whole layer in one cooperative launch.
// \param p  the launch's arguments
template <typename C>
__device__ __forceinline__ void layer_persistent(const Params& p) {
    using N = Dims<C>;
    using L = Layout<C>;
    const Shared<C> s = shared_memory<C>();
    if (producer_warp<C, L::mma, true, true>(p)) return;
    RegionTimer<C> timer(p.region_timing);
    timer.enter_at_start(region::prologue_pre_r0{});
    RingOf<C, L::mma, true, true> ring(p, s.ring());
    // Weights of W_O travel while attention runs.
    if constexpr (L::mma) {
        ring.start();
    } else if constexpr (Chains<C>::staged) {
        Chains<C>::issue_copies(p, s.warp_ring(), 0u);
    }
    begin<C>();
    timer.exit(region::prologue_pre_r0{});
    timer.enter(region::phase0_pre_attn{});
    if constexpr (C::input_norm) input_norm<C>(p, s.scratch());
    timer.exit(region::phase0_pre_attn{});

    timer.enter(region::phase1_attn_pre_wo{});
    // Kept in shared memory while units are worked on, which leaves no register free.
    WorkPartition* kept = reinterpret_cast<WorkPartition*>(s.sums());
    Unit* unit = reinterpret_cast<Unit*>(s.sums() + 4);
    {
        const WorkPartition work = partition_work<C>(p);
        if (thread_index() == 0) *kept = work;
        block_sync<C>();
    }
#pragma unroll 1
    for (u32 n = blockIdx.x; n < kept->units; n += N::ctas) {
        if (thread_index() == 0) *unit = unit_at<C>(p, *kept, n);
        block_sync<C>();
        attend<C>(p, s.x(), s.small(), *unit, kept->run, n);
        if (unit->runs > 1u) arrive<C>(head_counter<C>(p, unit->token, unit->head), 1u);
        block_sync<C>();  // before the next unit takes its place
    }
    timer.exit(region::phase1_attn_pre_wo{});
    timer.enter(region::phase1_wo_post{});
#pragma unroll 1
    for (u32 n = blockIdx.x; n < kept->units; n += N::ctas) {
        const Unit u = unit_at<C>(p, *kept, n);
        if (u.runs == 1u) continue;
        wait_for<C>(head_counter<C>(p, u.token, u.head), u.runs, "jitc: the units of a head");
        merge<C>(p, s.x(), s.small(), u);
    }
    timer.exit(region::phase1_wo_post{});
    timer.enter(region::phase1_pre_wo_wait{});
    if (blockIdx.x < kept->units) {
        arrive<C, rows_done>(p.counters, ceil_div(kept->units - blockIdx.x, N::ctas));
    }
    wait_for<C, rows_done>(p.counters, kept->units, "jitc: pre-W_O wait");
    timer.exit(region::phase1_pre_wo_wait{});
    // A counter is cleared between two waits for all blocks that lie around its own. By the last block: it has no tile
    // of FC1 more than others.
    const auto clears = [] { return blockIdx.x + 1u == N::ctas; };
    if (clears() && thread_index() == 0) clear_counter<codes_done>(p.counters);  // of the launch before

    wo_phase<C>(p, s, ring, timer);
    timer.enter(region::grid_barrier_wait{});
    arrive<C, sums_done>(p.counters, 1u);
    wait_for<C, sums_done>(p.counters, N::ctas, "jitc: W_O to norm");
    timer.exit(region::grid_barrier_wait{});
    if (clears()) {
        for (u32 i = thread_index(); i < p.num_tokens * N::kv_heads; i += N::threads) *head_counter<C>(p, 0u, i) = 0u;
        if (thread_index() == 0) clear_counter<rows_done>(p.counters);
    }

    fc1_phase<C>(p, s, ring, timer);
    // nvllm has no wait here, so its tables have no region for it: in them it counts as the arrival.
    constexpr bool own = region::phase3_fc2_wait::id != region_absent;
    if constexpr (!own) timer.enter(region::phase3_3d_arrival{});
    timer.enter(region::phase3_fc2_wait{});
    arrive<C, codes_done>(p.counters, 1u);
    wait_for<C, codes_done>(p.counters, N::ctas, "jitc: FC1 to FC2");
    if (clears() && thread_index() == 0) clear_counter<sums_done>(p.counters);
    timer.exit(region::phase3_fc2_wait{});
    if constexpr (!own) timer.exit(region::phase3_3d_arrival{});

    fc2_phase<C>(p, s, ring, timer);
    timer.enter(region::epilogue_post_r10{});  // nothing: no block counts itself out
    timer.exit(region::epilogue_post_r10{});
}

// The same phases as kernels of their own: nothing waits, so nothing has to be resident together. What the fused kernel
// waits for is here the boundary of two kernels, and timed as that; a kernel's start is part of its first region.
template <typename C>
__device__ __forceinline__ void separate_attention(const Params& p) {
    const Shared<C> s = shared_memory<C>();
    RegionTimer<C> timer(p.region_timing);
    timer.enter_at_start(region::prologue_pre_r0{});
    begin<C>();
    timer.exit(region::prologue_pre_r0{});
    timer.enter(region::phase0_pre_attn{});
    if constexpr (C::input_norm) input_norm<C>(p, s.scratch());
    timer.exit(region::phase0_pre_attn{});
    timer.enter(region::phase1_attn_pre_wo{});
    const WorkPartition work = partition_work<C>(p);
#pragma unroll 1
    for (u32 n = blockIdx.x; n < work.units; n += gridDim.x) {
        attend<C>(p, s.x(), s.small(), unit_at<C>(p, work, n), work.run, n);
    }
    if constexpr (C::num_regions > 0) block_sync<C>();
    timer.exit(region::phase1_attn_pre_wo{});
}

template <typename C>
__device__ __forceinline__ void separate_merge(const Params& p) {
    const Shared<C> s = shared_memory<C>();
    RegionTimer<C> timer(p.region_timing, false);
    timer.enter_at_start(region::phase1_wo_post{});
    begin<C>();
    const WorkPartition work = partition_work<C>(p);
#pragma unroll 1
    for (u32 n = blockIdx.x; n < work.units; n += gridDim.x) {
        const Unit u = unit_at<C>(p, work, n);
        if (u.runs > 1u) merge<C>(p, s.x(), s.small(), u);
    }
    if constexpr (C::num_regions > 0) block_sync<C>();
    timer.exit(region::phase1_wo_post{});
    timer.leave_kernel(region::phase1_pre_wo_wait{});
}

template <typename C>
__device__ __forceinline__ void separate_wo(const Params& p) {
    using L = Layout<C>;
    const Shared<C> s = shared_memory<C>();
    if (producer_warp<C, L::mma, false, false>(p)) return;
    RegionTimer<C> timer(p.region_timing, false);
    timer.come_from_kernel(region::phase1_pre_wo_wait{});
    timer.enter_at_start(region::phase1_wo_gemv{});
    RingOf<C, L::mma, false, false> ring(p, s.ring());
    if constexpr (L::mma) {
        ring.start();
        block_sync<C>();  // the ring's barriers are there
    } else if constexpr (Chains<C>::staged) {
        Chains<C>::issue_copies(p, s.warp_ring(), 0u);
    }
    begin<C>();
    wo_phase<C, true>(p, s, ring, timer);
    timer.leave_kernel(region::grid_barrier_wait{});
}

template <typename C>
__device__ __forceinline__ void separate_fc1(const Params& p) {
    const Shared<C> s = shared_memory<C>();
    if (producer_warp<C, false, true, false>(p)) return;
    RegionTimer<C> timer(p.region_timing, false);
    timer.come_from_kernel(region::grid_barrier_wait{});
    timer.enter_at_start(region::phase3_load_x{});
    RingOf<C, false, true, false> ring(p, s.ring());
    ring.start();
    begin<C>();
    fc1_phase<C, true>(p, s, ring, timer);
    timer.leave_kernel(region::phase3_fc2_wait{});
}

template <typename C>
__device__ __forceinline__ void separate_fc2(const Params& p) {
    const Shared<C> s = shared_memory<C>();
    if (producer_warp<C, false, false, true>(p)) return;
    RegionTimer<C> timer(p.region_timing, false);
    timer.come_from_kernel(region::phase3_fc2_wait{});
    RingOf<C, false, false, true> ring(p, s.ring());
    ring.start();
    begin<C>();
    fc2_phase<C, true>(p, s, ring, timer);
}

}  // namespace layer
}  // namespace jitc
