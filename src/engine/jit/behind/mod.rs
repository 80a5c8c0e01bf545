//! A launch that never waits: a more general variant runs while the asked one is compiled.
//!
//! Invariant: only what is prepared already answers, and only across constants that the
//! family declares neutral to bits; nothing is compiled behind where compiling is forbidden,
//! or a receipt is required.

mod handover;
mod queue;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use handover::{Handover, Standing, Takeover};
pub(super) use queue::Queue;
use queue::{Job, Joined};

use super::identity::Look;
use super::preparing::panicked;
use super::{Error, Jit, Prepared};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::Event;
use crate::engine::config::MissPolicy;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::{Context, DeviceError};
use crate::engine::run::load::{LoadError, LoadedKernel};

/// How long a job waits before it asks again whether a stream still captures.
const CAPTURE_PAUSE: Duration = Duration::from_millis(20);

impl Jit {
    /// As [`load`](Self::load), and under [`MissPolicy::Behind`] waits for no compile where
    /// it need not: where no tier has the kernel, and one has a more general variant of it
    /// ([`KernelSpec::general`]), that is loaded at once, and the asked one is compiled by
    /// another thread. Whoever launches what [`Handover::kernel`] gives launches it from when
    /// it is there, with the same bits.
    ///
    /// Of one spec in one context one is compiled at a time, and as many specs at once as
    /// [`JitBuilder::behind_jobs`](super::JitBuilder::behind_jobs) says; the others wait
    /// in the order in which they were asked for. One that nobody holds a handover of any
    /// more is given up. One that failed keeps its general variant, and is compiled again for
    /// who asks after a minute, after two minutes, and so on up to an hour.
    ///
    /// # Errors
    /// Those of [`load`](Self::load). What goes wrong behind is told by
    /// [`Event::BehindFailed`] and [`Handover::standing`].
    pub fn load_behind(self: &Arc<Self>, spec: &KernelSpec, context: &Context) -> Result<Handover, Error> {
        match self.without_waiting(spec, context)? {
            Some(handover) => Ok(handover),
            None => Ok(Handover::of(self.load(spec, context)?)),
        }
    }

    /// What can be launched without a compile; `None` where one has to be waited for, or
    /// another policy than [`MissPolicy::Behind`] decides.
    pub(super) fn without_waiting(
        self: &Arc<Self>,
        spec: &KernelSpec,
        context: &Context,
    ) -> Result<Option<Handover>, Error> {
        if let Some(kernel) = self.loaded_already(spec, context) {
            return Ok(Some(Handover::of(kernel)));
        }
        if context.is_of_parent() {
            return Err(LoadError::from(DeviceError::Forked).into());
        }
        if self.miss() != MissPolicy::Behind || self.policy.receipt()?.is_some() {
            return Ok(None);
        }
        // To look for the compiler costs more than a launch may wait.
        for look in [Look::Named, Look::Everywhere] {
            if let Some(prepared) = self.at_hand(spec, look)? {
                let kernel = self.load_prepared(spec, context, prepared)?;
                return Ok(Some(Handover::of(kernel)));
            }
            if let Some(general) = self.general_at_hand(spec, context, look)? {
                return Ok(Some(self.compile_behind(spec, context, general)));
            }
        }
        Ok(None)
    }

    /// The first general variant that is there and can be loaded.
    fn general_at_hand(
        &self,
        spec: &KernelSpec,
        context: &Context,
        look: Look,
    ) -> Result<Option<Arc<LoadedKernel>>, Error> {
        for general in spec.general() {
            if let Some(kernel) = self.loaded_already(&general, context) {
                return Ok(Some(kernel));
            }
            let Some(prepared) = self.at_hand(&general, look)? else {
                continue;
            };
            match self.load_prepared(&general, context, prepared) {
                Ok(kernel) => return Ok(Some(kernel)),
                Err(capturing @ Error::Load(LoadError::Capturing { .. })) => return Err(capturing),
                Err(reason) => {
                    tracing::warn!(variant = %named(&general), %reason, "a general variant is not loaded");
                }
            }
        }
        Ok(None)
    }

