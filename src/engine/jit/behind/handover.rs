//! A kernel that another one takes over from.
//!
//! Invariant: which of the two is launched is one atomic load; it changes once, from the
//! first to the one that was asked for, and never back. Dropped by all who hold it, it is
//! compiled for nobody.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::engine::build::compile::Cancel;
use crate::engine::per_process::generation;
use crate::engine::run::load::LoadedKernel;

/// What is launched now, and maybe what takes over from it. Clones are one.
#[derive(Debug)]
pub struct Handover<K = LoadedKernel> {
    first: Arc<K>,
    later: Option<Arc<Wanted<K>>>,
}

/// What a [`Handover`] stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing<'h> {
    /// What was asked for is launched.
    Asked,
    /// A more general variant is launched, while the one that was asked for is compiled.
    Behind,
    /// A more general variant is launched, and stays.
    Failed(&'h str),
}

/// The other side of a [`Handover`]: whoever makes the kernel that takes over.
#[derive(Debug)]
pub struct Takeover<K = LoadedKernel>(Arc<Later<K>>);

/// Held by every handover of one takeover.
#[derive(Debug)]
pub(super) struct Wanted<K>(Arc<Later<K>>);

#[derive(Debug)]
struct Later<K> {
    outcome: OnceLock<Result<Arc<K>, Box<str>>>,
    lock: Mutex<()>,
    arrived: Condvar,
    cancel: Cancel,
    /// Of the process that makes it: in a forked child nobody does.
    generation: u64,
}

impl<K> Handover<K> {
    /// Of what was asked for: nothing takes over from it.
    #[must_use]
    pub fn of(kernel: Arc<K>) -> Self {
        Self {
            first: kernel,
            later: None,
        }
    }

    /// Of what is launched until another is there, and the side that gives that.
    #[must_use]
    pub fn until(first: Arc<K>) -> (Self, Takeover<K>) {
        let later = Arc::new(Later {
            outcome: OnceLock::new(),
            lock: Mutex::new(()),
            arrived: Condvar::new(),
            cancel: Cancel::new(),
            generation: generation(),
        });
        let handover = Self {
            first,
            later: Some(Arc::new(Wanted(Arc::clone(&later)))),
        };
        (handover, Takeover(later))
    }

    /// Of what is launched until the one that others wait for, too, is there.
    pub(super) fn joining(first: Arc<K>, wanted: Arc<Wanted<K>>) -> Self {
        Self {
            first,
            later: Some(wanted),
        }
    }

    pub(super) fn wanted(&self) -> Option<&Arc<Wanted<K>>> {
        self.later.as_ref()
    }

    /// What to launch now: asked again before each launch, it is the kernel that was asked
    /// for from when that is there. Takes no lock.
    #[must_use]
    #[inline]
    pub fn kernel(&self) -> &Arc<K> {
        match self.outcome() {
            Some(Ok(asked)) => asked,
            _ => &self.first,
        }
    }

    /// What it stands at; takes no lock.
    #[must_use]
    pub fn standing(&self) -> Standing<'_> {
        match (&self.later, self.outcome()) {
            (None, _) | (_, Some(Ok(_))) => Standing::Asked,
            (Some(_), None) => Standing::Behind,
            (_, Some(Err(reason))) => Standing::Failed(reason),
        }
    }

    /// Waits at most so long until it stands at what it will stand at; says whether it does.
    /// In a child that was forked meanwhile nobody makes it, and nothing is waited for.
    #[must_use]
    pub fn wait_for(&self, longest: Duration) -> bool {
        let Some(Wanted(later)) = self.later.as_deref() else {
            return true;
        };
        if later.generation == generation() {
            let lock = later.lock.lock().unwrap_or_else(PoisonError::into_inner);
            let missing = |(): &mut ()| later.outcome.get().is_none();
            // Whether it is there is asked below.
            drop(later.arrived.wait_timeout_while(lock, longest, missing));
        }
        later.outcome.get().is_some()
    }

    #[inline]
    fn outcome(&self) -> Option<&Result<Arc<K>, Box<str>>> {
        self.later.as_deref()?.0.outcome.get()
    }
}

impl<K> Clone for Handover<K> {
    fn clone(&self) -> Self {
        Self {
            first: Arc::clone(&self.first),
            later: self.later.clone(),
        }
    }
}

impl<K> Takeover<K> {
    /// From now on this is launched.
    pub fn give(&self, kernel: Arc<K>) {
        self.arrive(Ok(kernel));
    }

    /// There will be none; why, in one line.
    pub fn fail(&self, reason: &str) {
        self.arrive(Err(reason.into()));
    }

    /// Canceled once nobody holds a handover any more.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    fn arrive(&self, outcome: Result<Arc<K>, Box<str>>) {
        let lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // The first word stands.
        let _ = self.0.outcome.set(outcome);
        drop(lock);
        self.0.arrived.notify_all();
    }
}

impl<K> Wanted<K> {
    pub(super) fn is_done(&self) -> bool {
        self.0.outcome.get().is_some()
    }
}

impl<K> Drop for Wanted<K> {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_over_does_so_once_and_for_every_clone() {
        let (handover, takeover) = Handover::until(Arc::new(1));
        let clone = handover.clone();
        assert_eq!((**handover.kernel(), handover.standing()), (1, Standing::Behind));
        assert!(!handover.wait_for(Duration::ZERO));
        takeover.give(Arc::new(2));
        takeover.fail("too late");
        assert_eq!((**handover.kernel(), handover.standing()), (2, Standing::Asked));
        assert_eq!((**clone.kernel(), clone.wait_for(Duration::ZERO)), (2, true));
    }

    #[test]
    fn what_fails_leaves_the_first_in_its_place() {
        let (handover, takeover) = Handover::until(Arc::new(1));
        takeover.fail("no");
        assert_eq!(
            (**handover.kernel(), handover.standing()),
            (1, Standing::Failed("no"))
        );
        assert!(handover.wait_for(Duration::ZERO));
    }

    #[test]
    fn it_is_wanted_until_the_last_holder_drops_it() {
        let (handover, takeover) = Handover::until(Arc::new(1));
        let clone = handover.clone();
        drop(handover);
        assert!(!takeover.cancel().is_canceled());
        drop(clone);
        assert!(takeover.cancel().is_canceled());
    }

    #[test]
    fn a_waiter_on_another_thread_is_woken() {
        let (handover, takeover) = Handover::until(Arc::new(1));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| handover.wait_for(Duration::from_mins(5)));
            takeover.give(Arc::new(2));
            assert!(waiter.join().expect("no panic"));
        });
        assert_eq!(**handover.kernel(), 2);
    }
}
