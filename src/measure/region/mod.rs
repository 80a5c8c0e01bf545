//! Region timing: from ticks that blocks write to an account of a launch.
//!
//! Invariant: regions are declared once, by their family. What a kernel writes, how
//! large the buffer is, which rows count and what a report calls them all come
//! from its [`Table`]; a buffer carries its table's identity, so the two cannot disagree.

mod account;
#[cfg(feature = "cli")]
mod along_k;
mod buffer;
mod diff;
mod files;
mod geometry;
pub mod live;
pub mod npy;
pub mod own;
mod page;
mod reduce;
mod report;
mod trace;

pub use crate::engine::request::regions::{Active, Mask, Place, Region, Scope, Table, TableError};
pub use account::{Part, account, account_of_diff};
#[cfg(feature = "cli")]
pub use along_k::{AlongK, ProfileError, profiled_kernel};
pub use buffer::{Bare, RegionBuffer, TickSource, Ticks, argument, masked_constants, sidecar};
pub use diff::{Diff, DiffRow, diff, thousands};
pub use files::Reports;
pub use geometry::{Geometry, Layout};
pub use live::{Cost, Run};
pub use npy::{Array, NpyError};
pub use page::page;
pub use reduce::{CtaAccount, Reduced, RegionRow, Unaccounted, reduce};
pub use report::{COLUMNS, csv, to_json, warnings};
pub use trace::trace;

/// What is wrong with a table, a buffer or a file of ticks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// A table that there is not.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file of regions that no family has.
    #[error("{file}: {count} regions: known are {known}")]
    FileCount {
        /// The file.
        file: String,
        /// What it has.
        count: u32,
        /// Families and their counts.
        known: String,
    },
    /// A kernel that was compiled without regions.
    #[error("`{family}` is compiled without regions")]
    NoRegions {
        /// The family.
        family: String,
    },
    /// A grid, or a division of work, that no launch has.
    #[error("geometry: {reason}")]
    Geometry {
        /// What is wrong with it.
        reason: String,
    },
    /// A kernel with regions and nowhere to write them.
    #[error("`{family}` is compiled with {count} regions and was given no buffer for them")]
    NoBuffer {
        /// The family.
        family: String,
        /// Number of its regions.
        count: u32,
    },
    /// A buffer, or a file, of another table.
    #[error("region tables differ: {found}, expected {expected}")]
    OtherTable {
        /// What is there.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// A buffer that no kernel of this table wrote.
    #[error("the buffer's identity is {found:016x}: no kernel of {expected} has written it")]
    OtherWriter {
        /// The word at its end.
        found: u64,
        /// The table.
        expected: String,
    },
    /// A buffer of another size.
    #[error("buffer has {found} words, expected {expected}")]
    Words {
        /// Words of the buffer.
        found: usize,
        /// What the table and the grid take.
        expected: usize,
    },
    /// An array of another shape.
    #[error("{file}: shape {shape}: expected (blocks, regions, 2)")]
    Shape {
        /// The file.
        file: String,
        /// Shape of the array.
        shape: String,
    },
    /// Rows for another grid.
    #[error("{what} has {found} rows: the grid has {expected} blocks")]
    Rows {
        /// The file or buffer.
        what: String,
        /// Rows of the file or buffer.
        found: usize,
        /// Blocks of the grid.
        expected: usize,
    },
    /// Two accounts of different clocks.
    #[error("ticks of {before} and of {after} have no common unit: compare runs of one clock")]
    Clocks {
        /// The first one's.
        before: &'static str,
        /// The second one's.
        after: &'static str,
    },
    /// The `.json` beside a `.npy`.
    #[error("{file}: {reason}")]
    Sidecar {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The `.npy` itself.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// The file system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
