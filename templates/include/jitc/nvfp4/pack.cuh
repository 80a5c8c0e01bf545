// Invariant: what is written is what the library's packer (reference::packed) writes, byte for byte, and unpacking
// gives the plain weight back; padding of swizzled scales comes back as zeros.
//
// A block is eight rows by block_len; lane 4 (row mod 8) + t of a warp owns a quarter of its row of the block, words of
// eight k. A word holds four pairs of k, one of a pair in either half.
#pragma once

#include <jitc/nvfp4/packed.cuh>

namespace jitc {

// What a set bit of a pair's codes changes in the word: the low half's four bits, lowest first, then the high half's;
// and the kernel's pairs, with signs in bit 15 of a half word and magnitudes from bit `magnitude` on.
struct PairWords {
    u32 bit[8];
};
__device__ constexpr PairWords alike(u32 a, u32 b, u32 c, u32 d) {
    return {{a, b, c, d, a << 16, b << 16, c << 16, d << 16}};
}
__device__ constexpr PairWords plain_words(u32 magnitude, u32 sign) {
    return alike(1u << magnitude, 2u << magnitude, 4u << magnitude, 1u << sign);
}

template <WeightLayout layout>
struct Packing;
template <>
struct Packing<WeightLayout::packed> {
    static constexpr u32 block_len = 128, magnitude = 6;
    __device__ static constexpr u32 low(u32 pair) { return pair; }  // which of the word's eight k
    __device__ static constexpr u32 high(u32 pair) { return pair + 4u; }
    __device__ static constexpr PairWords words(u32 pair) {
        return pair == 0u   ? plain_words(6u, 15u)
               : pair == 1u ? plain_words(0u, 9u)
               : pair == 2u ? plain_words(3u, 13u)
                            : plain_words(10u, 14u);
    }
    __device__ static void decode(u32 word, u32 (&out)[4]) { packed_pairs(word, out); }
};
template <>
struct Packing<WeightLayout::packed64> {
    static constexpr u32 block_len = 64, magnitude = 9;
    __device__ static constexpr u32 low(u32 pair) { return (pair & 1u) + (pair & 2u) * 2u; }
    __device__ static constexpr u32 high(u32 pair) { return low(pair) + 2u; }
    __device__ static constexpr PairWords words(u32 pair) {
        return pair == 0u   ? alike(0x8u, 0x10u, 0x20u, 0x5a80u)
               : pair == 1u ? PairWords{{0x1u, 0x2u, 0x4u, 0x40u, 0x10000u, 0x20000u, 0x4a500u, 0x400000u}}
               : pair == 2u ? alike(0x80u, 0x100u, 0x4800u, 0x2500u)
                            : alike(0x1000u, 0x500u, 0x4000u, 0xa500u);
    }
    __device__ static void decode(u32 word, u32 (&out)[4]) { packed64_pairs(word, out); }
};

template <typename P>
__device__ __forceinline__ u32 pack_word(u32 nibbles) {
    u32 word = 0;
#pragma unroll
    for (u32 pair = 0; pair < 4; ++pair) {
        const u32 codes = (nibbles >> (4u * P::low(pair)) & 15u) | (nibbles >> (4u * P::high(pair)) & 15u) << 4;
#pragma unroll
        for (u32 bit = 0; bit < 8; ++bit) word ^= codes >> bit & 1u ? P::words(pair).bit[bit] : 0u;
    }
    return word;
}

template <typename P>
__device__ __forceinline__ u32 unpack_word(u32 word) {
    u32 nibbles = 0, pairs[4];
    P::decode(word, pairs);
#pragma unroll
    for (u32 pair = 0; pair < 4; ++pair) {
        const u32 low = pairs[pair], high = low >> 16;
        nibbles |= (low >> P::magnitude & 7u | (low >> 15 & 1u) << 3) << (4u * P::low(pair)) |
                   (high >> P::magnitude & 7u | (high >> 15) << 3) << (4u * P::high(pair));
    }
    return nibbles;
}

// Word of eight k, or byte of a scale, of a packed weight; `each` are a row's in a block.
__device__ __forceinline__ u64 packed_place(u32 row, u32 at, u32 blocks, u32 each) {
    return ((u64(row >> 3) * blocks + at / each) * 8u + (row & 7u)) * each + at % each;
}

// Packs, or with C::unpack unpacks, one weight of C::rows by C::k.
// \param codes       E2M1 codes to read, eight a word
// \param scales      E4M3 scales to read
// \param out_codes   codes to write, every word of them
// \param out_scales  scales to write, padding included
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
