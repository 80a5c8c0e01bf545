// Invariant: plain integer code, which a host compiler takes as well: what words of packed weights hold
// (reference::packed).
#pragma once

#include <jitc/types.cuh>

namespace jitc {

// Eight codes of a word of `packed` as four bf16 pairs, each value times 2^-126. Of either half word,
// bits 8..6, 2..0, 5..3, 12..10 hold the magnitudes of the four pairs and bits 15, 9, 13, 14 their signs. A mask takes
// a pair out, two where the sign lies apart; left shifts run as multiplications, on another pipe than masks.
__device__ __forceinline__ void packed_pairs(u32 word, u32* pair) {
    constexpr u32 sign = 0x80008000u, magnitude = 0x01c001c0u;
    pair[0] = word & (sign | magnitude);
    pair[1] = (word * 64u) & (sign | magnitude);
    pair[2] = ((word * 8u) & magnitude) | ((word * 4u) & sign);
    pair[3] = ((word >> 4) & magnitude) | ((word * 2u) & sign);
}

// Eight codes of a word of `packed64` as four f16 pairs, each value times 2^-14. A pair is what a mask leaves of a
// shift of the word, or of two shifts' difference: five shifts tell all 32 bits, and the packer solves for them.
__device__ __forceinline__ void packed64_pairs(u32 word, u32* pair) {
    constexpr u32 mask = 0x8e008e00u;
    pair[0] = (word * 64u) & mask;
    pair[1] = (word * 512u) & mask;
    pair[2] = (word ^ word * 4u) & mask;
    pair[3] = (word ^ word >> 3) & mask;
}

}  // namespace jitc
