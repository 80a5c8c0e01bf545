//! Entries on their way elsewhere: bundles carry them, in a file or in the
//! image of a program, and receipts list them.

pub mod bundle;
mod embedded;
pub(in crate::engine::cache) mod receipt;
pub(in crate::engine::cache) mod signed;

pub use embedded::Embedded;
