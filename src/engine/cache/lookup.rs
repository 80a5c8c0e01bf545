//! The walk of a request through the cache: look, wait, look again, build, keep.
//!
//! Invariant: at most one build a key at a time, in this process and, where the
//! file system has locks, in all of them; and every wait ends. A forked child waits for
//! no thread of its parent: it begins without flights.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::counters::{self, Counters, Tally, TierCounters};
use super::event::{Event, Teller};
use super::herd::{CompileTimes, Herd};
use super::memory::Memo;
use super::passed_over::sentence;
use super::single_flight::{Flights, Joined};
use super::store::Published;
use super::store::entry::{Entry, Whole, now_unix_ms};
use super::store::error::{CacheError, Fault, Sort};
use super::store::lock::{Claim, MARGIN, Wait};
use super::store::prune::Limits;
use super::store::read::Load;
use super::store::usage::{FarCounters, Usage};
use super::tier::{Tier, TierName};
use super::{Fetched, Provenance};
use crate::engine::build::artifact::Artifact;
use crate::engine::build::compile::Cancel;
use crate::engine::build::key::CacheKey;
use crate::engine::build::request::CompileRequest;
use crate::engine::per_process::{PerProcess, generation};

/// The counters are added to the folder's at most this often, milliseconds.
const FLUSH_MS: u64 = 3_600_000;

pub(super) type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// An ordered list of tiers, and the walk through them.
pub struct Cache {
    /// Those of this machine, and from `near` on those that are asked over a network.
    pub(super) tiers: Vec<Arc<dyn Tier>>,
    pub(super) near: usize,
    #[cfg(feature = "remote")]
    pub(super) remotes: Vec<super::Remote>,
    pub(super) compile_times: CompileTimes,
    memory: TierName,
    memo: PerProcess<Memo>,
    flights: PerProcess<Flights>,
    lock_timeout: Option<Duration>,
    build_timeout: Duration,
    limits: Limits,
    listener: Option<Listener>,
    tally: Arc<Tally>,
    /// When the counters were last added to the folder's, in milliseconds since 1970.
    flushed: AtomicU64,
    told: Mutex<(Counters, FarCounters)>,
    /// Of the process that counts: a forked child's are its parent's.
    generation: u64,
    warned: PerProcess<Mutex<HashSet<CacheKey>>>,
    unkept: PerProcess<Mutex<Vec<Sort>>>,
    said: PerProcess<Mutex<HashSet<String>>>,
}

impl Cache {
    pub(super) fn new(
        mut tiers: Vec<Arc<dyn Tier>>,
        limits: Limits,
        lock_timeout: Option<Duration>,
        build_timeout: Duration,
        listener: Option<Listener>,
    ) -> Self {
        tiers.sort_by_key(|tier| tier.is_far());
        let names = tiers.iter().map(|tier| (tier.name().clone(), tier.is_far()));
        let tally = Arc::new(Tally::new(names));
        let teller = {
            let (tally, listener) = (Arc::clone(&tally), listener.clone());
            Teller::new(move |event| {
                tally.count(event);
                if let Some(listener) = &listener {
                    listener(event);
                }
            })
        };
        for tier in &tiers {
            tier.told_by(&teller);
        }
        Self {
            near: tiers.iter().filter(|tier| !tier.is_far()).count(),
            tiers,
            #[cfg(feature = "remote")]
            remotes: Vec::new(),
            compile_times: CompileTimes::default(),
            memory: TierName::new("memory"),
            memo: PerProcess::new(),
            flights: PerProcess::new(),
            lock_timeout,
            build_timeout,
            limits,
            listener,
            tally,
            flushed: AtomicU64::new(now_unix_ms()),
            told: Mutex::default(),
            generation: generation(),
            warned: PerProcess::new(),
            unkept: PerProcess::new(),
            said: PerProcess::new(),
        }
    }

