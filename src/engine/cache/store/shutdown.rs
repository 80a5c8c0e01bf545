//! Coming to rest: what a program calls before it exits on Ctrl-C.
//!
//! Invariant: once [`shutdown`] has returned, no publish of this process is under
//! way, none will begin, and none of its lock files or staging folders is left. What the
//! parent of a forked child has under way is the parent's.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::dir::Dir;
use crate::engine::per_process::PerProcess;

#[derive(Default)]
struct State {
    ending: bool,
    publishing: usize,
    next_lock: u64,
    locks: BTreeMap<u64, (Arc<Dir>, String)>,
}

#[derive(Default)]
struct Publishers {
    state: Mutex<State>,
    at_rest: Condvar,
}

static PUBLISHERS: PerProcess<Publishers> = PerProcess::new();

/// Waits for every publish of this process that is under way, lets no new one
/// begin, and removes the process's lock files.
///
/// For a program that is about to exit, on a signal say: its cache is clean then,
/// whatever its other threads are doing. Compiles that end later are still
/// returned to their callers, as built but not kept. There is no way back.
pub(in crate::engine::cache) fn shutdown() {
    let mut state = state();
    state.ending = true;
    while state.publishing > 0 {
        state = PUBLISHERS
            .at_rest
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
    }
    for (folder, name) in state.locks.values() {
        // One that cannot be removed means nothing to the next taker.
        let _ = folder.remove(name);
    }
}

fn state() -> MutexGuard<'static, State> {
    // The state is counters and names: good whoever panicked.
    PUBLISHERS.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether [`shutdown`] was called.
pub(super) fn is_ending() -> bool {
    state().ending
}

/// Leave to publish; [`shutdown`] waits until it is dropped.
pub(super) struct Permit(());

impl Permit {
    /// `None` once the process is ending.
    pub(super) fn take() -> Option<Self> {
        let mut state = state();
        if state.ending {
            return None;
        }
        state.publishing += 1;
        Some(Self(()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = state();
        // One that was taken before a fork was the parent's.
        state.publishing = state.publishing.saturating_sub(1);
        drop(state);
        PUBLISHERS.at_rest.notify_all();
    }
}

/// Notes a lock file of this process; the number is for [`forget_lock`].
pub(super) fn note_lock(folder: &Arc<Dir>, name: &str) -> u64 {
    let mut state = state();
    let id = state.next_lock;
    state.next_lock += 1;
    state.locks.insert(id, (Arc::clone(folder), name.to_owned()));
    id
}

/// Forgets a lock that was let go.
pub(super) fn forget_lock(id: u64) {
    state().locks.remove(&id);
}
