// Short names of the unsigned types, which code for nvcc has from the host's headers.
#pragma once
#include <stddef.h>

using ushort = unsigned short;
using uint   = unsigned int;
using ulong  = unsigned long;
