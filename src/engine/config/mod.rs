//! Where settings come from: flags > environment > environment file > config
//! file > defaults, resolved once.
//!
//! Invariant: this folder is the only reader of the process environment, and it
//! reads it once, into an [`Environment`]; everything after works on that copy.
//! Every setting keeps its [`Source`], so that an error can say where the bad
//! value was written.

mod builder;
mod cache;
mod compile;
mod effective;
mod env_file;
mod environment;
mod error;
mod file;
#[cfg(feature = "remote")]
mod login;
mod places;
#[cfg(feature = "remote")]
mod registry;
#[cfg(feature = "remote")]
pub mod remote;
pub mod settings;
mod source;
pub(crate) mod text_file;
mod trust;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

pub use builder::ConfigBuilder;
pub use cache::{ArchMatch, CacheTrust, MissPolicy, parse_age, parse_bytes};
pub use compile::ToolchainChoice;
pub use effective::Effective;
pub use env_file::EnvFile;
pub use environment::Environment;
pub use error::{ConfigError, PassedOver};
pub use file::ConfigFile;
pub(crate) use file::scalar;
use source::Raw;
pub use source::{Setting, Source};
pub(crate) use trust::why_not_ours;

use environment::COMPILER_VARIABLES;
use settings::{Effect, setting};

/// A constant that was set on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagConstant {
    /// The constant's name, `wo_split`.
    pub name: String,
    /// The text, possibly a list.
    pub value: String,
    /// The flag as written, `--wo-split` or `--set`.
    pub flag: String,
}

