//! Where settings come from: flags > environment > environment file > config
//! file > defaults, resolved once.
//!
//! Invariant: this folder is the only reader of the process environment, and it
//! reads it once, into an [`Environment`]; everything after works on that copy.
//! Every setting keeps its [`Source`], so that an error can say where the bad
//! value was written.

mod cache;
mod compile;
mod env_file;
mod file;
pub mod settings;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use cache::{MissPolicy, parse_age, parse_bytes};
pub use env_file::EnvFile;
pub use file::ConfigFile;
pub use source::{Setting, Source};

/// What went wrong while reading settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that was named could not be read.
    #[error("{what}: {source}")]
    Read {
        /// Which setting named it.
        what: String,
        /// The error, which names the path.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}:{line}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What was wrong and what would be right.
        reason: String,
    },
    /// The working folder's config file is somebody else's.
    #[error(
        "{path} belongs to user {owner} and is not obeyed: name it to obey it \
         (--config {path}, or JITC_CONFIG), or run in another folder"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// User id of its owner, or of the owner of a link that stands there.
        owner: u32,
    },
    /// A setting has a value that it cannot have.
    #[error("{name} = `{value}` ({origin}): {expected}")]
    Value {
        /// The setting.
        name: String,
        /// What was written.
        value: String,
        /// Where it was written.
        origin: Source,
        /// What would be right.
        expected: String,
    },
}

/// A copy of the process environment. Empty values count as unset.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the real environment. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn capture() -> Self {
        std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect()
    }

    /// The variable's value, if it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

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
    /// `--nvrtc`: a file or a folder.
    pub nvrtc: Option<PathBuf>,
    /// `--offline`.
    pub offline: bool,
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
    working_dir: PathBuf,
}

impl Config {
    /// Reads the environment file and the config file that flags or environment
    /// name; without a name, `jitc.toml` in the working folder if it is there and
    /// this user's or root's ([`ConfigError::Foreign`]).
    pub fn load(flags: Flags, env: Environment, working_dir: &Path) -> Result<Self, ConfigError> {
        let named = flags.config.clone().or_else(|| env.path("JITC_CONFIG"));
        let file = match named {
            Some(path) => Some(ConfigFile::read(&path)?),
            None => ConfigFile::read_if_present(&working_dir.join("jitc.toml"))?,
        };
        Self::with_file(flags, env, working_dir, file)
    }

    /// The same, but no config file is read: for who has to say what is wrong with it.
    pub fn load_without_file(
        flags: Flags,
        env: Environment,
        working_dir: &Path,
    ) -> Result<Self, ConfigError> {
        Self::with_file(flags, env, working_dir, None)
    }

    fn with_file(
        flags: Flags,
        env: Environment,
        working_dir: &Path,
        file: Option<ConfigFile>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self {
            flags,
            env,
            file,
            working_dir: working_dir.to_path_buf(),
            env_file: None,
        };
        let env_file = (config.flags.env_file.clone())
            .or_else(|| config.env_path("JITC_ENV_FILE"))
            .or_else(|| config.file_path("env_file"));
        config.env_file = env_file.map(|p| EnvFile::read(&p)).transpose()?;
        Ok(config)
    }

    /// Why the working folder's config file was passed over, if it was.
    #[must_use]
    pub fn refused_file(&self) -> Option<ConfigError> {
        if self.file.is_some() {
            return None;
        }
        let refused = ConfigFile::read_if_present(&self.working_dir.join("jitc.toml")).err()?;
        matches!(refused, ConfigError::Foreign { .. }).then_some(refused)
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
        let flag = self.flags.preset.as_ref().map(|name| Setting {
            value: name.clone(),
            source: Source::Flag("--preset".into()),
        });
        flag.or_else(|| self.variable(variables))
            .or_else(|| self.file.as_ref()?.get("preset"))
    }

