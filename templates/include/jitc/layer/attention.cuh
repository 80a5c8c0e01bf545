// Invariant: one unit of attention is (token, kv head, run of positions). A warp takes 16 positions at a time for eight
// query heads through mma.m16n8k16 with positions as rows, so that no row is wasted on padding heads; positions at or
// past seq_len are never read, count as exact zeros, and a row without positions is zero.
//
// Both products are of f16: keys and values as they are, which is exact; queries after a power of two for each head and
// 64 elements, so that no bf16 overflows; probabilities times 2^8 to 2^14, so that those of 2^-32 count. For that a
// base is taken from every score, 2^8 below a maximum, and a new one only where a score lies 2^14 above it: what was
// summed is then scaled down.
//
// The contraction index of both products is permuted alike in both operands, so that every lane reads whole 16-byte
// pieces: lane t of a quad holds elements 16t..16t+15 of a 64-element run of K, lane group g holds 16 neighboring d of
// V.
#pragma once

#include <jitc/layer/operands.cuh>
#include <jitc/layer/small_area.cuh>
#include <jitc/layer/sync.cuh>
#include <jitc/layer/units.cuh>
#include <jitc/ptx/cvt.cuh>
#include <jitc/ptx/ld_st.cuh>

namespace jitc {
namespace layer {

constexpr float log2_e = 1.4426950408889634f;
constexpr float base_below = 8.0f, most_above = 14.0f;  // powers of two; f16 ends at 2^16

__device__ __forceinline__ float sigmoid(float x) {
    return rcp_approx(__fadd_rn(1.0f, ex2_approx(__fmul_rn(-x, log2_e))));
}

__device__ __forceinline__ u16 to_bf16(float x) { return u16(cvt_bf16x2(x, 0.0f)); }

// Where element r (accumulator of the fragment) of a lane lies in a head's output: (head in octet, d).
template <u32 D>
__device__ __forceinline__ u32 fragment_head(u32 lane, u32 r) {
    return 2u * (lane & 3u) + (r & 1u);
}
template <u32 D>
__device__ __forceinline__ u32 fragment_d(u32 lane, u32 r) {
    u32 g = lane >> 2, tile = r / 4u, word = tile / 2u, byte = (tile & 1u) * 2u + ((r >> 1) & 1u);
    if constexpr (D == 64u) {
        return 8u * g + 4u * word + byte;
    } else {
        return (word / 4u) * 128u + 16u * g + 4u * (word & 3u) + byte;
    }
}

// Finishes one element: division, gate, the only rounding to bf16.
template <typename C>
__device__ __forceinline__ void store_attention(const Params& p, u32 token, u32 head, u32 d, float o, float sum) {
    using N = Dims<C>;
    float value = sum > 0.0f ? __fmul_rn(__fdiv_rn(o, sum), p.v_scale) : 0.0f;
    const u64 at = u64(token) * N::K + head * N::D + d;
    if constexpr (C::output_gate) value = __fmul_rn(value, sigmoid(bf16_to_f32(p.gate[at])));
    p.attn_rows[at] = to_bf16(value);
}

// A named barrier of the two warps of a team; 0 to 2 are the block's.
__device__ __forceinline__ void team_sync(u32 team) { named_barrier_sync_aligned<64>(team + 3u); }

// One unit for one octet of heads. Its result goes to attn_rows if the head has no other unit, else to `record`.
// \param p       the launch's arguments
// \param shared  scores of teams, then their partial outputs
// \param small   queries and softmax statistics
// \param u       the unit
// \param run     positions of a unit
// \param octet   which eight of the head's queries
// \param record  of this unit and octet in attn_partials: outputs, then bases and sums of the eight heads
template <typename C>
__device__ __forceinline__ void attend_octet(const Params& p, u8* shared, SmallArea<C>& small, const Unit& u, u32 run,
                                             u32 octet, float* record) {
    using N = Dims<C>;
    constexpr u32 D = N::D, blocks = D / 64u, own_blocks = blocks / N::share;
    constexpr u32 words = D / 32u / N::share, tiles = D / 16u / N::share;  // of this warp's part of D
    const u32 lane = thread_index() & 31u, warp = thread_index() / 32u, g = lane >> 2, t = lane & 3u;
    const u32 team = warp / N::share, part = warp % N::share;
    const u32 heads = N::group - octet * 8u < 8u ? N::group - octet * 8u : 8u;
    const float c = __fmul_rn(__fmul_rn(p.softmax_scale, p.k_scale), log2_e);

    const u32 begin = u.index * run, limit = begin + run < u.seq_len ? begin + run : u.seq_len;
    const u32 row_bytes = N::kv_heads * D;
    // A tile's page is loaded a tile ahead: the first with the queries.
    const auto page_of = [&](u32 at) {
        return at < limit ? u32(__ldg(p.page_table + u64(u.token) * p.max_pages + at / C::page_size)) : 0u;
    };
    u32 next_page = page_of(begin + team * 16u);

    // Queries as the second operand, in shared memory as they are used: lane (g, t) holds head g. Heads past the group
    // are zeros and are not read. Two 16-byte pieces a lane and run of 64; the inverse of their scales, a head and run.
    uint4* queries = small.queries.fragment;
    float* query_inv_scale = small.queries.inv_scale[0];  // [blocks][8]
    for (u32 b = warp; b < blocks; b += N::warps) {
        const u16* row =
            p.query + (u64(u.token) * C::num_q_heads + u.head * N::group + octet * 8u + g) * D + 16u * t + 64u * b;
        uint4 x = make_uint4(0, 0, 0, 0), y = x;
        if (g < heads) {
            x = __ldg(reinterpret_cast<const uint4*>(row));
            y = __ldg(reinterpret_cast<const uint4*>(row + 8u));
        }
        const u32 w[8] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
        float peak = 0.0f;
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            peak = fmaxf(peak, fmaxf(fabsf(bf16_at(w, 2u * i)), fabsf(bf16_at(w, 2u * i + 1u))));
        }
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 1));
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, 2));
        const float scale = activation_scale(peak);
        if (t == 0u) query_inv_scale[b * 8u + g] = __fmul_rn(inverse_power(scale), c);
        u32 f[8];
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            f[i] = cvt_f16x2(__fmul_rn(bf16_at(w, 2u * i), scale), __fmul_rn(bf16_at(w, 2u * i + 1u), scale));
        }
        queries[b * 64u + lane] = make_uint4(f[0], f[1], f[2], f[3]);
        queries[b * 64u + 32u + lane] = make_uint4(f[4], f[5], f[6], f[7]);
    }
    block_sync<C>();

    float o[tiles][4];