    /// The artifact of a request: from memory, from a tier, or built and kept.
    ///
    /// The only error is `build`'s own. Threads and processes that ask for the
    /// same key meanwhile wait for this build instead of repeating it.
    pub fn get_or_build<E>(
        &self,
        request: &CompileRequest,
        build: impl FnOnce() -> Result<Artifact, E>,
    ) -> Result<Fetched, E> {
        self.get_or_build_unless(request, &Cancel::new(), build)
    }

    /// As [`Cache::get_or_build`], and stops waiting for others once it is canceled: it
    /// then calls `build`, which is to say so.
    pub fn get_or_build_unless<E>(
        &self,
        request: &CompileRequest,
        cancel: &Cancel,
        build: impl FnOnce() -> Result<Artifact, E>,
    ) -> Result<Fetched, E> {
        let key = request.key();
        if let Some(held) = self.remembered(key) {
            return Ok(held);
        }
        // A leader waits for another process's builder at most once as long as it builds.
        let patience = self.lock_timeout.unwrap_or((self.build_timeout + MARGIN) * 2);
        let wait = Wait {
            patience: self.lock_timeout,
            promise: self.build_timeout,
            cancel: cancel.clone(),
        };
        match self.flights.join(key, patience, cancel) {
            Joined::Landed(artifact) => Ok(self.memory_hit(key, artifact)),
            Joined::Leader(leader) => {
                // Another leader may have landed between the two looks.
                if let Some(held) = self.remembered(key) {
                    leader.land(Arc::clone(&held.artifact));
                    return Ok(held);
                }
                let fetched = self.fetch(request, &wait, build)?;
                leader.land(Arc::clone(&fetched.artifact));
                Ok(fetched)
            }
            Joined::TimedOut => {
                if !cancel.is_canceled() {
                    self.gave_up_waiting(key, patience);
                }
                self.fetch(request, &Wait::none(), build)
            }
        }
    }

    /// The artifact of a key, if a tier has it. Never builds, and writes nothing
    /// but to move a bad entry out of the way, and to keep what a store has.
    pub fn lookup(&self, key: &CacheKey) -> Option<Fetched> {
        if let Some(held) = self.remembered(key) {
            return Some(held);
        }
        let (entry, tier) = self.lookup_entry(key)?;
        Some(self.remember(key, entry.into_artifact(), Provenance::Hit(tier)))
    }

    /// As [`Cache::lookup`], and tells nothing of a miss: the caller asks for another key.
    pub fn lookup_if_there(&self, key: &CacheKey) -> Option<Fetched> {
        if let Some(held) = self.remembered(key) {
            return Some(held);
        }
        let started = Instant::now();
        let (entry, tier) = self.search(key, None)?;
        self.tell(&Event::Lookup { key: *key });
        self.log_hit(key, &tier, started);
        Some(self.remember(key, entry.into_artifact(), Provenance::Hit(tier)))
    }

    /// As [`Cache::lookup`], past the memory, and with all that the entry holds.
    pub fn lookup_entry(&self, key: &CacheKey) -> Option<(Entry, TierName)> {
        let started = Instant::now();
        self.tell(&Event::Lookup { key: *key });
        let found = self.search(key, None);
        match &found {
            Some((_, tier)) => self.log_hit(key, tier, started),
            None => self.log_miss(key, started),
        }
        found
    }

    /// The entry of a key, if a tier has a good one; changes and tells nothing.
    #[must_use]
    pub fn peek(&self, key: &CacheKey) -> Option<Entry> {
        self.peek_tier(key).map(|(entry, _)| entry)
    }

    /// The same, with the tier that has it.
    #[must_use]
    pub fn peek_tier(&self, key: &CacheKey) -> Option<(Entry, TierName)> {
        self.tiers.iter().find_map(|tier| match tier.peek(key) {
            Load::Found(entry) => Some((*entry, tier.name().clone())),
            _ => None,
        })
    }

    /// As [`Cache::peek`], with all the texts of the entry.
    #[must_use]
    pub fn whole(&self, key: &CacheKey) -> Option<Whole> {
        self.tiers.iter().find_map(|tier| match tier.whole(key) {
            Load::Found(whole) => Some(*whole),
            _ => None,
        })
    }

