// Invariant: what lies where in the small area of shared memory, between the sums and the ring. Its parts belong to one
// phase at a time, but for the statistics, which attention keeps beside its queries.
#pragma once

#include <jitc/layer/types.cuh>
#include <jitc/ptx/arithmetic.cuh>

namespace jitc {
namespace layer {

constexpr float lowest = -1e30f;  // finite: two empty rows may meet in a difference

// Softmax statistics of eight heads: bases and sums of every team.
template <typename C>
struct Statistics {
    float base[Dims<C>::teams][8];
    float sum[Dims<C>::teams][8];

    // Of the whole block, summed in team order.
    __device__ void total(u32 h, float& top, float& l) const {
        top = lowest;
        l = 0.0f;
#pragma unroll
        for (u32 w = 0; w < Dims<C>::teams; ++w) top = fmaxf(top, base[w][h]);
#pragma unroll
        for (u32 w = 0; w < Dims<C>::teams; ++w) l = __fmaf_rn(sum[w][h], ex2_approx(base[w][h] - top), l);
    }
};

template <typename C>
struct SmallArea {
    // Attention: queries as fragments, 16 bytes a lane and half of a run of 64, and what their scales leave to undo.
    struct Queries {
        uint4 fragment[Dims<C>::D];
        float inv_scale[Dims<C>::D / 64u][8];
    };
    // The other phases: a reduction over the block's warps, and the inverse scales of activations, one a token or,
    // with one token, one a warp.
    struct Reductions {
        float scratch[128];
        float inv_scale[16];
        u32 flag;  // geometry = original: what arrive_last hands to all threads
    };

    union {
        Statistics<C> statistics;
        float merged_sums[8];  // while heads are merged
        u8 room[1024];
    };
    union {
        Queries queries;
        Reductions reductions;
    };
};

}  // namespace layer
}  // namespace jitc
