//! What is compiled in the background, and by how many threads.
//!
//! Invariant: a spec is compiled for a context by one job at a time, at most so many at once;
//! so many wait, and no more. What failed is left alone for a while, longer each time. A
//! forked child begins with none of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::handover::{Handover, Takeover, Wanted};
use crate::engine::request::spec::{KernelSpec, SpecId};
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;

/// The most jobs that wait: as many as the rules of a family come to.
pub(super) const MAX_WAITING: usize = 1024;

/// For how long a failure is left alone at first; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// The doublings of it.
const MAX_DOUBLINGS: u32 = 6;

/// A spec and a context.
pub(super) type Place = (SpecId, usize);

/// One kernel to compile, load, and give to who waits.
pub(super) struct Job {
    pub(super) spec: KernelSpec,
    pub(super) context: Context,
    /// What is launched meanwhile, for people.
    pub(super) general: String,
    pub(super) takeover: Takeover,
    pub(super) since: Instant,
}

impl Job {
    pub(super) fn place(&self) -> Place {
        (self.spec.id(), self.context.id())
    }
}

/// The jobs of a process.
#[derive(Default)]
pub(in crate::engine::jit) struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    threads: usize,
    waiting: VecDeque<Job>,
    under_way: HashMap<Place, Weak<Wanted<LoadedKernel>>>,
    failed: HashMap<Place, Failure>,
}

struct Failure {
    times: u32,
    at: Instant,
    reason: Box<str>,
}

/// What became of a request for a job.
pub(super) enum Joined {
    /// There is one already.
    Shared(Handover),
    /// A new one, which is to be [pushed](Queue::push).
    New(Handover, Job),
    /// None was made: it failed not long ago, or too many wait.
    Not(Box<str>, bool),
}

impl Queue {
    /// A job of this spec: a new one unless there is one.
    pub(super) fn join(&self, first: &Arc<LoadedKernel>, make: impl FnOnce(Takeover) -> Job) -> Joined {
        let (handover, takeover) = Handover::until(Arc::clone(first));
        let job = make(takeover);
        let place = job.place();
        let mut state = self.lock();
        let wanted = state.under_way.get(&place).and_then(Weak::upgrade);
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_done()) {
            return Joined::Shared(Handover::joining(Arc::clone(first), wanted));
        }
        if let Some(failure) = state.failed.get(&place)
            && failure.at.elapsed() < pause(failure.times)
        {
            return Joined::Not(failure.reason.clone(), true);
        }
        state.waiting.retain(|job| !job.takeover.cancel().is_canceled());
        if state.waiting.len() >= MAX_WAITING {
            return Joined::Not(format!("{MAX_WAITING} others wait already").into(), false);
        }
        if let Some(wanted) = handover.wanted() {
            state.under_way.insert(place, Arc::downgrade(wanted));
        }
        Joined::New(handover, job)
    }

    /// Lets a job wait for its turn. Whether a thread is to be started for it, of at most so
    /// many; it is counted already.
    pub(super) fn push(&self, job: Job, threads: usize) -> bool {
        let mut state = self.lock();
        state.waiting.push_back(job);
        let starts = state.threads < threads;
        state.threads += usize::from(starts);
        starts
    }

    /// The next job that somebody waits for; where there is none, the thread that asks is
    /// counted no more, and ends.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        while let Some(job) = state.waiting.pop_front() {
            if !job.takeover.cancel().is_canceled() {
                return Some(job);
            }
        }
        state.threads -= 1;
        None
    }

    /// A thread that was counted could not be started. Where there is no other, nobody would
    /// ever do what waits: that is given back.
    pub(super) fn not_started(&self) -> Vec<Job> {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return Vec::new();
        }
        state.waiting.drain(..).collect()
    }

    /// A job is done; `failure` is why, where it is to be left alone.
    pub(super) fn done(&self, place: Place, failure: Option<&str>) {
        let mut state = self.lock();
        state
            .under_way
            .retain(|_, wanted| wanted.upgrade().is_some_and(|wanted| !wanted.is_done()));
        let times = state.failed.remove(&place).map_or(0, |failure| failure.times);
        if let Some(reason) = failure {
            let failure = Failure {
                times: times.saturating_add(1),
                at: Instant::now(),
                reason: reason.into(),
            };
            state.failed.insert(place, failure);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long a spec is left alone that has failed so often.
fn pause(times: u32) -> Duration {
    FIRST_PAUSE * 2_u32.pow(times.saturating_sub(1).min(MAX_DOUBLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_is_left_alone_for_longer_up_to_an_hour_and_some() {
        let minutes = |times| pause(times).as_secs() / 60;
        assert_eq!([1, 2, 3, 7, 8, u32::MAX].map(minutes), [1, 2, 4, 64, 64, 64]);
    }
}
