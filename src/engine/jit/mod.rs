//! The facade: wires the stages in order.
//!
//! Invariant: nothing is found, fetched or opened before it is needed. A process
//! whose requests are all hits never opens a compiler; one without a compiler
//! works out keys from the pinned one's identity. A forked child begins without the
//! parent's kernels, and waits for none of its threads.

mod again;
mod behind;
mod builder;
mod check;
mod dispatching;
mod error;
mod explain_dispatch;
mod export;
mod failure;
#[cfg(feature = "remote")]
mod fleet;
mod gpus;
mod header_sets;
mod identity;
mod kernel;
mod machine;
mod open;
mod plan;
mod policy;
mod prepare_all;
mod preparing;
mod profile;
mod serving;
mod source;
mod stand_in;
mod trace;
pub(crate) mod tuned;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::info_span;

pub use again::{DisassembleError, Rebuilt};
use behind::Queue;
pub use behind::{Handover, Standing, Takeover};
pub use builder::JitBuilder;
pub use check::{CheckError, Finding, check_folder};
pub use error::{Error, ErrorKind};
pub use explain_dispatch::{DispatchExplanation, ExplainError, RuleShown};
pub use export::ExportError;
#[cfg(feature = "remote")]
pub use fleet::{FleetError, Pushed, PushedRelease};
pub use gpus::{UsualArchs, newer_driver};
pub use kernel::KernelRequest;
pub use plan::{Gap, Plan, Planned, too_large};
use policy::Policy;
pub use prepare_all::{Jobs, Progress};
pub use preparing::Preparing;
pub use serving::Serving;
pub use source::SourceKernel;
pub use stand_in::StandIn;
pub use trace::{TraceLine, read_trace};

use crate::engine::build::compile::{Cancel, CompileError, Compiler, Limits, WorkerChoice};
use crate::engine::build::image;
use crate::engine::build::parameter_info;
use crate::engine::build::render::{RenderedSource, render};
use crate::engine::build::request::CompileRequest;
use crate::engine::build::toolchain::{self, Toolchain, ToolchainError};
use crate::engine::cache::{Cache, Fetched, Judged, Why, why};
use crate::engine::config::{ArchMatch, Config, Source, ToolchainChoice};
use crate::engine::digest_hasher::DigestMap;
use crate::engine::per_process::PerProcess;
use crate::engine::request::spec::{KernelSpec, SpecId};
use crate::engine::request::target::ToolchainIdentity;
use crate::engine::request::template::Registry;
use crate::engine::run::device::Context;
use crate::engine::run::load::{LoadError, LoadedKernel};
use crate::engine::sign::Signing;

/// A request that was carried out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prepared {
    /// Whose code it is, as the cache knows it: the request's own, or that of what stands in.
    pub request: CompileRequest,
    /// The artifact and where it comes from.
    pub fetched: Fetched,
    /// The spec for another arch whose code it is, where that is not the requested one.
    pub stand_in: Option<KernelSpec>,
    /// Time of everything but NVRTC, microseconds.
    pub own_us: u64,
}

impl Prepared {
    /// Time inside NVRTC, milliseconds; of a hit, what it once took.
    #[must_use]
    pub fn compile_ms(&self) -> f64 {
        Duration::from_micros(self.fetched.artifact.compile_us).as_secs_f64() * 1e3
    }

    /// How the request of a spec was carried out, for programs: what docs/CACHE.md lists.
    #[must_use]
    pub fn to_json(&self, spec: &KernelSpec) -> serde_json::Value {
        let artifact = &self.fetched.artifact;
        json!({"event": "variant", "family": spec.family().name, "constants": self.request.constants(),
            "arch": spec.arch(), "code_arch": self.request.arch(), "key": self.request.key(),
            "provenance": self.fetched.provenance, "compile_ms": self.compile_ms(),
            "registers": artifact.registers(), "spill_bytes": artifact.spill_bytes(),
            "cubin_bytes": artifact.cubin.len()})
    }
}

/// The walk from a spec to an artifact.
pub struct Jit {
    config: Config,
    registry: Registry,
    cache: Cache,
    policy: Policy,
    signing: Signing,
    arch_match: ArchMatch,
    /// Whether it compiles for profilers.
    profile: bool,
    identity: OnceLock<ToolchainIdentity>,
    /// Which identity lookups ask for, and who says so, if anybody does.
    asks_for: Option<(ToolchainChoice, Source)>,
    of_version: OnceLock<Vec<ToolchainIdentity>>,
    toolchain: PerProcess<Mutex<Option<Toolchain>>>,
    worker: WorkerChoice,
    limits: Limits,
    compiler: OnceLock<Box<dyn Compiler>>,
    opening: PerProcess<Mutex<()>>,
    /// By context: a module belongs to one, and its holder keeps that alive.
    loaded: PerProcess<Loaded>,
    behind: PerProcess<Queue>,
    /// How many of those are compiled at once.
    behind_jobs: usize,
}

