// Invariant: sums of a part depend on the shape and part_len alone, never on warps, tiles or the number of tokens. A part
// is part_len consecutive k of a row and two sums, each from +0 in ascending k, sixteen products a step: of every 64 k,
// step i takes from each of the four runs of 16 its weights 4i to 4i + 3, steps 0 and 2 into the first sum, 1 and 3 into
// the second; where a part ends among the 64, a step has the runs that are the part's own. How a step rounds is the
// tensor core's. A part is first + second, a slot its parts in order, times the scale; the output is 0, plus slot 0, plus
// slot 1, and so on. An output that is not finite is worked out again as the exact fma chains of its slots.
//
// A warp owns a range of k for all rows of its block, sixteen rows (a tile) by 128 k a stage. Weights are operand A, a
// row a lane quad; column t of B is token t, so up to eight tokens cost one.
#pragma once

#include <jitc/ptx/mma.cuh>
#include <jitc/ptx/opaque.cuh>
#include <jitc/wo/fp8.cuh>

namespace jitc {

template <typename C>
struct Fp8Mma : Fp8Parts<C, 16u, Shape<C>::k_total / C::part_len> {
    using S = Shape<C>;
    static constexpr u32 part_len = C::part_len, parts = S::k_total / part_len;
    static constexpr u32 slot_parts = S::k_head / S::split / part_len;
    static constexpr u32 range_len = S::k_total / C::k_warps, pieces = range_len / line_len;
    static constexpr u32 range_parts = range_len / part_len;
    static constexpr u32 rows = C::fp8_rows, tiles = ceil_div(rows, 16u);
    static constexpr u32 sets = ceil_div(C::tokens, 8u);

    static_assert(C::block_threads == C::k_warps * 32u, "threads follow from the warps");
    static_assert(S::k_head % (S::split * part_len) == 0u, "a slot is whole parts");
    static_assert(range_len % line_len == 0u && range_len % part_len == 0u, "a warp has whole lines and parts");
    static_assert(part_len % 16u == 0u && part_len >= 32u, "a part is whole runs");
};

// A warp's place among its stages, as its copies see it: pieces of a tile, then tiles.
template <typename C>
struct Fp8Copies {
    using L = Fp8Mma<C>;
    static constexpr u32 row_bytes = L::S::k_total;
    const u8* from;  // the lane's piece of the first of its four lines
    u32 to[2];       // where it goes in a stage, of even and of odd lines of four
    u32 piece, rows;  // rows from the lane's first line to the block's last

    // \param weight  the block's first row, at the warp's first k
    // \param rows_   rows that the block has
    __device__ Fp8Copies(const u8* weight, u32 rows_) : piece(0u) {
        const u32 line = (threadIdx.x & 31u) / 8u, in_line = threadIdx.x % 8u;
        from = weight + line * row_bytes + in_line * 16u;
        to[0] = line_place(line, in_line);
        to[1] = line_place(line + 4u, in_line);
        opaque(to[0], to[1]);
        rows = rows_ > line ? rows_ - line : 0u;
    }
    // Issues the copies of the next stage, and closes their group even if there are none.
    __device__ __forceinline__ void next(u32 stage) {
#pragma unroll
        for (u32 i = 0; i < 4u; ++i) {
            if (i * 4u < rows) {
                cp_async_cg_16_ahead(stage + to[i % 2u] + i / 2u * (8u * line_len), from + i * 4u * row_bytes);
            }
        }
        cp_async_commit_group();
        from += line_len;
        if (++piece == L::pieces) {
            piece = 0u;
            from += 16u * row_bytes - L::range_len;
            rows = rows > 16u ? rows - 16u : 0u;
        }
    }
};

// Four E4M3 bytes as bf16, exactly: bytes 0 and 2 in the halves of even, 1 and 3 in those of odd.
__device__ __forceinline__ void e4m3x4_to_bf16_exact(u32 bytes, u32& even, u32& odd) {
    constexpr u32 sign = 0x80008000u, rest = 0x07f007f0u, off_by = 0x7b807b80u;  // 2^120
    even = mul_bf16x2(((bytes << 4) & rest) | ((bytes << 8) & sign), off_by);
    odd = mul_bf16x2(((bytes >> 4) & rest) | (bytes & sign), off_by);
}

// What a warp works with besides its stages.
template <typename C>
struct Fp8Lane {
    using L = Fp8Mma<C>;
    u32 g, t;
    u32 x;     // shared address of the activations of token g, at the lane's first k
    u32 sums;  // shared address of the warp's first part, at row g and token 2t
    u32 codes[2];  // where a stage has the lane's piece of row g, of either half
    uint4 b[L::sets][2];
    Mma4 sum[2][L::sets];

