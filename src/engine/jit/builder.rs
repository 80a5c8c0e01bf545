//! What a facade is made of: settings, and what only a program can give.
//!
//! Invariant: what the program says here holds over what the settings say.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use super::policy::Policy;
use super::{Error, Jit};
use crate::engine::build::compile::{Limits, WorkerChoice};
use crate::engine::build::options;
use crate::engine::build::render::RenderError;
use crate::engine::cache::{Cache, CacheBuilder, Event, Receipt, Tier};
use crate::engine::config::{ArchMatch, Config, MissPolicy, Source, ToolchainChoice};
use crate::engine::per_process::PerProcess;
use crate::engine::request::template::{NOTICE, Registry, Templates, variable_of};
use crate::engine::sign::{Requirements, Signing, TrustedKeys};

/// What a [`Jit`] is made of.
#[must_use]
pub struct JitBuilder {
    config: Config,
    cache: CacheBuilder,
    miss: Option<MissPolicy>,
    arch_match: Option<ArchMatch>,
    receipt: Option<Receipt>,
    worker: Option<WorkerChoice>,
    registry: Option<Registry>,
    families: Vec<Templates>,
    toolchain: Option<ToolchainChoice>,
    trusted_keys: Option<TrustedKeys>,
    require: Option<Requirements>,
    behind_jobs: NonZeroUsize,
}

impl Jit {
    /// A facade with more than settings: tiers, a listener, a policy.
    pub fn builder(config: Config) -> JitBuilder {
        JitBuilder {
            config,
            cache: Cache::builder(),
            miss: None,
            arch_match: None,
            receipt: None,
            worker: None,
            registry: None,
            families: Vec::new(),
            toolchain: None,
            trusted_keys: None,
            require: None,
            behind_jobs: NonZeroUsize::MIN,
        }
    }
}

impl JitBuilder {
    /// A bundle in the program's own image, from `include_bytes!`; asked first.
    pub fn embedded(mut self, bundle: &'static [u8]) -> Self {
        self.cache = self.cache.embedded(bundle);
        self
    }

    /// A tier of another kind, asked after the folders.
    pub fn tier(mut self, tier: Arc<dyn Tier>) -> Self {
        self.cache = self.cache.tier(tier);
        self
    }

    /// A store that the fleet shares, asked after all tiers of this machine and before those
    /// of the settings.
    #[cfg(feature = "remote")]
    pub fn remote(mut self, store: crate::engine::config::remote::RemoteStore) -> Self {
        self.cache = self.cache.remote(store);
        self
    }

    /// Who is told of every event, on the thread on which it happens.
    pub fn listener(mut self, listener: Arc<dyn Fn(&Event) + Send + Sync>) -> Self {
        self.cache = self.cache.listener(listener);
        self
    }

    /// What a miss may do, whatever `JITC_MISS` says.
    pub fn miss(mut self, policy: MissPolicy) -> Self {
        self.miss = Some(policy);
        self
    }

    /// How many kernels are compiled at once behind more general ones, under
    /// [`MissPolicy::Behind`]: one unless this says more.
    pub fn behind_jobs(mut self, jobs: NonZeroUsize) -> Self {
        self.behind_jobs = jobs;
        self
    }

    /// Which archs' code answers a request, whatever `JITC_ARCH_MATCH` says.
    pub fn arch_match(mut self, arch_match: ArchMatch) -> Self {
        self.arch_match = Some(arch_match);
        self
    }

    /// Which compiler's identity lookups ask for, whatever `JITC_TOOLCHAIN` says.
    pub fn toolchain(mut self, choice: ToolchainChoice) -> Self {
        self.toolchain = Some(choice);
        self
    }

    /// Families that were read already, instead of reading those of the settings' folder.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Families that the program carries, from
    /// `jitc::include_templates!`, over those of jitc; called again,
    /// the later ones over the earlier. A folder of the settings holds over them, so that a
    /// kernel can be changed without building the program; none is needed.
    /// [`registry`](Self::registry) takes the place of them all.
    pub fn families(mut self, templates: Templates) -> Self {
        self.families.push(templates);
        self
    }

    /// Loads only what this receipt lists byte for byte, and compiles nothing. It is the
    /// program's own word: no signature is asked of it.
    pub fn require_receipt(mut self, receipt: Receipt) -> Self {
        self.receipt = Some(receipt);
        self
    }

    /// The keys whose signatures are trusted, whatever `JITC_TRUSTED_KEYS` says.
    pub fn trusted_keys(mut self, keys: TrustedKeys) -> Self {
        self.trusted_keys = Some(keys);
        self
    }

    /// What must be signed by a trusted key, whatever `JITC_REQUIRE` says.
    pub fn require(mut self, requirements: Requirements) -> Self {
        self.require = Some(requirements);
        self
    }

    /// Where it compiles, whatever `JITC_PROGRAM` says.
    pub fn worker(mut self, choice: WorkerChoice) -> Self {
        self.worker = Some(choice);
        self
    }

