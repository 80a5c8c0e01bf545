//! Settings that a program says in its own words.
//!
//! Invariant: what is said here holds over the environment, as a flag does.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError, Environment, Flags};

/// Settings that are being put together; made by [`Config::builder`].
#[must_use]
#[derive(Debug)]
pub struct ConfigBuilder {
    flags: Flags,
    env: Option<Environment>,
    folder: Option<PathBuf>,
}

impl Config {
    /// Settings of a program: those that it says here, else those of the environment. No
    /// `jitc.toml` is read unless one is named.
    ///
    /// ```
    /// # fn main() -> Result<(), jitc::Error> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let folder = dir.path();
    /// let config = jitc::Config::builder()
    ///     .cache_dir(folder)
    ///     .offline(true)
    ///     .load()?;
    /// assert_eq!(config.cache_dir().as_deref(), Some(folder));
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder {
            flags: Flags::default(),
            env: None,
            folder: None,
        }
    }
}

impl ConfigBuilder {
    /// The cache's folder.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.flags.cache_dir = Some(folder.into());
        self
    }

    /// A folder that is only read, such as one in an image; called again, more of them,
    /// which are searched in this order, before the cache's own folder.
    pub fn read_only(mut self, folder: impl Into<PathBuf>) -> Self {
        self.flags.cache_ro.push(folder.into());
        self
    }

    /// Where families of the program's own lie; none is needed for those of jitc, nor for
    /// those that a program carries.
    pub fn templates(mut self, folder: impl Into<PathBuf>) -> Self {
        self.flags.templates = Some(folder.into());
        self
    }

    /// NVRTC: a file or a folder.
    pub fn nvrtc(mut self, path: impl Into<PathBuf>) -> Self {
        self.flags.nvrtc = Some(path.into());
        self
    }

    /// Whether fetching anything, the compiler among it, is forbidden.
    pub fn offline(mut self, forbidden: bool) -> Self {
        self.flags.offline = forbidden;
        self
    }

    /// A config file, which is obeyed whole.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.flags.config = Some(path.into());
        self
    }

    /// Reads `jitc.toml` of this folder too, as far as [`Config::load_in`] takes it.
    pub fn of_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_path_buf());
        self
    }

    /// This environment in the place of the process's.
    pub fn environment(mut self, env: Environment) -> Self {
        self.env = Some(env);
        self
    }

    /// No environment: what is said here, and defaults.
    pub fn isolated(self) -> Self {
        self.environment(Environment::default())
    }

    /// Reads what is named.
    ///
    /// # Errors
    /// As [`Config::load`] and, with a [folder](Self::of_folder), [`Config::load_in`].
    pub fn load(self) -> Result<Config, ConfigError> {
        let env = self.env.unwrap_or_else(Environment::capture);
        match self.folder {
            Some(folder) => Config::load_in(self.flags, env, &folder),
            None => Config::load(self.flags, env),
        }
    }
}
