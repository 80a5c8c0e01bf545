// Invariant: FC1, the activation and the quantization of 16 neighboring elements happen in one block, which alone
// writes their codes and scale; FC2's rows belong to one block each, so mlp_output needs no partial sums in memory.
// Sums over warps are taken in warp order.
#pragma once

#include <jitc/layer/wo_mma.cuh>
#include <jitc/nvfp4/quantize.cuh>

namespace jitc {
namespace layer {

// RMSNorm of the summed rows of as many tokens as are loaded at a time, by every block for itself: x in shared memory as
// f16; attn_output's row is shared out.
// \param p            the launch's arguments
// \param x            where the rows go to, h_pitch bytes a token
// \param inv_scale    the inverse of each token's f16 scale, written
// \param scratch      two floats a warp
// \param first_token  first of the tokens of this pass
template <typename C>
__device__ __forceinline__ void norm_rows(const Params& p, u8* x, float* inv_scale, float* scratch, u32 first_token) {
    using N = Dims<C>;
    using L = Layout<C>;
    constexpr u32 pieces = N::H / 8u, mine = ceil_div(pieces, N::ctas);
    using Share = TokenShare<C, pieces>;
    const u32 group = thread_index() / Share::threads, thread = thread_index() % Share::threads;
    const u32 lane = thread & 31u, warp = thread_index() / 32u;
    const float* squares = scratch + group * Share::warps;
    const float* peaks = squares + N::warps;
#pragma unroll 1
    for (u32 t = group; t < N::loaded; t += Share::groups) {
        const u32 token = first_token + t;
        // Unused columns are never looked at, but must not hold NaN patterns that a mask lets through: they become
        // zeros.
        const bool live = token < p.num_tokens;
        float v[Share::each][8];
        float square = 0.0f, peak = 0.0f;
#pragma unroll
        for (u32 i = 0; i < Share::each; ++i) {
            const u32 piece = i * Share::threads + thread;
            if (piece >= pieces || !live) {
#pragma unroll
                for (u32 j = 0; j < 8; ++j) v[i][j] = 0.0f;
                continue;
            }
            const float4* from = reinterpret_cast<const float4*>(p.summed + u64(token) * N::H) + piece * 2u;
            const float4 a = __ldcg(from), b = __ldcg(from + 1);
            const uint4 gamma = __ldg(reinterpret_cast<const uint4*>(p.post_gamma) + piece);
            const float s[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
            const u32 w[4] = {gamma.x, gamma.y, gamma.z, gamma.w};
#pragma unroll
            for (u32 j = 0; j < 8; ++j) {
                square = __fmaf_rn(s[j], s[j], square);
                const float one_gamma =
                    __fadd_rn(1.0f, __uint_as_float(j & 1u ? w[j / 2u] & 0xffff0000u : w[j / 2u] << 16));
                peak = fmaxf(peak, fabsf(__fmul_rn(s[j], one_gamma)));
                v[i][j] = s[j];
            }
        }
#pragma unroll
        for (u32 i = 16; i > 0; i /= 2) {
            square = __fadd_rn(square, __shfl_xor_sync(~0u, square, i));
            peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, i));
        }
        if (lane == 0) {
            scratch[warp] = square;
            scratch[N::warps + warp] = peak;
        }
        block_sync<C>();
        square = squares[0];
        peak = peaks[0];
#pragma unroll
        for (u32 w = 1; w < Share::warps; ++w) {
            square = __fadd_rn(square, squares[w]);
            peak = fmaxf(peak, peaks[w]);
        }
        const float inverse = live ? rsqrtf(__fadd_rn(__fdiv_rn(square, float(N::H)), p.rms_eps)) : 0.0f;
        const float scale = activation_scale(__fmul_rn(peak, inverse));
        if (thread == 0) inv_scale[t] = inverse_power(scale);
#pragma unroll
        for (u32 i = 0; i < Share::each; ++i) {
            const u32 piece = i * Share::threads + thread;
            if (piece >= pieces) continue;
            const uint4 gamma = __ldg(reinterpret_cast<const uint4*>(p.post_gamma) + piece);
            const u32 w[4] = {gamma.x, gamma.y, gamma.z, gamma.w};
            u32 out[4];
            float f[8];
#pragma unroll
            for (u32 j = 0; j < 8; ++j) {
                const float one_gamma =
                    __fadd_rn(1.0f, __uint_as_float(j & 1u ? w[j / 2u] & 0xffff0000u : w[j / 2u] << 16));
                f[j] = __fmul_rn(__fmul_rn(v[i][j], inverse), one_gamma);
            }
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                out[j] = cvt_bf16x2(f[2u * j], f[2u * j + 1u]);
                f[2u * j] = __uint_as_float(out[j] << 16);
                f[2u * j + 1u] = __uint_as_float(out[j] & 0xffff0000u);
            }
            if (live && piece / mine == blockIdx.x) {
                reinterpret_cast<uint4*>(p.attn_output + u64(token) * N::H)[piece] =
                    make_uint4(out[0], out[1], out[2], out[3]);
            }
            *reinterpret_cast<uint4*>(x + t * L::h_pitch + piece * 16u) = permuted_f16(f, scale);
        }
        block_sync<C>();
    }
    block_sync<C>();
}

