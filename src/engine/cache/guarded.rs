//! A tier that is no folder, whose entries must be signed.
//!
//! Invariant: nothing is known of who wrote such a tier, so once a key is trusted it gives
//! out what a trusted key signed and nothing else.

use std::sync::Arc;
use std::time::Duration;

use super::event::Teller;
use super::store::entry::{Entry, Whole};
use super::store::error::{CacheError, Fault};
use super::store::lock::{Claim, Wait};
use super::store::manifest::Manifest;
use super::store::prune::{Limits, Pruned};
use super::store::read::Load;
use super::store::{Published, Store};
use super::tier::{Lease, Tier, TierName};
use crate::engine::build::key::CacheKey;
use crate::engine::request::target::ToolchainIdentity;
use crate::engine::sign::{Admission, Require};

struct Guarded {
    tier: Arc<dyn Tier>,
    admission: Admission,
}

/// The tier as this admission lets it be seen; one that is a folder judges by itself.
pub(super) fn guarded(tier: Arc<dyn Tier>, admission: &Admission) -> Arc<dyn Tier> {
    if admission.in_force() == Require::None {
        return tier;
    }
    let admission = admission.clone();
    Arc::new(Guarded { tier, admission })
}

impl Guarded {
    fn admit<T>(&self, found: Load<T>, entry: impl Fn(&T) -> &Entry) -> Load<T> {
        match found {
            Load::Found(found) => match entry(&found).admit(&self.admission) {
                Ok(()) => Load::Found(found),
                Err(fault) => Load::Bad(fault),
            },
            other => other,
        }
    }
}

impl Tier for Guarded {
    fn name(&self) -> &TierName {
        self.tier.name()
    }

    fn load(&self, key: &CacheKey) -> Load {
        self.admit(self.tier.load(key), |entry| entry)
    }

    fn peek(&self, key: &CacheKey) -> Load {
        self.admit(self.tier.peek(key), |entry| entry)
    }

    fn whole(&self, key: &CacheKey) -> Load<Whole> {
        self.admit(self.tier.whole(key), Whole::entry)
    }

    fn visit(&self, each: &mut dyn FnMut(Manifest)) {
        self.tier.visit(each);
    }

    fn toolchains(&self) -> Vec<ToolchainIdentity> {
        self.tier.toolchains()
    }

    /// None: nobody signed them.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_writable(&self) -> bool {
        self.tier.is_writable()
    }

    fn claim(&self, key: &CacheKey, wait: &Wait) -> Claim {
        self.tier.claim(key, wait)
    }

    fn publish(&self, entry: &Whole) -> Result<Published, CacheError> {
        // A tier that gives out only what is signed keeps nothing else.
        entry
            .entry()
            .admit(&self.admission)
            .map_err(CacheError::Refused)?;
        self.tier.publish(entry)
    }

    fn quarantine(&self, key: &CacheKey, held: Option<&Claim>) -> Result<bool, CacheError> {
        match self.load(key) {
            // It may be good under another policy.
            Load::Bad(Fault::Signature(_)) => Ok(false),
            _ => self.tier.quarantine(key, held),
        }
    }

    fn expel(&self, key: &CacheKey) -> Result<(), CacheError> {
        self.tier.expel(key)
    }

    fn tidy(&self, limits: &Limits, bytes: u64) -> Option<Pruned> {
        self.tier.tidy(limits, bytes)
    }

    fn store(&self) -> Option<&Store> {
        self.tier.store()
    }

    fn is_far(&self) -> bool {
        self.tier.is_far()
    }

    fn offer(&self, entry: &Whole) -> Result<(), CacheError> {
        let admitted = entry.entry().admit(&self.admission);
        admitted.map_err(CacheError::Refused)?;
        self.tier.offer(entry)
    }

    fn whole_anew(&self, key: &CacheKey) -> Load<Whole> {
        self.admit(self.tier.whole_anew(key), Whole::entry)
    }

    /// What is built here is signed by nobody yet, so others would wait for it in vain.
    fn lease(&self, _key: &CacheKey, _longest: Duration) -> Lease {
        Lease::None
    }

    fn drain(&self) {
        self.tier.drain();
    }

    fn told_by(&self, teller: &Teller) {
        self.tier.told_by(teller);
    }
}
