// Invariant: FP8 weights, E4M3 [hidden, k_total] row major. A weight is code * scale, rounded once; the scale is one of
// all rows or one a row. Slots, chains and gather are those of wo/chain.cuh. What both modes share is here: rings of
// weights, activations in shared memory, the gather.
//
// A warp streams its weights through a ring of its own, which nobody else waits for: a stage is lines of 128
// consecutive weights of a row, which the warp's lanes copy in whole lines. Activations are bf16, of each four k 0 and 2
// in one word and 1 and 3 in the next, which is how four E4M3 bytes come out as pairs.
#pragma once

#include <jitc/nvfp4/bf16.cuh>
#include <jitc/ptx/cp_async.cuh>
#include <jitc/ptx/griddepcontrol.cuh>
#include <jitc/ptx/ld_st.cuh>
#include <jitc/wo/chain.cuh>

namespace jitc {

constexpr u32 line_len = 128;  // weights, and bytes, of a line
constexpr u32 line_pieces = line_len / 16u;

// Where a 16-byte piece of a line lies in its stage. Both eight lines' pieces of one number and two neighboring lines'
// halves fall into different banks.
__device__ __forceinline__ u32 line_place(u32 line, u32 piece) {
    const u32 turn = (line & 1u) << 2 | (line >> 1 & 3u);
    return line * line_len + ((piece ^ turn) << 4);
}

// Where things lie in shared memory. `lines`: of a stage; `sums`: of a row and token.
template <typename C, u32 lines, u32 sums>
struct Fp8Parts {
    using S = Shape<C>;
    static constexpr u32 threads = C::block_threads, warps = threads / 32u;
    static constexpr u32 stage_bytes = lines * line_len, ring_bytes = C::ring * stage_bytes;
    static constexpr u32 token_bytes = S::k_total * 2u + 16u;  // an odd number of pieces: tokens miss each other's banks
    static constexpr u32 x_at = warps * ring_bytes;
    static constexpr u32 scales_at = x_at + C::tokens * token_bytes;
    static constexpr u32 sums_at = scales_at + C::fp8_rows * 4u;
    static constexpr u32 bytes = sums_at + C::tokens * C::fp8_rows * sums * 4u;

    static_assert(C::ring >= 2u, "a stage is worked on while others travel");
    static_assert(S::k_total % 16u == 0u, "rows are whole pieces");
    static_assert(C::shared_bytes >= bytes, "shared_bytes in the family's TOML is too small");
};

// Activations of the tokens of a pass and the block's scales on their way to shared memory. They are requested before the
// first weights, behind which they would come last; few enough are held in registers meanwhile.
template <typename P, typename C>
struct Fp8Stage {
    using S = Shape<C>;
    static constexpr u32 row_pieces = S::k_total / 8u, all = C::tokens * row_pieces;
    static constexpr u32 mine = ceil_div(all, P::threads);
    static constexpr u32 held_pieces = mine <= 12u ? mine : 1u;

    static constexpr u32 scale_turns = ceil_div(C::fp8_rows, P::threads);

    uint4 held[held_pieces];
    float scale[scale_turns];

