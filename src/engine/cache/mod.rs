//! The cache: verified, single-flight, layered, bounded, able to say why.
//!
//! Invariant: what comes out is verified bytes or a fresh build, and trouble of
//! the cache's own never fails a build. It knows keys and artifacts only; the
//! compiler reaches it as a closure.
//!
//! * [`Cache::get_or_build`] is the main walk, [`Cache::lookup`] its first half;
//! * [`Store`] is one folder of entries, with inspection, prune and clean;
//! * [`Bundle`](bundle) carries entries in one file, [`Receipt`] lists them;
//! * docs/CACHE.md has the format, the protocol and the promises.

mod builder;
pub mod bundle;
mod check;
#[cfg(test)]
mod crash;
mod crash_points;
mod dir;
mod embedded;
mod entry;
mod error;
mod event;
mod inspect;
mod load;
mod lock;
mod lookup;
mod memory;
mod prune;
mod receipt;
mod shutdown;
mod single_flight;
mod store;
#[cfg(test)]
mod test_fixtures;
mod tier;
mod trust;
mod why;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use builder::CacheBuilder;
pub use bundle::{BundleError, Exported, Imported};
pub use check::{BadEntry, CheckTotals, Checked};
pub use embedded::Embedded;
pub use entry::{
    CUBIN, Entry, EntryFiles, FORMAT, FileRecord, HEADERS, LOG, MANIFEST, Manifest, PAYLOAD, SOURCE,
};
pub use error::{CacheError, Distrust, Fault, FindError};
pub use event::{Counters, Event};
pub use inspect::{Cleaned, Record, Summary, Totals};
pub use load::Load;
pub use lock::{Claim, KeyLock};
pub use lookup::Cache;
pub use prune::{Limits, Pruned};
pub use receipt::{Drift, Outcome, Receipt, ReceiptError, ReceiptLine};
use serde::{Serialize, Serializer};
pub use shutdown::shutdown;
pub use store::{Published, Store};
pub use tier::{Folder, Memory, Tier, TierName};
pub use why::{Component, Difference, LineDifference, Nearest, Why, compare, diff};

use crate::engine::build::artifact::Artifact;
use crate::engine::build::key::{CacheKey, Preimage};
use crate::engine::request::target::{Arch, ToolchainIdentity};

/// Everything known of a request before a compile; kept beside the artifact.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The key.
    pub key: CacheKey,
    /// What it covers.
    pub preimage: Preimage,
    /// The family's name.
    pub family: String,
    /// Constants by name, as people write them.
    pub constants: BTreeMap<String, serde_json::Value>,
    /// The arch.
    pub arch: Arch,
    /// Compiler options, in order.
    pub options: Vec<String>,
    /// The compiler.
    pub toolchain: ToolchainIdentity,
    /// The rendered source.
    pub source: String,
    /// Names and texts of the in-memory headers.
    pub headers: Vec<(String, Arc<str>)>,
}

/// An artifact and where it comes from.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// Where an artifact comes from. Serialised as [`Provenance::label`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// From a tier, verified; or from this process's memory.
    Hit(TierName),
    /// Built here, and kept.
    Built,
    /// Built here, and not kept: why, in one line.
    BuiltUncached(String),
}

impl Provenance {
    /// `hit`, `built` or `built_uncached`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Hit(_) => "hit",
            Self::Built => "built",
            Self::BuiltUncached(_) => "built_uncached",
        }
    }
}

impl Serialize for Provenance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}
