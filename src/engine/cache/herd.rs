//! Of the machines of a fleet that miss the same key at once, one builds.
//!
//! Invariant: every wait ends: with the entry, with the lease of this process, or when the
//! holder's time is over; and then it is built here, which costs a duplicate of equal bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::Event;
use super::lookup::Cache;
use super::store::entry::Entry;
use super::store::lock::Wait;
use super::store::read::Load;
use super::tier::{Lease, Tier, TierName};
use crate::engine::build::key::CacheKey;
use crate::engine::build::request::CompileRequest;

/// How long a compile may take of a family that was not compiled yet.
const UNKNOWN: Duration = Duration::from_secs(15);
/// The shortest lease: what lies between two machines takes time too.
const SHORTEST: Duration = Duration::from_secs(2);
/// Between two looks at the store, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// So many looks for the entry come on one at the lease.
const LOOKS: u32 = 4;
/// After so many waits that led to nothing, this process waits for no machine any more: the
/// store lies, or whoever fills it dies again and again.
const FUTILE: u32 = 3;

/// How long each family took to compile, the last time.
#[derive(Debug, Default)]
pub(super) struct CompileTimes {
    last: Mutex<HashMap<String, Duration>>,
    /// Waits in a row for other machines that led to nothing.
    futile: AtomicU32,
}

impl CompileTimes {
    pub(super) fn note(&self, family: &str, took: Duration) {
        let mut times = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        times.insert(family.to_owned(), took);
    }

    /// Twice as long as the last took.
    fn lease(&self, family: &str) -> Duration {
        let times = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let took = times.get(family).copied().unwrap_or(UNKNOWN);
        (took * 2).max(SHORTEST)
    }
}

/// The right to build that other machines see; let go unless it was handed on.
pub(super) struct Turn<'a> {
    tier: &'a Arc<dyn Tier>,
    key: CacheKey,
    armed: bool,
}

impl Turn<'_> {
    /// The store lets go of it once the entry is there.
    pub(super) fn hand_on(mut self) {
        self.armed = false;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.tier.unlease(&self.key);
        }
    }
}

/// What became of a wait for one's turn.
pub(super) enum Herd<'a> {
    /// Another machine built it.
    Found(Box<Entry>, TierName),
    /// To be built here, under this lease if there is one.
    Build(Option<Turn<'a>>),
}

impl Cache {
    /// Waits until this process may build, or another machine did.
    pub(super) fn turn(&self, request: &CompileRequest, wait: &Wait) -> Herd<'_> {
        if self.compile_times.futile.load(Ordering::Relaxed) >= FUTILE {
            return Herd::Build(None);
        }
        let key = request.key();
        let longest = self.compile_times.lease(request.family());
        for tier in self.far() {
            match self.turn_at(tier, key, longest, wait) {
                Herd::Build(None) => {}
                other => return other,
            }
        }
        Herd::Build(None)
    }

    fn turn_at<'a>(
        &self,
        tier: &'a Arc<dyn Tier>,
        key: &CacheKey,
        longest: Duration,
        wait: &Wait,
    ) -> Herd<'a> {
        let started = Instant::now();
        let mut seen: Option<(String, Instant)> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let (holder, theirs) = match tier.lease(key, longest) {
                Lease::None => return Herd::Build(None),
                Lease::Ours => {
                    let turn = Turn {
                        tier,
                        key: *key,
                        armed: true,
                    };
                    // Who held it before may have been done since it was asked for.
                    return match self.found_again(key, tier) {
                        Some((entry, name)) => Herd::Found(Box::new(entry), name),
                        None => Herd::Build(Some(turn)),
                    };
                }
                Lease::Theirs { holder, longest } => (holder, longest),
            };
            let since = match &seen {
                Some((same, since)) if *same == holder => *since,
                _ => Instant::now(),
            };
            seen = Some((holder.clone(), since));
            // A holder that says more than can be is not believed.
            let most = longest.max(UNKNOWN * 2);
            let patience = wait.patience.map_or(theirs.min(most), |own| own.min(theirs));
            // Two holders that died one after the other, or one that lost its lease.
            let enough = wait.patience.unwrap_or(most * 2);
            for _ in 0..LOOKS {
                let over = since.elapsed() >= patience;
                if over {
                    tier.break_lease(key, &holder);
                } else {
                    std::thread::sleep(jittered(pause).min(patience.saturating_sub(since.elapsed())));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                if let Some((entry, name)) = self.found_again(key, tier) {
                    let waited = started.elapsed();
                    tracing::debug!(key = %key.short(), store = %name, ?waited, "built by another machine");
                    self.compile_times.futile.store(0, Ordering::Relaxed);
                    return Herd::Found(Box::new(entry), name);
                }
                if wait.cancel.is_canceled() || started.elapsed() > enough {
                    let waited = started.elapsed();
                    self.tell(&Event::LockTimedOut { key: *key, waited });
                    self.compile_times.futile.fetch_add(1, Ordering::Relaxed);
                    return Herd::Build(None);
                }
                if over {
                    self.compile_times.futile.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }

    /// Asks a store anew for what it did not have a moment ago.
    fn found_again(&self, key: &CacheKey, tier: &Arc<dyn Tier>) -> Option<(Entry, TierName)> {
        match tier.whole_anew(key) {
            Load::Found(whole) => {
                self.promote(key, tier.name(), &whole);
                Some((whole.into_entry(), tier.name().clone()))
            }
            _ => None,
        }
    }
}

/// Half to one and a half times as long: those who wait do not all ask at once.
fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without randomness they do.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    let share = f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX);
    pause.mul_f64(0.5 + share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_twice_what_the_family_took_and_never_too_short() {
        let times = CompileTimes::default();
        assert_eq!(times.lease("gemv"), UNKNOWN * 2);
        times.note("gemv", Duration::from_secs(20));
        assert_eq!(times.lease("gemv"), Duration::from_secs(40));
        times.note("gemv", Duration::from_millis(40));
        assert_eq!(times.lease("gemv"), SHORTEST);
        assert_eq!(times.lease("other"), UNKNOWN * 2);
    }

    #[test]
    fn pauses_lie_between_half_and_one_and_a_half() {
        let pause = Duration::from_millis(100);
        for _ in 0..100 {
            let jittered = jittered(pause);
            assert!(jittered >= pause / 2 && jittered <= pause * 3 / 2, "{jittered:?}");
        }
    }
}