    __device__ static uint4 fetch_one(const u16* x, u32 i, u32 first_token, u32 num_tokens) {
        const u32 token = first_token + i / row_pieces;
        return ld_global_v4_if(x + u64(token) * S::k_total + i % row_pieces * 8u, i < all && token < num_tokens);
    }
    __device__ static void store_one(u8* shared, u32 i, const uint4& v) {
        if (i >= all) return;
        const u32 to = P::x_at + i / row_pieces * P::token_bytes + i % row_pieces * 16u;
        *reinterpret_cast<uint4*>(shared + to) =
            make_uint4(__byte_perm(v.x, v.y, 0x5410), __byte_perm(v.x, v.y, 0x7632), __byte_perm(v.z, v.w, 0x5410),
                       __byte_perm(v.z, v.w, 0x7632));
    }
    __device__ __forceinline__ void fetch(u8* shared, const u16* x, u32 first_token, u32 num_tokens) {
        if constexpr (held_pieces == mine) {
#pragma unroll
            for (u32 i = 0; i < mine; ++i) {
                held[i] = fetch_one(x, threadIdx.x + i * P::threads, first_token, num_tokens);
            }
        } else {
#pragma unroll 4
            for (u32 i = threadIdx.x; i < all; i += P::threads) {
                store_one(shared, i, fetch_one(x, i, first_token, num_tokens));
            }
        }
    }
    __device__ __forceinline__ void store(u8* shared) const {
        if constexpr (held_pieces == mine) {
#pragma unroll
            for (u32 i = 0; i < mine; ++i) store_one(shared, threadIdx.x + i * P::threads, held[i]);
        }
    }
    // The scales of the block's rows; past the last row, the last one's.
    __device__ __forceinline__ void fetch_scales(const float* scales) {
#pragma unroll
        for (u32 i = 0; i < scale_turns; ++i) {
            const u32 row = blockIdx.x * C::fp8_rows + i * P::threads + threadIdx.x;
            scale[i] = ld_global(scales + (C::row_scales ? min(row, S::hidden - 1u) : 0u));
        }
    }
    __device__ __forceinline__ void store_scales(u8* shared) const {
#pragma unroll
        for (u32 i = 0; i < scale_turns; ++i) {
            const u32 local = i * P::threads + threadIdx.x;
            if (local < C::fp8_rows) reinterpret_cast<float*>(shared + P::scales_at)[local] = scale[i];
        }
    }
};

// Sixteen weights' steps of the chains of one row, a chain a token.
// \param codes    sixteen weights
// \param scale    of the row
// \param x        shared address of the sixteen activations of the first token
// \param k        first k of the sixteen
// \param begin    first k that is the chain's own; k before it and from `end` on take no step if `masked`
template <typename C, u32 token_bytes, bool masked>
__device__ __forceinline__ void fp8_steps(const uint4& codes, float scale, u32 x, float (&acc)[C::tokens], u32 k = 0u,
                                          u32 begin = 0u, u32 end = 0u) {
    const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float w[2][4];
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            e4m3x4_to_f32(words[half * 2u + i], w[i]);
#pragma unroll
            for (u32 n = 0; n < 4; ++n) w[i][n] = __fmul_rn(w[i][n], scale);
        }
#pragma unroll
        for (u32 t = 0; t < C::tokens; ++t) {
            const float4 pairs = ld_shared<float4>(x + t * token_bytes + half * 16u);
            const u32 v[4] = {__float_as_uint(pairs.x), __float_as_uint(pairs.y), __float_as_uint(pairs.z),
                              __float_as_uint(pairs.w)};
#pragma unroll
            for (u32 n = 0; n < 8; ++n) {
                const u32 pair = v[n / 4u * 2u + (n & 1u)];
                const float value = __uint_as_float((n & 2u) == 0u ? pair << 16 : pair & 0xffff0000u);
                const float next = chain_step<C::accumulate>(w[n / 4u][n % 4u], value, acc[t]);
                const u32 at = k + half * 8u + n;
                acc[t] = !masked || (at >= begin && at < end) ? next : acc[t];
            }
        }
    }
}

// A whole chain, one weight at a time straight from global memory: for sums of tensor cores that are not finite.
template <typename C>
__device__ __noinline__ float fp8_chain_scalar(const u16* x_row, const u8* weight_row, float scale, u32 begin, u32 end) {
    float a = 0.0f;
    for (u32 k = begin; k < end; ++k) {
        a = __fmaf_rn(__fmul_rn(e4m3_to_f32(weight_row[k]), scale), bf16_to_f32(x_row[k]), a);
    }
    return a;
}

}  // namespace jitc
