//! The engine, opened with settings.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Mutex};

use jitc::engine::build::compile::WorkerChoice;
use jitc::engine::config::{Config, Environment, FlagConstant, Flags, MissPolicy};
use jitc::engine::jit::{Error, Jit, Jobs, Progress};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::run::device::{self, Context};

use crate::error::{Failure, Status, guard};
use crate::input::{self, HasSize};

/// Settings. 0 or NULL leaves each to the environment (`JITC_*`), else to the file that
/// `config` or `JITC_CONFIG` names, else to its default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `sizeof(jitc_options)`.
    pub size: usize,
    /// Folder of the cache, which is read and written.
    pub cache_dir: *const c_char,
    /// Folders that are only read, in the order in which they are asked: `cache_ro_count`
    /// paths.
    pub cache_ro: *const *const c_char,
    /// How many of them there are.
    pub cache_ro_count: usize,
    /// Folder of families of one's own.
    pub templates: *const c_char,
    /// NVRTC: its library, or the folder of it.
    pub nvrtc: *const c_char,
    /// A `jitc.toml`. Unless it is named, none is looked for.
    pub config: *const c_char,
    /// A file of variables, for what the environment does not set.
    pub env_file: *const c_char,
    /// A preset of the families.
    pub preset: *const c_char,
    /// What to compile for, `sm_90a`: for GPUs that are not here.
    pub arch: *const c_char,
    /// What a miss may do: `compile`, `warn` or `forbid`.
    pub miss: *const c_char,
    /// The program `jitc` of the same build, which compiles in processes of its own.
    /// NULL: it is looked for beside the running program and in `PATH`, else this
    /// process compiles.
    pub program: *const c_char,
    /// How many variants are prepared at once; 0: as many as there are cores and memory.
    pub jobs: u32,
    /// Not 0: nothing is fetched from the network.
    pub offline: i32,
    /// Not 0: this process compiles, whatever `program` is.
    pub in_process: i32,
    /// 0.
    pub reserved: i32,
}

// SAFETY: plain, its size first, and null and 0 are values of every member.
unsafe impl HasSize for Options {
    const NAME: &str = "jitc_options";
}

/// What became of a `jitc_warm`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// `sizeof(jitc_report)`.
    pub size: usize,
    /// Variants that were found in the cache.
    pub hit: usize,
    /// Variants that were compiled.
    pub built: usize,
    /// Variants that failed.
    pub failed: usize,
}

// SAFETY: plain, its size first, and 0 is a value of every member.
unsafe impl HasSize for Report {
    const NAME: &str = "jitc_report";
}

/// The engine: settings, families, cache and compiler.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What an engine and its kernels share, as long as one of them is there.
pub(crate) struct Shared {
    pub(crate) jit: Jit,
    flags: Flags,
    environment: Environment,
    pub(crate) contexts: Mutex<BTreeMap<u32, Context>>,
}

impl Shared {
    fn open(options: Given) -> Result<Self, Failure> {
        let environment = Environment::capture();
        let settings = Config::load(options.flags.clone(), environment.clone()).map_err(Error::from)?;
        let mut builder = Jit::builder(settings);
        if let Some(worker) = options.worker {
            builder = builder.worker(worker);
        }
        if let Some(miss) = options.miss {
            builder = builder.miss(miss);
        }
        Ok(Self {
            jit: builder.build()?,
            flags: options.flags,
            environment,
            contexts: Mutex::default(),
        })
    }

    /// The engine's settings with those of a request: constants, each `name=value`, and
    /// the arch.
    pub(crate) fn config(&self, constants: &[&str], arch: Option<&str>) -> Result<Config, Failure> {
        let mut flags = self.flags.clone();
        if let Some(arch) = arch {
            flags.arch = Some(arch.to_owned());
        }
        for text in constants {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::argument(format!("constant `{text}`: expected its name, `=` and its value"))
            })?;
            flags.constants.push(FlagConstant {
                name: name.to_owned(),
                value: value.to_owned(),
                flag: format!("{name}="),
            });
        }
        let mut config = Config::load(flags, self.environment.clone()).map_err(Error::from)?;
        config.rename_constants(&self.jit.registry().former_constants());
        Ok(config)
    }

    fn warm(&self, family: &str, constants: &[&str], archs: Option<&str>) -> Result<Warmed, Failure> {
        let config = self.config(constants, archs)?;
        let jobs = config.jobs().map_err(Error::from)?.and_then(NonZeroUsize::new);
        let registry = self.jit.registry();
        let selection = registry
            .select(&[family.to_owned()], &config)
            .map_err(Error::from)?;
        let archs = usual(&config)?;
        let specs = selection.specs_to_warm(&config, || archs).map_err(Error::from)?;
        let wanted: Vec<&KernelSpec> = specs.iter().collect();
        let mut warmed = Warmed::default();
        let jobs = jobs.map_or(Jobs::Auto, Jobs::Count);
        self.jit.prepare_all(&wanted, jobs, &mut |progress| {
            let Progress::Done { result, .. } = progress else {
                return;
            };
            match *result {
                Ok(prepared) if prepared.fetched.provenance.is_hit() => warmed.hit += 1,
                Ok(_) => warmed.built += 1,
                Err(error) => warmed.failures.push(error),
            }
        });
        Ok(warmed)
    }
}

#[derive(Default)]
struct Warmed {
    hit: usize,
    built: usize,
    failures: Vec<Error>,
}

/// The archs to compile for where the settings name none: those of the GPUs that are
/// here, else the usual ones; none where the settings name some.
pub(crate) fn usual(config: &Config) -> Result<Vec<Arch>, Failure> {
    if config.arch().is_some() {
        return Ok(Vec::new());
    }
    Ok(device::default_archs(&device::here()?))
}

