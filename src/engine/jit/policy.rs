//! What a request may do beyond looking: compile, warn of it, or fail; and the
//! receipt, if nothing else may be loaded.
//!
//! Invariant: fail closed. Under a receipt, or with compiling forbidden, no path
//! leads to the compiler, and a receipt that cannot be read admits nothing. What is
//! forbidden while a request waits is forbidden to it too; only a compile that has begun
//! ends as usual.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::trace::Trace;
use super::{Error, Jit};
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::{Cache, Drift, Event, Fetched, Provenance, Receipt, ReceiptError, passed_over};
use crate::engine::config::{Config, MissPolicy, Source};
use crate::engine::request::spec::KernelSpec;
use crate::engine::sign::{Admission, Place, Signing};

/// Miss policy, receipt and trace of one facade.
pub(super) struct Policy {
    miss: Miss,
    pub(super) trace: Option<Trace>,
    /// Its file, and who named it.
    required: Option<(PathBuf, Source)>,
    templates: Option<PathBuf>,
    profile: bool,
    receipt: Mutex<Option<Arc<Receipt>>>,
    /// What a receipt that is read must be.
    admission: Admission,
}

impl Policy {
    pub(super) fn new(
        config: &Config,
        miss: Option<MissPolicy>,
        receipt: Option<Receipt>,
        signing: &Signing,
    ) -> Result<Self, Error> {
        Ok(Self {
            miss: Miss::new(match miss {
                Some(miss) => miss,
                None => config.miss()?,
            }),
            trace: match config.trace() {
                Some(path) => Some(Trace::new(path, config.trace_hits()?)),
                None => None,
            },
            required: config.require_receipt().zip(config.source_of("require_receipt")),
            templates: config.templates(),
            profile: config.profile()?,
            receipt: Mutex::new(receipt.map(Arc::new)),
            admission: signing.of(Place::Receipt),
        })
    }

    /// Whether a miss may not compile, receipt or none.
    pub(super) fn forbids(&self) -> bool {
        self.miss.get() == MissPolicy::Forbid
    }

    /// Why a request that no tier has, or that drifts from the receipt, is refused.
    pub(super) fn refusal(
        &self,
        cache: &Cache,
        spec: &KernelSpec,
        request: &CompileRequest,
        drift: Option<Drift>,
    ) -> Error {
        let error = match drift.map(|drift| self.explained(drift, spec)) {
            Some(Ok(drift)) => Error::Drift {
                drift,
                variant: variant(spec),
                arch: spec.arch(),
            },
            Some(Err(error)) => error,
            None => return self.forbidden(cache, spec, request),
        };
        refused(cache, request, error)
    }

    /// A key that is missing because the family had another name is said to be so.
    pub(super) fn explained(&self, drift: Drift, spec: &KernelSpec) -> Result<Drift, Error> {
        Ok(match self.receipt()? {
            Some(receipt) => explained(drift, spec, &receipt),
            None => drift,
        })
    }

    /// Asked right before a compile: it may have been forbidden since the request began.
    pub(super) fn may_compile(
        &self,
        cache: &Cache,
        spec: &KernelSpec,
        request: &CompileRequest,
    ) -> Result<(), Error> {
        match self.miss.get() {
            MissPolicy::Forbid => Err(self.forbidden(cache, spec, request)),
            MissPolicy::Compile | MissPolicy::Warn | MissPolicy::Behind => Ok(()),
        }
    }

    /// Whether the driver may compile PTX.
    pub(super) fn driver_may_compile(&self) -> Result<bool, Error> {
        Ok(!self.forbids() && self.receipt()?.is_none())
    }

    /// Asked right before code is loaded: of PTX that is a compile, which may be forbidden.
    pub(super) fn may_load(
        &self,
        cache: &Cache,
        used: &KernelSpec,
        request: &CompileRequest,
    ) -> Result<(), Error> {
        if !used.arch().is_ptx() || self.driver_may_compile()? {
            return Ok(());
        }
        let error = Error::DriverCompile {
            variant: variant(used),
            arch: used.arch(),
        };
        Err(refused(cache, request, error))
    }

    /// Told of code that was loaded, and how long that took.
    pub(super) fn loaded(
        &self,
        cache: &Cache,
        used: &KernelSpec,
        request: &CompileRequest,
        elapsed: Duration,
    ) {
        if !used.arch().is_ptx() {
            return;
        }
        let key = *request.key();
        cache.tell(&Event::DriverCompiled { key, elapsed });
        if self.miss.is_late() {
            let compile_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            cache.tell(&Event::LateCompile { key, compile_us });
        }
        if self.miss.get() == MissPolicy::Warn {
            tracing::warn!(key = %request.key().short(), arch = %used.arch(),
                "the driver had to compile PTX; warm machine code for this GPU beforehand");
        }
    }

    fn forbidden(&self, cache: &Cache, spec: &KernelSpec, request: &CompileRequest) -> Error {
        let error = Error::Forbidden {
            key: *request.key(),
            variant: variant(spec),
            arch: spec.arch(),
            command: self.warm_command(spec),
            passed_over: std::iter::once(String::new())
                .chain(passed_over(cache.tiers(), request.key()))
                .collect::<Vec<_>>()
                .join("; ")
                .into(),
        };
        refused(cache, request, error)
    }