    /// Whether this process holds the artifact of a key.
    #[must_use]
    pub fn remembers(&self, key: &CacheKey) -> bool {
        self.memo.get(key).is_some()
    }

    /// Moves an entry away that verifies but that the driver would not load: the
    /// next request builds it anew.
    pub fn reject(&self, key: &CacheKey, reason: &str) {
        self.memo.remove(key);
        for tier in self.far() {
            // Others may load it: it is only not asked for again.
            let _ = tier.expel(key);
        }
        for tier in self.near() {
            if let Load::Found(_) = tier.load(key) {
                let quarantined = tier.expel(key).is_ok();
                let fault = Fault::Rejected(reason.lines().next().unwrap_or("").to_owned());
                self.healed(key, tier.name(), fault, quarantined);
            }
        }
    }

    /// How often each thing happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }

    /// The same by tier, in the order in which they are asked.
    #[must_use]
    pub fn tier_counters(&self) -> Vec<TierCounters> {
        self.tally.read_tiers()
    }

    /// The counters in Prometheus' text format, for a server's own `/metrics`.
    #[must_use]
    pub fn prometheus(&self) -> String {
        counters::prometheus(&self.counters(), &self.tier_counters())
    }

    /// Adds what was counted since the last time to what the folder that is written to
    /// keeps, for `jitc cache stats`. Done once an hour and when the cache is dropped.
    pub fn flush_counters(&self) {
        let now = now_unix_ms();
        let since = self.flushed.swap(now, Ordering::Relaxed);
        if self.generation != generation() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.counters();
        let stores = self.tier_counters().into_iter().filter_map(|tier| tier.store);
        let stores = stores.fold(FarCounters::default(), |sum, one| {
            sum.with(one, u64::saturating_add)
        });
        let (told, stores_told) = &mut *told;
        let usage = Usage {
            since_unix_ms: since,
            hits: all.hits - told.hits,
            memory_hits: all.memory_hits - told.memory_hits,
            misses: all.misses - told.misses,
            built: all.built - told.built,
            compile_us: all.compile_us - told.compile_us,
            saved_us: all.saved_us - told.saved_us,
            stores: stores.with(*stores_told, u64::saturating_sub),
        };
        (*told, *stores_told) = (all, stores);
        if let Some(Err(error)) = self.written_store().map(|store| store.add_usage(&usage)) {
            // Numbers for people: they are low then.
            tracing::debug!(%error, "counters are not kept");
        }
    }

    /// What a folder that is written to is kept within.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The tiers, in the order in which they are asked.
    #[must_use]
    pub fn tiers(&self) -> &[Arc<dyn Tier>] {
        &self.tiers
    }

    fn remembered(&self, key: &CacheKey) -> Option<Fetched> {
        Some(self.memory_hit(key, self.memo.get(key)?))
    }

    fn memory_hit(&self, key: &CacheKey, artifact: Arc<Artifact>) -> Fetched {
        self.tally.memory_hit();
        if let Some(listener) = &self.listener {
            listener(&Event::MemoryHit { key: *key });
        }
        Fetched {
            artifact,
            provenance: Provenance::Hit(self.memory.clone()),
        }
    }

    fn remember(&self, key: &CacheKey, artifact: Artifact, provenance: Provenance) -> Fetched {
        if matches!(provenance, Provenance::Hit(_)) {
            self.tally.saved(artifact.compile_us);
        }
        let artifact = Arc::new(artifact);
        self.memo.insert(*key, &artifact);
        Fetched { artifact, provenance }
    }

