//! The environment file: `KEY=VALUE` lines for processes that lose their
//! environment on the way (engine subprocesses do).
//!
//! Invariant: set-if-absent. The real environment always wins, and only names
//! that somebody asks for (declared ones) are ever taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{ConfigError, Setting, Source};

/// A parsed environment file.
#[derive(Debug, Clone, Default)]
pub struct EnvFile {
    path: PathBuf,
    values: BTreeMap<String, (usize, String)>,
}

impl EnvFile {
    /// Reads and parses the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs_err::read_to_string(path).map_err(|source| ConfigError::Read {
            what: "environment file".into(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Parses `KEY=VALUE` lines, split at the first `=`. Blank lines, lines that
    /// start with `#` and empty values are skipped; of a repeated name the last
    /// line counts; an `export ` before the name is allowed.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.strip_prefix("export ").unwrap_or(line);
            let Some((name, value)) = line.split_once('=') else {
                return Err(ConfigError::Syntax {
                    path: path.to_path_buf(),
                    line: index + 1,
                    reason: format!("expected KEY=VALUE, found `{line}`"),
                });
            };
            if !value.trim().is_empty() {
                values.insert(name.trim().to_owned(), (index + 1, value.trim().to_owned()));
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            values,
        })
    }

    /// The value of this name, and its line.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Setting> {
        let (line, value) = self.values.get(name)?;
        Some(Setting {
            value: value.clone(),
            source: Source::EnvFile {
                path: self.path.clone(),
                line: *line,
            },
        })
    }
}
