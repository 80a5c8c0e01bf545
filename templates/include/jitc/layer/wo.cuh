// Invariant: a block owns `cta_rows` neighboring rows of H with all of their slots. Partials are those of wo/chain.cuh
// bit for bit in the exact modes; the sum of the slots is taken in slot order from zero; residual + sum stays in f32
// for the norm and is rounded once for residual_output. Slot 0 of wo_output ends as the sum.
#pragma once

#include <jitc/layer/attention.cuh>
#include <jitc/layer/ring.cuh>
#include <jitc/ptx/opaque.cuh>

namespace jitc {
namespace layer {

// Exact modes. A warp owns `rows_each` rows; a lane owns one slot and up to `lane_rows` of the warp's rows.
template <typename C>
struct Chains {
    using N = Dims<C>;
    using L = Layout<C>;
    using S = typename N::S;
    static constexpr bool whole_runs = L::slot_len % 64u == 0;
    static constexpr bool staged = N::K % 64u == 0 && N::K == L::slots * L::slot_len && L::slot_len % group_len == 0;
    static constexpr u32 rows_each = ceil_div(L::rows, N::warps);
    static constexpr u32 pitch = S::row_bytes + 16u;  // an odd number of 16-byte pieces
    static constexpr u32 scale_pitch = N::K / 16u + 4u;
    static constexpr u32 most = L::warp_ring / (pitch + scale_pitch);  // rows that fit into the warp's ring
    static constexpr u32 pass_rows = rows_each < most ? rows_each : (most == 0 ? 1u : most);
    static constexpr u32 passes = ceil_div(rows_each, pass_rows);
    static constexpr u32 lanes = S::slots < 32u ? S::slots : 32u;  // of a row
    static constexpr u32 slot_rounds = ceil_div(S::slots, 32u);
    static constexpr u32 row_groups = 32u / lanes;
    static constexpr u32 lane_rows = ceil_div(pass_rows, row_groups);
    static_assert(!staged || L::mma || most > 0, "a row of W_O does not fit into a warp's ring");