#pragma unroll
    for (u32 i = 0; i < tiles; ++i) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0.0f;
    u32 turn = 0;
    float m0 = lowest, m1 = lowest, l0 = 0.0f, l1 = 0.0f;

    // A tile of 16 positions: keys of this warp's part of D, values. Positions past the sequence are zeros and are not
    // read.
    uint4 k[2][own_blocks];
    u32 v[4][words];
    // Keys and values are read once, by one warp: past L1, and L2 fetches the position's other bytes at once.
    const auto rows_of = [&](u32 at, u32 page) {
        return p.kv_cache + u64(page) * p.kv_page_stride + u64(at % C::page_size) * row_bytes + u.head * D;
    };
    const auto load_keys = [&](const u8* rows, u32 live) {
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            const u32 row = g + 8u * i;
#pragma unroll
            for (u32 b = 0; b < own_blocks; ++b) {
                k[i][b] = make_uint4(0, 0, 0, 0);
                const u8* from = rows + row * row_bytes + 64u * (part * own_blocks + b) + 16u * t;
                if (row < live) k[i][b] = ld_global_nc_no_allocate(reinterpret_cast<const uint4*>(from));
            }
        }
    };
    const auto load_values = [&](const u8* rows, u32 live) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const u32 row = 2u * t + (i & 1u) + 8u * (i >> 1);
            // This warp's words of a position: whole 16-byte pieces, or half of one.
            const u8* from = rows + row * row_bytes;
            if constexpr (words % 4u == 0) {
#pragma unroll
                for (u32 b = 0; b < words / 4u; ++b) {
                    uint4 x = make_uint4(0, 0, 0, 0);
                    if (row < live)
                        x = ld_global_nc_no_allocate(
                            reinterpret_cast<const uint4*>(from + 128u * (part * (words / 4u) + b) + 16u * g));
                    v[i][4u * b] = x.x;
                    v[i][4u * b + 1u] = x.y;
                    v[i][4u * b + 2u] = x.z;
                    v[i][4u * b + 3u] = x.w;
                }
            } else {
                static_assert(words == 2u, "two words a warp");
                uint2 x = make_uint2(0, 0);
                if (row < live)
                    x = ld_global_nc_no_allocate(
                        reinterpret_cast<const uint2*>(from + (D == 64u ? 8u : 16u) * g + 8u * part));
                v[i][0] = x.x;
                v[i][1] = x.y;
            }
        }
    };
    u32 at = begin + team * 16u;
    const u8* rows = rows_of(at, next_page);
    if (at < limit) {
        load_keys(rows, limit - at);
        load_values(rows + p.kv_half_stride, limit - at);
        next_page = page_of(at + 16u * N::teams);
    }
