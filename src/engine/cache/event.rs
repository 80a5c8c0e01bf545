//! What happened, as typed values for a listener.
//!
//! Invariant: an event tells what has already happened; a listener cannot change
//! what the cache does.

use std::fmt;
use std::sync::Arc;
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
    /// The driver compiled PTX while it loaded it.
    DriverCompiled {
        /// Key of the PTX.
        key: CacheKey,
        /// How long loading took.
        elapsed: Duration,
    },
    /// No tier has what was asked for: a more general variant is launched at once, and the
    /// asked one waits for its turn to be compiled ([`MissPolicy::Behind`]).
    Behind {
        /// The asked one: its family and constants, for people.
        asked: String,
        /// The general one.
        general: String,
    },
    /// What was compiled behind a more general variant is launched from now on.
    TookOver {
        /// Key of what takes over.
        key: CacheKey,
        /// Its family and constants, for people.
        asked: String,
        /// The general one.
        general: String,
        /// How long after it was asked for.
        elapsed: Duration,
    },
    /// What was asked for could not be compiled behind, or not loaded: the general variant
    /// stays.
    BehindFailed {
        /// The asked one: its family and constants, for people.
        asked: String,
        /// The general one.
        general: String,
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
    /// A store was asked for a key, once.
    Asked {
        /// The key.
        key: CacheKey,
        /// The store.
        tier: TierName,
        /// How it answered.
        answer: Asked,
        /// Bytes that it sent.
        bytes: u64,
        /// How long that took.
        elapsed: Duration,
    },
    /// What a store has was kept in a nearer tier.
    Promoted {
        /// Key of the entry.
        key: CacheKey,
        /// The store.
        tier: TierName,
        /// The nearer tier.
        to: TierName,
        /// Bytes of its files, without the manifest.
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// An entry was sent to a store, or was there already.
    Sent {
        /// Key of the entry.
        key: CacheKey,
        /// The store.
        tier: TierName,
        /// Bytes of the object.
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// An entry was to be sent to a store, and was not.
    NotSent {
        /// Key of the entry.
        key: CacheKey,
        /// The store.
        tier: TierName,
        /// Why, in one line.
        reason: String,
    },
    /// A store failed, and is left alone for a while.
    StoreLeftAlone {
        /// The store.
        tier: TierName,
        /// What it did last, in one line.
        reason: String,
    },
    /// A store that was left alone answered again.
    StoreAskedAgain {
        /// The store.
        tier: TierName,
    },
}

/// How a store answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// With an entry.
    Found,
    /// That it has none.
    Absent,
    /// With something that is none, or that may not be loaded.
    Refused,
    /// Not at all.
    Unreachable,
}

impl Asked {
    /// As a word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Whom a tier tells of what happens in it.
#[derive(Clone)]
pub struct Teller(Arc<dyn Fn(&Event) + Send + Sync>);

impl Teller {
    pub(super) fn new(tell: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Tells of an event.
    pub fn tell(&self, event: &Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}