    __device__ static void issue_copies(const Params& p, u8* ring, u32 pass) {
        const u32 lane = opaque(thread_index() & 31u);  // addresses are worked out again, not kept through attention
        constexpr u32 pieces = S::row_bytes / 16u, words = N::K / 64u;
        u8* scales = ring + pass_rows * pitch;
#pragma unroll 1
        for (u32 r = 0; r < pass_rows; ++r) {
            const u32 local = pass * pass_rows + r, row = row_at(local);
            if (local >= rows_each || row >= row_end()) break;
            const u8* weights = p.wo_weight + u64(row) * S::row_bytes + lane * 16u;
#pragma unroll 8
            for (u32 i = 0; i < pieces; i += 32u) {
                if (i + lane < pieces) cp_async_cg_16(ring + r * pitch + (i + lane) * 16u, weights + i * 16u);
            }
            const u8* from =
                p.wo_scales + u64(row >> 7) * words * 512u + (row & 31u) * 16u + ((row >> 5) & 3u) * 4u + lane * 512u;
#pragma unroll 8
            for (u32 i = 0; i < words; i += 32u) {
                if (i + lane < words) cp_async_ca_4(scales + r * scale_pitch + (i + lane) * 4u, from + i * 512u);
            }
        }
        cp_async_commit_group();
    }
    __device__ static u32 row_at(u32 local) {
        return block_index() * L::rows + thread_index() / 32u * rows_each + local;
    }
    __device__ static u32 row_end() {
        const u32 warp_end = block_index() * L::rows + (thread_index() / 32u + 1u) * rows_each;
        const u32 block_end = (block_index() + 1u) * L::rows;
        const u32 end = warp_end < block_end ? warp_end : block_end;
        return end < N::H ? end : N::H;
    }
};

// The chains of one lane over eight weights of each of its rows.
// \param words   a row's codes
// \param scales  a row's scale, in both halves
// \param x       the activations of the first token
// \param rest    the global scale times pair_rest
// \param acc     the chains, [row][token]
template <typename C, u32 tokens>
__device__ __forceinline__ void chain_eight(const u32 (&words)[Chains<C>::lane_rows],
                                            const u32 (&scales)[Chains<C>::lane_rows], const float* x, float rest,
                                            float (&acc)[Chains<C>::lane_rows][tokens]) {
    using L = Layout<C>;
    constexpr u32 token_floats = L::slots * L::slot_floats;
    float v[tokens][8];
#pragma unroll
    for (u32 t = 0; t < tokens; ++t) {
        const float4* from = reinterpret_cast<const float4*>(x + t * token_floats);
        const float4 a = from[0], b = from[1];
        v[t][0] = a.x;
        v[t][1] = a.y;
        v[t][2] = a.z;
        v[t][3] = a.w;
        v[t][4] = b.x;
        v[t][5] = b.y;
        v[t][6] = b.z;
        v[t][7] = b.w;
    }
#pragma unroll
    for (u32 j = 0; j < Chains<C>::lane_rows; ++j) {
        const Fp4x8 d = fp4x8_to_f16(words[j]);
#pragma unroll
        for (u32 q = 0; q < 2; ++q) {
            const float2 e = cvt_f32x2_f16x2(mul_f16x2(d.even[q], scales[j])),
                         o = cvt_f32x2_f16x2(mul_f16x2(d.odd[q], scales[j]));
            const float w[4] = {__fmul_rn(e.x, rest), __fmul_rn(o.x, rest), __fmul_rn(e.y, rest),
                                __fmul_rn(o.y, rest)};
#pragma unroll
            for (u32 t = 0; t < tokens; ++t) {
#pragma unroll
                for (u32 n = 0; n < 4; ++n) acc[j][t] = chain_step<C::accumulate>(w[n], v[t][4u * q + n], acc[j][t]);
            }
        }
    }
}

// The chains of one lane over one run of 64 weights.
// \param ring     the warp's ring
// \param weights  offsets into it, one a row
// \param scales   likewise
// \param chunk    number of the run in the slot
// \param x        the run's activations of the first token
// \param rest, acc  as of chain_eight
template <typename C, u32 tokens>
__device__ __forceinline__ void chain_run(const u8* ring, const u32 (&weights)[Chains<C>::lane_rows],
                                          const u32 (&scales)[Chains<C>::lane_rows], u32 chunk, const float* x,
                                          float rest, float (&acc)[Chains<C>::lane_rows][tokens]) {
    constexpr u32 rows = Chains<C>::lane_rows;
    E4m3x4 scale[rows];
#pragma unroll
    for (u32 j = 0; j < rows; ++j)
        scale[j] = e4m3x4_to_f16(*reinterpret_cast<const u32*>(ring + scales[j] + chunk * 4u));
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u32 words[4][rows];
#pragma unroll
        for (u32 j = 0; j < rows; ++j) {
            const uint4 w = *reinterpret_cast<const uint4*>(ring + weights[j] + chunk * 32u + half * 16u);
            words[0][j] = w.x;
            words[1][j] = w.y;
            words[2][j] = w.z;
            words[3][j] = w.w;
        }
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 pairs[rows];
#pragma unroll
            for (u32 j = 0; j < rows; ++j) pairs[j] = scale[j].pair[half * 2u + i / 2u];
            chain_eight<C, tokens>(words[i], pairs, x + half * 32u + i * 8u, rest, acc);
        }
    }
}

// The chains of one lane over `count` scale groups, at most four, of a slot that is not whole runs: its weights begin at
// any eight bytes, and the scales of four groups lie in one word or in two.
// \param group  the first of them, counted in the slot
// \param x      its activations of the first token
// Others as of chain_run.
template <typename C, u32 tokens, u32 count>
__device__ __forceinline__ void chain_groups(const u8* ring, const u32 (&weights)[Chains<C>::lane_rows],
                                             const u32 (&scales)[Chains<C>::lane_rows], u32 group, const float* x,
                                             float rest, float (&acc)[Chains<C>::lane_rows][tokens]) {
    constexpr u32 rows = Chains<C>::lane_rows;
    E4m3x4 scale[rows];
#pragma unroll
    for (u32 j = 0; j < rows; ++j) {
        const u32 at = scales[j] + group;
        // A row's scales have four bytes of padding behind them.
        const u32* from = reinterpret_cast<const u32*>(ring + at / 4u * 4u);
        scale[j] = e4m3x4_to_f16(__funnelshift_r(from[0], from[1], at % 4u * 8u));
    }
#pragma unroll
    for (u32 of = 0; of < count; ++of) {
        u32 words[2][rows], pairs[rows];
#pragma unroll
        for (u32 j = 0; j < rows; ++j) {
            const uint2 w = *reinterpret_cast<const uint2*>(ring + weights[j] + (group + of) * 8u);
            words[0][j] = w.x;
            words[1][j] = w.y;
            pairs[j] = scale[j].pair[of];
        }
#pragma unroll
        for (u32 i = 0; i < 2; ++i) chain_eight<C, tokens>(words[i], pairs, x + of * 16u + i * 8u, rest, acc);
    }
}