#pragma unroll 1
    while (at < limit) {
        const u32 live = limit - at;  // positions of this tile that exist, if fewer than 16
        at += 16u * N::teams;
        rows = rows_of(at, next_page);
        float s[4] = {};
#pragma unroll
        for (u32 b = 0; b < own_blocks; ++b) {
            const u32 x[4] = {k[0][b].x, k[0][b].y, k[0][b].z, k[0][b].w};
            const u32 y[4] = {k[1][b].x, k[1][b].y, k[1][b].z, k[1][b].w};
            const u32 block = part * own_blocks + b, from = block * 64u + lane;
            const uint4 q0 = queries[from], q1 = queries[from + 32u];
            const u32 q[8] = {q0.x, q0.y, q0.z, q0.w, q1.x, q1.y, q1.z, q1.w};
            float r[4] = {};
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const uint2 low = e4m3x4_to_f16_pairs(x[i]), high = e4m3x4_to_f16_pairs(y[i]);
                mma_m16n8k16_f16(r, low.x, high.x, low.y, high.y, q[2u * i], q[2u * i + 1u]);
            }
            const float2 inv_scale = *reinterpret_cast<const float2*>(query_inv_scale + block * 8u + 2u * t);
            s[0] = __fmaf_rn(r[0], inv_scale.x, s[0]);
            s[1] = __fmaf_rn(r[1], inv_scale.y, s[1]);
            s[2] = __fmaf_rn(r[2], inv_scale.x, s[2]);
            s[3] = __fmaf_rn(r[3], inv_scale.y, s[3]);
        }
        // The next tile's keys, then values, are on their way as soon as this one's are used.
        if (at < limit) {
            load_keys(rows, limit - at);
            next_page = page_of(at + 16u * N::teams);
        }
        if constexpr (N::share == 2u) {
            // The team's warps each have the scores of their part of D. Two areas in turn: a warp that writes for the
            // next tile does not meet one that still reads.
            float4* scores = reinterpret_cast<float4*>(shared) + (turn & 1u) * N::threads + team * 64u + lane;
            ++turn;
            scores[part * 32u] = make_float4(s[0], s[1], s[2], s[3]);
            team_sync(team);
            const float4 a = scores[0], b = scores[32];
            s[0] = __fadd_rn(a.x, b.x);
            s[1] = __fadd_rn(a.y, b.y);
            s[2] = __fadd_rn(a.z, b.z);
            s[3] = __fadd_rn(a.w, b.w);
        }
        // Accumulators: positions g and g + 8, heads 2t and 2t + 1.
        const bool first = g < live, second = g + 8u < live;
        s[0] = first ? s[0] : lowest;
        s[1] = first ? s[1] : lowest;
        s[2] = second ? s[2] : lowest;
        s[3] = second ? s[3] : lowest;
        float x0 = fmaxf(s[0], s[2]), x1 = fmaxf(s[1], s[3]);
        if (__any_sync(~0u, x0 > m0 + most_above || x1 > m1 + most_above)) {
#pragma unroll
            for (u32 i = 4; i < 32; i *= 2) {
                x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, i));
                x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, i));
            }
            x0 = fmaxf(m0, x0 - base_below);
            x1 = fmaxf(m1, x1 - base_below);
            const float r0 = ex2_approx(m0 - x0), r1 = ex2_approx(m1 - x1);
            m0 = x0;
            m1 = x1;
            l0 *= r0;
            l1 *= r1;
#pragma unroll
            for (u32 i = 0; i < tiles; ++i) {
                o[i][0] *= r0;
                o[i][1] *= r1;
                o[i][2] *= r0;
                o[i][3] *= r1;
            }
        }
        s[0] = ex2_approx(s[0] - m0);
        s[1] = ex2_approx(s[1] - m1);
        s[2] = ex2_approx(s[2] - m0);
        s[3] = ex2_approx(s[3] - m1);
        l0 = __fadd_rn(l0, __fadd_rn(s[0], s[2]));
        l1 = __fadd_rn(l1, __fadd_rn(s[1], s[3]));
        const u32 p0 = movmatrix_trans(cvt_f16x2(s[0], s[1])), p1 = movmatrix_trans(cvt_f16x2(s[2], s[3]));