type Loaded = DigestMap<(SpecId, usize), Slot>;

/// The place of one loaded kernel: filled once, however many threads ask.
type Slot = Arc<Mutex<Option<Arc<LoadedKernel>>>>;

impl Jit {
    /// Reads the families; touches neither cache nor compiler.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::builder(config).build()
    }

    /// Uses this compiler instead of NVRTC. For tests; the key still names the
    /// toolchain that would have been used.
    #[must_use]
    pub fn with_compiler(self, compiler: Box<dyn Compiler>) -> Self {
        let _ = self.compiler.set(compiler);
        self
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The families.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Which keys are trusted, and what must be signed by one.
    #[must_use]
    pub fn signing(&self) -> &Signing {
        &self.signing
    }

    /// The identity of the compiler that would be used: of the one at hand, else
    /// of the pinned one, which a miss would install. Looked for once.
    pub fn identity(&self) -> Result<ToolchainIdentity, Error> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity.clone());
        }
        let mut known = self.toolchain.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match &*known {
            Some(toolchain) => Some(toolchain.clone()),
            None => toolchain::find(&self.config)?,
        };
        let identity = match &found {
            Some(toolchain) => toolchain.identity.clone(),
            None => toolchain::pinned_identity().ok_or(ToolchainError::NotPinned(std::env::consts::ARCH))?,
        };
        *known = found;
        Ok(self.identity.get_or_init(|| identity).clone())
    }

    /// What the compiler is given for a spec.
    pub(super) fn render(&self, spec: &KernelSpec) -> Result<RenderedSource, Error> {
        let span = info_span!("render", family = spec.family().name);
        let mut rendered = span.in_scope(|| render(&self.registry, spec))?;
        if self.profile {
            profile::prepare(&mut rendered);
        }
        Ok(rendered)
    }

    /// Renders a spec and works out its key, under the identity that a lookup asks for first.
    pub fn describe(&self, spec: &KernelSpec) -> Result<(CompileRequest, RenderedSource), Error> {
        let rendered = self.render(spec)?;
        let toolchain = self.first_identity()?;
        let request = info_span!("key").in_scope(|| self.request_under(spec, &rendered, toolchain));
        Ok((request, rendered))
    }

    /// Finds or makes the artifact of a spec; where a policy forbids compiling,
    /// finds it or fails.
    pub fn prepare(&self, spec: &KernelSpec) -> Result<Prepared, Error> {
        self.prepare_unless(spec, &Cancel::new())
    }

    /// As [`Jit::prepare`], and ends with
    /// [`CompileError::Canceled`] soon after it was
    /// canceled: a compile in a worker is ended; one in this process is waited for.
    pub fn prepare_unless(&self, spec: &KernelSpec, cancel: &Cancel) -> Result<Prepared, Error> {
        let started = Instant::now();
        if let Some(mut prepared) = self.prepare_stand_in(spec)? {
            prepared.own_us = micros(started);
            return Ok(prepared);
        }
        let rendered = self.render(spec)?;
        if let Some((request, fetched)) = self.without_compiling(spec, &rendered)? {
            self.policy.answered(spec, &request, &fetched);
            return Ok(Prepared {
                request,
                fetched,
                stand_in: None,
                own_us: micros(started),
            });
        }
        let request = self.request_under(spec, &rendered, self.identity()?);
        let mut outside_us = 0;
        let fetched = info_span!("lookup", key = request.key().short()).in_scope(|| {
            self.cache.get_or_build_unless(&request, cancel, || {
                if cancel.is_canceled() {
                    return Err(self.compile_error(CompileError::Canceled, spec, &request));
                }
                self.policy.may_compile(&self.cache, spec, &request)?;
                self.trace_miss(&request);
                // Fetching and opening NVRTC happens once a process, whichever
                // variant comes first: it is no variant's own time.
                let opening = Instant::now();
                let compiler = self.compiler()?;
                let rendered = self.with_header_sets(rendered)?;
                outside_us += micros(opening);
                let compiling = Instant::now();
                let built = info_span!("compile").in_scope(|| compiler.compile(&rendered, cancel));
                outside_us += micros(compiling);
                let built = built.map_err(|source| self.compile_error(source, spec, &request))?;
                image::check_named(spec, &built)?;
                parameter_info::check(spec, &built)?;
                self.policy
                    .compiled(&self.cache, spec, &request, built.compile_us);
                Ok::<_, Error>(built)
            })
        })?;
        self.policy.answered(spec, &request, &fetched);
        Ok(Prepared {
            request,
            fetched,
            stand_in: None,
            own_us: micros(started).saturating_sub(outside_us),
        })
    }

    /// Finds or makes the artifact of a spec, and loads it into a context. Asked
    /// again, it returns the same kernel, and neither renders nor logs.
    ///
    /// An artifact from the cache that is broken, or that the driver calls invalid, is
    /// moved away, and built and loaded anew, once. Nothing else that the driver may say
    /// touches the cache.
    pub fn load(&self, spec: &KernelSpec, context: &Context) -> Result<Arc<LoadedKernel>, Error> {
        self.load_by(spec, context, &|| self.prepare(spec))
    }

    fn load_by(
        &self,
        spec: &KernelSpec,
        context: &Context,
        prepare: &dyn Fn() -> Result<Prepared, Error>,
    ) -> Result<Arc<LoadedKernel>, Error> {
        let place = (spec.id(), context.id());
        // Looked up by reference first: an entry for writing would lock others out.
        let slot = match self.loaded.get(&place) {
            Some(slot) => Arc::clone(&slot),
            None => Arc::clone(&self.loaded.entry(place).or_default()),
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*slot {
            return Ok(Arc::clone(kernel));
        }
        let prepared = prepare()?;
        let load = |prepared: &Prepared| {
            info_span!("load", key = prepared.request.key().short()).in_scope(|| {
                let spec = prepared.stand_in.as_ref().unwrap_or(spec);
                let started = Instant::now();
                let kernel = LoadedKernel::load(context, spec, &prepared.fetched.artifact)?;
                (self.policy).loaded(&self.cache, spec, &prepared.request, started.elapsed());
                Ok::<_, LoadError>(kernel)
            })
        };
        let used = prepared.stand_in.as_ref().unwrap_or(spec);
        self.policy.may_load(&self.cache, used, &prepared.request)?;
        let kernel = match load(&prepared) {
            Err(rejected) if rejected.blames_the_image() && prepared.fetched.provenance.is_hit() => {
                self.cache.reject(prepared.request.key(), &rejected.to_string());
                load(&prepare()?)?
            }
            other => other?,
        };
        let kernel = Arc::new(kernel);
        *slot = Some(Arc::clone(&kernel));
        Ok(kernel)
    }

    /// Says why it missed where traces are wanted: that reads every manifest.
    fn trace_miss(&self, request: &CompileRequest) {
        if tracing::enabled!(tracing::Level::TRACE)
            && let Why::Miss(Some(nearest)) = why(&self.cache, request, Judged::Absent)
        {
            tracing::trace!(key = %request.key().short(), %nearest, "why it missed");
        }
    }

    /// What [`prepare`](Self::prepare) would find in the cache, without compiling and under
    /// the receipt that is required; writes nothing.
    pub fn judge(&self, spec: &KernelSpec) -> Result<(CompileRequest, Judged), Error> {
        let rendered = self.render(spec)?;
        self.judge_all(spec, &rendered)
    }

    /// The same, and of a miss the nearest entry: that reads every manifest.
    pub fn why(&self, spec: &KernelSpec) -> Result<(CompileRequest, Why), Error> {
        let (request, judged) = self.judge(spec)?;
        let why = why(&self.cache, &request, judged);
        Ok((request, why))
    }

    /// The command that would warm this spec.
    #[must_use]
    pub fn warm_command(&self, spec: &KernelSpec) -> String {
        self.policy.warm_command(spec)
    }

    fn compiler(&self) -> Result<&dyn Compiler, Error> {
        if let Some(compiler) = self.compiler.get() {
            return Ok(&**compiler);
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.compiler.get().is_none() {
            let found = self
                .toolchain
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let toolchain = match found {
                Some(toolchain) => toolchain,
                None => toolchain::install_once(&self.config)?,
            };
            toolchain.confirm()?;
            let _ = self.compiler.set(self.open(&toolchain)?);
        }
        match self.compiler.get() {
            Some(compiler) => Ok(&**compiler),
            None => Err(ToolchainError::NoFolder.into()),
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
