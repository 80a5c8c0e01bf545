#pragma once

#include <cstdint>
#include <cub/block/block_reduce.cuh>
#include <cuda_fp16.h>

namespace own {

/// y[row] = the sum of x[row], a block a row; x is [rows, columns].
template <class T, unsigned Threads>
__global__ void row_sum(const T* x, float* y, std::uint32_t columns) {
    using Reduce = cub::BlockReduce<float, Threads>;
    __shared__ typename Reduce::TempStorage memory;
    const T* row = x + static_cast<std::size_t>(blockIdx.x) * columns;
    float sum = 0;
    for (std::uint32_t at = threadIdx.x; at < columns; at += Threads) {
        sum += static_cast<float>(row[at]);
    }
    sum = Reduce(memory).Sum(sum);
    if (threadIdx.x == 0) {
        y[blockIdx.x] = sum;
    }
}

}  // namespace own
