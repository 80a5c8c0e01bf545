// Invariant: operands of the tensor cores as f16, each exact after a power of two, whose inverse descales the sums.
#pragma once

#include <jitc/layer/types.cuh>
#include <jitc/ptx/mma.cuh>

namespace jitc {
namespace layer {

// Element `i` of neighboring bf16, two a word.
__device__ __forceinline__ float bf16_at(const u32* words, u32 i) {
    return __uint_as_float(i & 1u ? words[i / 2u] & 0xffff0000u : words[i / 2u] << 16);
}

// A power of two that brings `peak` into [2^13, 2^14): f16 then keeps the eight bits of every bf16 down to 2^-30 of the
// peak, and nothing overflows. A peak that is no finite number gives results that are none.
__device__ __forceinline__ float activation_scale(float peak) {
    const u32 e = __float_as_uint(peak) >> 23;  // biased; the peak is not negative
    const u32 biased = e == 0u ? 127u : 267u - e;
    return __uint_as_float((biased > 253u ? 253u : biased) << 23);
}
__device__ __forceinline__ float inverse_power(float power) {
    return __uint_as_float((254u << 23) - __float_as_uint(power));
}

}  // namespace layer
}  // namespace jitc
