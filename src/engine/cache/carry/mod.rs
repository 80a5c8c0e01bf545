//! Entries on their way elsewhere: bundles carry them, receipts list them.

pub mod bundle;
pub(in crate::engine::cache) mod receipt;
