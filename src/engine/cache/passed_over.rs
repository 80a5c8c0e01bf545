//! Tiers that a lookup passes over, in the words in which every place says it.
//!
//! Invariant: `why`, a check, a forbidden miss, the warning at run time and the doctor
//! show one sentence: which folder, why not, and what to do there.

use std::fmt;
use std::sync::Arc;

use super::store::error::Fault;
use super::store::read::Load;
use super::tier::{Tier, TierName};
use crate::engine::build::key::CacheKey;

/// A sentence for each tier that was passed over on the way to a key: its folder cannot be
/// read or is not trusted. A tier that only lacks the key is none of them.
#[must_use]
pub fn passed_over(tiers: &[Arc<dyn Tier>], key: &CacheKey) -> Vec<String> {
    let mut sentences = Vec::new();
    for tier in tiers {
        match tier.peek(key) {
            Load::Found(_) => break,
            Load::Unavailable(error) => sentences.push(sentence(tier.name(), &error)),
            Load::Bad(fault @ (Fault::Untrusted(_) | Fault::Signature(_))) => {
                let what = format!("entry {}, {fault}", key.short());
                sentences.push(sentence(tier.name(), &what));
            }
            Load::Bad(_) | Load::Absent => {}
        }
    }
    sentences
}

/// That a tier is passed over, and why.
pub(super) fn sentence(tier: &TierName, why: &dyn fmt::Display) -> String {
    format!("the {tier} cache is passed over: {why}")
}
