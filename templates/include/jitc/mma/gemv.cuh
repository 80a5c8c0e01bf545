// Invariant: out = W x per token, the parts of mma/rows.cuh summed first to last; bits depend on the shape and
// part_len.
#pragma once

#include <jitc/mma/gather.cuh>

namespace jitc {

template <Output type>
struct OutputOf {
    using Type = float;
};
template <>
struct OutputOf<Output::bf16> {
    using Type = u16;
};

template <typename C>
__device__ __forceinline__ void gemv(const u16* x, const u8* weight, const u8* scales, const float* global_scale,
                                     void* output, u32 num_tokens) {
    using L = MmaRows<C>;
    static_assert(C::shared_bytes >= mma_bytes<C>(), "shared_bytes in the family's TOML is too small");
    static_assert(C::block_threads == L::threads, "threads follow from the warps");
    extern __shared__ __align__(128) u8 shared[];
    mma_launch<C, L::parts>(x, weight, scales, global_scale, shared, static_cast<float*>(nullptr),
                            static_cast<typename OutputOf<C::output>::Type*>(output), blockIdx.x, num_tokens);
}

}  // namespace jitc
