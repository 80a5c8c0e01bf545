// Invariant: every operand is exact. A code enters the tensor core as code times scale in bf16: a code's bits as a bf16 are
// its value times 2^-126, a scale is brought to 2^118 times itself, and of their product, 2^-8 times the weight, six bits
// are significant. Activations enter as they are. Products are exact in f32.
#pragma once

#include <jitc/dependent.cuh>
#include <jitc/nvfp4/decode.cuh>
#include <jitc/nvfp4/packed.cuh>

namespace jitc {

// Product of two bf16 pairs, exact where the factors are chosen so; subnormals count in full.
__device__ __forceinline__ u32 mul_bf16x2(u32 a, u32 b) {
    u32 d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u));
    return d;
}

// Decoding: eight codes of one word as four bf16 pairs, each value times 2^-126; pair p holds codes p and p + 4.
// packed: see packed_pairs. plain: two codes a byte, as checkpoints have them. One multiplication moves sign and magnitude to
// their places.
template <bool packed>
__device__ __forceinline__ void fp4x8_to_bf16_pairs(u32 word, u32 (&pair)[4]) {
    constexpr u32 sign = 0x80008000u, magnitude = 0x01c001c0u;
    if constexpr (packed) {
        packed_pairs(word, pair);
    } else {
        pair[0] = ((word & 0x000f000fu) * (64u + 4096u)) & (sign | magnitude);
        pair[1] = ((word & 0x00f000f0u) * (4u + 256u)) & (sign | magnitude);
        const u32 upper = word >> 8;
        pair[2] = ((upper & 0x000f000fu) * (64u + 4096u)) & (sign | magnitude);
        pair[3] = ((upper & 0x00f000f0u) * (4u + 256u)) & (sign | magnitude);
    }
}

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

// Four signed E4M3 bytes as bf16, each times 2^118: bytes 0 and 2 in the halves of even, 1 and 3 in those of odd.
__device__ __forceinline__ void e4m3x4_to_bf16(u32 bytes, u32& even, u32& odd) {
    constexpr u32 sign = 0x80008000u, rest = 0x07f007f0u, half_way = 0x7b007b00u;  // 2^119; the bits are off by 2^-120
    even = ((bytes * 16u) & rest) | ((bytes * 256u) & sign);
    odd = ((bytes >> 4) & rest) | (bytes & sign);
    even = mul_bf16x2(mul_bf16x2(even, half_way), half_way);
    odd = mul_bf16x2(mul_bf16x2(odd, half_way), half_way);
}

// Four signed E4M3 bytes as floats.
__device__ __forceinline__ void e4m3x4_to_f32(u32 bytes, float (&d)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    const uint2 pairs = e4m3x4_to_f16_pairs(bytes);
    const float2 a = widen_f16x2(pairs.x), b = widen_f16x2(pairs.y);
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

// One half of a pair in both.
__device__ __forceinline__ u32 low_twice(u32 pair) {
    u32 d;
    asm("{ .reg .b16 l, h;\n\tmov.b32 {l, h}, %1;\n\tmov.b32 %0, {l, l}; }" : "=r"(d) : "r"(pair));
    return d;
}

__device__ __forceinline__ u32 high_twice(u32 pair) {
    u32 d;
    asm("{ .reg .b16 l, h;\n\tmov.b32 {l, h}, %1;\n\tmov.b32 %0, {h, h}; }" : "=r"(d) : "r"(pair));
    return d;
}

// What the powers of two of code and scale leave.
constexpr float weight_rest = 0x1p8f;
// What the powers of two of a code and of a raised activation leave.
constexpr float weight_rest_late = 0x1p26f;

struct Mma4 {
    float v[4];
};

// d = a * b + d: a is 16 rows of 16, b 16 of 8 columns, bf16; d f32. b is two registers, side by side.
__device__ __forceinline__ void mma_bf16(Mma4& d, u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
    asm("{ .reg .b32 l, h;\n\tmov.b64 {l, h}, %8;\n\t"
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {l, h}, {%0, %1, %2, %3}; }"
        : "+f"(d.v[0]), "+f"(d.v[1]), "+f"(d.v[2]), "+f"(d.v[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

// Weights are read once: past L1. Where they are not wanted, what was there stays.
__device__ __forceinline__ void load_once(uint4& d, const u8* p, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %5, 0;\n\t"
        "@p ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4]; }"
        : "+r"(d.x), "+r"(d.y), "+r"(d.z), "+r"(d.w)
        : "l"(p), "r"(u32(wanted)));
}

__device__ __forceinline__ void load_once(uint2& d, const u8* p, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %3, 0;\n\t"
        "@p ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2]; }"
        : "+r"(d.x), "+r"(d.y)
        : "l"(p), "r"(u32(wanted)));
}

// Two bytes.
__device__ __forceinline__ void load_once(u32& d, const u8* p, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        ".reg .u16 h;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "@p ld.global.L1::no_allocate.u16 %0, [%1]; }"
        : "+r"(d)
        : "l"(p), "r"(u32(wanted)));
}

// A fence that no launch runs into (and that would do no harm): loads stay on their side of it. Without it the assembler
// puts the loads of a whole tile off to the tile's end, where registers are fewest, and the memory waits.
__device__ __forceinline__ void keep_loads_here(bool never) {
    if (never) asm volatile("membar.gl;" ::: "memory");
}

// Activations, zeros where they are not wanted: asked for where this stands.
__device__ __forceinline__ uint4 load_if(const u16* p, bool wanted) {
    uint4 d = make_uint4(0u, 0u, 0u, 0u);
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %5, 0;\n\t"
        "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4]; }"
        : "+r"(d.x), "+r"(d.y), "+r"(d.z), "+r"(d.w)
        : "l"(p), "r"(u32(wanted)));
    return d;
}

// Asked for where this stands.
__device__ __forceinline__ float load_now(const float* p) {
    float d;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(d) : "l"(p));
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

// Two or four sums of shared memory.
template <typename T>
__device__ __forceinline__ T load_shared(u32 address) {
    T d;
    if constexpr (sizeof(T) == 16) {
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(d.x), "=f"(d.y) : "r"(address) : "memory");
    }
    return d;
}

// Stores in the lanes that ask for it.
__device__ __forceinline__ void store_if(float* to, float v, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "@p st.global.f32 [%0], %1; }"
        :
        : "l"(to), "f"(v), "r"(u32(wanted))
        : "memory");
}

// Stores to shared memory in the lanes that ask for it.
__device__ __forceinline__ void store_shared_if(u32 address, float v, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "@p st.shared.f32 [%0], %1; }"
        :
        : "r"(address), "f"(v), "r"(u32(wanted))
        : "memory");
}

}  // namespace jitc
