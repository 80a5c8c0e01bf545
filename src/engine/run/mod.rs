//! GPUs: finding them, loading kernels, launching them.
//!
//! Invariant: what can be checked once is checked when a kernel is loaded, or when
//! its parameters are bound.

pub mod arguments;
pub mod bind;
pub mod bind_error;
mod capture;
pub mod device;
pub mod dispatch;
pub mod dlpack;
pub mod driver_error;
pub mod entry_point;
pub mod launch;
pub mod load;
pub mod occupancy;
pub mod packet;
pub mod tensor;
pub mod tuned;
pub mod tvm_ffi;
pub mod variable;