    __device__ Fp8Lane(u32 shared, u32 k_warp) {
        g = (threadIdx.x & 31u) >> 2;
        t = threadIdx.x & 3u;
        x = shared + L::x_at + g * L::token_bytes + (k_warp * L::range_len + t * 16u) * 2u;
        sums = shared + L::sums_at + (k_warp * L::range_parts * C::tokens + t * 2u) * (L::rows * 4u) + g * 4u;
        codes[0] = line_place(g, t);
        codes[1] = line_place(g, 4u + t);
        opaque(codes[0], codes[1]);
        opaque(x, sums);
        clear_activations();
        clear();
    }
    // Lanes that have no token keep zeros here.
    __device__ __forceinline__ void clear_activations() {
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) b[n][0] = b[n][1] = make_uint4(0u, 0u, 0u, 0u);
    }
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) sum[0][n] = sum[1][n] = Mma4{{0.0f, 0.0f, 0.0f, 0.0f}};
    }
    // Puts a part's sums down and starts the next.
    __device__ __forceinline__ void put(u32 part, u32 tile) {
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) {
#pragma unroll
            for (u32 i = 0; i < 4u; ++i) {
                const u32 token = 8u * n + i % 2u, row = tile * 16u + i / 2u * 8u;
                const u32 to = sums + (part * C::tokens + token) * (L::rows * 4u) + row * 4u;
                st_shared_if(to, __fadd_rn(sum[0][n].v[i], sum[1][n].v[i]),
                             token + 2u * t < C::tokens && row < L::rows);
            }
        }
        clear();
    }
    // The lane's sixteen weights of a row. `of`: shared address of eight lines.
    __device__ __forceinline__ uint4 weights(u32 of, u32 h) const {
        const float4 v = ld_shared<float4>(of + codes[h]);
        return make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z), __float_as_uint(v.w));
    }
    // Half a line's four steps: 64 k of sixteen rows, of `few` the lower eight. `some`: runs outside [first, end) take no
    // part.
    template <bool few, bool some>
    __device__ __forceinline__ void half(const uint4& low, const uint4& high, u32 k, u32 first, u32 end) {
        if constexpr (some) clear_activations();
#pragma unroll
        for (u32 n = 0; n < L::sets; ++n) {
            const bool own = 8u * n + g < C::tokens && (!some || (t >= first && t < end));
            ld_shared_v4_if(b[n][0], x + n * 8u * L::token_bytes + k * 2u, own);
            ld_shared_v4_if(b[n][1], x + n * 8u * L::token_bytes + k * 2u + 16u, own);
        }
        const u32 lows[4] = {low.x, low.y, low.z, low.w}, highs[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
        for (u32 i = 0; i < 4u; ++i) {
            u32 a0, a1 = 0u, a2, a3 = 0u;
            e4m3x4_to_bf16_exact(lows[i], a0, a2);
            if constexpr (!few) e4m3x4_to_bf16_exact(highs[i], a1, a3);
#pragma unroll
            for (u32 n = 0; n < L::sets; ++n) {
                const uint4& v = b[n][i / 2u];
                const u64 pairs = i % 2u == 0u ? u64(v.y) << 32 | v.x : u64(v.w) << 32 | v.z;
                mma_m16n8k16_bf16(sum[i % 2u][n], a0, a1, a2, a3, pairs);
            }
        }
    }
};

// Works a stage off. `part` and `left`: the part of the range that it begins in, and what k are left of that. `few`: the
// tile has eight rows.
template <typename C, bool few>
__device__ __forceinline__ void fp8_mma_work(Fp8Lane<C>& lane, u32 stage, u32 tile, u32 piece, u32& part, u32& left) {
    using L = Fp8Mma<C>;
    auto took = [&](u32 count) {
        left -= count;
        if (left == 0u) {
            lane.put(part, tile);
            ++part;
            left = L::part_len;
        }
    };
#pragma unroll
    for (u32 h = 0; h < 2u; ++h) {
        const u32 k = piece * line_len + h * 64u;
        const uint4 low = lane.weights(stage, h);
        uint4 high = make_uint4(0u, 0u, 0u, 0u);
        if constexpr (!few) high = lane.weights(stage + 8u * line_len, h);
        if constexpr (L::part_len % 64u == 0u) {
            lane.template half<few, false>(low, high, k, 0u, 4u);
            took(64u);
        } else {
#pragma unroll 1
            for (u32 run = 0u; run < 4u;) {
                const u32 end = min(4u, run + left / 16u);
                lane.template half<few, true>(low, high, k, run, end);
                took((end - run) * 16u);
                run = end;
            }
        }
    }
}

