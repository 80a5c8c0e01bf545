// Invariant: addresses as PTX takes them.
#pragma once

#include <jitc/types.cuh>

namespace jitc {

/// An address in the shared window (PTX cvta.to.shared).
__device__ __forceinline__ u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

}  // namespace jitc
