// Invariant: a head's row is the sum over its units in a fixed order, whichever blocks attended and whichever merge.
#pragma once

#include <jitc/layer/attention.cuh>

namespace jitc {
namespace layer {

// The share of one unit in merging its head: records of all the head's units, a run of elements. Eight groups of
// threads sum every eighth unit each, in unit order; the groups are summed in order.
// \param p       the launch's arguments
// \param shared  partial sums of threads, then factors of units
// \param small   the merged sums of eight heads
// \param u       the unit
template <typename C>
__device__ __forceinline__ void merge(const Params& p, u8* shared, SmallArea<C>& small, const Unit& u) {
    using N = Dims<C>;
    constexpr u32 groups = 8u, width = N::threads / groups;
    const u32 thread = thread_index(), lane = thread & 31u, warp = thread / 32u;
    float* parts = reinterpret_cast<float*>(shared);  // [groups][width]
    float* factor = parts + N::threads;               // [runs][8]
    float* sums = small.merged_sums;                  // [8]
    const u32 first = N::frag * u.index / u.runs, last = N::frag * (u.index + 1u) / u.runs;
    const u32 group = thread / width, column = thread % width;
#pragma unroll 1
    for (u32 octet = 0; octet < N::octets; ++octet) {
        const u32 heads = N::group - octet * 8u < 8u ? N::group - octet * 8u : 8u;
        const float* records = p.attn_partials + u64(u.first) * N::unit_floats + octet * (N::frag + 16u);
        // The first elements of 40 units are on their way before the statistics are looked at.
        constexpr u32 soon = 5u;
        float early[soon];
#pragma unroll
        for (u32 j = 0; j < soon; ++j) {
            const u32 i = group + j * groups, e = first + column;
            early[j] = 0.0f;
            if (i < u.runs && e < last && fragment_head<N::D>(e & 31u, e / 32u) < heads) {
                early[j] = load_l2(records + u64(i) * N::unit_floats + e);
            }
        }
        for (u32 h = warp; h < 8u; h += N::warps) {
            // The first 32 units' numbers stay in registers: there are hardly ever more.
            const float* mine = records + u64(lane < u.runs ? lane : 0u) * N::unit_floats + N::frag + h;
            const float m = load_l2(mine), l = load_l2(mine + 8);
            float top = m, sum = 0.0f;
            for (u32 i = lane + 32u; i < u.runs; i += 32u)
                top = fmaxf(top, load_l2(records + u64(i) * N::unit_floats + N::frag + h));
            for (u32 i = 16; i > 0; i /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
            if (lane < u.runs) {
                const float f = ex2_approx(m - top);
                factor[lane * 8u + h] = f;
                sum = __fmul_rn(l, f);
            }
            for (u32 i = lane + 32u; i < u.runs; i += 32u) {
                const float* r = records + u64(i) * N::unit_floats + N::frag + h;
                const float f = ex2_approx(load_l2(r) - top);
                factor[i * 8u + h] = f;
                sum = __fmaf_rn(load_l2(r + 8), f, sum);
            }
            for (u32 i = 16; i > 0; i /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, i));
            if (lane == 0) sums[h] = sum;
        }
        block_sync<C>();
#pragma unroll 1
        for (u32 base = first; base < last; base += width) {
            const u32 e = base + column, h = fragment_head<N::D>(e & 31u, e / 32u);
            const bool live = e < last && h < heads;
            float o = 0.0f;
            if (live) {
                u32 from = group;
                if (base == first) {
                    from = group + soon * groups;
#pragma unroll
                    for (u32 j = 0; j < soon; ++j) {
                        const u32 i = group + j * groups;
                        if (i < u.runs) o = __fmaf_rn(early[j], factor[i * 8u + h], o);
                    }
                }
#pragma unroll 4
                for (u32 i = from; i < u.runs; i += groups) {
                    o = __fmaf_rn(load_l2(records + u64(i) * N::unit_floats + e), factor[i * 8u + h], o);
                }
            }
            parts[thread] = o;
            block_sync<C>();
            if (live && group == 0) {
#pragma unroll
                for (u32 i = 1; i < groups; ++i) o = __fadd_rn(o, parts[i * width + column]);
                store_attention<C>(p, u.token, u.head * N::group + octet * 8u + h, fragment_d<N::D>(e & 31u, e / 32u),
                                   o, sums[h]);
            }
            block_sync<C>();
        }
    }
}

}  // namespace layer
}  // namespace jitc
