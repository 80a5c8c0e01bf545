//! jitc for C and C++: what `include/jitc.h` declares.
//!
//! Invariant: nothing unwinds out of a function of this crate, and every pointer is
//! checked for null before it is read. What a pointer points at is the caller's promise.

mod engine;
mod error;
mod input;
mod kernel;
mod run;
mod tensor;

pub use engine::{Engine, Options, Report, jitc_close, jitc_forbid, jitc_open, jitc_version, jitc_warm};
pub use error::{LastError, Status, jitc_last_error};
pub use kernel::{Kernel, Source, jitc_cubin, jitc_family, jitc_free, jitc_key, jitc_prepare, jitc_source};
pub use run::{Argument, Kind, jitc_call, jitc_launch, jitc_load, jitc_register_tvm_ffi};
pub use tensor::Tensor;
