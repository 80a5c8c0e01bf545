//! A request that is carried out in the background: watched, awaited, canceled.
//!
//! Invariant: dropped, it is canceled; so nobody's compile goes on for nobody.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Error, Jit, Prepared};
use crate::engine::build::compile::{Cancel, CompileError};
use crate::engine::request::spec::KernelSpec;

/// A request under way, from [`Jit::start`]. Await it, or [`wait`](Self::wait) for it.
/// What happens meanwhile is told to the facade's listener
/// ([`JitBuilder::listener`](super::JitBuilder::listener)).
#[must_use = "dropped, it is canceled"]
pub struct Preparing {
    cancel: Cancel,
    outcome: Arc<Outcome>,
}

#[derive(Default)]
struct Outcome {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    result: Option<Box<Result<Prepared, Error>>>,
    waker: Option<Waker>,
}

impl Jit {
    /// Finds or makes the artifact of a spec on a thread of its own.
    pub fn start(self: &Arc<Self>, spec: &KernelSpec) -> Preparing {
        let preparing = Preparing {
            cancel: Cancel::new(),
            outcome: Arc::default(),
        };
        let work = {
            let (jit, spec) = (Arc::clone(self), spec.clone());
            let (cancel, outcome) = (preparing.cancel.clone(), Arc::clone(&preparing.outcome));
            move || {
                let prepare = AssertUnwindSafe(|| jit.prepare_unless(&spec, &cancel));
                // Who waits is to be woken whatever happens.
                let result = catch_unwind(prepare).unwrap_or_else(|_| Err(panicked(&spec)));
                outcome.arrive(result);
            }
        };
        let work = Arc::new(Mutex::new(Some(work)));
        let run = {
            let work = Arc::clone(&work);
            move || {
                let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(work) = work {
                    work();
                }
            }
        };
        // Where no thread can be made it is done here: that costs time, and no request.
        if std::thread::Builder::new()
            .name("jitc-prepare".into())
            .spawn(run.clone())
            .is_err()
        {
            run();
        }
        preparing
    }
}

pub(super) fn panicked(spec: &KernelSpec) -> Error {
    Error::Compile {
        source: CompileError::Crashed {
            how: "preparing it panicked".to_owned(),
        },
        variant: format!("{} {}", spec.family().name, spec.variant()).into(),
        arch: spec.arch(),
        kept: Box::default(),
        hints: Box::default(),
    }
}

impl Preparing {
    /// Gives it up: it ends soon, as canceled if it was not done.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether its result is there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome.lock().result.is_some()
    }

    /// Waits for the result.
    pub fn wait(self) -> Result<Prepared, Error> {
        let mut state = self.outcome.lock();
        loop {
            if let Some(result) = state.result.take() {
                return *result;
            }
            state = self
                .outcome
                .arrived
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits at most so long; says whether the result is there.
    #[must_use]
    pub fn wait_for(&self, longest: Duration) -> bool {
        let state = self.outcome.lock();
        let missing = |state: &mut State| state.result.is_none();
        let waited = self.outcome.arrived.wait_timeout_while(state, longest, missing);
        waited.unwrap_or_else(PoisonError::into_inner).0.result.is_some()
    }
}

impl Future for Preparing {
    type Output = Result<Prepared, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.outcome.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(*result);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Outcome {
    fn arrive(&self, result: Result<Prepared, Error>) {
        let waker = {
            let mut state = self.lock();
            state.result = Some(Box::new(result));
            state.waker.take()
        };
        self.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
