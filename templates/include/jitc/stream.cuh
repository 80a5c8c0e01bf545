// Invariant: every byte is read exactly once and the result depends on all of them; nothing else is done. The floor
// that any kernel over the same bytes is measured against.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

template <u32 unroll>
__device__ __forceinline__ void stream(const uint4* data, u64 num_bytes, u32* sink) {
    const u64 count = num_bytes / 16u, step = u64(gridDim.x) * blockDim.x;
    u32 mix = 0;
    u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i + (unroll - 1u) * step < count; i += unroll * step) {
        uint4 v[unroll];
#pragma unroll
        for (u32 j = 0; j < unroll; ++j) v[j] = __ldcs(data + i + j * step);
#pragma unroll
        for (u32 j = 0; j < unroll; ++j) mix ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    for (; i < count; i += step) {
        uint4 v = __ldcs(data + i);
        mix ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    // Practically never true, but the compiler cannot know.
    if (mix == 0x9e3779b9u) *sink = mix;
}

}  // namespace jitc
