// Sizes and differences of pointers. `size_t` is the compiler's own.
#pragma once

using ptrdiff_t = decltype(static_cast<char*>(nullptr) - static_cast<char*>(nullptr));

#ifndef NULL
#define NULL nullptr
#endif
#ifndef offsetof
#define offsetof(type, member) __INTADDR__(&((static_cast<type*>(nullptr))->member))
#endif
