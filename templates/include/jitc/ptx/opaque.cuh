// Invariant: no instruction, only a value that the compiler may not see through.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// Hides where a value comes from, so that what follows from it is worked out here, and again, instead of being kept.
__device__ __forceinline__ u32 opaque(u32 v) {
    asm volatile("" : "+r"(v));
    return v;
}
/// The same of two at once, in place.
__device__ __forceinline__ void opaque(u32& a, u32& b) { asm volatile("" : "+r"(a), "+r"(b)); }
__device__ __forceinline__ void opaque(const u8*& a, const u8*& b) { asm volatile("" : "+l"(a), "+l"(b)); }

}  // namespace jitc
