// Invariant: every operand is exact or named. A code enters the tensor core as code * 2^-14 in f16. An activation enters
// as x * 2^s rounded to f16, where s puts the largest of its part just below 2^16: exact unless x is below 2^-31 of that
// largest, and then off by at most 2^-40 of it. Products are exact in f32.
#pragma once

#include <jitc/nvfp4.cuh>

namespace jitc {

// Decoding: eight codes of one word as four f16 pairs, each value times 2^-14, in the order of k that `order` names.
// plain: two codes a byte, as checkpoints have them; pairs (0, 2), (1, 3), (4, 6), (5, 7).
// packed: pairs (0, 1), (2, 3), (4, 5), (6, 7); of either half word, bits 11..9, 8..6, 5..3, 2..0 hold the magnitudes of
// the four pairs and bits 15, 12, 13, 14 their signs. A mask takes a pair out, two where the sign lies apart; left
// shifts run as multiplications, on another pipe than masks.
template <bool packed>
__device__ __forceinline__ void fp4x8_to_f16_pairs(u32 word, u32 (&pair)[4]) {
    if constexpr (packed) {
        pair[0] = word & 0x8e008e00u;
        pair[1] = (word * 8u) & 0x8e008e00u;
        pair[2] = ((word * 64u) & 0x0e000e00u) | ((word * 4u) & 0x80008000u);
        pair[3] = ((word * 512u) & 0x0e000e00u) | ((word * 2u) & 0x80008000u);
    } else {
        const Fp4x8 d = fp4x8_to_f16(word);
        pair[0] = d.even[0];
        pair[1] = d.odd[0];
        pair[2] = d.even[1];
        pair[3] = d.odd[1];
    }
}

// What the power of two of a code leaves.
constexpr u32 code_shift = 14;

// Largest magnitude of eight bf16, as bits.
__device__ __forceinline__ u32 largest_bf16(uint4 x) {
    u32 d = 0;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const u32 v = i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
        d = max(d, max((v << 16) & 0x7fff0000u, v & 0x7fff0000u));
    }
    return d >> 16;
}

// s such that a magnitude with these bits times 2^s lies in [2^15, 2^16), as far as 2^s and 2^-s are normal floats.
__device__ __forceinline__ int shift_of(u32 largest) { return min(142 - int(largest >> 7), 126); }
__device__ __forceinline__ float power_of_two(int e) { return __uint_as_float(u32(e + 127) << 23); }

// Eight activations, ascending k, as f16 times factor in the order of the decoded pairs.
template <bool packed>
__device__ __forceinline__ uint4 x_to_f16(uint4 x, float factor) {
    float v[8] = {__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u), __uint_as_float(x.y << 16),
                  __uint_as_float(x.y & 0xffff0000u), __uint_as_float(x.z << 16), __uint_as_float(x.z & 0xffff0000u),
                  __uint_as_float(x.w << 16), __uint_as_float(x.w & 0xffff0000u)};
    auto pair = [&](u32 low, u32 high) {
        u32 d;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(__fmul_rn(v[high], factor)), "f"(__fmul_rn(v[low], factor)));
        return d;
    };
    return packed ? make_uint4(pair(0, 1), pair(2, 3), pair(4, 5), pair(6, 7))
                  : make_uint4(pair(0, 2), pair(1, 3), pair(4, 6), pair(5, 7));
}

// Four signed E4M3 bytes as floats.
__device__ __forceinline__ void e4m3x4_to_f32(u32 bytes, float (&d)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    u32 low, high;
    asm("{ .reg .b16 l, h;\n\t"
        "mov.b32 {l, h}, %2;\n\t"
        "cvt.rn.f16x2.e4m3x2 %0, l;\n\t"
        "cvt.rn.f16x2.e4m3x2 %1, h; }"
        : "=r"(low), "=r"(high)
        : "r"(bytes));
    float2 a = widen_f16x2(low), b = widen_f16x2(high);
    d[0] = a.x;
    d[1] = a.y;
    d[2] = b.x;
    d[3] = b.y;
#else
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        int spread = int(bytes << (24u - 8u * i)) >> 4;  // sign down to bit 27, then exponent and fraction
        d[i] = __fmul_rn(__uint_as_float(u32(spread) & 0x87f00000u), 0x1p120f);
    }
#endif
}

struct Mma4 {
    float v[4];
};

// d = a * b + d: a is 16 rows of 16, b 16 of 8 columns, f16; d f32.
__device__ __forceinline__ void mma_f16(Mma4& d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d.v[0]), "+f"(d.v[1]), "+f"(d.v[2]), "+f"(d.v[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Weights are read once: past L1.
__device__ __forceinline__ uint4 load_once(const uint4* p) {
    uint4 d;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)
                 : "l"(p));
    return d;
}

__device__ __forceinline__ uint2 load_once(const uint2* p) {
    uint2 d;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(d.x), "=r"(d.y) : "l"(p));
    return d;
}

__device__ __forceinline__ u32 load_once(const u16* p) {
    u32 d;
    asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=r"(d) : "l"(p));
    return d;
}

// Loads 16 bytes of shared memory in the lanes that ask for it; the others keep what they have.
__device__ __forceinline__ void load_shared_if(uint4& d, u32 address, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %5, 0;\n\t"
        "@p ld.shared.v4.u32 {%0, %1, %2, %3}, [%4]; }"
        : "+r"(d.x), "+r"(d.y), "+r"(d.z), "+r"(d.w)
        : "r"(address), "r"(u32(wanted)));
}

// Programmatic dependent launch: no effect unless the launch asks for it.
__device__ __forceinline__ void dependents_may_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_dependencies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace jitc
