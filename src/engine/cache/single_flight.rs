//! One build a key within a process, however many threads ask.
//!
//! Invariant: of the callers that hold the same key at once exactly one leads;
//! the others wait for what it makes. A leader that fails or panics wakes them,
//! and one of them leads next.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::build::artifact::Artifact;
use crate::engine::build::compile::Cancel;
use crate::engine::build::key::CacheKey;
use crate::engine::per_process::generation;

/// How often one who waits looks whether it was canceled.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<CacheKey, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default, Clone)]
enum State {
    #[default]
    Flying,
    Landed(Arc<Artifact>),
    Failed,
}

pub(super) enum Joined<'a> {
    /// This caller builds.
    Leader(Leader<'a>),
    /// Another caller built.
    Landed(Arc<Artifact>),
    /// Another caller still builds, or this one was canceled.
    TimedOut,
}

pub(super) struct Leader<'a> {
    flights: &'a Flights,
    key: CacheKey,
    flight: Arc<Flight>,
    outcome: State,
    generation: u64,
}

impl Flights {
    pub(super) fn join(&self, key: &CacheKey, timeout: Duration, cancel: &Cancel) -> Joined<'_> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let flight = {
                let mut flights = lock(&self.0);
                let Some(flight) = flights.get(key) else {
                    let flight = Arc::<Flight>::default();
                    flights.insert(*key, Arc::clone(&flight));
                    return Joined::Leader(Leader {
                        flights: self,
                        key: *key,
                        flight,
                        outcome: State::Failed,
                        generation: generation(),
                    });
                };
                Arc::clone(flight)
            };
            match flight.wait(deadline, cancel) {
                State::Landed(artifact) => return Joined::Landed(artifact),
                State::Failed => {}
                State::Flying => return Joined::TimedOut,
            }
        }
    }
}

impl Flight {
    fn wait(&self, deadline: Option<Instant>, cancel: &Cancel) -> State {
        let mut state = lock(&self.state);
        while matches!(*state, State::Flying) {
            let left = deadline.map_or(Duration::MAX, |d| d.saturating_duration_since(Instant::now()));
            if left.is_zero() || cancel.is_canceled() {
                break;
            }
            let nap = left.min(LOOK);
            let woken = self.landed.wait_timeout(state, nap);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.clone()
    }
}

impl Leader<'_> {
    pub(super) fn land(mut self, artifact: Arc<Artifact>) {
        self.outcome = State::Landed(artifact);
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if self.generation != generation() {
            // Forked while it led: these flights are the parent's, perhaps locked for ever.
            return;
        }
        lock(&self.flights.0).remove(&self.key);
        *lock(&self.flight.state) = std::mem::replace(&mut self.outcome, State::Failed);
        self.flight.landed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