// Chains of one token sub-tile for the rows of one pass, into sums[slot][row][token].
// \param p              the launch's arguments
// \param ring           the warp's ring, with the weights of the pass
// \param x              activations as floats, [token][slot]
// \param sums           the block's sums
// \param global         the global scale
// \param pass           which of the warp's rows
// \param first_token    first token of the sub-tile
// \param token_in_tile  its number in the tile
template <typename C>
__device__ __forceinline__ void chains_of_pass(const Params& p, const u8* ring, const float* x, float* sums,
                                               float global, u32 pass, u32 first_token, u32 token_in_tile) {
    using Ch = Chains<C>;
    using L = Layout<C>;
    using N = Dims<C>;
    constexpr u32 tokens = L::exact_tokens;
    const u32 lane = thread_index() & 31u;
    const u32 group = lane / Ch::lanes;
    const bool plain = Ch::staged && !(fabsf(global) >= pair_limit);
    const float rest = __fmul_rn(global, pair_rest);
#pragma unroll 1
    for (u32 round = 0; round < Ch::slot_rounds; ++round) {
        const u32 slot = round * 32u + lane % Ch::lanes;
        float acc[Ch::lane_rows][tokens];
#pragma unroll
        for (u32 j = 0; j < Ch::lane_rows; ++j) {
#pragma unroll
            for (u32 t = 0; t < tokens; ++t) acc[j][t] = 0.0f;
        }
        if (plain) {
            // A lane past the last row repeats it and stores nothing.
            u32 w[Ch::lane_rows], sc[Ch::lane_rows];
#pragma unroll
            for (u32 j = 0; j < Ch::lane_rows; ++j) {
                const u32 row = group + j * Ch::row_groups, r = row < Ch::pass_rows ? row : Ch::pass_rows - 1u;
                w[j] = r * Ch::pitch + slot * (L::slot_len / 2u);
                sc[j] = Ch::pass_rows * Ch::pitch + r * Ch::scale_pitch + slot * (L::slot_len / 16u);
            }
            const float* v = x + slot * L::slot_floats;
            constexpr u32 runs = L::slot_len / 64u, left = L::slot_len % 64u / group_len;
#pragma unroll 1
            for (u32 c = 0; c < runs; ++c) {
                if constexpr (Ch::whole_runs) {
                    chain_run<C, tokens>(ring, w, sc, c, v + c * 64u, rest, acc);
                } else {
                    chain_groups<C, tokens, 4u>(ring, w, sc, c * 4u, v + c * 64u, rest, acc);
                }
            }
            if constexpr (left != 0u) chain_groups<C, tokens, left>(ring, w, sc, runs * 4u, v + runs * 64u, rest, acc);
        } else {
#pragma unroll
            for (u32 j = 0; j < Ch::lane_rows; ++j) {
                const u32 local = pass * Ch::pass_rows + group + j * Ch::row_groups, row = Ch::row_at(local);
#pragma unroll
                for (u32 t = 0; t < tokens; ++t) {
                    const bool live = local < Ch::rows_each && row < Ch::row_end() && first_token + t < p.num_tokens;
                    if (live) {
                        acc[j][t] = chain_scalar<C>(p.attn_rows + u64(first_token + t) * N::K, p.wo_weight, p.wo_scales,
                                                    global, row, N::S::slot_begin(slot), N::S::slot_end(slot));
                    }
                }
            }
        }
#pragma unroll
        for (u32 j = 0; j < Ch::lane_rows; ++j) {
            const u32 in_pass = group + j * Ch::row_groups, local = pass * Ch::pass_rows + in_pass;
            if (in_pass >= Ch::pass_rows || local >= Ch::rows_each || Ch::row_at(local) >= Ch::row_end()) continue;
            const u32 r = Ch::row_at(local) - blockIdx.x * L::rows;
#pragma unroll
            for (u32 t = 0; t < tokens; ++t) {
                if (token_in_tile + t < N::tokens)
                    sums[(slot * L::rows + r) * N::tokens + token_in_tile + t] = acc[j][t];
            }
        }
    }
}

