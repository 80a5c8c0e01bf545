//! What happened, as typed values for a listener and as counters.
//!
//! Invariant: an event tells what has already happened; a listener cannot change
//! what the cache does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::store::error::Fault;
use super::tier::TierName;
use crate::engine::build::key::CacheKey;
#[cfg(doc)]
use crate::engine::config::MissPolicy;

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The tiers are about to be asked for a key.
    Lookup {
        /// Key that is looked for.
        key: CacheKey,
    },
    /// An artifact that this process still holds was asked for again.
    MemoryHit {
        /// Key of the request.
        key: CacheKey,
    },
    /// An entry was found and verified.
    Hit {
        /// Key of the request.
        key: CacheKey,
        /// Tier of the entry.
        tier: TierName,
        /// How long the look took, over all tiers.
        elapsed: Duration,
    },
    /// No tier has a good entry.
    Miss {
        /// Key of the request.
        key: CacheKey,
        /// How long the look took, over all tiers.
        elapsed: Duration,
    },
    /// The builder made an artifact.
    Built {
        /// Key of the request.
        key: CacheKey,
        /// How long was waited for other builders of the same key before.
        waited: Duration,
        /// How long it took, as seen from the cache.
        elapsed: Duration,
        /// What the artifact itself says of the compiler's share, microseconds.
        compile_us: u64,
    },
    /// An entry was written.
    Published {
        /// Key of the request.
        key: CacheKey,
        /// Tier of the entry.
        tier: TierName,
        /// Bytes of its files, without the manifest.
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// An artifact could not be kept.
    NotPublished {
        /// Key of the request.
        key: CacheKey,
        /// Why, in one line.
        reason: String,
    },
    /// Something bad lay under a key and was, where that is possible, moved away.
    Healed {
        /// Key of the request.
        key: CacheKey,
        /// Tier of the entry.
        tier: TierName,
        /// What was wrong.
        fault: Fault,
        /// Whether it is out of the way; a read-only tier keeps it.
        quarantined: bool,
    },
    /// A tier could not be read.
    TierUnavailable {
        /// The tier.
        tier: TierName,
        /// Why, in one line.
        reason: String,
    },
    /// No tier has it: its build begins. [`Event::Built`] follows, unless it fails.
    Building {
        /// The key.
        key: CacheKey,
    },
    /// A request was compiled although it should have been warmed: misses are warned of
    /// ([`MissPolicy::Warn`]), or were forbidden earlier and no longer are.
    /// [`Event::Built`] follows.
    LateCompile {
        /// Key of the request.
        key: CacheKey,
        /// Time inside the compiler, microseconds.
        compile_us: u64,
    },
    /// A request was refused: compiling is forbidden, or a receipt is required that does
    /// not list what the cache has.
    Refused {
        /// Key of the request.
        key: CacheKey,
        /// Why, in one line.
        reason: String,
    },
    /// Another builder of the same key took too long: this one compiles too.
    LockTimedOut {
        /// Key of the request.
        key: CacheKey,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Entries were removed to keep within the limits.
    Pruned {
        /// Number of entries.
        entries: u64,
        /// Their bytes.
        bytes: u64,
    },
}

/// How often each thing happened in one [`super::Cache`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Verified hits, on disk and in other tiers.
    pub hits: u64,
    /// Hits on artifacts that this process still held.
    pub memory_hits: u64,
    /// Misses.
    pub misses: u64,
    /// Artifacts built.
    pub built: u64,
    /// Entries written.
    pub published: u64,
    /// Artifacts that could not be kept.
    pub not_published: u64,
    /// Bad entries found.
    pub healed: u64,
    /// Waits that were given up.
    pub lock_timeouts: u64,
    /// Entries pruned.
    pub pruned: u64,
    /// Compiles that should have been warmed ([`Event::LateCompile`]).
    pub late_compiles: u64,
    /// Requests that a policy refused.
    pub refused: u64,
}

/// The live counters behind [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    hits: AtomicU64,
    memory_hits: AtomicU64,
    misses: AtomicU64,
    built: AtomicU64,
    published: AtomicU64,
    not_published: AtomicU64,
    healed: AtomicU64,
    lock_timeouts: AtomicU64,
    pruned: AtomicU64,
    late_compiles: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    pub(super) fn memory_hit(&self) {
        self.memory_hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, event: &Event) {
        let (counter, by) = match event {
            Event::Hit { .. } => (&self.hits, 1),
            Event::Miss { .. } => (&self.misses, 1),
            Event::Built { .. } => (&self.built, 1),
            Event::Published { .. } => (&self.published, 1),
            Event::NotPublished { .. } => (&self.not_published, 1),
            Event::Healed { .. } => (&self.healed, 1),
            Event::LockTimedOut { .. } => (&self.lock_timeouts, 1),
            Event::Pruned { entries, .. } => (&self.pruned, *entries),
            Event::LateCompile { .. } => (&self.late_compiles, 1),
            Event::Refused { .. } => (&self.refused, 1),
            Event::Lookup { .. }
            | Event::Building { .. }
            | Event::MemoryHit { .. }
            | Event::TierUnavailable { .. } => return,
        };
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            hits: get(&self.hits),
            memory_hits: get(&self.memory_hits),
            misses: get(&self.misses),
            built: get(&self.built),
            published: get(&self.published),
            not_published: get(&self.not_published),
            healed: get(&self.healed),
            lock_timeouts: get(&self.lock_timeouts),
            pruned: get(&self.pruned),
            late_compiles: get(&self.late_compiles),
            refused: get(&self.refused),
        }
    }
}