/// Options as the engine takes them.
#[derive(Default)]
struct Given {
    flags: Flags,
    worker: Option<WorkerChoice>,
    miss: Option<MissPolicy>,
}

impl Given {
    /// # Safety
    ///
    /// As [`jitc_open`] demands of its options.
    unsafe fn read(options: &Options) -> Result<Self, Failure> {
        // SAFETY: the caller's promise, here and below.
        let path = |pointer| unsafe { input::path(pointer) };
        // SAFETY: as above.
        let word = |pointer, what| unsafe { input::optional(pointer, what) };
        // SAFETY: as above.
        let cache_ro = unsafe { input::row(options.cache_ro, options.cache_ro_count, "cache_ro")? };
        let cache_ro = cache_ro
            .iter()
            .enumerate()
            .map(|(at, one)| path(*one).ok_or_else(|| Failure::argument(format!("cache_ro[{at}] is NULL"))));
        let flags = Flags {
            cache_dir: path(options.cache_dir),
            cache_ro: cache_ro.collect::<Result<Vec<PathBuf>, _>>()?,
            templates: path(options.templates),
            nvrtc: path(options.nvrtc),
            config: path(options.config),
            env_file: path(options.env_file),
            preset: word(options.preset, "preset")?.map(str::to_owned),
            arch: word(options.arch, "arch")?.map(str::to_owned),
            jobs: (options.jobs > 0).then_some(options.jobs as usize),
            offline: options.offline != 0,
            ..Flags::default()
        };
        let worker = if options.in_process == 0 {
            path(options.program).map(WorkerChoice::Program)
        } else {
            Some(WorkerChoice::InProcess)
        };
        let miss = match word(options.miss, "miss")? {
            None => None,
            Some("compile") => Some(MissPolicy::Compile),
            Some("warn") => Some(MissPolicy::Warn),
            Some("forbid") => Some(MissPolicy::Forbid),
            Some(other) => {
                return Err(Failure::argument(format!(
                    "miss: `{other}`: expected compile, warn or forbid"
                )));
            }
        };
        Ok(Self { flags, worker, miss })
    }
}

/// The version of the library, `0.1.0`: a text that stays.
#[unsafe(no_mangle)]
pub extern "C" fn jitc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Opens an engine. Reads settings and families, and touches neither driver nor compiler.
///
/// `options`: settings; NULL leaves all of them to the environment.
/// `engine`: where it goes; the caller's, to be given to `jitc_close`.
///
/// # Safety
///
/// `options` is NULL or of the size that it gives, with texts and lists that can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_open(options: *const Options, engine: *mut *mut Engine) -> Status {
    guard(|| {
        // SAFETY: the caller's promise.
        let room = unsafe { input::room(engine, "engine")? };
        let room = room.write(ptr::null_mut());
        let given = if options.is_null() {
            Given::default()
        } else {
            // SAFETY: the caller's promise.
            let options = unsafe { input::sized(options)? };
            // SAFETY: the caller's promise.
            unsafe { Given::read(&options)? }
        };
        let shared = Arc::new(Shared::open(given)?);
        *room = Box::into_raw(Box::new(Engine { shared }));
        Ok(())
    })
}

/// Closes an engine. Its kernels live on, and may be freed before or after.
///
/// `engine`: of `jitc_open`, and not used from here on; NULL does nothing.
///
/// # Safety
///
/// `engine` is NULL, or an engine that is closed for the first time and that no other
/// thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_close(engine: *mut Engine) {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { input::end(engine) };
        Ok(())
    });
}

/// From now on nothing compiles: what is not in the cache is `JITC_STATUS_FORBIDDEN`.
///
/// `engine`: which, with all of its kernels.
///
/// # Safety
///
/// `engine` is NULL or an engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_forbid(engine: *const Engine) -> Status {
    guard(|| {
        // SAFETY: the caller's promise.
        let engine = unsafe { input::given(engine, "engine")? };
        engine.shared.jit.forbid();
        Ok(())
    })
}

/// Finds or compiles variants of a family, several at once, whatever becomes of each. Needs
/// no GPU. Where some fail it returns the code of the first that did, which is the last
/// error, and the report says how many.
///
/// `family`: its name.
/// `constants`: `count` texts `name=value`, of which a value may be a list, `split=1,2,4`;
/// all combinations are meant. NULL where `count` is 0.
/// `archs`: what to compile for, a list like `sm_80,sm_90a`. NULL: the settings', else those of
/// the GPUs that are here, else the usual ones.
/// `report`: where the numbers go, its size set; NULL where they are of no interest.
///
/// # Safety
///
/// Pointers are NULL or as said here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitc_warm(
    engine: *const Engine,
    family: *const c_char,
    constants: *const *const c_char,
    count: usize,
    archs: *const c_char,
    report: *mut Report,
) -> Status {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        let engine = unsafe { input::given(engine, "engine")? };
        // SAFETY: as above.
        let family = unsafe { input::text(family, "family")? };
        // SAFETY: as above.
        let constants = unsafe { input::texts(constants, count, "constants")? };
        // SAFETY: as above.
        let archs = unsafe { input::optional(archs, "archs")? };
        let give = |warmed: &Warmed| {
            let numbers = Report {
                size: size_of::<Report>(),
                hit: warmed.hit,
                built: warmed.built,
                failed: warmed.failures.len(),
            };
            // SAFETY: as above.
            (!report.is_null()).then(|| unsafe { input::give_sized(report, &numbers) })
        };
        give(&Warmed::default()).transpose()?;
        let warmed = engine.shared.warm(family, &constants, archs)?;
        give(&warmed).transpose()?;
        match warmed.failures.into_iter().next() {
            Some(first) => Err(first.into()),
            None => Ok(()),
        }
    })
}