#pragma unroll
        for (u32 w = 0; w < words; ++w) {
            // Of positions side by side the bytes of two d, then of the next two.
#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                const u32 bytes = half == 0u ? 0x5140u : 0x7362u;
                const uint2 a = e4m3x4_to_f16_pairs(__byte_perm(v[0][w], v[1][w], bytes));
                const uint2 b = e4m3x4_to_f16_pairs(__byte_perm(v[2][w], v[3][w], bytes));
                mma_m16n8k16_f16(o[2u * w + half], a.x, a.y, b.x, b.y, p0, p1);
            }
        }
        if (at < limit) load_values(rows + p.kv_half_stride, limit - at);
    }

    // A lane has summed its own positions.
#pragma unroll
    for (u32 i = 4; i < 32; i *= 2) {
        l0 = __fadd_rn(l0, __shfl_xor_sync(~0u, l0, i));
        l1 = __fadd_rn(l1, __shfl_xor_sync(~0u, l1, i));
    }
    // The teams' results become the block's: upper half adds to lower half, then everybody sums the halves in order.
    Statistics<C>& stats = small.statistics;
    float* slots = reinterpret_cast<float*>(shared);
    constexpr u32 half = N::teams / 2u;
    if (g == 0 && part == 0) {
        stats.base[team][2u * t] = m0;
        stats.base[team][2u * t + 1u] = m1;
        stats.sum[team][2u * t] = l0;
        stats.sum[team][2u * t + 1u] = l1;
    }
    block_sync<C>();
    float top0 = lowest, top1 = lowest;
#pragma unroll
    for (u32 w = 0; w < N::teams; ++w) {
        top0 = fmaxf(top0, stats.base[w][2u * t]);
        top1 = fmaxf(top1, stats.base[w][2u * t + 1u]);
    }
    const float f0 = ex2_approx(m0 - top0), f1 = ex2_approx(m1 - top1);
#pragma unroll
    for (u32 i = 0; i < tiles; ++i) {
        o[i][0] *= f0;
        o[i][1] *= f1;
        o[i][2] *= f0;
        o[i][3] *= f1;
    }
    float* slot = slots + (team % half) * N::frag + part * (tiles * 128u) + lane;
    if (team >= half) {
#pragma unroll
        for (u32 i = 0; i < tiles; ++i) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) slot[(i * 4u + j) * 32u] = o[i][j];
        }
    }
    block_sync<C>();
    if (team < half) {
#pragma unroll
        for (u32 i = 0; i < tiles; ++i) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) slot[(i * 4u + j) * 32u] = __fadd_rn(o[i][j], slot[(i * 4u + j) * 32u]);
        }
    }
    block_sync<C>();
    const u32 thread = thread_index();
    for (u32 e = thread; e < N::frag; e += N::threads) {
        float sum = 0.0f;
#pragma unroll
        for (u32 i = 0; i < half; ++i) sum = __fadd_rn(sum, slots[i * N::frag + e]);
        const u32 h = fragment_head<D>(e & 31u, e / 32u);
        if (u.runs > 1u) {
            record[e] = sum;
        } else if (h < heads) {
            float l, top;
            stats.total(h, top, l);
            store_attention<C>(p, u.token, u.head * N::group + octet * 8u + h, fragment_d<D>(e & 31u, e / 32u), sum, l);
        }
    }
    if (u.runs > 1u && thread < 8u) {
        const u32 h = thread;
        float l, top;
        stats.total(h, top, l);
        record[N::frag + h] = top;
        record[N::frag + 8u + h] = l;
    }
    block_sync<C>();
}

template <typename C>
__device__ __forceinline__ void attend(const Params& p, u8* shared, SmallArea<C>& small, const Unit& u, u32 run,
                                       u32 number) {
    using N = Dims<C>;
#pragma unroll 1
    for (u32 octet = 0; octet < N::octets; ++octet) {
        attend_octet<C>(p, shared, small, u, run, octet,
                        p.attn_partials + u64(number) * N::unit_floats + octet * (N::frag + 16u));
    }
}

}  // namespace layer
}  // namespace jitc
