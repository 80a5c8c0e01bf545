// Invariant: nvllm's division of work. Block (bx, by) of token bz; the blocks (0, by) with by < kv_heads attend,
// those with bx < wo_split run slot by * wo_split + bx of W_O over all rows, the last of them gathers and norms, then
// all meet; bx is the MLP's group of slices and by its tile of output rows. FC1 is repeated by every by, as there.
//
// Counters of a token: rows of attention, slots done, arrivals at the barrier, departures, then one a tile of output.
// The last block of the token to leave clears them.
#pragma once

#include <jitc/layer/persistent.cuh>
#include <jitc/layer/roles.cuh>
#include <jitc/wo/original.cuh>

namespace jitc {
namespace layer {

enum OriginalCounter : u32 { rows_ready = 0, slots_ready = 1, barrier = 2, left = 3, first_tile = 4 };
constexpr u32 token_counters = 64;

template <typename C>
struct OriginalLayout {
    using N = Dims<C>;
    static constexpr u32 slots_bytes = N::teams / 2u * N::frag * 4u, row_bytes = N::H * 4u;
    static constexpr u32 slot_len = N::S::k_head / N::S::split;
    static constexpr u32 a = slots_bytes > row_bytes ? slots_bytes : row_bytes;
    static constexpr u32 x_bytes = round_up(a > slot_len * 4u ? a : slot_len * 4u, 128u);
    static constexpr u32 small_at = x_bytes, small_bytes = 1024u + (N::D * 16u > 1024u ? N::D * 16u : 1024u) + 128u;
    static constexpr u32 middle_at = small_at + small_bytes, values_at = middle_at + C::tile_s * 4u;
    static constexpr u32 bytes = values_at + C::tile_s * 4u;
    static_assert(bytes <= C::shared_bytes, "shared_bytes in the family's TOML is too small");
    static_assert(sizeof(SmallArea<C>) <= small_bytes, "small_bytes is the size of SmallArea, rounded up");
    static_assert(C::num_k_tiles + first_tile <= token_counters, "a counter a tile of output");
    static_assert(C::num_k_tiles * C::tile_k >= N::H && N::I % C::tile_s == 0, "tiles cover the matrices");
    static_assert(C::accumulate != Accumulate::mma, "chains only");
};

// One scaled weight of a row of 16-weight groups.
__device__ __forceinline__ float weight_at(const u8* row, u32 k, float scale, float global) {
    const u32 byte = row[k >> 1];
    return __fmul_rn(__fmul_rn(fp4_to_f32((k & 1u) ? byte >> 4 : byte & 15u), scale), global);
}

template <typename C>
__device__ __forceinline__ float mlp_scale(const u8* scales, u32 row, u32 group, u32 groups) {
    const u64 at =
        C::scale_layout == ScaleLayout::swizzled ? scale_offset(row, group, groups / 4u) : u64(row) * groups + group;
    return e4m3_to_f32(__ldg(scales + at));
}

// A row of gate or up times x, by a warp; the sum in every lane.
template <typename C>
__device__ __forceinline__ float row_dot(const u8* weight, const u8* scales, const float* x, float global, u32 row) {
    using N = Dims<C>;
    const u8* bytes = weight + u64(row) * (N::H / 2u);
    float acc = 0.0f;
    for (u32 group = threadIdx.x & 31u; group < N::H / 16u; group += 32u) {
        const float scale = mlp_scale<C>(scales, row, group, N::H / 16u);
#pragma unroll
        for (u32 i = 0; i < 16u; ++i) {
            acc = __fmaf_rn(x[group * 16u + i], weight_at(bytes, group * 16u + i, scale, global), acc);
        }
    }
#pragma unroll
    for (u32 i = 16; i > 0; i /= 2) acc = __fadd_rn(acc, __shfl_xor_sync(~0u, acc, i));
    return acc;
}

template <typename C, typename T>
__device__ __forceinline__ void original_wo(const Params& p, u8* shared, u32 token, T& timer) {
    using N = Dims<C>;
    using S = typename N::S;
    const u32 slot = blockIdx.y * S::split + blockIdx.x, begin = S::slot_begin(slot), end = S::slot_end(slot);
    const u16* row = p.attn_rows + u64(token) * N::K;
    float* x = reinterpret_cast<float*>(shared);
    float* out = p.wo_output + (u64(token) * S::slots + slot) * N::H;
    const float global = *p.wo_global;
    timer.enter(region::phase1_wo_gemv{});
    const bool plain = S::k_head % (group_len * S::split) == 0 && !(fabsf(global) >= pair_limit);
    if (plain) {
        for (u32 k = begin + threadIdx.x; k < end; k += N::threads) x[k - begin] = bf16_to_f32(__ldcg(row + k));
        block_sync<C>();
    }
    for (u32 r = threadIdx.x; r < N::H; r += N::threads) {
        out[r] = plain ? chain_by_groups<C>(x, p.wo_weight, p.wo_scales, __fmul_rn(global, pair_rest), r, begin, end)
                       : chain_scalar<C>(row, p.wo_weight, p.wo_scales, global, r, begin, end);
    }
    block_sync<C>();
    timer.exit(region::phase1_wo_gemv{});
}

// Slots in order, residual, norm: the elected block.
// \param p        the launch's arguments
// \param scratch  a float a warp
// \param token    the block's token
template <typename C>
__device__ __forceinline__ void original_gather(const Params& p, float* scratch, u32 token) {
    using N = Dims<C>;
    using S = typename N::S;
    float* slots = p.wo_output + u64(token) * S::slots * N::H;
    float* summed = p.summed + u64(token) * N::H;
    float square = 0.0f;
    for (u32 r = threadIdx.x; r < N::H; r += N::threads) {
        float acc = 0.0f;
#pragma unroll 4
        for (u32 slot = 0; slot < S::slots; ++slot) acc = __fadd_rn(acc, load_l2(slots + u64(slot) * N::H + r));
        slots[r] = acc;
        const float sum = __fadd_rn(bf16_to_f32(p.residual_in[u64(token) * N::H + r]), acc);
        summed[r] = sum;
        p.residual_output[u64(token) * N::H + r] = to_bf16(sum);
        square = __fmaf_rn(sum, sum, square);
    }
#pragma unroll
    for (u32 i = 16; i > 0; i /= 2) square = __fadd_rn(square, __shfl_xor_sync(~0u, square, i));
    if ((threadIdx.x & 31u) == 0u) scratch[threadIdx.x / 32u] = square;
    block_sync<C>();
    square = scratch[0];
#pragma unroll
    for (u32 w = 1; w < N::warps; ++w) square = __fadd_rn(square, scratch[w]);
    const float inverse = rsqrtf(__fadd_rn(__fdiv_rn(square, float(N::H)), p.rms_eps));
    for (u32 r = threadIdx.x; r < N::H; r += N::threads) {
        const float one_gamma = __fadd_rn(1.0f, bf16_to_f32(p.post_gamma[r]));
        p.attn_output[u64(token) * N::H + r] = to_bf16(__fmul_rn(__fmul_rn(summed[r], inverse), one_gamma));
    }
}

// One slice: tile_s elements of the middle into shared memory, quantized in place.
// \param p       the launch's arguments
// \param x       the MLP's input as floats, in shared memory
// \param middle  tile_s floats in shared memory, before quantization
// \param values  tile_s floats in shared memory, as codes and scales have them
// \param token   the block's token
// \param slice   number of the slice in the row
// \param timer   the kernel's regions
// \param fc1     sum of FC1's region
// \param quant   sum of quantization's
template <typename C, typename T>
__device__ __forceinline__ void original_slice(const Params& p, const float* x, float* middle, float* values, u32 token,
                                               u32 slice, T& timer, RegionSum<C>& fc1, RegionSum<C>& quant) {
    using N = Dims<C>;
    timer.enter(region::phase3_3a_fc1_silu{}, fc1);
    for (u32 j = threadIdx.x / 32u; j < C::tile_s; j += N::warps) {
        const u32 row = slice * C::tile_s + j;
        const float gate = row_dot<C>(p.gate_weight, p.gate_scales, x, p.gate_up_global, row);
        const float up = row_dot<C>(p.up_weight, p.up_scales, x, p.gate_up_global, row);
        if ((threadIdx.x & 31u) == 0u) middle[j] = bf16_to_f32(to_bf16(__fmul_rn(__fmul_rn(gate, sigmoid(gate)), up)));
    }
    block_sync<C>();
    timer.exit(region::phase3_3a_fc1_silu{}, fc1);
    timer.enter(region::phase3_3b_quant{}, quant);
    for (u32 base = threadIdx.x & ~31u; base < C::tile_s; base += N::threads) {
        // tile_s is a multiple of 32: whole warps.
        const u32 j = base + (threadIdx.x & 31u), at = slice * C::tile_s + j;
        const float value = middle[j];
        float peak = fabsf(value);
#pragma unroll
        for (u32 i = 8; i > 0; i /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, i));
        const u32 scale = block_scale(peak);
        const u32 code = fp4_code(value, e4m3_to_f32(scale)), other = __shfl_down_sync(~0u, code, 1);
        values[j] = __fmul_rn(fp4_to_f32(code), e4m3_to_f32(scale));
        if (blockIdx.y == 0u) {
            if (p.inter != nullptr) p.inter[u64(token) * N::I + at] = to_bf16(value);
            if ((j & 1u) == 0u) p.inter_codes[u64(token) * (N::I / 2u) + at / 2u] = u8(code | other << 4);
            if ((j & 15u) == 0u) p.inter_scales[u64(token) * (N::I / 16u) + at / 16u] = u8(scale);
        }
    }
    block_sync<C>();
    timer.exit(region::phase3_3b_quant{}, quant);
}

// \param p  the launch's arguments
template <typename C>
__device__ __forceinline__ void layer_original(const Params& p) {
    using N = Dims<C>;
    using S = typename N::S;
    using O = OriginalLayout<C>;
    extern __shared__ __align__(128) u8 shared[];
    SmallArea<C>& small = *reinterpret_cast<SmallArea<C>*>(shared + O::small_at);
    float* scratch = small.reductions.scratch;
    u32* flag = &small.reductions.flag;
    float* x = reinterpret_cast<float*>(shared);
    float* middle = reinterpret_cast<float*>(shared + O::middle_at);
    float* values = reinterpret_cast<float*>(shared + O::values_at);

    const u32 token = blockIdx.z, bx = blockIdx.x, by = blockIdx.y, blocks = C::slice_ctas * C::num_k_tiles;
    u32* counters = p.counters + counter_stride * first_head + token * token_counters;
    RegionTimer<C> timer(p.region_timing);
    timer.enter_at_start(region::prologue_pre_r0{});
    timer.exit(region::prologue_pre_r0{});
    using Roles = OriginalRoles<S::split, N::kv_heads>;
    if (Roles::norms_input(bx, by)) {
        timer.enter(region::phase0_pre_attn{});
        if constexpr (C::input_norm) input_norm_row<C>(p, scratch, token);
        timer.exit(region::phase0_pre_attn{});
    }

    if (Roles::owns_slot(bx, by)) {
        if (!Roles::waits_for_rows(bx, by)) {
            timer.enter(region::phase1_attn_pre_wo{});
            Unit u;
            u.token = token;
            u.head = by;
            u.index = 0u;
            u.runs = 1u;
            u.seq_len = u32(p.seq_lens[token]);
            u.first = 0u;
            attend<C>(p, shared, small, u, 0x40000000u, 0u);
            timer.exit(region::phase1_attn_pre_wo{});
            arrive<C>(counters + rows_ready, 1u);
        } else {
            timer.enter(region::phase1_pre_wo_wait{});
            wait_for<C>(counters + rows_ready, N::kv_heads, "jitc: pre-W_O wait");
            timer.exit(region::phase1_pre_wo_wait{});
        }
        original_wo<C>(p, shared, token, timer);
        timer.enter(region::phase1_wo_post{});
        timer.exit(region::phase1_wo_post{});
        if (arrive_last<C>(counters + slots_ready, S::slots, flag)) {
            timer.enter(region::phase1_gather_reduce{});
            original_gather<C>(p, scratch, token);
            timer.exit(region::phase1_gather_reduce{});
        }
    }
    timer.enter(region::grid_barrier_wait{});
    arrive<C>(counters + barrier, 1u);
    wait_for<C>(counters + barrier, blocks, "jitc: grid barrier");
    timer.exit(region::grid_barrier_wait{});

    timer.enter(region::phase3_load_x{});
    for (u32 i = threadIdx.x; i < N::H; i += N::threads)
        x[i] = bf16_to_f32(__ldcg(p.attn_output + u64(token) * N::H + i));
    block_sync<C>();
    timer.exit(region::phase3_load_x{});
    timer.enter(region::phase3_partial_reset{});
    constexpr u32 slices = N::I / C::tile_s, each = ceil_div(slices, u32(C::slice_ctas));
    const u32 first = bx * each, last = first + each < slices ? first + each : slices;
    const u32 row_begin = by * C::tile_k, row_end = row_begin + C::tile_k < N::H ? row_begin + C::tile_k : N::H;
    float* partial = p.mlp_partials + (u64(token) * C::slice_ctas + bx) * N::H;
    for (u32 r = row_begin + threadIdx.x; r < row_end; r += N::threads) partial[r] = 0.0f;
    timer.exit(region::phase3_partial_reset{});
    RegionSum<C> fc1, quant, fc2;
    for (u32 slice = first; slice < last; ++slice) {
        original_slice<C>(p, x, middle, values, token, slice, timer, fc1, quant);
        timer.enter(region::phase3_3c_fc2_atomic{});
        timer.enter(region::phase3_3c_fc2_last_iter{}, fc2);
        for (u32 r = row_begin + threadIdx.x; r < row_end; r += N::threads) {
            const u8* bytes = p.down_weight + u64(r) * (N::I / 2u) + slice * (C::tile_s / 2u);
            float acc = 0.0f;
            for (u32 group = 0; group < C::tile_s / 16u; ++group) {
                const float scale = mlp_scale<C>(p.down_scales, r, slice * (C::tile_s / 16u) + group, N::I / 16u);
#pragma unroll
                for (u32 i = 0; i < 16u; ++i) {
                    const u32 h = group * 16u + i;
                    acc = __fmaf_rn(values[h], weight_at(bytes, h, scale, p.down_global), acc);
                }
            }
            partial[r] = __fadd_rn(partial[r], acc);
        }
        block_sync<C>();
        timer.exit(region::phase3_3c_fc2_last_iter{}, fc2);
    }
    timer.sum(region::phase3_3a_fc1_silu_per_call{}, fc1);
    timer.sum(region::phase3_3b_quant_per_call{}, quant);
    timer.sum(region::phase3_3c_fc2_per_call{}, fc2);
    timer.enter(region::phase3_post_loop_atomic{});
    const bool elected = arrive_last<C>(counters + first_tile + by, C::slice_ctas, flag);
    timer.exit(region::phase3_post_loop_atomic{});
    timer.exit(region::phase3_3c_fc2_atomic{});
    timer.enter(region::phase3_3d_arrival{});
    if (elected) {
        timer.enter(region::phase3_3d_last_cta_gather{});
        const float* from = p.mlp_partials + u64(token) * C::slice_ctas * N::H;
        for (u32 r = row_begin + threadIdx.x; r < row_end; r += N::threads) {
            float acc = 0.0f;
            for (u32 i = 0; i < C::slice_ctas; ++i) acc = __fadd_rn(acc, load_l2(from + u64(i) * N::H + r));
            p.mlp_output[u64(token) * N::H + r] = to_bf16(acc);
        }
        timer.exit(region::phase3_3d_last_cta_gather{});
    }
    timer.exit(region::phase3_3d_arrival{});
    timer.enter(region::epilogue_post_r10{});
    if (arrive_last<C>(counters + left, blocks, flag)) {
        for (u32 i = threadIdx.x; i < first_tile + C::num_k_tiles; i += N::threads) counters[i] = 0u;
    }
    timer.exit(region::epilogue_post_r10{});
}

template <typename C>
__device__ __forceinline__ void layer(const Params& p) {
    if constexpr (C::geometry == LayerGeometry::original) {
        layer_original<C>(p);
    } else {
        layer_persistent<C>(p);
    }
}

}  // namespace layer
}  // namespace jitc
