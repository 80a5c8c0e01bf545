//! The facade: settings, requests, loading.
//!
//! Invariant: the GIL is released for everything that reads, compiles or waits. What the
//! engine calls back takes it for as long as the callback runs.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jitc::engine::build::compile::WorkerChoice;
use jitc::engine::cache::Embedded;
use jitc::engine::config::{Config, Environment, FlagConstant, Flags, MissPolicy};
use jitc::engine::jit::{Error, Jit, Jobs, Progress};
use jitc::engine::request::spec::{KernelSpec, SpecId, parse_archs};
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::Registry;
use jitc::engine::run::device::{self, Context, DeviceError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;
use crate::events::{self, Event};
use crate::fleet::{self, Pulled, Pushed};
use crate::kernel::Kernel;
use crate::reports::{Report, Variant, Why};
use crate::settings::{self, text_of};
use crate::source::Source;

/// Who is told of events.
type Listener = Arc<Mutex<Option<Py<PyAny>>>>;

/// The engine, opened with settings.
#[pyclass(frozen, name = "Jit", module = "jitc", weakref)]
pub(crate) struct PyJit {
    jit: Arc<Jit>,
    flags: Flags,
    environment: Environment,
    listener: Listener,
    loaded: Mutex<HashSet<(SpecId, usize)>>,
    contexts: Mutex<BTreeMap<u32, Context>>,
}

/// What `load` has to find out with the GIL released.
enum Found {
    Spec(Box<KernelSpec>),
    Several(usize),
}

#[pymethods]
#[expect(
    clippy::needless_pass_by_value,
    reason = "arguments come from Python as values"
)]
impl PyJit {
    #[new]
    #[pyo3(signature = (*, cache_dir = None, cache_ro = Vec::new(), templates = None, files = None, nvrtc = None,
        offline = false, preset = None, env_file = None, config = None, arch = None, jobs = None, miss = None,
        bundle = None, remote = None, trusted_keys = None, require = None, worker = true))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keywords of a constructor, each a setting"
    )]
    fn new(
        py: Python<'_>,
        cache_dir: Option<PathBuf>,
        cache_ro: Vec<PathBuf>,
        templates: Option<PathBuf>,
        files: Option<BTreeMap<String, String>>,
        nvrtc: Option<PathBuf>,
        offline: bool,
        preset: Option<String>,
        env_file: Option<PathBuf>,
        config: Option<PathBuf>,
        arch: Option<Bound<'_, PyAny>>,
        jobs: Option<usize>,
        miss: Option<&str>,
        bundle: Option<PathBuf>,
        remote: Option<Bound<'_, PyAny>>,
        trusted_keys: Option<Bound<'_, PyAny>>,
        require: Option<&str>,
        worker: bool,
    ) -> PyResult<Self> {
        let miss = miss.map(|word| settings::policy(py, word)).transpose()?;
        let keys = trusted_keys
            .map(|keys| settings::trusted_keys(py, &keys))
            .transpose()?;
        let require = require.map(|rule| settings::requirements(py, rule)).transpose()?;
        let flags = Flags {
            cache_dir,
            cache_ro,
            remote: settings::stores(remote.as_ref())?,
            nvrtc,
            offline,
            preset,
            templates,
            env_file,
            config,
            arch: arch.map(|arch| text_of(&arch)).transpose()?,
            jobs,
            ..Flags::default()
        };
        let bundle = bundle.map(|path| py.detach(|| fs_err::read(path))).transpose()?;
        let prefix: OsString = py.import("sys")?.getattr("prefix")?.extract()?;
        let program: Option<PathBuf> = py.import("jitc._program")?.call_method0("path")?.extract()?;
        let listener = Listener::default();
        let told = Arc::clone(&listener);
        let open = || -> Result<(Jit, Environment), Error> {
            let environment = settings::environment(prefix);
            let config = Config::load(flags.clone(), environment.clone())?;
            let mut builder =
                Jit::builder(config.clone()).listener(Arc::new(move |event| tell(&told, event)));
            // What the settings name holds over what came with the package.
            if config.program().is_none() {
                match (worker, program) {
                    (false, _) => builder = builder.worker(WorkerChoice::InProcess),
                    (_, Some(program)) => builder = builder.worker(WorkerChoice::Program(program)),
                    _ => {}
                }
            }
            if let Some(files) = &files {
                builder = builder.registry(Registry::from_files(files)?);
            }
            if let Some(miss) = miss {
                builder = builder.miss(miss);
            }
            if let Some(keys) = keys {
                builder = builder.trusted_keys(keys);
            }
            if let Some(require) = require {
                builder = builder.require(require);
            }
            if let Some(bundle) = bundle {
                builder = builder.tier(Arc::new(Embedded::new(bundle)));
            }
            Ok((builder.build()?, environment))
        };
        let (jit, environment) = py.detach(open).map_err(|e| errors::engine(py, &e))?;
        let jit = Arc::new(jit);
        fleet::remember(py, &jit)?;
        Ok(Self {
            jit,
            flags,
            environment,
            listener,
            loaded: Mutex::default(),
            contexts: Mutex::default(),
        })
    }

    /// Finds or compiles variants, many at once, whatever becomes of each.
    #[pyo3(signature = (*families, arch = None, jobs = None, **constants))]
    fn warm(
        &self,
        py: Python<'_>,
        families: Vec<String>,
        arch: Option<Bound<'_, PyAny>>,
        jobs: Option<NonZeroUsize>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Report> {
        let flags = self.flags(arch, constants)?;
        let jobs = jobs.map_or(Jobs::Auto, Jobs::Count);
        let work = || -> Result<_, Error> {
            let config = self.config(flags)?;
            let jobs = match (jobs, config.jobs()?.and_then(NonZeroUsize::new)) {
                (Jobs::Auto, Some(count)) => Jobs::Count(count),
                (jobs, _) => jobs,
            };
            let selection = self.jit.registry().select(&families, &config)?;
            let archs = usual(&config)?;
            let specs = selection.specs_to_warm(&config, || archs)?;
            Ok((specs, jobs))
        };
        let (specs, jobs) = py.detach(work).map_err(|e| errors::engine(py, &e))?;
        self.report(py, &specs, Some(jobs))
    }

    /// Whether one variant is a hit; if not, what stands in its way.
    #[pyo3(signature = (family, *, arch = None, **constants))]
    fn why(
        &self,
        py: Python<'_>,
        family: &str,
        arch: Option<Bound<'_, PyAny>>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Why> {
        let said = self.of_one(py, family, (arch, constants), Jit::why)?;
        Ok(Why::of(said.0.key().to_string(), &said.1))
    }

    /// The key of one variant: SHA-256 of all that the compiler would see, in hex.
    #[pyo3(signature = (family, *, arch = None, **constants))]
    fn key(
        &self,
        py: Python<'_>,
        family: &str,
        arch: Option<Bound<'_, PyAny>>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let described = self.of_one(py, family, (arch, constants), Jit::describe)?;
        Ok(described.0.key().to_string())
    }

    /// The rendered CUDA source of one variant, as the compiler would see it.
    #[pyo3(signature = (family, *, arch = None, **constants))]
    fn render(
        &self,
        py: Python<'_>,
        family: &str,
        arch: Option<Bound<'_, PyAny>>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let described = self.of_one(py, family, (arch, constants), Jit::describe)?;
        Ok(described.1.source)
    }

    /// The machine code of one variant, compiled if need be.
    #[pyo3(signature = (family, *, arch = None, **constants))]
    fn cubin<'py>(
        &self,
        py: Python<'py>,
        family: &str,
        arch: Option<Bound<'_, PyAny>>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, pyo3::types::PyBytes>> {
        let prepared = self.of_one(py, family, (arch, constants), Jit::prepare)?;
        Ok(pyo3::types::PyBytes::new(py, &prepared.fetched.artifact.cubin))
    }

    /// Finds or compiles one variant, and loads it on a GPU.
    #[pyo3(signature = (family, *, device = None, entry = None, arch = None, **constants))]
    fn load(
        &self,
        py: Python<'_>,
        family: &str,
        device: Option<u32>,
        entry: Option<String>,
        arch: Option<Bound<'_, PyAny>>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Kernel> {
        let context = self.context(py, device)?;
        let spec = self.one(py, family, arch, constants, Some(&context))?;
        self.load_spec(py, &spec, &context, entry)
    }

    /// A kernel of a string; the keywords are those of `Source`.
    #[pyo3(signature = (text, **declarations))]
    fn source<'py>(
        slf: &Bound<'py, Self>,
        text: Bound<'py, PyAny>,
        declarations: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let class = slf.py().get_type::<Source>();
        class.call((slf, text), declarations)
    }

    /// Sends entries of this machine to the stores that are written to.
    #[pyo3(signature = (what, *, name = None))]
    fn push(&self, py: Python<'_>, what: &Bound<'_, PyAny>, name: Option<&str>) -> PyResult<Pushed> {
        fleet::push(py, &self.jit, &fleet::keys(what)?, name)
    }

    /// Takes a release into the folder that is written to.
    fn pull(&self, py: Python<'_>, release: &str) -> PyResult<Pulled> {
        fleet::pull(py, &self.jit, release)
    }

    /// From now on nothing compiles: a miss raises `Forbidden`.
    fn forbid(&self) {
        self.jit.forbid();
    }

    /// What a miss may do: `compile`, `warn`, `behind` (as the environment may say; `load` then
    /// waits, too) or `forbid`.
    #[getter]
    fn miss(&self) -> &'static str {
        match self.jit.miss() {
            MissPolicy::Warn => "warn",
            MissPolicy::Forbid => "forbid",
            MissPolicy::Behind => "behind",
            MissPolicy::Compile => "compile",
        }
    }

    /// Changes what a miss may do.
    fn set_miss(&self, py: Python<'_>, policy_: &str) -> PyResult<()> {
        self.jit.set_miss(settings::policy(py, policy_)?);
        Ok(())
    }

    /// Who is told of every event, on the thread on which it happens; `None` for nobody.
    fn on_event(&self, callback: Option<Py<PyAny>>) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = callback;
    }

    /// How often each thing happened, by name.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        events::to_dict(py, events::counters(&self.jit))
    }

    /// The counters in Prometheus' text format.
    fn prometheus(&self) -> String {
        events::prometheus(&self.jit)
    }

    /// The names of the families at hand.
    fn families(&self) -> Vec<String> {
        self.jit
            .registry()
            .families()
            .map(|family| family.name.clone())
            .collect()
    }

    /// The folder that is written to, if there is one.
    #[getter]
    fn cache_dir(&self) -> Option<PathBuf> {
        self.jit.config().cache_dir()
    }

    /// The compiler that would be used, by version.
    fn toolchain(&self, py: Python<'_>) -> PyResult<String> {
        let identity = py
            .detach(|| self.jit.identity())
            .map_err(|e| errors::engine(py, &e))?;
        Ok(identity.to_string())
    }
}

