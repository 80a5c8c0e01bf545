//! Devices, loading, binding, launching, capturing and dropping over a driver library that
//! the suite compiles: it has no GPU, gives the answers that a test wants, and records
//! what it is asked (`cuda.c`). Needs a C compiler, as linking the tests does.

mod behind;
mod bind;
mod by_value;
mod cache;
#[path = "../support/cubin.rs"]
mod cubin;
mod devices;
mod geometry;
mod launch;
mod lifetimes;
mod load;
mod measured;
mod program;
mod ptx;
mod source;
mod stub;
mod variable;
