//! What a load would find, for those who only ask.
//!
//! Invariant: the tiers are asked in the order and by the rules of [`Cache::lookup`] and
//! [`Cache::lookup_listed`], and nothing is written, moved, marked or told.

use super::carry::receipt::{Drift, Receipt};
use super::lookup::Cache;
use super::store::entry::Entry;
use super::store::error::Fault;
use super::store::read::Load;
use super::tier::TierName;
use crate::engine::build::key::CacheKey;

/// What a load of a key would find.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Judged {
    /// This entry, which is good and, where a receipt is required, listed.
    Hit {
        /// The tier that has it.
        tier: TierName,
        /// The entry.
        entry: Box<Entry>,
    },
    /// Nothing good: this tier has something that is bad, which a load moves away, or that is
    /// not signed as it must be, which stays.
    Bad {
        /// The tier that has it.
        tier: TierName,
        /// What is wrong with it.
        fault: Fault,
    },
    /// What the receipt that is required does not admit.
    Refused(Drift),
    /// Nothing.
    Absent,
}

impl Judged {
    /// Whether a load would find it.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        matches!(self, Self::Hit { .. })
    }
}

impl Cache {
    /// What a load of this key would find, under this receipt if one is required.
    #[must_use]
    pub fn judge(&self, key: &CacheKey, receipt: Option<&Receipt>) -> Judged {
        let Some(receipt) = receipt else {
            return self.found(key);
        };
        if let Err(drift) = receipt.lists(key) {
            return Judged::Refused(drift);
        }
        match self.found(key) {
            Judged::Hit { tier, entry } => match receipt.admit(&entry) {
                Ok(()) => Judged::Hit { tier, entry },
                Err(drift) => Judged::Refused(drift),
            },
            Judged::Absent => Judged::Refused(Drift::Missing(*key)),
            other => other,
        }
    }

    /// A good entry of a later tier answers where an earlier one's is bad.
    fn found(&self, key: &CacheKey) -> Judged {
        let mut judged = Judged::Absent;
        for tier in self.tiers() {
            let name = || tier.name().clone();
            match (tier.peek(key), &judged) {
                (Load::Found(entry), _) => return Judged::Hit { tier: name(), entry },
                (Load::Bad(fault), Judged::Absent) => judged = Judged::Bad { tier: name(), fault },
                _ => {}
            }
        }
        judged
    }
}
