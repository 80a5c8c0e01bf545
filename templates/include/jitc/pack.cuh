// Invariant: what is written is what the library's packer (reference::packed) writes, byte for byte, and unpacking gives the
// plain weight back; padding of swizzled scales comes back as zeros.
//
// A block is eight rows by block_len; lane 4 (row mod 8) + t of a warp owns a quarter of its row of the block, words of eight
// k. A word holds four pairs of k, one of a pair in either half.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

template <WeightLayout layout>
struct Packing;
template <>
struct Packing<WeightLayout::packed> {
    static constexpr u32 block_len = 128;
    __device__ static constexpr u32 low(u32 pair) { return pair; }             // which of the word's eight k
    __device__ static constexpr u32 high(u32 pair) { return pair + 4u; }
    __device__ static constexpr u32 magnitude(u32 pair) { return pair == 0u ? 6u : pair == 1u ? 0u : pair == 2u ? 3u : 10u; }
    __device__ static constexpr u32 sign(u32 pair) { return pair == 0u ? 15u : pair == 1u ? 9u : pair == 2u ? 13u : 14u; }
};
template <>
struct Packing<WeightLayout::packed64> {
    static constexpr u32 block_len = 64;
    __device__ static constexpr u32 low(u32 pair) { return (pair & 1u) + (pair & 2u) * 2u; }
    __device__ static constexpr u32 high(u32 pair) { return low(pair) + 2u; }
    __device__ static constexpr u32 magnitude(u32 pair) { return 9u - 3u * pair; }
    __device__ static constexpr u32 sign(u32 pair) { return pair == 0u ? 15u : 11u + pair; }
};

template <typename P>
__device__ __forceinline__ u32 pack_word(u32 nibbles) {
    u32 word = 0;
#pragma unroll
    for (u32 pair = 0; pair < 4; ++pair) {
        const u32 low = nibbles >> (4u * P::low(pair)) & 15u, high = nibbles >> (4u * P::high(pair)) & 15u;
        word |= ((low & 7u) << P::magnitude(pair) | low >> 3 << P::sign(pair)) |
                ((high & 7u) << P::magnitude(pair) | high >> 3 << P::sign(pair)) << 16;
    }
    return word;
}

template <typename P>
__device__ __forceinline__ u32 unpack_word(u32 word) {
    u32 nibbles = 0;
#pragma unroll
    for (u32 pair = 0; pair < 4; ++pair) {
        const u32 magnitude = word >> P::magnitude(pair), sign = word >> P::sign(pair);
        nibbles |= (magnitude & 7u | (sign & 1u) << 3) << (4u * P::low(pair)) |
                   (magnitude >> 16 & 7u | (sign >> 16 & 1u) << 3) << (4u * P::high(pair));
    }
    return nibbles;
}

// Word of eight k, or byte of a scale, of a packed weight; `each` are a row's in a block.
__device__ __forceinline__ u64 packed_place(u32 row, u32 at, u32 blocks, u32 each) {
    return ((u64(row >> 3) * blocks + at / each) * 8u + (row & 7u)) * each + at % each;
}

template <typename C>
__device__ __forceinline__ void pack(const u32* codes, const u8* scales, u32* out_codes, u8* out_scales) {
    using P = Packing<C::weight_layout>;
    constexpr u32 words = C::k / 8u, groups = C::k / 16u, blocks = C::k / P::block_len, tiles = ceil_div(groups, 4u);
    constexpr u64 padded = C::linear_scales ? u64(C::rows) * groups : u64(round_up(C::rows, 128u)) * (tiles * 4u);
    const u64 first = u64(blockIdx.x) * blockDim.x + threadIdx.x, step = u64(gridDim.x) * blockDim.x;
    for (u64 i = first; i < u64(C::rows) * words; i += step) {
        const u32 row = u32(i / words), at = u32(i % words);
        const u64 place = packed_place(row, at, blocks, P::block_len / 8u);
        if constexpr (C::unpack) {
            out_codes[i] = unpack_word<P>(codes[place]);
        } else {
            out_codes[place] = pack_word<P>(codes[i]);
        }
    }
    // Plain bytes in their order, padding included.
    for (u64 i = first; i < padded; i += step) {
        u32 row, group;
        if constexpr (C::linear_scales) {
            row = u32(i / groups);
            group = u32(i % groups);
        } else {
            const u32 tile = u32(i >> 9), in = u32(i) & 511u;
            row = tile / tiles * 128u + (in >> 2 & 3u) * 32u + (in >> 4);
            group = tile % tiles * 4u + (in & 3u);
        }
        const bool there = row < C::rows && group < groups;
        const u64 place = there ? packed_place(row, group, blocks, P::block_len / 16u) : 0u;
        if constexpr (C::unpack) {
            out_scales[i] = there ? scales[place] : u8(0);
        } else {
            if (there) out_scales[place] = scales[i];
        }
    }
}

}  // namespace jitc
