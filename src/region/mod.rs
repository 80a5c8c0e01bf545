//! Region timing: from ticks that blocks write to an account of a launch.
//!
//! Invariant: regions are declared once, in [`Table`]. What a kernel writes, how
//! large the buffer is, which rows count and what a report calls them all come
//! from there; a buffer carries its table's identity, so the two cannot disagree.

mod families;
mod geometry;
mod table;

pub use geometry::{Geometry, Layout};
pub use table::{Active, Class, Region, Scope, Table, header};

/// The name under which kernels include the rendered table.
pub const HEADER: &str = "jitc/region_table.cuh";

/// What is wrong with a table, a buffer or a file of ticks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The family has no regions.
    #[error("family `{family}` has no region table: expected one of {known}")]
    NoTable {
        /// The family.
        family: String,
        /// Those that have.
        known: String,
    },
    /// The family has no set of this size.
    #[error("family `{family}` has no set of {count} regions: expected one of {legal}")]
    Count {
        /// The family.
        family: String,
        /// What was asked for.
        count: u32,
        /// What there is.
        legal: String,
    },
    /// No family has a set of this size.
    #[error("no family has {count} regions: known are {known}")]
    UnknownCount {
        /// What the buffer has.
        count: u32,
        /// Families and their counts.
        known: String,
    },
}
