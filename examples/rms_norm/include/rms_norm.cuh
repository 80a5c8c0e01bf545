#pragma once

/// Elements that are loaded together.
template <unsigned width>
struct alignas(4 * width) Elements {
    float of[width];
};

/// The sum over a block, known to all of its threads.
template <unsigned block>
__device__ float sum_of_block(float sum) {
    static_assert(block % 32 == 0, "whole warps");
    __shared__ float of_warp[block / 32];
    for (unsigned lanes = 16; lanes > 0; lanes /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    }
    if (threadIdx.x % 32 == 0) {
        of_warp[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    float all = 0.0f;
    for (unsigned warp = 0; warp < block / 32; ++warp) {
        all += of_warp[warp];
    }
    return all;
}

/// One row: a block reads it twice, the second time from L2. A row whose length is no
/// multiple of `width` is read element by element.
template <unsigned block, unsigned width>
__device__ void normalize_row(const float* x, const float* weight, float* y, float epsilon, unsigned cols) {
    if constexpr (width > 1) {
        if (cols % width != 0) {
            normalize_row<block, 1>(x, weight, y, epsilon, cols);
            return;
        }
    }
    using Load = Elements<width>;
    const size_t row = size_t{blockIdx.x} * cols;
    float sum = 0.0f;
    for (unsigned at = threadIdx.x * width; at < cols; at += block * width) {
        const Load in = *reinterpret_cast<const Load*>(x + row + at);
        for (unsigned i = 0; i < width; ++i) {
            sum += in.of[i] * in.of[i];
        }
    }
    const float scale = rsqrtf(sum_of_block<block>(sum) / float(cols) + epsilon);
    for (unsigned at = threadIdx.x * width; at < cols; at += block * width) {
        const Load in = *reinterpret_cast<const Load*>(x + row + at);
        const Load by = *reinterpret_cast<const Load*>(weight + at);
        Load out;
        for (unsigned i = 0; i < width; ++i) {
            out.of[i] = in.of[i] * scale * by.of[i];
        }
        *reinterpret_cast<Load*>(y + row + at) = out;
    }
}
