// Invariant: one instruction of the tensor cores a function; fragments are laid out as the PTX manual has them.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// A lane's accumulators of an m16n8 tile.
struct Mma4 {
    float v[4];
};

/// PTX mma.m16n8k16 of bf16: d = a * b + d, with a 16 rows of 16, b 16 of 8 columns, d f32. b is two registers, the
/// first in the low half.
__device__ __forceinline__ void mma_m16n8k16_bf16(Mma4& d, u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
    asm("{ .reg .b32 l, h;\n\tmov.b64 {l, h}, %8;\n\t"
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {l, h}, {%0, %1, %2, %3}; }"
        : "+f"(d.v[0]), "+f"(d.v[1]), "+f"(d.v[2]), "+f"(d.v[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

/// PTX mma.m16n8k16 of f16.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// PTX movmatrix.trans: an 8x8 matrix of 16-bit elements, a row a lane quad, transposed.
__device__ __forceinline__ u32 movmatrix_trans(u32 a) {
    u32 d;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a));
    return d;
}

}  // namespace jitc
