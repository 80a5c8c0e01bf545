//! The engine: from a request to machine code in a context, for any family.
//!
//! Invariant: it knows no family. Data goes one way through its rooms: [`config`],
//! [`request`], [`build`], [`cache`], [`run`]; [`jit`] wires them, [`doctor`] says
//! what is missing, and [`embed`] serves build scripts.

pub mod atomic_file;
pub mod build;
pub mod cache;
pub mod config;
pub(crate) mod digest_hasher;
pub mod doctor;
pub mod embed;
pub mod jit;
pub mod per_process;
pub mod refused;
pub mod regular_file;
pub mod request;
pub mod run;
pub mod sign;
pub mod suggest;
pub mod threads;
