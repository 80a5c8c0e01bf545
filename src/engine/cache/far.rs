//! Stores that are asked over a network: after everything else, and not twice.
//!
//! Invariant: of the processes of a machine one asks for a key and keeps what it gets, under
//! the key's lock; the others find it on disk. Nothing that a store does fails a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::lookup::Cache;
use super::store::entry::{Entry, Whole};
use super::store::lock::{Claim, Wait};
use super::store::read::Load;
use super::store::{Published, Store};
use super::tier::{Tier, TierName};
use crate::engine::build::key::CacheKey;

/// How long another process of this machine, which asks for the same key, is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks whether it is done.
const PAUSE: Duration = Duration::from_millis(5);

impl Cache {
    /// The tiers of this machine.
    pub(super) fn near(&self) -> &[Arc<dyn Tier>] {
        &self.tiers[..self.near]
    }

    /// Those that are asked over a network.
    pub(super) fn far(&self) -> &[Arc<dyn Tier>] {
        &self.tiers[self.near..]
    }

    /// The tier that is written to.
    pub(super) fn writable(&self) -> Option<&Arc<dyn Tier>> {
        self.near().iter().find(|tier| tier.is_writable())
    }

    /// The folder that is written to.
    #[must_use]
    pub fn written_store(&self) -> Option<&Store> {
        self.writable().and_then(|tier| tier.store())
    }

    /// As [`Cache::whole`], of the tiers of this machine.
    #[must_use]
    pub fn whole_near(&self, key: &CacheKey) -> Option<Whole> {
        self.near().iter().find_map(|tier| match tier.whole(key) {
            Load::Found(whole) => Some(*whole),
            _ => None,
        })
    }

    /// What a tier of this machine has; nothing is said of what is bad.
    pub(super) fn load_near(&self, key: &CacheKey) -> Option<(Box<Entry>, TierName)> {
        self.near().iter().find_map(|tier| match tier.load(key) {
            Load::Found(entry) => Some((entry, tier.name().clone())),
            _ => None,
        })
    }

    /// The stores that the fleet shares, in the order in which they are asked.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn remotes(&self) -> &[super::Remote] {
        &self.remotes
    }

    #[cfg(feature = "remote")]
    pub(super) fn with_remotes(mut self, remotes: Vec<super::Remote>) -> Self {
        self.remotes = remotes;
        self
    }

    /// Asks every store in turn; what one has is kept in the nearest tier that is written
    /// to. A caller that holds no claim on the key gets one for the time.
    pub(super) fn search_far(&self, key: &CacheKey, claim: Option<&Claim>) -> Option<(Entry, TierName)> {
        if self.far().is_empty() {
            return None;
        }
        let mut own = None;
        if claim.is_none()
            && let Some(tier) = self.writable()
        {
            match self.claim_to_ask(key, tier) {
                Ok(claim) => own = claim,
                Err((entry, tier)) => return Some((*entry, tier)),
            }
        }
        let found = self.far().iter().find_map(|tier| self.search_store(key, tier));
        drop(own);
        found
    }

    /// Waits a while for others of this machine that ask for the same key, or build it; gives
    /// what they got, or the claim if it can be had. It is never taken from a holder, who may
    /// be compiling.
    fn claim_to_ask(
        &self,
        key: &CacheKey,
        tier: &Arc<dyn Tier>,
    ) -> Result<Option<Claim>, (Box<Entry>, TierName)> {
        let wait = Wait {
            promise: PATIENCE,
            ..Wait::none()
        };
        let started = Instant::now();
        loop {
            let claim = tier.claim(key, &wait);
            // Who held it before may have got it.
            match (self.load_near(key), claim) {
                (Some(found), _) => return Err(found),
                (None, Claim::TimedOut) if started.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                (None, Claim::TimedOut) => return Ok(None),
                (None, claim) => return Ok(Some(claim)),
            }
        }
    }

    fn search_store(&self, key: &CacheKey, tier: &Arc<dyn Tier>) -> Option<(Entry, TierName)> {
        match tier.whole(key) {
            Load::Found(whole) => {
                self.promote(key, tier.name(), &whole);
                Some((whole.into_entry(), tier.name().clone()))
            }
            Load::Absent => None,
            Load::Bad(fault) => {
                // Nobody here removes what is others'.
                self.healed(key, tier.name(), fault, false);
                None
            }
            Load::Unavailable(error) => {
                self.unavailable(tier.name(), &error);
                None
            }
        }
    }

    /// Keeps what a store has in the nearest tier that is written to.
    pub(super) fn promote(&self, key: &CacheKey, from: &TierName, whole: &Whole) {
        let Some(to) = self.writable() else { return };
        let started = Instant::now();
        match to.publish(whole) {
            Ok(Published::Theirs) => {}
            Ok(Published::Ours) => {
                let bytes = whole.entry().manifest().payload_bytes();
                tracing::debug!(key = %key.short(), %from, to = %to.name(), bytes, "promoted");
                self.tell(&Event::Promoted {
                    key: *key,
                    tier: from.clone(),
                    to: to.name().clone(),
                    bytes,
                    elapsed: started.elapsed(),
                });
                self.tidy(to.as_ref(), bytes);
            }
            Err(error) => {
                let reason = error.to_string();
                if self.is_news(&reason) {
                    tracing::warn!("what {from} has is not kept here: {reason}; said once");
                }
                self.tell(&Event::NotPublished { key: *key, reason });
            }
        }
    }

    /// Offers stores what was built here; says whether all took it.
    pub(super) fn offer(&self, entry: &Whole) -> bool {
        let mut all = true;
        for tier in self.far() {
            let Err(error) = tier.offer(entry) else { continue };
            all = false;
            let (tier, reason) = (tier.name().clone(), error.to_string());
            if self.is_news(&format!("{tier}: {reason}")) {
                tracing::warn!("not sent to {tier}: {reason}; said once");
            }
            let key = entry.entry().manifest().key;
            self.tell(&Event::NotSent { key, tier, reason });
        }
        all
    }
}
