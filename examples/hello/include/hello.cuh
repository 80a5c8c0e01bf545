// Multiplies by a constant: a thread per element.
#pragma once

template <unsigned Block>
__device__ void multiply(float factor, const float* x, float* y, unsigned n) {
    const unsigned at = blockIdx.x * Block + threadIdx.x;
    if (at < n) y[at] = factor * x[at];
}