    /// Has the asked one compiled behind the general one.
    fn compile_behind(
        self: &Arc<Self>,
        spec: &KernelSpec,
        context: &Context,
        first: Arc<LoadedKernel>,
    ) -> Handover {
        let joined = self.behind.join(&first, |takeover| Job {
            spec: spec.clone(),
            context: context.clone(),
            general: named(first.spec()),
            takeover,
            since: Instant::now(),
        });
        match joined {
            Joined::Shared(handover) => handover,
            Joined::New(handover, job) => {
                // Before it can take over.
                self.cache.tell(&Event::Behind {
                    asked: named(spec),
                    general: named(first.spec()),
                });
                if self.behind.push(job, self.behind_jobs) {
                    self.start_behind();
                }
                handover
            }
            Joined::Not(reason, told) => {
                if !told {
                    self.behind_failed(spec, named(first.spec()), &reason);
                }
                let (handover, takeover) = Handover::until(first);
                takeover.fail(&reason);
                handover
            }
        }
    }

    /// Starts the thread that the queue has counted.
    fn start_behind(self: &Arc<Self>) {
        let jit = Arc::clone(self);
        let work = move || {
            while let Some(job) = jit.behind.next() {
                jit.work_behind(&job);
            }
        };
        let started = std::thread::Builder::new().name("jitc-behind".into()).spawn(work);
        if let Err(reason) = started {
            let reason = format!("no thread could be started: {reason}");
            for job in self.behind.not_started() {
                self.end_behind(&job, &reason, false);
            }
        }
    }

    fn work_behind(&self, job: &Job) {
        let work = AssertUnwindSafe(|| self.make_behind(job));
        let made = catch_unwind(work).unwrap_or_else(|_| Err(panicked(&job.spec)));
        if job.takeover.cancel().is_canceled() {
            // Nobody waits for it, or for news of it.
            return self.behind.done(job.place(), None);
        }
        match made {
            Ok((kernel, key)) => {
                job.takeover.give(kernel);
                self.behind.done(job.place(), None);
                tracing::info!(key = %key.short(), variant = %named(&job.spec), "takes over");
                self.cache.tell(&Event::TookOver {
                    key,
                    asked: named(&job.spec),
                    general: job.general.clone(),
                    elapsed: job.since.elapsed(),
                });
            }
            Err(error) => {
                // What was forbidden may be asked for once it is allowed.
                let leave_alone = !matches!(error, Error::Forbidden { .. });
                self.end_behind(job, &error.to_string(), leave_alone);
            }
        }
    }

    fn make_behind(&self, job: &Job) -> Result<(Arc<LoadedKernel>, CacheKey), Error> {
        let cancel = job.takeover.cancel();
        let prepared = self.prepare_unless(&job.spec, cancel)?;
        loop {
            match self.load_prepared(&job.spec, &job.context, prepared.clone()) {
                Err(Error::Load(LoadError::Capturing { .. })) if !cancel.is_canceled() => {
                    std::thread::sleep(CAPTURE_PAUSE);
                }
                loaded => return loaded.map(|kernel| (kernel, *prepared.request.key())),
            }
        }
    }

    fn end_behind(&self, job: &Job, reason: &str, leave_alone: bool) {
        // First, so that who sees the failure and asks again does not start it anew.
        self.behind.done(job.place(), leave_alone.then_some(reason));
        job.takeover.fail(reason);
        self.behind_failed(&job.spec, job.general.clone(), reason);
    }

    fn behind_failed(&self, spec: &KernelSpec, general: String, reason: &str) {
        tracing::warn!(variant = %named(spec), reason, "not compiled behind: the general variant stays");
        self.cache.tell(&Event::BehindFailed {
            asked: named(spec),
            general,
            reason: reason.to_owned(),
        });
    }

    /// The kernel, if it is loaded; waits for nobody who loads it.
    fn loaded_already(&self, spec: &KernelSpec, context: &Context) -> Option<Arc<LoadedKernel>> {
        let slot = Arc::clone(&*self.loaded.get(&(spec.id(), context.id()))?);
        slot.try_lock().ok()?.clone()
    }

    /// Loads what was prepared already.
    fn load_prepared(
        &self,
        spec: &KernelSpec,
        context: &Context,
        prepared: Prepared,
    ) -> Result<Arc<LoadedKernel>, Error> {
        let first = Cell::new(Some(prepared));
        self.load_by(spec, context, &|| match first.take() {
            Some(prepared) => Ok(prepared),
            None => self.prepare(spec),
        })
    }
}

/// A family and its constants, for people.
fn named(spec: &KernelSpec) -> String {
    format!("{} {}", spec.family().name, spec.variant())
}
