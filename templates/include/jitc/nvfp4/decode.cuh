// Invariant: every decode here is exact for every finite input. Codes and scales become numbers times a fixed power of
// two (named beside each function); the caller puts that power back into the global scale, which is exact as well.
//
// NVFP4: two E2M1 codes a byte (even k in the low nibble), one signed E4M3 scale for 16 codes.
#pragma once

#include <jitc/ptx/arithmetic.cuh>
#include <jitc/ptx/cvt.cuh>

namespace jitc {

constexpr u32 group_len = 16;  // weights under one scale

// Byte offset of the scale of (row, group) in the swizzled layout; tiles = ceil(groups / 4).
__device__ __forceinline__ u64 scale_offset(u32 row, u32 group, u32 tiles) {
    u64 block = u64(row >> 7) * tiles + (group >> 2);
    return block * 512u + (row & 31u) * 16u + ((row >> 5) & 3u) * 4u + (group & 3u);
}

// A code of a packed weight (reference::packed), and where its scale is: eight rows by 128 k are 512 bytes, lane
// 4 (row mod 8) + t of a warp has 32 k; of a half word, bits 8..6, 2..0, 5..3, 12..10 hold magnitudes, 15, 9, 13, 14
// signs.
struct PackedCode {
    u32 code;
    u64 scale_at;
};

template <u32 k_total>
__device__ __forceinline__ PackedCode packed_code(const u8* weight, u32 row, u32 k) {
    const u32 lane = row % 8u * 4u + k % 128u / 32u, in = k % 32u, pair = in % 4u * 8u;
    const u64 block = u64(row / 8u) * (k_total / 128u) + k / 128u;
    const u32 word = reinterpret_cast<const u32*>(weight + block * 512u + lane * 16u)[in / 8u] >> (in % 8u / 4u * 16u);
    return {((word >> (0x0a030006u >> pair & 31u)) & 7u) | ((word >> (0x0e0d090fu >> pair & 31u)) & 1u) << 3,
            block * 64u + lane * 2u + in / 16u};
}

__device__ __forceinline__ float bf16_to_f32(u32 bits) { return __uint_as_float(bits << 16); }

// One code as a float: its magnitude bits sit on the border of exponent and fraction, which is the value times 2^-126
// (codes 0 and 1 included, as zero and a subnormal).
__device__ __forceinline__ float fp4_to_f32(u32 code) {
    u32 bits = ((code & 8u) << 28) | ((code & 7u) << 22);
    return __fmul_rn(__uint_as_float(bits), 0x1p126f);
}

// One signed E4M3 byte as a float; the same bit trick, off by 2^-120.
__device__ __forceinline__ float e4m3_to_f32(u32 byte) {
    u32 bits = ((byte & 0x80u) << 24) | ((byte & 0x7fu) << 20);
    return __fmul_rn(__uint_as_float(bits), 0x1p120f);
}

// Bytes 1 and 3 of a word of E4M3 as an f16 pair, each value times 2^-8: exponent and fraction moved to their place,
// subnormals included.
__device__ __forceinline__ u32 e4m3_odd_to_f16(u32 word) { return ((word >> 1) & 0x3f803f80u) | (word & 0x80008000u); }

// Four bytes of E4M3 as two f16 pairs, bytes 0 and 1, 2 and 3.
__device__ __forceinline__ uint2 e4m3x4_to_f16_pairs(u32 word) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    return cvt_f16x4_e4m3x4(word);
#else
    const u32 low = __byte_perm(word, 0, 0x1404), high = __byte_perm(word, 0, 0x3424);
    return make_uint2(mul_f16x2(e4m3_odd_to_f16(low), 0x5c005c00u),  // times 2^8
                      mul_f16x2(e4m3_odd_to_f16(high), 0x5c005c00u));
#endif
}

// Eight codes of one word as four f16 pairs, each number the code's value times 2^-14.
// even[0] = codes 0, 2; even[1] = 4, 6; odd[0] = 1, 3; odd[1] = 5, 7.
//
// The upper byte of an f16 holds everything a code needs (sign in bit 7, magnitude in bits 3..1), so four codes are
// placed at once and PRMT then spreads two bytes a word.
struct Fp4x8 {
    u32 even[2];
    u32 odd[2];
};

__device__ __forceinline__ Fp4x8 fp4x8_to_f16(u32 word) {
    u32 lo = ((word << 1) & 0x0e0e0e0eu) | ((word << 4) & 0x80808080u);
    u32 hi = ((word >> 3) & 0x0e0e0e0eu) | (word & 0x80808080u);
    Fp4x8 d;
    d.even[0] = __byte_perm(lo, 0, 0x1404);
    d.even[1] = __byte_perm(lo, 0, 0x3424);
    d.odd[0] = __byte_perm(hi, 0, 0x1404);
    d.odd[1] = __byte_perm(hi, 0, 0x3424);
    return d;
}

// Four scale bytes (groups 0..3 of one row) as four broadcast f16 pairs, each the scale times 2^6: with a code at
// 2^-14 every product is then a normal or exactly representable f16.
struct E4m3x4 {
    u32 pair[4];
};

__device__ __forceinline__ E4m3x4 e4m3x4_to_f16(u32 word) {
    E4m3x4 d;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        u32 h = __byte_perm(word, 0, i == 0 ? 0x1404 : 0x3424);
        u32 both = mul_f16x2(e4m3_odd_to_f16(h), 0x74007400u);  // times 2^14
        d.pair[2 * i] = __byte_perm(both, 0, 0x1010);
        d.pair[2 * i + 1] = __byte_perm(both, 0, 0x3232);
    }
    return d;
}

// What is left in (code pair) * (scale pair): value * 2^-8. The global scale takes the rest.
constexpr float pair_rest = 0x1p8f;
// Above this magnitude the global scale has no room for pair_rest; callers take the scalar path.
constexpr float pair_limit = 0x1p100f;

}  // namespace jitc