    fn fetch<E>(
        &self,
        request: &CompileRequest,
        wait: &Wait,
        build: impl FnOnce() -> Result<Artifact, E>,
    ) -> Result<Fetched, E> {
        let key = request.key();
        let started = Instant::now();
        self.tell(&Event::Lookup { key: *key });
        let mut waited = Duration::ZERO;
        let writable = self.writable();
        // Says nothing of what is bad: that is judged by the second look, under
        // the lock, which asks stores too: once for all processes of this machine.
        let mut found = self.load_near(key).map(|(entry, tier)| (*entry, tier));
        let mut claim = None;
        if found.is_none() {
            // Another process may be building it, or be done by the time that
            // the lock is ours: look again, and repair what is bad.
            let waiting = Instant::now();
            claim = writable.map(|tier| tier.claim(key, wait));
            waited = waiting.elapsed();
            found = self.search(key, claim.as_ref());
        }
        let mut turn = None;
        if found.is_none() && !self.far().is_empty() {
            match self.turn(request, wait) {
                Herd::Found(entry, tier) => found = Some((*entry, tier)),
                Herd::Build(ours) => turn = ours,
            }
        }
        if let Some((entry, tier)) = found {
            drop(claim);
            self.log_hit(key, &tier, started);
            return Ok(self.remember(key, entry.into_artifact(), Provenance::Hit(tier)));
        }
        self.log_miss(key, started);
        if matches!(claim, Some(Claim::TakenOver(_))) {
            self.gave_up_waiting(key, waited);
        }
        self.tell(&Event::Building { key: *key });
        let started = Instant::now();
        let artifact = build()?;
        self.compile_times.note(request.family(), started.elapsed());
        self.tell(&Event::Built {
            key: *key,
            waited,
            elapsed: started.elapsed(),
            compile_us: artifact.compile_us,
        });
        let entry = Whole::new(request, &artifact);
        let provenance = match writable {
            Some(tier) => self.keep(tier.as_ref(), &entry),
            None => Err(CacheError::NoWritableTier),
        }
        .map_or_else(|e| self.not_kept(key, &e), |()| Provenance::Built);
        drop(claim);
        if self.offer(&entry)
            && let Some(turn) = turn
        {
            turn.hand_on();
        }
        Ok(self.remember(key, artifact, provenance))
    }

    fn keep(&self, tier: &dyn Tier, entry: &Whole) -> Result<(), CacheError> {
        let started = Instant::now();
        if tier.publish(entry)? == Published::Theirs {
            return Ok(());
        }
        let bytes = entry.entry().manifest().payload_bytes();
        self.tell(&Event::Published {
            key: entry.entry().manifest().key,
            tier: tier.name().clone(),
            bytes,
            elapsed: started.elapsed(),
        });
        self.tidy(tier, bytes);
        Ok(())
    }

    /// Keeps a tier within its limits, after so many bytes were added.
    pub(super) fn tidy(&self, tier: &dyn Tier, bytes: u64) {
        let Some(pruned) = tier.tidy(&self.limits, bytes) else {
            return;
        };
        if let Some(reason) = &pruned.stuck_reason {
            tracing::warn!(tier = %tier.name(), entries = pruned.stuck, %reason, "not pruned");
        }
        if !pruned.keys.is_empty() {
            let (entries, bytes) = (pruned.keys.len() as u64, pruned.bytes);
            tracing::debug!(tier = %tier.name(), entries, bytes, "pruned");
            self.tell(&Event::Pruned { entries, bytes });
        }
    }

    fn not_kept(&self, key: &CacheKey, error: &CacheError) -> Provenance {
        let reason = error.to_string();
        // A full disk fails every publish alike.
        let first = {
            let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
            let first = !unkept.contains(&error.sort());
            if first {
                unkept.push(error.sort());
            }
            first
        };
        // What was said of a tier that cannot be read is not said again.
        if self.is_news(&reason) && first {
            tracing::warn!(key = %key.short(), %reason, "built but not kept; said once");
        } else {
            tracing::debug!(key = %key.short(), %reason, "built but not kept");
        }
        self.tell(&Event::NotPublished {
            key: *key,
            reason: reason.clone(),
        });
        Provenance::BuiltUncached(reason)
    }