// Sums of the warps for 16 elements of a token, activation, quantization. One thread an element; 16 neighbors a block.
// \param p            the launch's arguments
// \param sums         [warp][16 of gate, 16 of up][token] of this tile
// \param inv_scale    of each token's activations
// \param first_token  first of the tokens of this pass
// \param tile         number of the 16 elements in the row
// \param item         element and token of this thread
// \param live         false in lanes that only take part in shuffles
template <typename C>
__device__ __forceinline__ void finish_fc1(const Params& p, const float* sums, const float* inv_scale, u32 first_token,
                                           u32 tile, u32 item, bool live) {
    using N = Dims<C>;
    const u32 t = item / 16u, r = item & 15u, token = first_token + t;
    float gate = 0.0f, up = 0.0f;
#pragma unroll
    for (u32 w = 0; w < N::warps; ++w) {
        gate = __fadd_rn(gate, sums[(w * 32u + r) * N::tokens + t]);
        up = __fadd_rn(up, sums[(w * 32u + 16u + r) * N::tokens + t]);
    }
    const float factor = __fmul_rn(inv_scale[t], code_rest);
    gate = __fmul_rn(__fmul_rn(gate, factor), p.gate_up_global);
    up = __fmul_rn(__fmul_rn(up, factor), p.gate_up_global);
    const u16 middle = to_bf16(__fmul_rn(__fmul_rn(gate, sigmoid(gate)), up));
    const u32 at = tile * 16u + r;
    const float value = bf16_to_f32(middle);
    float peak = fabsf(value);
#pragma unroll
    for (u32 i = 8; i > 0; i /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, i));
    const u32 scale = block_scale(peak), code = fp4_code(value, e4m3_to_f32(scale));
    const u32 pair = code | __shfl_down_sync(~0u, code, 1) << 4;
    if (!live || token >= p.num_tokens) return;
    if (p.inter != nullptr) p.inter[u64(token) * N::I + at] = middle;
    if ((r & 1u) == 0u) p.inter_codes[u64(token) * (N::I / 2u) + at / 2u] = u8(pair);
    if (r == 0u) p.inter_scales[u64(token) * (N::I / 16u) + tile] = u8(scale);
}