    /// Reads the families; touches neither cache nor compiler.
    pub fn build(self) -> Result<Jit, Error> {
        let mut config = self.config;
        config.check_values()?;
        let registry = match self.registry {
            Some(registry) => registry,
            None => Registry::load_over(&self.families, config.templates().as_deref())?,
        };
        let renamed = registry.former_constants();
        for (former, present, origin) in config.rename_constants(&renamed) {
            tracing::warn!(
                target: NOTICE,
                "constant `{former}` ({origin}) is called `{present}`; the former name will go"
            );
        }
        for (former, present) in &renamed {
            if let Some(set) = config.variable(&[variable_of(former)]) {
                let present = variable_of(present);
                tracing::warn!(target: NOTICE, "{} sets what {present} does; the former name will go", set.source);
            }
        }
        let constants = registry.families().flat_map(|f| f.constants.values());
        let mut variables: BTreeSet<String> = constants.flat_map(|c| c.variables.iter().cloned()).collect();
        variables.extend(
            registry
                .families()
                .flat_map(|f| f.preset_variables.iter().cloned()),
        );
        for line in config.unknown_variables(&variables)? {
            tracing::warn!("{line}");
        }
        if let Some(file) = config.file() {
            tracing::info!("settings are read from {}", file.display());
        }
        if let Some(passed_over) = config.passed_over() {
            tracing::warn!("{passed_over}");
        }
        let signing = signing(&config, self.trusted_keys, self.require)?;
        let policy = Policy::new(&config, self.miss, self.receipt, &signing)?;
        let arch_match = match self.arch_match {
            Some(arch_match) => arch_match,
            None => config.arch_match()?,
        };
        let asks_for = match self.toolchain {
            Some(choice) => Some((choice, Source::Api)),
            None => config.toolchain()?.zip(config.source_of("toolchain")),
        };
        let worker = self.worker.unwrap_or_else(|| {
            let program = config.program();
            program.map_or(WorkerChoice::Found, WorkerChoice::Program)
        });
        let defaults = Limits::default();
        let limits = Limits {
            timeout: config.compile_timeout()?.unwrap_or(defaults.timeout),
            memory: config.compile_memory()?.unwrap_or(defaults.memory),
        };
        for (variable, flags) in config.compiler_env() {
            if let Some((option, why)) = options::refused_of_environment(&flags) {
                let family = variable;
                return Err(RenderError::Option { family, option, why }.into());
            }
        }
        let profile = config.profile()?;
        let cache = configured(self.cache, &config, &signing)?.build_timeout(limits.timeout);
        Ok(Jit {
            cache: cache.build(),
            policy,
            signing,
            arch_match,
            profile,
            registry,
            config,
            identity: OnceLock::new(),
            asks_for,
            of_version: OnceLock::new(),
            toolchain: PerProcess::new(),
            worker,
            limits,
            compiler: OnceLock::new(),
            opening: PerProcess::new(),
            loaded: PerProcess::new(),
            behind: PerProcess::new(),
            behind_jobs: self.behind_jobs.get(),
        })
    }
}

/// With the folders, bounds and stores of the settings.
fn configured(cache: CacheBuilder, config: &Config, signing: &Signing) -> Result<CacheBuilder, Error> {
    let mut cache = cache.trust(config.cache_trust()?).signing(signing.clone());
    for folder in config.cache_ro() {
        cache = cache.read_only(folder);
    }
    if let Some(folder) = config.cache_dir() {
        cache = cache.user(folder);
    }
    if let Some(bytes) = config.cache_max_size()? {
        cache = cache.max_bytes(bytes);
    }
    if let Some(entries) = config.cache_max_entries()? {
        cache = cache.max_entries(entries);
    }
    #[cfg(feature = "remote")]
    {
        cache = with_stores(cache, config)?;
    }
    if let Some(timeout) = config.lock_timeout()? {
        cache = cache.lock_timeout(timeout);
    }
    Ok(cache)
}

/// With the stores of the settings, as far as they may be asked.
#[cfg(feature = "remote")]
fn with_stores(mut cache: CacheBuilder, config: &Config) -> Result<CacheBuilder, Error> {
    for store in config.remote()? {
        if config.offline()? && store.is_on_a_network() {
            tracing::info!("{store} is not asked: nothing is fetched where `offline` is set");
            continue;
        }
        if store.role().writes() && !store.takes_entries() {
            tracing::info!("{store} is sent whole releases alone: `jitc cache push NAME` sends one");
        }
        cache = cache.remote(store);
    }
    Ok(cache)
}

/// What must be signed, and by whom; the program's word holds over the settings'.
fn signing(
    config: &Config,
    keys: Option<TrustedKeys>,
    require: Option<Requirements>,
) -> Result<Signing, Error> {
    let keys = match keys {
        Some(keys) => keys,
        None => config.trusted_keys()?,
    };
    let require = match require {
        Some(requirements) => requirements,
        None => config.require()?,
    };
    if require.demand_a_key() && keys.is_empty() {
        return Err(Error::NoTrustedKey);
    }
    Ok(Signing::new(keys, require))
}
