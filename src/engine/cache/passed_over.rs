//! Tiers that a lookup passes over, in the words in which every place says it.
//!
//! Invariant: `why`, a check, a forbidden miss, the warning at run time and the doctor
//! show one sentence: which folder, why not, and what to do there.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::event::Asked;
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

/// What a store answered that is asked over a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreAnswer {
    /// The store.
    pub tier: TierName,
    /// `found`, `absent`, `refused` or `unreachable`.
    pub answer: &'static str,
    /// Why it was refused, or not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for StoreAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked {}: {}", self.tier, self.answer)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// What each store answers of a key, in the order in which they are asked; changes nothing.
#[must_use]
pub fn store_answers(tiers: &[Arc<dyn Tier>], key: &CacheKey) -> Vec<StoreAnswer> {
    let far = tiers.iter().filter(|tier| tier.is_far());
    let answer = |tier: &Arc<dyn Tier>| {
        let (answer, reason) = match tier.peek(key) {
            Load::Found(_) => (Asked::Found, None),
            Load::Absent => (Asked::Absent, None),
            Load::Bad(fault) => (Asked::Refused, Some(fault.to_string())),
            Load::Unavailable(error) => (Asked::Unreachable, Some(error.to_string())),
        };
        StoreAnswer {
            tier: tier.name().clone(),
            answer: answer.label(),
            reason,
        }
    };
    far.map(answer).collect()
}

/// That a tier is passed over, and why.
pub(super) fn sentence(tier: &TierName, why: &dyn fmt::Display) -> String {
    format!("the {tier} cache is passed over: {why}")
}