impl Drop for PyJit {
    fn drop(&mut self) {
        fleet::leave(&self.jit);
    }
}

impl PyJit {
    /// The engine.
    pub(crate) fn jit(&self) -> &Jit {
        &self.jit
    }

    /// Finds or makes specs, many at once, and says what became of each.
    pub(crate) fn report(
        &self,
        py: Python<'_>,
        specs: &[KernelSpec],
        jobs: Option<Jobs>,
    ) -> PyResult<Report> {
        let work = || {
            let mut done: Vec<Option<Result<_, Error>>> = specs.iter().map(|_| None).collect();
            let wanted: Vec<&KernelSpec> = specs.iter().collect();
            self.jit
                .prepare_all(&wanted, jobs.unwrap_or(Jobs::Auto), &mut |progress| {
                    if let Progress::Done { index, result } = progress {
                        done[index] = Some(*result);
                    }
                });
            done
        };
        let done = py.detach(work);
        let variants = specs.iter().zip(done).map(|(spec, result)| {
            let variant = match result {
                Some(Ok(prepared)) => Variant::of(spec, &prepared),
                Some(Err(error)) => {
                    let error = errors::engine(py, &error).into_value(py).into_any();
                    Variant::failed(spec, Some(error))
                }
                None => Variant::failed(spec, None),
            };
            Py::new(py, variant)
        });
        let variants = variants.collect::<PyResult<_>>()?;
        Ok(Report { variants })
    }

