// Invariant: nvllm's division of work. Blocks (bx, by) with bx < wo_split run slot by*wo_split + bx over all
// rows; every block then meets the grid barrier of its token; after it the blocks share the gather, a block every
// so-many rows (nvllm lets each block repeat the whole of it, to the same bits).
#pragma once

#include <jitc/grid_barrier.cuh>
#include <jitc/region.cuh>
#include <jitc/wo/chain.cuh>

namespace jitc {

// One row's chain with 8-byte weight loads.
// \param attn    activations as floats in shared memory; the first is that of k = `begin`
// \param weight  plain codes
// \param scales  swizzled E4M3 scales
// \param rest    the global scale times pair_rest
// \param row     the row
// \param begin   first k of the chain, a multiple of 16
// \param end     one past the last
template <typename C>
__device__ __forceinline__ float chain_by_groups(const float* attn, const u8* weight, const u8* scales, float rest,
                                                 u32 row, u32 begin, u32 end) {
    using S = Shape<C>;
    float a = 0.0f;
#pragma unroll 1
    for (u32 k = begin; k < end; k += group_len) {
        uint2 words = __ldg(reinterpret_cast<const uint2*>(weight + u64(row) * S::row_bytes + k / 2));
        u32 byte = __ldg(scales + scale_offset(row, k / group_len, S::scale_tiles));
        u32 s = e4m3x4_to_f16(byte).pair[0];
        const float* x = attn + (k - begin);
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            Fp4x8 d = fp4x8_to_f16(i == 0 ? words.x : words.y);
#pragma unroll
            for (u32 p = 0; p < 2; ++p) {
                float2 e = cvt_f32x2_f16x2(mul_f16x2(d.even[p], s));
                float2 o = cvt_f32x2_f16x2(mul_f16x2(d.odd[p], s));
                a = chain_step<C::accumulate>(__fmul_rn(e.x, rest), x[8 * i + 4 * p + 0], a);
                a = chain_step<C::accumulate>(__fmul_rn(o.x, rest), x[8 * i + 4 * p + 1], a);
                a = chain_step<C::accumulate>(__fmul_rn(e.y, rest), x[8 * i + 4 * p + 2], a);
                a = chain_step<C::accumulate>(__fmul_rn(o.y, rest), x[8 * i + 4 * p + 3], a);
            }
        }
    }
    return a;
}

// \param attn          activations, bf16 [num_tokens, k_total]
// \param weight        plain codes
// \param scales        swizzled E4M3 scales
// \param global_scale  one float
// \param partials      [num_tokens, slots, hidden]
// \param output        [num_tokens, hidden]
// \param counters      a grid barrier a token, zero
// \param timer         the kernel's regions
template <typename C>
__device__ __forceinline__ void wo_original(const u16* attn, const u8* weight, const u8* scales,
                                            const float* global_scale, float* partials, float* output, u32* counters,
                                            RegionTimer<C>& timer) {
    using S = Shape<C>;
    const u32 token = blockIdx.z;
    const u16* x = attn + u64(token) * S::k_total;
    float* mine = partials + u64(token) * S::slots * S::hidden;

    if (blockIdx.x < S::split) {
        const u32 slot = blockIdx.y * S::split + blockIdx.x;
        const u32 begin = S::slot_begin(slot), end = S::slot_end(slot);
        const float global = *global_scale;
        if constexpr (S::k_head % (group_len * S::split) == 0) {
            __shared__ __align__(16) float attn_floats[S::k_head / S::split];
            timer.enter(region::phase1_wo_stage{});
            for (u32 k = begin + threadIdx.x; k < end; k += C::block_threads)
                attn_floats[k - begin] = bf16_to_f32(x[k]);
            __syncthreads();
            timer.exit(region::phase1_wo_stage{});
            timer.enter(region::phase1_wo_gemv{});
            if (!(fabsf(global) >= pair_limit)) {
                const float rest = __fmul_rn(global, pair_rest);
                for (u32 row = threadIdx.x; row < S::hidden; row += C::block_threads) {
                    mine[u64(slot) * S::hidden + row] =
                        chain_by_groups<C>(attn_floats, weight, scales, rest, row, begin, end);
                }
            } else {
                for (u32 row = threadIdx.x; row < S::hidden; row += C::block_threads) {
                    mine[u64(slot) * S::hidden + row] = chain_scalar<C>(x, weight, scales, global, row, begin, end);
                }
            }
        } else {
            timer.enter(region::phase1_wo_gemv{});
            for (u32 row = threadIdx.x; row < S::hidden; row += C::block_threads) {
                mine[u64(slot) * S::hidden + row] = chain_scalar<C>(x, weight, scales, global, row, begin, end);
            }
        }
        timer.join();
        timer.exit(region::phase1_wo_gemv{});
    }

    const u32 blocks = gridDim.x * gridDim.y;
    timer.enter(region::grid_barrier_wait{});
    grid_barrier(counters + token * grid_barrier_counters, blocks);
    timer.exit(region::grid_barrier_wait{});

    timer.enter(region::phase1_gather{});

    const u32 first = (blockIdx.y * gridDim.x + blockIdx.x) * C::block_threads + threadIdx.x;
    for (u32 row = first; row < S::hidden; row += blocks * C::block_threads) {
        float acc = 0.0f;
#pragma unroll 8
        for (u32 slot = 0; slot < S::slots; ++slot) {
            acc = __fadd_rn(acc, __ldcg(mine + u64(slot) * S::hidden + row));
        }
        output[u64(token) * S::hidden + row] = acc;
    }
    timer.join();
    timer.exit(region::phase1_gather{});
}

}  // namespace jitc
