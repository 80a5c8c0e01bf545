// Invariant: every operand is exact. A code enters the tensor core as code times scale in bf16: a code's bits as a bf16
// are its value times 2^-126, a scale is brought to 2^118 times itself, and of their product, 2^-8 times the weight,
// six bits are significant. Activations enter as they are. Products are exact in f32.
#pragma once

#include <jitc/nvfp4/bf16.cuh>
#include <jitc/ptx/memory_model.cuh>

namespace jitc {

// Eight activations in the order of the decoded pairs.
struct XPairs {
    u64 first, second;  // pairs 0 and 1, pairs 2 and 3
};

__device__ __forceinline__ u64 two_registers(u32 low, u32 high) { return u64(high) << 32 | low; }

// Of ascending k; raised by 2^100 for codes that have no scale yet.
template <bool raised>
__device__ __forceinline__ XPairs x_in_pairs(uint4 x) {
    if constexpr (raised) {
        constexpr u32 by = 0x71807180u;
        x = make_uint4(mul_bf16x2(x.x, by), mul_bf16x2(x.y, by), mul_bf16x2(x.z, by), mul_bf16x2(x.w, by));
    }
    return {two_registers(__byte_perm(x.x, x.z, 0x5410), __byte_perm(x.x, x.z, 0x7632)),
            two_registers(__byte_perm(x.y, x.w, 0x5410), __byte_perm(x.y, x.w, 0x7632))};
}

// What the powers of two of a code and of a raised activation leave.
constexpr float weight_rest_after_dot = 0x1p26f;

// A fence that no launch runs into (and that would do no harm): loads stay on their side of it. Without it the
// assembler puts the loads of a whole tile off to the tile's end, where registers are fewest, and the memory waits.
__device__ __forceinline__ void keep_loads_here(bool never) {
    if (never) membar_gl();
}

}  // namespace jitc
