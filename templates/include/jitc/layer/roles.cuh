// Invariant: which blocks of nvllm's geometry do what, as the kernel queries it. The masks of the region table
// say the same in Rust, and a test holds the two together block by block.
#pragma once

#include <jitc/types.cuh>

namespace jitc {
namespace layer {

template <u32 split, u32 kv_heads>
struct OriginalRoles {
    __device__ static constexpr bool norms_input(u32 bx, u32 by) { return bx == 0u && by == 0u; }
    __device__ static constexpr bool attends(u32 bx, u32 by) { return bx == 0u && by < kv_heads; }
    __device__ static constexpr bool owns_slot(u32 bx, u32 by) { return bx < split && by < kv_heads; }
    // Only consumers wait: a producer that did would wait for itself.
    __device__ static constexpr bool waits_for_rows(u32 bx, u32 by) { return owns_slot(bx, by) && !attends(bx, by); }
};

}  // namespace layer
}  // namespace jitc
