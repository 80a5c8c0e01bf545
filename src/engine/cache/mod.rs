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
pub mod carry;
mod compared;
mod counters;
mod event;
mod far;
mod far_counters;
mod foreign;
mod guarded;
mod herd;
mod judge;
mod lookup;
mod memory;
mod passed_over;
mod query;
#[cfg(feature = "remote")]
mod remote;
mod single_flight;
mod store;
mod tier;
mod why;

use std::sync::Arc;

pub use builder::CacheBuilder;
pub use carry::Embedded;
pub use carry::bundle;
pub use carry::bundle::{BundleError, Exported, Imported};
pub use carry::receipt::{Drift, Outcome, Receipt, ReceiptError, ReceiptLine};
pub use carry::signed::{
    FileSignError, SignedFile, Signer, sign_bundle, sign_file, signers, signers_of_file,
};
pub use compared::{Compared, measures};
pub use counters::{Counters, TierCounters};
pub use event::{Asked, Event, Teller};
pub use foreign::ForeignCache;
pub use judge::Judged;
pub use lookup::Cache;
pub use passed_over::{StoreAnswer, passed_over, store_answers};
pub use query::{Listed, Order, Passed, Query, Selected, plain};
#[cfg(feature = "remote")]
pub use remote::{Probed, Release, Remote};
use serde::{Serialize, Serializer};
pub use store::check::{BadEntry, CheckTotals, Checked};
pub use store::entry::{Entry, Notes, Parts, Texts, Whole};
pub use store::error::{CacheError, Distrust, Fault, FindError};
pub use store::foreign::Foreign;
pub use store::inspect::{Cleaned, Record, Summary, Totals};
pub use store::layout::{FORMAT, Header, Kind};
pub use store::lock::{Claim, KeyLock, Wait};
pub use store::manifest::{HeaderText, Manifest, Section};
pub use store::prune::{Limits, Pruned};
pub use store::read::Load;
pub use store::tally::{Group, Tally};
pub use store::usage::{FarCounters, Usage};
pub use store::{Published, Store};
pub use tier::{Folder, Lease, Memory, Tier, TierName};
pub use why::{Component, Difference, LineDifference, Nearest, Why, compare, diff, why};

use crate::engine::build::artifact::Artifact;
use crate::engine::request::target::Arch;

/// Sends what is still to be sent to stores, for a moment; then waits for every publish of
/// this process that is under way, lets no new one begin, and removes the process's lock
/// files.
///
/// For a program that is about to exit, on a signal say: its cache is clean then, whatever
/// its other threads are doing. Compiles that end later are still returned to their callers,
/// as built but not kept. There is no way back.
pub fn shutdown() {
    #[cfg(feature = "remote")]
    remote::drain_all();
    store::shutdown::shutdown();
}

/// An artifact and where it comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fetched {
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// Where an artifact comes from. Serialized as [`Provenance::label`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// From a tier, verified; or from this process's memory.
    Hit(TierName),
    /// The same of the code of another arch, which answers where that of the requested one
    /// is missing.
    Compatible {
        /// Where it comes from.
        tier: TierName,
        /// The arch that it was made for.
        arch: Arch,
    },
    /// Built here, and kept.
    Built,
    /// Built here, and not kept: why, in one line.
    BuiltUncached(String),
}

impl Provenance {
    /// `hit`, `compatible`, `built` or `built_uncached`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Hit(_) => "hit",
            Self::Compatible { .. } => "compatible",
            Self::Built => "built",
            Self::BuiltUncached(_) => "built_uncached",
        }
    }

    /// Whether it was there, and nothing was built.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_) | Self::Compatible { .. })
    }
}

impl Serialize for Provenance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}
