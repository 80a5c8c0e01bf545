#pragma once
#include <value.hpp>
namespace own {
// A quote: "two"
__device__ inline float value() { return lib::two; }
}  // namespace own