/// What the command line (or an embedding program) said. Absent: not said.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--cache-dir`.
    pub cache_dir: Option<PathBuf>,
    /// `--cache-ro`, in the order in which they were written.
    pub cache_ro: Vec<PathBuf>,
    /// `--remote`, in the order in which they were written.
    pub remote: Vec<String>,
    /// `--nvrtc`: a file or a folder.
    pub nvrtc: Option<PathBuf>,
    /// `--offline`.
    pub offline: bool,
    /// `--profile`.
    pub profile: bool,
    /// `--color`: `auto`, `always` or `never`.
    pub color: Option<String>,
    /// `--preset`.
    pub preset: Option<String>,
    /// `--templates`.
    pub templates: Option<PathBuf>,
    /// `--env-file`.
    pub env_file: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--arch`, a list.
    pub arch: Option<String>,
    /// `--jobs`.
    pub jobs: Option<usize>,
    /// Constants, in the order in which they were written.
    pub constants: Vec<FlagConstant>,
}

/// All settings of one process.
#[derive(Debug, Clone, Default)]
pub struct Config {
    flags: Flags,
    env: Environment,
    env_file: Option<EnvFile>,
    file: Option<ConfigFile>,
    passed_over: Option<PassedOver>,
    working_dir: Option<PathBuf>,
}

impl Config {
    /// Settings of flags and environment, and of the config file and the environment file
    /// that these name. No other file is read.
    ///
    /// # Errors
    /// A variable of this program that is empty or, unless it is a path, not UTF-8; a file
    /// that cannot be read whole.
    pub fn load(flags: Flags, env: Environment) -> Result<Self, ConfigError> {
        Self::read(flags, env, None)
    }

    /// The same for a program that is run in a folder: without a named config file, of
    /// `jitc.toml` in that folder; and the cache is the repository's own where the folder
    /// lies in one. Of a `jitc.toml` that somebody else may have written only
    /// [harmless](settings::Effect::Harmless) settings are taken:
    /// [`ConfigFile::find`] says whose word it is, and [`passed_over`](Self::passed_over)
    /// what was not taken.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`ConfigError::Policy`] where a policy would be passed
    /// over.
    pub fn load_in(flags: Flags, env: Environment, folder: &Path) -> Result<Self, ConfigError> {
        let config = Self::load_to_report(flags, env, folder)?;
        let is_policy = |name: &str| setting(name).is_some_and(|s| s.effect == Effect::Policy);
        match &config.passed_over {
            Some(passed) if passed.settings.iter().any(|(name, _)| is_policy(name)) => {
                Err(ConfigError::Policy(passed.clone()))
            }
            _ => Ok(config),
        }
    }

    /// The same for who has to say what is wrong: policies are passed over as well.
    pub fn load_to_report(flags: Flags, env: Environment, folder: &Path) -> Result<Self, ConfigError> {
        Self::read(flags, env, Some(folder))
    }

    fn read(flags: Flags, env: Environment, folder: Option<&Path>) -> Result<Self, ConfigError> {
        env.check()?;
        let mut config = Self {
            flags,
            env,
            working_dir: folder.map(Path::to_path_buf),
            ..Self::default()
        };
        match (config.path("config"), folder) {
            (Some(named), _) => {
                let file = ConfigFile::read(&named);
                config.file = Some(file.map_err(|error| config.blamed(error, "config"))?);
            }
            (None, Some(folder)) => {
                if let Some((file, passed_over)) = ConfigFile::find(&folder.join("jitc.toml"))? {
                    (config.file, config.passed_over) = (Some(file), passed_over);
                }
            }
            (None, None) => {}
        }
        let env_file = config.path("env_file");
        let env_file = env_file.map(|path| EnvFile::read(&path)).transpose();
        config.env_file = env_file.map_err(|error| config.blamed(error, "env_file"))?;
        Ok(config)
    }

    /// Says of a file that cannot be read where this setting named it.
    fn blamed(&self, error: ConfigError, setting: &str) -> ConfigError {
        match (error, self.source_of(setting)) {
            (ConfigError::Read { what, source }, Some(origin)) => ConfigError::Read {
                what: format!("{what} ({origin})"),
                source,
            },
            (error, _) => error,
        }
    }

    /// The config file that was read, if one was.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(ConfigFile::path)
    }

    /// What was not taken from a config file that nobody named, if anything.
    #[must_use]
    pub fn passed_over(&self) -> Option<&PassedOver> {
        self.passed_over.as_ref()
    }

    /// The setting of a constant: the flag, else the first of `variables` that is
    /// set in the environment, else in the environment file, else the config
    /// file's `[constants]`. `None`: its default holds.
    #[must_use]
    pub fn constant(&self, name: &str, variables: &[String]) -> Option<Setting> {
        // The last word counts, as everywhere on a command line.
        if let Some(flag) = self.flags.constants.iter().rev().find(|c| c.name == name) {
            return Some(Setting {
                value: flag.value.clone(),
                source: Source::Flag(flag.flag.clone()),
            });
        }
        self.variable(variables)
            .or_else(|| self.file.as_ref()?.constant(name))
    }

    /// The preset: `--preset`, else the first of `variables` that is set, as for
    /// [`constant`](Self::constant), else `preset` in the config file.
    #[must_use]
    pub fn preset(&self, variables: &[String]) -> Option<Setting> {
        (self.flag_preset())
            .or_else(|| self.variable(variables))
            .or_else(|| self.file.as_ref()?.get("preset"))
    }

    /// The preset of the command line.
    #[must_use]
    pub fn flag_preset(&self) -> Option<Setting> {
        let name = self.flags.preset.as_ref()?;
        Some(Setting {
            value: name.clone(),
            source: Source::Flag("--preset".into()),
        })
    }

    /// The first of these names that the environment sets, else that the
    /// environment file sets.
    #[must_use]
    pub fn variable<S: AsRef<str>>(&self, names: &[S]) -> Option<Setting> {
        for name in names.iter().map(AsRef::as_ref) {
            if let Some(value) = self.env.get(name) {
                return Some(Setting {
                    value: value.into_owned(),
                    source: Source::Variable(name.to_owned()),
                });
            }
        }
        let file = self.env_file.as_ref()?;
        names.iter().find_map(|name| file.get(name.as_ref()))
    }

    /// Constants set on the command line.
    #[must_use]
    pub fn flag_constants(&self) -> &[FlagConstant] {
        &self.flags.constants
    }

    /// Constants set in the config file: name and where.
    #[must_use]
    pub fn file_constants(&self) -> Vec<(String, Source)> {
        self.file.as_ref().map(ConfigFile::constants).unwrap_or_default()
    }

    /// Calls constants that flags or the config file set by a former name what they are
    /// called now; gives former name, present name and where it was written, of each.
    pub fn rename_constants(&mut self, renamed: &BTreeMap<String, String>) -> Vec<(String, String, Source)> {
        let mut found = Vec::new();
        for flag in &mut self.flags.constants {
            if let Some(present) = renamed.get(&flag.name) {
                let former = std::mem::replace(&mut flag.name, present.clone());
                found.push((former, present.clone(), Source::Flag(flag.flag.clone())));
            }
        }
        if let Some(file) = &mut self.file {
            found.extend(file.rename_constants(renamed));
        }
        found
    }

    /// The list of architectures, if one was given.
    #[must_use]
    pub fn arch(&self) -> Option<Setting> {
        self.text("arch")
    }

    /// How many compiles may run at once, if it was said.
    pub fn jobs(&self) -> Result<Option<usize>, ConfigError> {
        let setting = self.text("jobs");
        let Some(setting) = setting else {
            return Ok(None);
        };
        match setting.value.parse() {
            Ok(jobs) if jobs > 0 => Ok(Some(jobs)),
            _ => Err(ConfigError::Value {
                name: "jobs".into(),
                value: setting.value,
                origin: setting.source,
                expected: "expected a whole number from 1".into(),
            }),
        }
    }

    /// Whether fetching anything is forbidden.
    pub fn offline(&self) -> Result<bool, ConfigError> {
        self.switch("offline")
    }

    /// Whether kernels are compiled for profilers: with line information, and so under keys
    /// of their own.
    pub fn profile(&self) -> Result<bool, ConfigError> {
        self.switch("profile")
    }

    /// Refuses any setting whose value it cannot have, whether or not it will be asked for.
    pub fn check_values(&self) -> Result<(), ConfigError> {
        self.arch_match()?;
        self.cache_max_entries()?;
        self.cache_max_size()?;
        self.cache_trust()?;
        self.color()?;
        self.compile_memory()?;
        self.compile_timeout()?;
        self.jobs()?;
        self.lock_timeout()?;
        self.miss()?;
        self.offline()?;
        self.check_remote()?;
        self.profile()?;
        self.require()?;
        self.trace_hits()?;
        self.trusted_keys()?;
        self.toolchain()?;
        self.check_templates()
    }

    #[cfg(feature = "remote")]
    fn check_remote(&self) -> Result<(), ConfigError> {
        self.remote().map(drop)
    }

    /// Refuses stores, which this build knows nothing of; URLs are not shown, since nobody
    /// looked whether they hold secrets.
    #[cfg(not(feature = "remote"))]
    fn check_remote(&self) -> Result<(), ConfigError> {
        match self.text("remote") {
            Some(setting) => Err(ConfigError::Value {
                name: "remote".into(),
                value: "...".into(),
                origin: setting.source,
                expected: "this jitc was built without stores that a fleet shares: build it with the \
                           feature `remote`, or unset it"
                    .into(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses a folder of templates that is none.
    pub(crate) fn check_templates(&self) -> Result<(), ConfigError> {
        match self.templates().zip(self.source_of("templates")) {
            Some((folder, origin)) if !folder.is_dir() => Err(ConfigError::Value {
                name: "templates".into(),
                value: folder.display().to_string(),
                origin,
                expected: "expected a folder".into(),
            }),
            _ => Ok(()),
        }
    }

    /// When to color: `auto`, `always` or `never`, if it was said.
    pub fn color(&self) -> Result<Option<String>, ConfigError> {
        match self.text("color") {
            Some(setting) if !["auto", "always", "never"].contains(&setting.value.as_str()) => {
                Err(ConfigError::Value {
                    name: "color".into(),
                    value: setting.value,
                    origin: setting.source,
                    expected: "expected auto, always or never".into(),
                })
            }
            setting => Ok(setting.map(|setting| setting.value)),
        }
    }

    fn switch(&self, name: &str) -> Result<bool, ConfigError> {
        let Some(setting) = self.text(name) else {
            return Ok(false);
        };
        match setting.value.as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(ConfigError::Value {
                name: name.into(),
                value: setting.value,
                origin: setting.source,
                expected: "expected 1 or 0 (true or false)".into(),
            }),
        }
    }

    /// Variables from which NVRTC itself takes options, where they are set:
    /// the key has to cover them.
    #[must_use]
    pub fn compiler_env(&self) -> Vec<(String, String)> {
        COMPILER_VARIABLES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.env.get(name)?.into_owned())))
            .collect()
    }

    /// `RUST_LOG`, if it is set.
    #[must_use]
    pub fn log_filter(&self) -> Option<String> {
        Some(self.env.get("RUST_LOG")?.into_owned())
    }

    /// Where a setting of [`settings::SETTINGS`] was written, if it was.
    #[must_use]
    pub fn source_of(&self, name: &str) -> Option<Source> {
        Some(self.raw(name)?.source)
    }

    /// A setting of [`settings::SETTINGS`] by its name, byte for byte.
    fn raw(&self, name: &str) -> Option<Raw> {
        let known = setting(name)?;
        let flag = self.flags.raw(name).map(|value| Raw {
            value,
            source: Source::Flag(format!("--{}", name.replace('_', "-"))),
        });
        let from_env = || {
            let variable = known.variable.then(|| known.variable_name())?;
            let value = self.env.bytes(&variable).map(|value| Raw {
                value: value.to_owned(),
                source: Source::Variable(variable.clone()),
            });
            // What decides which files are read is said before one of them is.
            let in_env_file = !matches!(name, "config" | "env_file");
            value.or_else(|| {
                Some(
                    self.env_file
                        .as_ref()
                        .filter(|_| in_env_file)?
                        .get(&variable)?
                        .into(),
                )
            })
        };
        let from_file = || Some(self.file.as_ref()?.get(name)?.into());
        flag.or_else(from_env).or_else(from_file)
    }

    /// The same as text.
    fn text(&self, name: &str) -> Option<Setting> {
        let raw = self.raw(name)?;
        Some(Setting {
            value: raw.value.to_string_lossy().into_owned(),
            source: raw.source,
        })
    }
}

impl Flags {
    /// The value of the flag of this setting, if it was given; of several, a list.
    fn raw(&self, name: &str) -> Option<OsString> {
        let path = |path: &Option<PathBuf>| path.clone().map(PathBuf::into_os_string);
        let text = |text: &Option<String>| text.clone().map(OsString::from);
        match name {
            "arch" => text(&self.arch),
            "cache_dir" => path(&self.cache_dir),
            "cache_ro" => {
                let folders = self.cache_ro.iter().map(|folder| folder.as_os_str());
                let list = folders.collect::<Vec<_>>().join(OsStr::new(":"));
                (!self.cache_ro.is_empty()).then_some(list)
            }
            "color" => text(&self.color),
            "config" => path(&self.config),
            "env_file" => path(&self.env_file),
            "jobs" => self.jobs.map(|jobs| jobs.to_string().into()),
            "nvrtc" => path(&self.nvrtc),
            "offline" => self.offline.then(|| "true".into()),
            "preset" => text(&self.preset),
            "remote" => (!self.remote.is_empty()).then(|| self.remote.join(",").into()),
            "profile" => self.profile.then(|| "true".into()),
            "templates" => path(&self.templates),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