    /// Whether this trouble was not yet warned of.
    pub(super) fn is_news(&self, reason: &str) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(reason.to_owned())
    }

    /// Asks every tier in turn, and moves away what is bad.
    fn search(&self, key: &CacheKey, claim: Option<&Claim>) -> Option<(Entry, TierName)> {
        let found = self.search_near(key, claim);
        found.or_else(|| self.search_far(key, claim))
    }

    /// Asks the tiers of this machine.
    pub(super) fn search_near(&self, key: &CacheKey, claim: Option<&Claim>) -> Option<(Entry, TierName)> {
        for tier in self.near() {
            match tier.load(key) {
                Load::Found(entry) => return Some((*entry, tier.name().clone())),
                Load::Absent => {}
                Load::Bad(fault) => {
                    let held = if tier.is_writable() { claim } else { None };
                    let quarantined = tier.quarantine(key, held).unwrap_or(false);
                    self.healed(key, tier.name(), fault, quarantined);
                    // Not moved: somebody else may have repaired it meanwhile.
                    if !quarantined && let Load::Found(entry) = tier.load(key) {
                        return Some((*entry, tier.name().clone()));
                    }
                }
                Load::Unavailable(error) => self.unavailable(tier.name(), &error),
            }
        }
        None
    }

    /// Says that a tier could not be read.
    pub(super) fn unavailable(&self, tier: &TierName, error: &CacheError) {
        let (tier, reason) = (tier.clone(), error.to_string());
        let why = sentence(&tier, &reason);
        // What the process lacks at this moment says nothing of the tier.
        if !error.is_passing() && self.is_news(&reason) {
            tracing::warn!("{why}; said once");
        } else {
            tracing::debug!("{why}");
        }
        self.tell(&Event::TierUnavailable { tier, reason });
    }

    pub(super) fn healed(&self, key: &CacheKey, tier: &TierName, fault: Fault, quarantined: bool) {
        if matches!(fault, Fault::Signature(_)) {
            // A folder may hold thousands that nobody signed.
            if self.is_news(&format!("{tier}: {fault}")) {
                let what = format!("entry {}: {fault}", key.short());
                tracing::warn!("{}; said once", sentence(tier, &what));
            }
        } else {
            let first = {
                let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
                warned.insert(*key)
            };
            if first {
                tracing::warn!(key = %key.short(), %tier, %fault, quarantined, "bad entry, taken as a miss");
            }
        }
        self.tell(&Event::Healed {
            key: *key,
            tier: tier.clone(),
            fault,
            quarantined,
        });
    }

    fn gave_up_waiting(&self, key: &CacheKey, waited: Duration) {
        tracing::warn!(key = %key.short(), ?waited, "another builder of this key takes long: compiling too");
        self.tell(&Event::LockTimedOut { key: *key, waited });
    }

    fn log_hit(&self, key: &CacheKey, tier: &TierName, started: Instant) {
        tracing::info!(key = %key.short(), %tier, "hit");
        self.tell(&Event::Hit {
            key: *key,
            tier: tier.clone(),
            elapsed: started.elapsed(),
        });
    }

    fn log_miss(&self, key: &CacheKey, started: Instant) {
        tracing::info!(key = %key.short(), "miss");
        self.tell(&Event::Miss {
            key: *key,
            elapsed: started.elapsed(),
        });
    }

    /// Counts an event, and tells the listener of it.
    pub(crate) fn tell(&self, event: &Event) {
        self.tally.count(event);
        if let Event::Hit { .. } | Event::Built { .. } = event
            && now_unix_ms().saturating_sub(self.flushed.load(Ordering::Relaxed)) >= FLUSH_MS
        {
            self.flush_counters();
        }
        if let Some(listener) = &self.listener {
            listener(event);
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.far().iter().for_each(|tier| tier.drain());
        self.flush_counters();
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers: Vec<_> = self.tiers.iter().map(|t| t.name()).collect();
        f.debug_struct("Cache")
            .field("tiers", &tiers)
            .finish_non_exhaustive()
    }
}