// The parts gathered, behind a block barrier: each output element by one thread.
// \param attn, weight  for sums that are not finite
// \param first_token   first of the tokens of this pass
template <typename C>
__device__ __forceinline__ void fp8_mma_gather(const u16* attn, const u8* weight, u8* shared, float* partials,
                                               float* output, u32 first_token, u32 num_tokens) {
    using L = Fp8Mma<C>;
    using S = Shape<C>;
    const float* sums = reinterpret_cast<const float*>(shared + L::sums_at);
    const float* scales = reinterpret_cast<const float*>(shared + L::scales_at);
    for (u32 i = threadIdx.x; i < C::tokens * L::rows; i += L::threads) {
        const u32 of = i / L::rows, local = i % L::rows, token = first_token + of, row = blockIdx.x * L::rows + local;
        if (row >= S::hidden || token >= num_tokens) continue;
        const float scale = scales[local];
        const float* from = sums + of * L::rows + local;
        constexpr u32 stride = C::tokens * L::rows;
        float* to = partials + u64(token) * S::slots * S::hidden + row;
        float total = 0.0f;
#pragma unroll 8
        for (u32 slot = 0; slot < S::slots; ++slot) {
            float v = *from;
            from += stride;
#pragma unroll 8
            for (u32 p = 1; p < L::slot_parts; ++p, from += stride) v = __fadd_rn(v, *from);
            v = __fmul_rn(v, scale);
            to[u64(slot) * S::hidden] = v;
            total = __fadd_rn(total, v);
        }
        if (!(fabsf(total) < __uint_as_float(0x7f800000u))) {
            // Rare: the activations are not finite, or the result is not, or it was not before the scale.
            total = 0.0f;
#pragma unroll 1
            for (u32 slot = 0; slot < S::slots; ++slot) {
                const float v = fp8_chain_scalar<C>(attn + u64(token) * S::k_total, weight + u64(row) * S::k_total, scale,
                                                    S::slot_begin(slot), S::slot_end(slot));
                to[u64(slot) * S::hidden] = v;
                total = __fadd_rn(total, v);
            }
        }
        output[u64(token) * S::hidden + row] = total;
    }
}

// Arguments as of wo_fp8_chains.
template <typename C>
__device__ __forceinline__ void wo_fp8_mma(const u16* attn, const u8* weight, const float* scale, float* partials,
                                           float* output, u32 num_tokens) {
    using L = Fp8Mma<C>;
    using S = Shape<C>;
    extern __shared__ __align__(128) u8 shared[];
    const u32 warp = threadIdx.x >> 5, first_row = blockIdx.x * L::rows, rows = min(L::rows, S::hidden - first_row);
    const u32 ring = shared_address(shared) + warp * L::ring_bytes;
    const u8* warp_weight = weight + u64(first_row) * S::k_total + warp * L::range_len;
    if constexpr (C::dependent) pdl_launch_dependents();
    for (u32 first_token = 0; first_token < num_tokens; first_token += C::tokens) {
        Fp8Stage<L, C> activations;
        Fp8Copies<C> copies(warp_weight, rows);
        activations.fetch_scales(scale);
        if constexpr (!C::dependent) activations.fetch(shared, attn, first_token, num_tokens);
#pragma unroll 1
        for (u32 i = 0; i + 1u < C::ring; ++i) copies.next(ring + i * L::stage_bytes);
        if constexpr (C::dependent) {
            griddepcontrol_wait();
            activations.fetch(shared, attn, first_token, num_tokens);
        }
        activations.store_scales(shared);
        activations.store(shared);
        __syncthreads();
        Fp8Lane<C> lane(shared_address(shared), warp);
        u32 slot = 0u, ahead = C::ring - 1u, part = 0u, left = L::part_len;
        // few is a constant wherever this is called.
        auto tiles = [&](bool few, u32 first, u32 end) {
#pragma unroll 1
            for (u32 tile = first; tile < end; ++tile, part = 0u) {
#pragma unroll 1
                for (u32 piece = 0; piece < L::pieces; ++piece) {
                    cp_async_wait_group<C::ring - 2u>();
                    __syncwarp();
                    copies.next(ring + ahead * L::stage_bytes);
                    const u32 stage = ring + slot * L::stage_bytes;
                    if (few) {
                        fp8_mma_work<C, true>(lane, stage, tile, piece, part, left);
                    } else {
                        fp8_mma_work<C, false>(lane, stage, tile, piece, part, left);
                    }
                    ahead = slot;
                    slot = slot + 1u == C::ring ? 0u : slot + 1u;
                }
            }
        };
        tiles(false, 0u, L::rows / 16u);
        if constexpr (L::rows % 16u != 0u) tiles(true, L::rows / 16u, L::tiles);
        __syncthreads();
        fp8_mma_gather<C>(attn, weight, shared, partials, output, first_token, num_tokens);
        // Before the next pass overwrites activations and sums.
        if (first_token + C::tokens < num_tokens) __syncthreads();
    }
}

}  // namespace jitc
