#pragma once
namespace lib {
constexpr float two = 2.0f;
}  // namespace lib