    /// The first of these names that the environment sets, else that the
    /// environment file sets.
    #[must_use]
    pub fn variable<S: AsRef<str>>(&self, names: &[S]) -> Option<Setting> {
        for name in names.iter().map(AsRef::as_ref) {
            if let Some(value) = self.env.get(name) {
                return Some(Setting {
                    value: value.to_owned(),
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
        if let Some(value) = &self.flags.arch {
            return Some(Setting {
                value: value.clone(),
                source: Source::Flag("--arch".into()),
            });
        }
        self.variable(&["JITC_ARCH"])
            .or_else(|| self.file.as_ref()?.get("arch"))
    }

    /// How many compiles may run at once, if it was said.
    pub fn jobs(&self) -> Result<Option<usize>, ConfigError> {
        let flag = self.flags.jobs.map(|jobs| Setting {
            value: jobs.to_string(),
            source: Source::Flag("--jobs".into()),
        });
        let setting = flag
            .or_else(|| self.variable(&["JITC_JOBS"]))
            .or_else(|| self.file.as_ref()?.get("jobs"));
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
        if self.flags.offline {
            return Ok(true);
        }
        self.switch("offline", "JITC_OFFLINE")
    }

    fn switch(&self, name: &str, variable: &str) -> Result<bool, ConfigError> {
        let setting = self
            .variable(&[variable])
            .or_else(|| self.file.as_ref()?.get(name));
        let Some(setting) = setting else {
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

    /// Where NVRTC is, if it was said: a file or a folder.
    #[must_use]
    pub fn nvrtc(&self) -> Option<PathBuf> {
        self.path(self.flags.nvrtc.as_ref(), "JITC_NVRTC", "nvrtc")
    }

    /// The folder with templates that add to, or override, the embedded ones.
    #[must_use]
    pub fn templates(&self) -> Option<PathBuf> {
        self.path(self.flags.templates.as_ref(), "JITC_TEMPLATES", "templates")
    }

    /// The folder of the cache that is written to: as said, else the
    /// repository's own when the working folder lies in one, else
    /// `$XDG_CACHE_HOME/jitc`. `None` where there is not even a home folder.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        self.path(self.flags.cache_dir.as_ref(), "JITC_CACHE_DIR", "cache_dir")
            .or_else(|| self.repository().map(|root| root.join("cache")))
            .or_else(|| self.xdg("XDG_CACHE_HOME", ".cache"))
    }

    /// The folder that managed toolchains are installed into.
    #[must_use]
    pub fn toolchain_dir(&self) -> Option<PathBuf> {
        Some(self.xdg("XDG_DATA_HOME", ".local/share")?.join("toolchain"))
    }

    /// `CUDA_HOME` and `CUDA_PATH`, where set: name and folder.
    #[must_use]
    pub fn cuda_homes(&self) -> Vec<(&'static str, PathBuf)> {
        ["CUDA_HOME", "CUDA_PATH"]
            .into_iter()
            .filter_map(|name| Some((name, PathBuf::from(self.env.get(name)?))))
            .collect()
    }

    /// The folders of `LD_LIBRARY_PATH`.
    #[must_use]
    pub fn library_path(&self) -> Vec<PathBuf> {
        let path = self.env.get("LD_LIBRARY_PATH").unwrap_or_default();
        path.split(':')
            .filter(|p| !p.is_empty())
            .map(PathBuf::from)
            .collect()
    }

    /// Roots of the active Python environments.
    #[must_use]
    pub fn python_prefixes(&self) -> Vec<PathBuf> {
        ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .into_iter()
            .filter_map(|name| self.env_path(name))
            .collect()
    }

    /// Variables from which NVRTC itself takes options, where they are set:
    /// the key has to cover them.
    #[must_use]
    pub fn compiler_env(&self) -> Vec<(String, String)> {
        ["NVRTC_PREPEND_FLAGS", "NVRTC_APPEND_FLAGS"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.env.get(name)?.to_owned())))
            .collect()
    }

    /// `RUST_LOG`, if it is set.
    #[must_use]
    pub fn log_filter(&self) -> Option<&str> {
        self.env.get("RUST_LOG")
    }

    fn path(&self, flag: Option<&PathBuf>, variable: &str, key: &str) -> Option<PathBuf> {
        flag.cloned()
            .or_else(|| self.variable(&[variable]).map(|s| s.value.into()))
            .or_else(|| self.file_path(key))
    }

    fn env_path(&self, name: &str) -> Option<PathBuf> {
        self.env.path(name)
    }

    fn file_path(&self, key: &str) -> Option<PathBuf> {
        let file = self.file.as_ref()?;
        // Relative to the file that says it, not to where one happens to stand.
        Some(file.folder().join(file.get(key)?.value))
    }

    fn xdg(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let base = match self.env_path(variable) {
            // The XDG specification has relative paths ignored.
            Some(path) if path.is_absolute() => path,
            _ => self.env_path("HOME")?.join(below_home),
        };
        Some(base.join("jitc"))
    }

    /// The repository that the working folder lies in, if it is this project's.
    fn repository(&self) -> Option<PathBuf> {
        self.working_dir
            .ancestors()
            .find(|dir| {
                dir.join("cache/CACHEDIR.TAG").is_file()
                    && dir.join("templates").is_dir()
                    && fs_err::read_to_string(dir.join("Cargo.toml"))
                        .is_ok_and(|text| text.lines().any(|line| line.trim() == r#"name = "jitc""#))
            })
            .map(Path::to_path_buf)
    }
}

#[cfg(test)]
mod tests;