    /// Finds or makes a spec, and loads it.
    pub(crate) fn load_spec(
        &self,
        py: Python<'_>,
        spec: &KernelSpec,
        context: &Context,
        entry: Option<String>,
    ) -> PyResult<Kernel> {
        let place = (spec.id(), context.id());
        let known = self
            .loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&place);
        if !known && torch_captures(py)? {
            let variant = format!("{} {}", spec.family().name, spec.variant());
            return Err(errors::capturing(py, variant.trim_end()));
        }
        let work = || -> Result<_, Error> {
            let (key, provenance) = if known {
                (self.jit.describe(spec)?.0.key().to_string(), "hit")
            } else {
                let prepared = self.jit.prepare(spec)?;
                (
                    prepared.request.key().to_string(),
                    prepared.fetched.provenance.label(),
                )
            };
            Ok((self.jit.load(spec, context)?, key, provenance))
        };
        let (loaded, key, provenance) = py.detach(work).map_err(|e| errors::engine(py, &e))?;
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place);
        Kernel::new(py, loaded, entry, key, provenance)
    }

    /// The archs that are asked for: those given, else those of the settings, else those of
    /// the GPUs here, else the usual ones.
    pub(crate) fn archs(&self, py: Python<'_>, arch: Option<Bound<'_, PyAny>>) -> PyResult<Vec<Arch>> {
        let flags = self.flags(arch, None)?;
        let find = || -> Result<Vec<Arch>, Error> {
            let config = self.config(flags)?;
            let usual = usual(&config)?;
            match config.arch() {
                Some(setting) => Ok(parse_archs(&setting)?),
                None => Ok(usual),
            }
        };
        py.detach(find).map_err(|e| errors::engine(py, &e))
    }

    /// This facade's settings, with a request's.
    fn flags(
        &self,
        arch: Option<Bound<'_, PyAny>>,
        constants: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Flags> {
        let mut flags = self.flags.clone();
        if let Some(arch) = arch {
            flags.arch = Some(text_of(&arch)?);
        }
        for (name, value) in constants.into_iter().flatten() {
            let name: String = name.extract()?;
            let constant = FlagConstant {
                flag: format!("{name}="),
                value: text_of(&value)?,
                name,
            };
            flags.constants.push(constant);
        }
        Ok(flags)
    }

    fn config(&self, flags: Flags) -> Result<Config, Error> {
        let mut config = Config::load(flags, self.environment.clone())?;
        config.rename_constants(&self.jit.registry().former_constants());
        Ok(config)
    }

    /// What the engine says of one variant, without the GIL.
    fn of_one<T: Send>(
        &self,
        py: Python<'_>,
        family: &str,
        (arch, constants): (Option<Bound<'_, PyAny>>, Option<&Bound<'_, PyDict>>),
        ask: impl FnOnce(&Jit, &KernelSpec) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let spec = self.one(py, family, arch, constants, None)?;
        py.detach(|| ask(&self.jit, &spec))
            .map_err(|e| errors::engine(py, &e))
    }

    /// The one variant of a request: for the GPU of `context`, else for the arch of the
    /// settings, of the first GPU that is here, or the first of the usual ones.
    fn one(
        &self,
        py: Python<'_>,
        family: &str,
        arch: Option<Bound<'_, PyAny>>,
        constants: Option<&Bound<'_, PyDict>>,
        context: Option<&Context>,
    ) -> PyResult<KernelSpec> {
        let mut flags = self.flags(arch, constants)?;
        if let Some(context) = context
            && flags.arch.is_none()
        {
            flags.arch = Some(context.device().arch().to_string());
        }
        let find = || -> Result<Found, Error> {
            let config = self.config(flags)?;
            let archs = usual(&config)?;
            let selection = self.jit.registry().select(&[family.to_owned()], &config)?;
            let first = archs.first().copied().into_iter().collect();
            let mut specs = selection.specs(&config, || first)?;
            Ok(match specs.len() {
                1 => Found::Spec(Box::new(specs.swap_remove(0))),
                several => Found::Several(several),
            })
        };
        match py.detach(find).map_err(|e| errors::engine(py, &e))? {
            Found::Spec(spec) => Ok(*spec),
            Found::Several(several) => {
                let why = format!(
                    "{family}: these constants are those of {several} variants: give one value for each"
                );
                Err(errors::request(py, why))
            }
        }
    }

    /// The primary context of a GPU; of the current one where nobody says which.
    pub(crate) fn context(&self, py: Python<'_>, device: Option<u32>) -> PyResult<Context> {
        let open = || -> Result<Context, DeviceError> {
            let ordinal = match device {
                Some(ordinal) => ordinal,
                None => current_device()?,
            };
            let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(context) = contexts.get(&ordinal)
                && !context.is_of_parent()
            {
                return Ok(context.clone());
            }
            let before = cudarc::driver::result::ctx::get_current().ok().flatten();
            let context = Context::new(ordinal)?;
            if let Some(before) = before {
                // SAFETY: it was current on this thread a moment ago.
                let _ = unsafe { cudarc::driver::result::ctx::set_current(before) };
            }
            contexts.insert(ordinal, context.clone());
            Ok(context)
        };
        py.detach(open).map_err(|e| errors::device(py, e))
    }
}

