// Invariant: the enumerations that rendered constants name. Each enumerator is spelled exactly as its value in the
// family's TOML, so a constant's text is its C++ name.
#pragma once

namespace jitc {

enum class Accumulate { fma, mul_add, mma };
enum class Geometry { tiled, original };
enum class WeightLayout { nvfp4, packed, packed64 };
enum class WoFormat { nvfp4, fp8 };
enum class Output { f32, bf16 };

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

template <typename T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
    return (a + b - 1) / b;
}

template <typename T>
__host__ __device__ constexpr T round_up(T a, T b) {
    return ceil_div(a, b) * b;
}

}  // namespace jitc