// One tile of tokens: all of this block's tiles of gate and up. `batch` tiles are finished together, so that the warps
// meet rarely.
// \param p            the launch's arguments
// \param x            activations as norm_rows left them
// \param inv_scale    of each token's activations
// \param sums         room for the warps' sums of a batch
// \param ring         the ring of weights, at FC1's stages
// \param first_token  first of the tokens of this pass
// \param first        with more than eight tokens, the warp's runs of the first eight; x has the others
template <typename C, typename R, typename First>
__device__ __forceinline__ void fc1(const Params& p, const u8* x, const float* inv_scale, float* sums, R& ring,
                                    u32 first_token, const First& first) {
    using N = Dims<C>;
    using L = Layout<C>;
    using Sh = typename R::Fc1Share;
    constexpr u32 batch = L::fc1_batch, tile_floats = N::warps * 32u * N::tokens, items = 16u * N::tokens;
    const u32 thread = thread_index(), lane = thread & 31u, warp = thread / 32u, pick = scale_pick(lane & 3u);
    const u32 count = Walk<C>::fc1_count();
    // Activations stay in registers where all of a warp's fit.
    Column column[N::wide ? 1u : columns_of<N::tokens, Sh::size>];
    const auto load = [&](u32 part) {
        if constexpr (!N::wide) {
            columns_f16<N::tokens, Sh>(column, x, L::h_pitch, Sh::part_begin(warp, part), Sh::part_size(warp, part),
                                       lane);
        }
    };
    if constexpr (Sh::parts == 1u) load(0u);
#pragma unroll 1
    for (u32 i = 0; i < count; ++i) {
        RowSums<N::tokens> sum[2];  // gate and up; or of eight rows of both, then of the next eight
        if constexpr (N::wide) {
            fc1_tile_wide<C>(x, ring, warp, lane, pick, first, sum);
        } else {
#pragma unroll 1
            for (u32 part = 0; part < Sh::parts; ++part) {
                if constexpr (Sh::parts > 1u) load(part);
                const u32 size = Sh::part_size(warp, part), before = Sh::before(warp, part), length = Sh::length(part);
#pragma unroll
                for (u32 half = 0; half < 2; ++half) {
                    tile_stage<L, true, Sh::least, Sh::size>(ring.template consumer_wait<2u>(before, length), column,
                                                             size, sum[half], pick);
                    ring.template consumer_release<Phase::fc1>();
                }
            }
        }
        const u32 in_batch = i % batch;
        float* to = sums + in_batch * tile_floats + warp * 32u * N::tokens;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            each_sum(sum[half], lane, [&](u32 row, u32 token, float value) {
                const u32 place = R::by_unit ? (row & 8u) * 2u + half * 8u + (row & 7u) : half * 16u + row;
                to[place * N::tokens + token] = value;
            });
        }
        if (in_batch + 1u == batch || i + 1u == count) {
            block_sync<C>();
            const u32 all = (in_batch + 1u) * items;
            for (u32 base = warp * 32u; base < all; base += N::threads) {
                const u32 item = base + lane < all ? base + lane : base + lane - 16u;  // whole warps for the shuffles
                finish_fc1<C>(p, sums + item / items * tile_floats, inv_scale, first_token,
                              blockIdx.x + (i - in_batch + item / items) * N::ctas, item % items, base + lane < all);
            }
            block_sync<C>();
        }
    }
}