    /// Told of a compile that a request needed.
    pub(super) fn compiled(
        &self,
        cache: &Cache,
        spec: &KernelSpec,
        request: &CompileRequest,
        compile_us: u64,
    ) {
        if self.miss.is_late() {
            cache.tell(&Event::LateCompile {
                key: *request.key(),
                compile_us,
            });
        }
        if self.miss.get() == MissPolicy::Warn {
            tracing::warn!(key = %request.key().short(), command = self.warm_command(spec),
                "a request had to compile; warm it beforehand");
        }
        // No command line could make what only a program can give.
        if let Some(trace) = self.trace.as_ref().filter(|_| spec.family().given().is_none()) {
            trace.record(request, compile_us);
        }
    }

    /// Told of every request that was answered.
    pub(super) fn answered(&self, spec: &KernelSpec, request: &CompileRequest, fetched: &Fetched) {
        if let Some(trace) = &self.trace
            && spec.family().given().is_none()
            && matches!(fetched.provenance, Provenance::Hit(_))
        {
            trace.record_hit(request, fetched.artifact.compile_us);
        }
    }

    /// Read once; what the program gave holds over what the settings name.
    pub(super) fn receipt(&self) -> Result<Option<Arc<Receipt>>, Error> {
        let mut held = self.receipt.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some((path, origin))) = (&*held, &self.required) {
            let unreadable = |source: ReceiptError| Error::Receipt {
                path: path.clone(),
                origin: origin.clone(),
                source,
            };
            let receipt = Receipt::read(path, &self.admission);
            *held = Some(Arc::new(receipt.map_err(unreadable)?));
        }
        Ok(held.clone())
    }

    pub(super) fn warm_command(&self, spec: &KernelSpec) -> String {
        let family = spec.family();
        if family.given().is_some() {
            return "a run of this program where compiling is allowed".to_owned();
        }
        let mut words = vec![format!("jitc warm {} --arch {}", family.name, spec.arch())];
        let constants = family.constants.values().filter_map(|constant| {
            let value = spec.constants().get(&constant.name)?;
            (*value != constant.default).then(|| format!("--set {}={value}", constant.name))
        });
        words.extend(constants);
        let templates = self.templates.iter();
        words.extend(templates.map(|folder| format!("--templates {}", folder.display())));
        words.extend(self.profile.then(|| "--profile".to_owned()));
        words.join(" ")
    }
}

fn refused(cache: &Cache, request: &CompileRequest, error: Error) -> Error {
    cache.tell(&Event::Refused {
        key: *request.key(),
        reason: error.to_string(),
    });
    error
}

/// What a miss may do, from now on; and whether it was ever forbidden.
struct Miss(AtomicU8);

impl Miss {
    const WARN: u8 = 1;
    const FORBID: u8 = 2;
    const BEHIND: u8 = 3;
    /// Added once compiling was forbidden: what is compiled later is late.
    const WAS_FORBIDDEN: u8 = 4;

    fn new(policy: MissPolicy) -> Self {
        let miss = Self(AtomicU8::new(0));
        miss.set(policy);
        miss
    }

    fn set(&self, policy: MissPolicy) {
        let bits = match policy {
            MissPolicy::Compile => 0,
            MissPolicy::Warn => Self::WARN,
            MissPolicy::Behind => Self::BEHIND,
            MissPolicy::Forbid => Self::FORBID | Self::WAS_FORBIDDEN,
        };
        let next = |old: u8| Some(old & Self::WAS_FORBIDDEN | bits);
        // It always has a next value.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    fn get(&self) -> MissPolicy {
        match self.0.load(Ordering::Acquire) & !Self::WAS_FORBIDDEN {
            Self::FORBID => MissPolicy::Forbid,
            Self::WARN => MissPolicy::Warn,
            Self::BEHIND => MissPolicy::Behind,
            _ => MissPolicy::Compile,
        }
    }

    fn is_late(&self) -> bool {
        let bits = self.0.load(Ordering::Acquire);
        bits & Self::WAS_FORBIDDEN != 0 || bits == Self::WARN
    }
}

impl Jit {
    /// From now on a miss may do this, on every thread; `JITC_MISS` and
    /// [`JitBuilder::miss`](super::JitBuilder::miss) say what it may do at first.
    ///
    /// A compile that has begun ends as usual. Requests that only wait for another
    /// process's compile are judged by what holds when their own would begin.
    pub fn set_miss(&self, policy: MissPolicy) {
        self.policy.miss.set(policy);
    }

    /// Forbids compiling from now on, as a server does once it has warmed what it needs: a
    /// miss fails with [`Error::Forbidden`]. What is compiled after that was lifted again
    /// is told as [`Event::LateCompile`].
    pub fn forbid(&self) {
        self.set_miss(MissPolicy::Forbid);
    }

    /// What a miss may do at present.
    #[must_use]
    pub fn miss(&self) -> MissPolicy {
        self.policy.miss.get()
    }
}

/// A key that is missing because the family had another name is said to be so.
fn explained(drift: Drift, spec: &KernelSpec, receipt: &Receipt) -> Drift {
    let former = (spec.family().former_name_of(spec.constants())).map(|former| former.name.as_str());
    match (drift, receipt.names_one_of(former)) {
        (Drift::NotListed(key), Some(former)) => Drift::FormerName {
            key,
            former: former.to_owned(),
        },
        (drift, _) => drift,
    }
}

fn variant(spec: &KernelSpec) -> String {
    format!("{} {}", spec.family().name, spec.variant())
}