/// The GPU whose context is current on this thread, as torch sets it; else the first one.
fn current_device() -> Result<u32, DeviceError> {
    device::list()?;
    let current = cudarc::driver::result::ctx::get_current().ok().flatten();
    let device = current.and_then(|_| {
        let mut device = 0;
        // SAFETY: a context is current, and `device` outlives the call.
        let asked = unsafe { cudarc::driver::sys::cuCtxGetDevice(&raw mut device) };
        asked.result().is_ok().then_some(device.unsigned_abs())
    });
    Ok(device.unwrap_or(0))
}

/// Whether torch, if it is here and has started CUDA, captures its current stream.
fn torch_captures(py: Python<'_>) -> PyResult<bool> {
    let modules = py.import("sys")?.getattr("modules")?;
    let Ok(cuda) = modules.get_item("torch.cuda") else {
        return Ok(false);
    };
    let started: bool = cuda.call_method0("is_initialized")?.extract()?;
    Ok(started && cuda.call_method0("is_current_stream_capturing")?.extract()?)
}

fn usual(config: &Config) -> Result<Vec<Arch>, Error> {
    if config.arch().is_some() {
        return Ok(Vec::new());
    }
    Ok(device::default_archs(&device::here().map_err(Error::Device)?))
}

fn tell(listener: &Listener, event: &jitc::engine::cache::Event) {
    // Nobody listens, as a rule: then the GIL is not asked for.
    if listener.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        return;
    }
    // Not at all once the interpreter ends.
    Python::try_attach(|py| {
        let held = listener.lock().unwrap_or_else(PoisonError::into_inner);
        let callback = held.as_ref().map(|callback| callback.clone_ref(py));
        drop(held);
        if let Some(callback) = callback
            && let Err(error) = callback.call1(py, (Event::of(event),))
        {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
    });
}
