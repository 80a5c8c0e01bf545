//! Kernels of our own that include what public ones do, a facility each.

pub(crate) const CUDA: &[&str] = &["cuda"];
pub(crate) const CUDA_STD: &[&str] = &["cuda", "std"];
pub(crate) const STD: &[&str] = &["std"];

/// A kernel of each kind of header that public kernels include: what it shows, the sets
/// that it uses, its options, and its source.
pub(crate) const KERNELS: &[(&str, &[&str], &str, &str)] = &[
    (
        "half precision",
        CUDA,
        "",
        "#include <cuda_fp16.h>
extern \"C\" __global__ void k(__half2* p, float* q) { q[threadIdx.x] = __half22float2(__hadd2(p[0], p[1])).x; }",
    ),
    (
        "bfloat16 and fp8",
        CUDA,
        "",
        "#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern \"C\" __global__ void k(__nv_bfloat16* p, __nv_fp8_e4m3* q) {
    q[threadIdx.x] = __nv_fp8_e4m3(__bfloat162float(p[threadIdx.x]));
}",
    ),
    (
        "the small formats",
        CUDA,
        "",
        "#include <cuda_fp6.h>
#include <cuda_fp4.h>
extern \"C\" __global__ void k(float* p, __nv_fp4_e2m1* q, __nv_fp6_e3m2* r) {
    q[threadIdx.x] = __nv_fp4_e2m1(p[threadIdx.x]);
    r[threadIdx.x] = __nv_fp6_e3m2(p[threadIdx.x]);
}",
    ),
    (
        "a block reduction of cub",
        CUDA,
        "",
        "#include <cub/block/block_reduce.cuh>
extern \"C\" __global__ void k(const float* p, float* q) {
    using Reduce = cub::BlockReduce<float, 256>;
    __shared__ typename Reduce::TempStorage memory;
    float sum = Reduce(memory).Sum(p[threadIdx.x]);
    if (threadIdx.x == 0) q[{{ n }}] = sum;
}",
    ),
    (
        "all that cub has for kernels, by its one header",
        CUDA_STD,
        "",
        "#include <cub/cub.cuh>
static_assert(CUB_VERSION >= 300000);
extern \"C\" __global__ void k(const float* p, float* q) {
    using Load = cub::BlockLoad<float, 256, 4, cub::BLOCK_LOAD_WARP_TRANSPOSE>;
    using Scan = cub::BlockScan<float, 256>;
    __shared__ union { typename Load::TempStorage loading; typename Scan::TempStorage scanning; } memory;
    float values[4];
    Load(memory.loading).Load(p, values, {{ n }}, 0.0f);
    __syncthreads();
    Scan(memory.scanning).InclusiveSum(values, values);
    cub::StoreDirectBlocked(threadIdx.x, q, values);
}",
    ),
    (
        "a sort of a block and a scan of a warp",
        CUDA,
        "",
        "#include <cub/block/block_radix_sort.cuh>
#include <cub/warp/warp_scan.cuh>
#include <cuda/std/complex>
extern \"C\" __global__ void k(const float* p, float* q, cuda::std::complex<float>* c) {
    using Sort = cub::BlockRadixSort<float, 256, 1>;
    using Scan = cub::WarpScan<float>;
    __shared__ typename Sort::TempStorage sorting;
    __shared__ typename Scan::TempStorage scanning[8];
    float value[1] = {p[threadIdx.x]};
    Sort(sorting).Sort(value);
    float out; Scan(scanning[threadIdx.x / 32]).InclusiveSum(value[0], out);
    q[threadIdx.x] = out * (c[0] * c[1]).real();
}",
    ),
    (
        "cooperative groups with a sync of the grid",
        CUDA,
        "",
        "#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;
extern \"C\" __global__ void k(const float* p, float* q) {
    cg::thread_block block = cg::this_thread_block();
    auto warp = cg::tiled_partition<32>(block);
    float sum = cg::reduce(warp, p[block.thread_rank()], cg::plus<float>());
    cg::this_grid().sync();
    if (warp.thread_rank() == 0) q[warp.meta_group_rank()] = sum;
}",
    ),
    (
        "matrix fragments of mma.h",
        CUDA,
        "",
        "#include <mma.h>
using namespace nvcuda;
extern \"C\" __global__ void k(const half* a, const half* b, float* c) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> x;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> y;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> z;
    wmma::fill_fragment(z, 0.0f);
    wmma::load_matrix_sync(x, a, 16);
    wmma::load_matrix_sync(y, b, 16);
    wmma::mma_sync(z, x, y, z);
    wmma::store_matrix_sync(c, z, 16, wmma::mem_row_major);
}",
    ),
    (
        "barriers and pipelines of cuda/",
        CUDA,
        "",
        "#include <cuda/barrier>
#include <cuda/pipeline>
#include <cooperative_groups.h>
extern \"C\" __global__ void k(const float* p, float* q) {
    __shared__ cuda::barrier<cuda::thread_scope_block> bar;
    __shared__ float tile[256];
    if (threadIdx.x == 0) init(&bar, blockDim.x);
    __syncthreads();
    cuda::memcpy_async(&tile[threadIdx.x], &p[threadIdx.x], sizeof(float), bar);
    bar.arrive_and_wait();
    q[threadIdx.x] = tile[255 - threadIdx.x];
}",
    ),
    (
        "random numbers",
        &["cuda", "curand"],
        "",
        "#include <curand_kernel.h>
extern \"C\" __global__ void k(float* p) {
    curandStatePhilox4_32_10_t state;
    curand_init(7, threadIdx.x, 0, &state);
    p[threadIdx.x] = curand_normal(&state);
}",
    ),
    (
        "a texture and constant memory",
        CUDA_STD,
        "'-default-device'",
        "#include <cuda.h>
#include <cuda_runtime.h>
__constant__ float weights[16];
extern \"C\" __global__ void k(cudaTextureObject_t t, float* p) {
    p[threadIdx.x] = tex2D<float>(t, 0.5f, 0.5f) * weights[threadIdx.x % 16];
}",
    ),
    (
        "the library of C++ as kernels include it",
        CUDA_STD,
        "'--std=c++20'",
        "#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
template <class T> requires std::is_floating_point_v<T>
__device__ T least() { return std::min(std::numeric_limits<T>::max(), T(M_PI)); }
extern \"C\" __global__ void k(float* p, std::int64_t at) {
    std::array<float, 2> pair{std::fabs(p[at]), least<float>()};
    std::swap(pair[0], pair[1]);
    auto [a, b] = std::make_tuple(pair[0], pair[1]);
    p[0] = a - b;
}",
    ),
    (
        "a type with ranges of its own",
        CUDA_STD,
        "",
        "#include <cmath>
struct Short { short bits; };
namespace std {
template <> class numeric_limits<Short> {
  public:
    static constexpr bool is_specialized = true;
    static __device__ constexpr Short max() { return {0x7bff}; }
};
}
static_assert(std::numeric_limits<float>::digits == 24 && std::numeric_limits<const int>::is_integer);
extern \"C\" __global__ void k(Short* p) { p[threadIdx.x] = std::numeric_limits<Short>::max(); }",
    ),
    (
        "the assembler as GNU spells it, and a wait for the launch before",
        CUDA,
        "'-D__asm__=asm', '-D__volatile__=volatile'",
        "#include <cuda_device_runtime_api.h>
extern \"C\" __global__ void k(unsigned* p) {
    unsigned lane;
    __asm__ __volatile__(\"mov.u32 %0, %%laneid;\" : \"=r\"(lane));
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
    p[threadIdx.x] = lane;
}",
    ),
    (
        "the headers of C, without a fetch",
        STD,
        "",
        "#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
extern \"C\" __global__ void k(uint8_t* p, int64_t at, float* q) {
    assert(at < INT_MAX);
    ptrdiff_t here = offsetof(dim3, y);
    q[0] = p[at] == UINT8_MAX ? INFINITY : FLT_MIN * (float)M_PI + here;
    memcpy(p, q, sizeof(size_t));
    if (at == 0) printf(\"%\" PRId64 \"\\n\", at);
}",
    ),
];