// The MLP's middle, codes and then scales, from all blocks into shared memory.
// \param p            the launch's arguments
// \param x            where they go to: code_pitch bytes a token, then code_scale_pitch bytes a token
// \param first_token  first of the tokens of this pass
template <typename C>
__device__ __forceinline__ void load_codes(const Params& p, u8* x, u32 first_token) {
    using N = Dims<C>;
    using L = Layout<C>;
    u8* scales = x + N::tokens * L::code_pitch;
    constexpr u32 pieces = N::I / 32u, words = N::I / 64u;  // of a token
    constexpr u32 piece_rounds = ceil_div(N::tokens * pieces, N::threads),
                  word_rounds = ceil_div(N::tokens * words, N::threads);
    const u32 thread =
        opaque(thread_index());  // addresses worked out before the loop over token tiles would not stay in registers
    // All scales are on their way before the first codes are stored.
    u32 word[word_rounds];
#pragma unroll
    for (u32 j = 0; j < word_rounds; ++j) {
        const u32 i = j * N::threads + thread, t = i / words, at = i % words;
        word[j] = 0;
        if (t < N::tokens && first_token + t < p.num_tokens) {
            word[j] = __ldcg(reinterpret_cast<const u32*>(p.inter_scales + u64(first_token + t) * (N::I / 16u)) + at);
        }
    }
    constexpr u32 at_once = piece_rounds < 4u ? piece_rounds : 4u;
#pragma unroll 1
    for (u32 j = 0; j < piece_rounds; j += at_once) {
        uint4 v[at_once];
#pragma unroll
        for (u32 l = 0; l < at_once; ++l) {
            const u32 i = (j + l) * N::threads + thread, t = i / pieces, at = i % pieces;
            v[l] = make_uint4(0u, 0u, 0u, 0u);
            if (t < N::tokens && first_token + t < p.num_tokens) {
                v[l] = __ldcg(reinterpret_cast<const uint4*>(p.inter_codes + u64(first_token + t) * (N::I / 2u)) + at);
            }
        }
#pragma unroll
        for (u32 l = 0; l < at_once; ++l) {
            const u32 i = (j + l) * N::threads + thread, t = i / pieces, at = i % pieces;
            if (t < N::tokens) *reinterpret_cast<uint4*>(x + t * L::code_pitch + at * 16u) = v[l];
        }
    }
#pragma unroll
    for (u32 j = 0; j < word_rounds; ++j) {
        const u32 i = j * N::threads + thread, t = i / words, at = i % words;
        if (t < N::tokens) *reinterpret_cast<u32*>(scales + t * L::code_scale_pitch + at * 4u) = word[j];
    }
    block_sync<C>();
}

// One tile of tokens: this block's rows of the MLP's output.
// \param p            the launch's arguments
// \param x            codes and scales as load_codes left them
// \param sums         room for the warps' sums
// \param ring         the ring of weights, at FC2's stages
// \param first_token  first of the tokens of this pass
template <typename C, typename R>
__device__ __forceinline__ void fc2(const Params& p, const u8* x, float* sums, R& ring, u32 first_token) {
    using N = Dims<C>;
    using L = Layout<C>;
    const u32 thread = thread_index(), lane = thread & 31u, warp = thread / 32u, pick = scale_pick(lane & 3u);
    const u8* scales = x + N::tokens * L::code_pitch;
    RowSums<N::tokens> acc[L::row_tiles];
    if constexpr (N::wide) {
        fc2_tiles_wide<C>(p, ring, first_token, warp, lane, pick, acc);
    } else {
#pragma unroll 1
        for (u32 part = 0; part < R::Fc2Share::parts; ++part) {
            using Sh = typename R::Fc2Share;
            const u32 from = Sh::part_begin(warp, part), count = Sh::part_size(warp, part);
            Column column[columns_of<N::tokens, Sh::size>];
            columns_fp4<N::tokens, Sh>(column, x, L::code_pitch, scales, L::code_scale_pitch, from, count, lane, pick);
            row_tiles<L, Phase::fc2, Sh>(ring, column, count, Sh::before(warp, part), Sh::length(part), acc, pick);
        }
    }
    constexpr u32 stretch = L::row_tiles * 16u * N::tokens;
#pragma unroll
    for (u32 tile = 0; tile < L::row_tiles; ++tile) {
        each_sum(acc[tile], lane, [&](u32 row, u32 token, float value) {
            sums[warp * stretch + (tile * 16u + row) * N::tokens + token] = value;
        });
    }
    block_sync<C>();
    for (u32 i = thread; i < L::rows * N::tokens; i += N::threads) {
        const u32 token = first_token + i / L::rows, r = i % L::rows, row = blockIdx.x * L::rows + r;
        if (row >= N::H || token >= p.num_tokens) continue;
        float sum = 0.0f;
#pragma unroll
        for (u32 w = 0; w < N::warps; ++w) sum = __fadd_rn(sum, sums[w * stretch + r * N::tokens + i / L::rows]);
        // Both operands carry code_rest's reciprocal.
        sum = __fmul_rn(__fmul_rn(sum, code_rest * code_rest), p.down_global);
        p.mlp_output[u64(token) * N::H + row] = to_bf16(sum);
    }
    block_sync<C>();
}

}  // namespace layer
}  // namespace jitc
