//! Settings of compiles: what one may take, and which program makes them.

use crate::engine::refused::Refused;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::cache::{bad_value, parse_age, parse_bytes, parsed};
use super::{Config, ConfigError};

/// The shortest `compile_timeout` there is.
const SHORTEST: Duration = Duration::from_secs(1);

/// The least `compile_memory` there is: what the compiler takes for nothing.
const LEAST: u64 = 512 << 20;

/// Which compiler's identity lookups ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolchainChoice {
    /// That of the compiler that is found.
    Found,
    /// That of the pinned one.
    Pinned,
    /// Those that the receipt and the embedded bundles name, else that of the pinned one.
    Bundle,
    /// Those of this version, such as `13.0.88`, or `13.0` for all that begin so.
    Version(String),
}

impl FromStr for ToolchainChoice {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let is_number = |part: &str| part.parse::<u32>().is_ok();
        match text {
            "found" => Ok(Self::Found),
            "pinned" => Ok(Self::Pinned),
            "bundle" => Ok(Self::Bundle),
            version if version.split('.').all(is_number) => Ok(Self::Version(version.to_owned())),
            _ => Err("expected found, pinned, bundle or a version such as 13.0.88".into()),
        }
    }
}

impl Config {
    /// Which compiler's identity lookups ask for, if it was said.
    pub fn toolchain(&self) -> Result<Option<ToolchainChoice>, ConfigError> {
        parsed("toolchain", self.text("toolchain"), str::parse)
    }

    /// The longest that one compile may take, if it was said.
    pub fn compile_timeout(&self) -> Result<Option<Duration>, ConfigError> {
        let setting = self.text("compile_timeout");
        let found = parsed("compile_timeout", setting.clone(), parse_age)?;
        match (found, setting) {
            (Some(short), Some(setting)) if short < SHORTEST => Err(bad_value(
                "compile_timeout",
                setting.value,
                setting.source,
                "expected at least 1s".into(),
            )),
            (found, _) => Ok(found),
        }
    }

    /// Address space that a compile may take, bytes, if it was said.
    pub fn compile_memory(&self) -> Result<Option<u64>, ConfigError> {
        let setting = self.text("compile_memory");
        let found = parsed("compile_memory", setting.clone(), parse_bytes)?;
        match (found, setting) {
            (Some(little), Some(setting)) if little < LEAST => Err(bad_value(
                "compile_memory",
                setting.value,
                setting.source,
                "expected at least 512MiB".into(),
            )),
            (found, _) => Ok(found),
        }
    }

    /// The folders of `PATH` that are absolute.
    #[must_use]
    pub fn program_path(&self) -> Vec<PathBuf> {
        let path = self.env.path("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .collect()
    }
}
