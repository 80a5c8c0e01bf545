// Invariant: W_O on tensor cores: sums[piece][row][token], a piece being a slot or an equal part of one; a piece's runs
// meet the tensor cores in ascending k. Activations are f16 after a power of two, whose inverse descales the sums.
#pragma once

#include <jitc/layer/wide.cuh>
#include <jitc/layer/wo.cuh>

namespace jitc {
namespace layer {

// Largest value of a token's threads, in each of them; `scratch` holds a float a warp. Two block barriers.
template <typename C, typename Share>
__device__ __forceinline__ float share_max(float x, float* scratch) {
#pragma unroll
    for (u32 i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    const u32 warp = thread_index() / 32u;
    if ((thread_index() & 31u) == 0u) scratch[warp] = x;
    block_sync<C>();
    const float* mine = scratch + warp / Share::warps * Share::warps;
    x = mine[0];
#pragma unroll
    for (u32 w = 1; w < Share::warps; ++w) x = fmaxf(x, mine[w]);
    block_sync<C>();
    return x;
}

// Rows of bf16 to permuted f16, of as many tokens as are loaded at a time, each with a power of two of its own.
// \param rows         bf16 [num_tokens, K]
// \param x            where they go to, k_pitch bytes a token
// \param inv_scale    the inverse of each token's power of two, written
// \param scratch      a float a warp
// \param first_token  first of the tokens of this pass
// \param num_tokens   tokens of the launch
template <typename C>
__device__ __forceinline__ void load_rows_f16(const u16* rows, u8* x, float* inv_scale, float* scratch, u32 first_token,
                                              u32 num_tokens) {
    using N = Dims<C>;
    using L = Layout<C>;
    constexpr u32 pieces = N::K / 8u;
    using Share = TokenShare<C, pieces>;
    const u32 group = thread_index() / Share::threads, thread = thread_index() % Share::threads;
#pragma unroll 1
    for (u32 t = group; t < N::loaded; t += Share::groups) {
        uint4 v[Share::each];
        float peak = 0.0f;
        const bool live = first_token + t < num_tokens;
#pragma unroll
        for (u32 i = 0; i < Share::each; ++i) {
            const u32 piece = i * Share::threads + thread;
            v[i] = make_uint4(0u, 0u, 0u, 0u);
            if (live && piece < pieces)
                v[i] = __ldcg(reinterpret_cast<const uint4*>(rows + u64(first_token + t) * N::K) + piece);
            const u32 w[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                peak = fmaxf(peak, fmaxf(fabsf(bf16_at(w, 2u * j)), fabsf(bf16_at(w, 2u * j + 1u))));
            }
        }
        peak = share_max<C, Share>(peak, scratch);
        const float scale = activation_scale(peak);
        if (thread == 0) inv_scale[t] = inverse_power(scale);
#pragma unroll
        for (u32 i = 0; i < Share::each; ++i) {
            const u32 piece = i * Share::threads + thread;
            if (piece >= pieces) continue;
            const u32 w[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
            const float f[8] = {bf16_at(w, 0), bf16_at(w, 1), bf16_at(w, 2), bf16_at(w, 3),
                                bf16_at(w, 4), bf16_at(w, 5), bf16_at(w, 6), bf16_at(w, 7)};
            *reinterpret_cast<uint4*>(x + t * L::k_pitch + piece * 16u) = permuted_f16(f, scale);
        }
    }
    block_sync<C>();
}

// One token: the activations of this warp's pieces to permuted f16, with a power of two of their own. No other warp
// reads them, so none waits for another. With several tokens a block's warps take a share each: that is faster.
// \param p          the launch's arguments
// \param x          where they go to
// \param inv_scale  the warp's: the inverse of its power of two, written
// \param token      the token
template <typename C>
__device__ __forceinline__ void load_pieces_f16(const Params& p, u8* x, float* inv_scale, u32 token) {
    using N = Dims<C>;
    using W = Walk<C>;
    constexpr u32 rounds = ceil_div(W::own * W::WoShare::most * 8u, 32u);  // of eight elements a lane
    const u32 lane = thread_index() & 31u, piece = thread_index() / 32u * W::own;
    const u32 begin = W::WoShare::begin(piece) * 8u + lane, end = W::WoShare::begin(piece + W::own) * 8u;
    const uint4* row = reinterpret_cast<const uint4*>(p.attn_rows + u64(token) * N::K);
    float v[rounds][8], peak = 0.0f;
#pragma unroll
    for (u32 i = 0; i < rounds; ++i) {
        uint4 e = make_uint4(0u, 0u, 0u, 0u);
        if (begin + i * 32u < end) e = __ldcg(row + begin + i * 32u);
        const u32 w[4] = {e.x, e.y, e.z, e.w};
#pragma unroll
        for (u32 j = 0; j < 8; ++j) {
            v[i][j] = bf16_at(w, j);
            peak = fmaxf(peak, fabsf(v[i][j]));
        }
    }
#pragma unroll
    for (u32 i = 16; i > 0; i /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, i));
    const float scale = activation_scale(peak);
    if (lane == 0u) *inv_scale = inverse_power(scale);
#pragma unroll
    for (u32 i = 0; i < rounds; ++i) {
        const u32 at = begin + i * 32u;
        if (at < end) *reinterpret_cast<uint4*>(x + at * 16u) = permuted_f16(v[i], scale);
    }
    __syncwarp();
}

// The block's rows by all of K, 16 a stage: a warp's pieces lie side by side. Runs of a piece meet the tensor cores in
// the same order as from a warp's own ring, so the bits are the same.
// \param x     activations, permuted f16
// \param ring  the block's ring, at W_O's stages
// \param lane  the thread in its warp
// \param pick  scale_pick of the lane
// \param put   put(sums, piece, first row, one past the last row)
template <typename C, typename R, typename F>
__device__ __forceinline__ void wo_units(const u8* x, R& ring, u32 lane, u32 pick, F&& put) {
    using N = Dims<C>;
    using L = Layout<C>;
    using W = Walk<C>;
    // With one token columns are few, and whole pieces take the fewest steps.
    using Sh = Share<N::K / 64u, L::pieces, N::tokens == 1u ? 6u : L::chunks>;
    constexpr u32 own = W::own, runs = N::K / 64u;
    const u32 piece = thread_index() / 32u * own;
#pragma unroll 1
    for (u32 tile = 0; tile < R::wo_tiles; ++tile) {
        const bool half = R::wo_eights == 1u || (L::rows % 16u != 0 && tile + 1u == L::row_tiles);
        StageView stage = half ? ring.template consumer_wait<1u>(Sh::begin(piece), runs)
                               : ring.template consumer_wait<2u>(Sh::begin(piece), runs);
#pragma unroll 1
        for (u32 i = 0; i < own; ++i) {
            RowSums<N::tokens> sum;
#pragma unroll 1
            for (u32 part = 0; part < Sh::parts; ++part) {
                const u32 from = Sh::part_begin(piece + i, part), count = Sh::part_size(piece + i, part);
                Column column[columns_of<N::tokens, Sh::size>];
                columns_f16<N::tokens, Sh>(column, x, L::k_pitch, from, count, lane);
                if (half) {
                    tile_stage<L, false, Sh::least, Sh::size>(stage, column, count, sum, pick);
                } else {
                    tile_stage<L, true, Sh::least, Sh::size>(stage, column, count, sum, pick);
                }
                stage.codes += count * L::code_step;
                stage.scales += count * L::scale_step;
            }
            put(sum, piece + i, tile * 8u * R::wo_eights, half ? (tile * R::wo_eights + 1u) * 8u : L::rows);
        }
        ring.template consumer_release<Phase::wo>();
    }
}

// Tensor-core mode, one tile of tokens.
// \param p          the launch's arguments
// \param x          activations, permuted f16
// \param inv_scale  the inverse of their powers of two, a token each
// \param sums       [piece][row][token], written
// \param ring       the ring of weights, at W_O's stages
// \param global     the global scale
// \param first      with more than eight tokens, the warp's runs of the first eight, x has the others; else nothing
template <typename C, typename R, typename... First>
__device__ __forceinline__ void wo_mma(const Params& p, const u8* x, const float* inv_scale, float* sums, R& ring,
                                       float global, const First&... first) {
    using N = Dims<C>;
    using L = Layout<C>;
    using W = Walk<C>;
    const u32 thread = thread_index(), lane = thread & 31u, warp = thread / 32u, pick = scale_pick(lane & 3u);
    const auto put = [&](const RowSums<N::tokens>& sum, u32 piece, u32 first_row, u32 last_row) {
        each_sum(sum, lane, [&](u32 row, u32 token, float value) {
            const u32 r = first_row + row;
            if (r < last_row) {
                sums[(piece * L::rows + r) * N::tokens + token] =
                    __fmul_rn(__fmul_rn(value, __fmul_rn(inv_scale[token], code_rest)), global);
            }
        });
    };
    if constexpr (N::wide) {
        static_assert(R::by_unit, "more than eight tokens a pass take bulk copies: sm_90 and later");
        wo_units_wide<C>(x, ring, lane, pick, first..., put);
    } else if constexpr (R::by_unit) {
        wo_units<C>(x, ring, lane, pick, put);
    } else {
#pragma unroll 1
        for (u32 own = 0; own < W::own; ++own) {
            const u32 piece = warp * W::own + own;
            RowSums<N::tokens> acc[L::row_tiles];
#pragma unroll 1
            for (u32 part = 0; part < W::wo_parts; ++part) {
                using Sh = typename W::WoShare;
                const u32 from = Sh::part_begin(piece, part), count = Sh::part_size(piece, part);
                Column column[columns_of<N::tokens, Sh::size>];
                columns_f16<N::tokens, Sh>(column, x, L::k_pitch, from, count, lane);
                row_tiles<L, Phase::wo, Sh>(ring, column, count, 0u, 0u, acc, pick);
            }
#pragma unroll
            for (u32 tile = 0; tile < L::row_tiles; ++tile) put(acc[tile], piece, tile * 16u, L::rows);
        }
    }
    block_sync<C>();
}

}  // namespace layer
}  // namespace jitc
