//! From a spec to machine code: source, key, compiler, artifact.
//!
//! Invariant: what the compiler sees is what the key covers.

pub mod artifact;
pub mod compile;
pub mod image;
pub mod key;
pub mod options;
pub mod parameter_info;
pub mod ptx;
pub mod render;
pub mod request;
pub mod toolchain;