// Exact modes, one tile of tokens. The first pass of the first tile is in flight already.
// \param p            the launch's arguments
// \param x_shared     room for the activations
// \param sums         the block's sums, [slot][row][token]
// \param warp_ring    the warp's ring
// \param global       the global scale
// \param first_token  first of the tokens of this pass
template <typename C>
__device__ __forceinline__ void wo_exact(const Params& p, u8* x_shared, float* sums, u8* warp_ring, float global,
                                         u32 first_token) {
    using Ch = Chains<C>;
    using L = Layout<C>;
    using N = Dims<C>;
    float* x = reinterpret_cast<float*>(x_shared);
    constexpr u32 sub = L::exact_tokens;
#pragma unroll 1
    for (u32 pass = 0; pass < Ch::passes; ++pass) {
        if (Ch::staged && !(pass == 0 && first_token == 0)) {
            if (Ch::passes > 1u) {
                __syncwarp();
                Ch::issue_copies(p, warp_ring, pass);
            }
        }
#pragma unroll 1
        for (u32 t = 0; t < N::tokens && first_token + t < p.num_tokens; t += sub) {
            if (Ch::staged) {
                block_sync<C>();
                constexpr u32 pieces = N::K / 4u;
                for (u32 i = thread_index(); i < sub * pieces; i += N::threads) {
                    const u32 token = i / pieces, k = i % pieces * 4u;
                    uint2 v = make_uint2(0u, 0u);
                    if (first_token + t + token < p.num_tokens) {
                        v = __ldcg(
                            reinterpret_cast<const uint2*>(p.attn_rows + u64(first_token + t + token) * N::K + k));
                    }
                    float* to = x + (token * L::slots + k / L::slot_len) * L::slot_floats + k % L::slot_len;
                    *reinterpret_cast<float4*>(to) =
                        make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u),
                                    __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xffff0000u));
                }
                block_sync<C>();
                cp_async_wait_group<0>();
                __syncwarp();
            }
            chains_of_pass<C>(p, warp_ring, x, sums, global, pass, first_token + t, t);
        }
    }
    block_sync<C>();
}

// What a thread adds to the sums that it finishes: loaded before the products, since behind the weights of FC1 in the
// queue it would take a microsecond.
template <typename C>
struct Residual {
    using N = Dims<C>;
    static constexpr u32 items = Layout<C>::rows * N::tokens, rounds = ceil_div(items, N::threads);
    float value[rounds];

    __device__ __forceinline__ Residual(const Params& p, u32 first_token) {
#pragma unroll
        for (u32 j = 0; j < rounds; ++j) {
            const u32 i = j * N::threads + thread_index(), row = blockIdx.x * Layout<C>::rows + i % Layout<C>::rows;
            const u32 token = first_token + i / Layout<C>::rows;
            value[j] = 0.0f;
            if (i < items && row < N::H && token < p.num_tokens)
                value[j] = bf16_to_f32(__ldg(p.residual_in + u64(token) * N::H + row));
        }
    }
};

// Partials out, slots summed in order, residual added.
// \param p            the launch's arguments
// \param sums         the block's sums
// \param first_token  first of the tokens of this pass
// \param residual     what the thread adds
template <typename C>
__device__ __forceinline__ void wo_finish(const Params& p, const float* sums, u32 first_token,
                                          const Residual<C>& residual) {
    using N = Dims<C>;
    using L = Layout<C>;
    const u32 thread = thread_index(), first_row = blockIdx.x * L::rows;
    constexpr u32 parts = L::mma ? L::pieces / L::slots : 1u, items = Residual<C>::items;
    const auto partial = [&](u32 slot, u32 r, u32 t) {
        const float* from = sums + (slot * parts * L::rows + r) * N::tokens + t;
        float sum = from[0];
#pragma unroll
        for (u32 j = 1; j < parts; ++j) sum = __fadd_rn(sum, from[j * items]);
        return sum;
    };
    for (u32 i = thread; i < (L::slots - 1u) * items; i += N::threads) {
        const u32 slot = 1u + i / items, t = i % items / L::rows, r = i % L::rows, row = first_row + r,
                  token = first_token + t;
        if (row < N::H && token < p.num_tokens) p.wo_output[(u64(token) * L::slots + slot) * N::H + row] = partial(slot, r, t);
    }
#pragma unroll
    for (u32 j = 0; j < Residual<C>::rounds; ++j) {
        const u32 i = j * N::threads + thread;
        const u32 t = i / L::rows, r = i % L::rows, row = first_row + r, token = first_token + t;
        if (i >= items || row >= N::H || token >= p.num_tokens) continue;
        float acc = 0.0f;
#pragma unroll 8
        for (u32 slot = 0; slot < L::slots; ++slot) acc = __fadd_rn(acc, partial(slot, r, t));
        p.wo_output[u64(token) * L::slots * N::H + row] = acc;
        const float sum = __fadd_rn(residual.value[j], acc);
        p.summed[u64(token) * N::H + row] = sum;
        p.residual_output[u64(token) * N::H + row] = to_bf16(sum);
    }
    block_sync<C>();
}

}  // namespace layer
}  // namespace jitc
