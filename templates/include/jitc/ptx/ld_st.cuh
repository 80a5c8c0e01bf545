// Invariant: loads and stores whose cache policy, predicate or place in the code matters. Volatile, so the compiler
// neither moves them nor turns the predicate into a branch. `wanted` is per lane; where a load is not wanted, the
// destination keeps what it holds.
#pragma once

#include <jitc/ptx/address.cuh>

namespace jitc {

/// PTX ld.global.L1::no_allocate.L2::128B.v4: 16 bytes that are read once, past L1.
__device__ __forceinline__ void ld_global_no_allocate_if(uint4& d, const u8* p, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %5, 0;\n\t"
        "@p ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4]; }"
        : "+r"(d.x), "+r"(d.y), "+r"(d.z), "+r"(d.w)
        : "l"(p), "r"(u32(wanted)));
}

/// PTX ld.global.L1::no_allocate.v2: eight bytes.
__device__ __forceinline__ void ld_global_no_allocate_if(uint2& d, const u8* p, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %3, 0;\n\t"
        "@p ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2]; }"
        : "+r"(d.x), "+r"(d.y)
        : "l"(p), "r"(u32(wanted)));
}

/// PTX ld.global.L1::no_allocate.u16: two bytes.
__device__ __forceinline__ void ld_global_no_allocate_if(u32& d, const u8* p, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        ".reg .u16 h;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "@p ld.global.L1::no_allocate.u16 %0, [%1]; }"
        : "+r"(d)
        : "l"(p), "r"(u32(wanted)));
}

/// PTX ld.global.v4: 16 bytes, zeros where they are not wanted.
__device__ __forceinline__ uint4 ld_global_v4_if(const u16* p, bool wanted) {
    uint4 d = make_uint4(0u, 0u, 0u, 0u);
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %5, 0;\n\t"
        "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4]; }"
        : "+r"(d.x), "+r"(d.y), "+r"(d.z), "+r"(d.w)
        : "l"(p), "r"(u32(wanted)));
    return d;
}

/// PTX ld.global.f32.
__device__ __forceinline__ float ld_global(const float* p) {
    float d;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(d) : "l"(p));
    return d;
}

/// PTX ld.global.nc.L1::no_allocate.L2::256B: read once, past L1, and L2 fetches the neighboring bytes at once.
__device__ __forceinline__ uint4 ld_global_nc_no_allocate(const uint4* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}
__device__ __forceinline__ uint2 ld_global_nc_no_allocate(const uint2* from) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
    return v;
}

/// PTX st.global.f32, in the lanes that want it.
__device__ __forceinline__ void st_global_if(float* to, float v, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "@p st.global.f32 [%0], %1; }"
        :
        : "l"(to), "f"(v), "r"(u32(wanted))
        : "memory");
}

/// PTX ld.shared.v4: 16 bytes.
__device__ __forceinline__ void ld_shared_v4_if(uint4& d, u32 address, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %5, 0;\n\t"
        "@p ld.shared.v4.u32 {%0, %1, %2, %3}, [%4]; }"
        : "+r"(d.x), "+r"(d.y), "+r"(d.z), "+r"(d.w)
        : "r"(address), "r"(u32(wanted)));
}

/// PTX ld.shared.v4.f32, ld.shared.v2.f32 or ld.shared.f32, as T is float4, float2 or float.
template <typename T>
__device__ __forceinline__ T ld_shared(u32 address) {
    T d;
    if constexpr (sizeof(T) == 16) {
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
                     : "r"(address)
                     : "memory");
    } else if constexpr (sizeof(T) == 4) {
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(d) : "r"(address) : "memory");
    } else {
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(d.x), "=f"(d.y) : "r"(address) : "memory");
    }
    return d;
}

/// PTX ld.shared.v2.u64.
__device__ __forceinline__ ulonglong2 ld_shared_u64x2(u32 address) {
    ulonglong2 d;
    asm volatile("ld.shared.v2.u64 {%0, %1}, [%2];" : "=l"(d.x), "=l"(d.y) : "r"(address) : "memory");
    return d;
}

/// PTX st.shared.v2.u64.
__device__ __forceinline__ void st_shared_u64x2(u32 address, u64 first, u64 second) {
    asm volatile("st.shared.v2.u64 [%0], {%1, %2};" ::"r"(address), "l"(first), "l"(second) : "memory");
}

/// PTX ld.volatile.shared.u32.
__device__ __forceinline__ u32 ld_volatile_shared(u32 address) {
    u32 read;
    asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(read) : "r"(address) : "memory");
    return read;
}

/// PTX st.shared.f32, in the lanes that want it.
__device__ __forceinline__ void st_shared_if(u32 address, float v, bool wanted) {
    asm volatile(
        "{ .reg .pred p;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "@p st.shared.f32 [%0], %1; }"
        :
        : "r"(address), "f"(v), "r"(u32(wanted))
        : "memory");
}

}  // namespace jitc
