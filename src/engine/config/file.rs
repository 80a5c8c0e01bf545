//! `jitc.toml`: settings that a project keeps beside its code.
//!
//! Invariant: an unknown name is an error, never ignored: a misspelt setting
//! that silently does nothing costs somebody an afternoon.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::settings::in_file;
use super::{ConfigError, Setting, Source};
use crate::engine::suggest::did_you_mean;

/// A parsed config file. Values are kept as text, lists separated by commas.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    path: PathBuf,
    settings: BTreeMap<String, (usize, String)>,
    constants: BTreeMap<String, (usize, String)>,
}

impl ConfigFile {
    /// Reads and parses the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs_err::read_to_string(path).map_err(|source| ConfigError::Read {
            what: "config file".into(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// The same of a file that nobody named: one that is not there is `None`, and one
    /// that somebody else put there is an error. It may name libraries to open.
    pub fn read_if_present(path: &Path) -> Result<Option<Self>, ConfigError> {
        if !path.is_file() {
            return Ok(None);
        }
        let unreadable = |source| ConfigError::Read {
            what: "config file".into(),
            source,
        };
        let mut file = fs_err::File::open(path).map_err(unreadable)?;
        // Of the link, if it is one, and of what was opened: paths in the file are taken
        // from the link's folder.
        let there = fs_err::symlink_metadata(path).map_err(unreadable)?;
        let opened = file.metadata().map_err(unreadable)?;
        let own = rustix::process::geteuid().as_raw();
        for owner in [there.uid(), opened.uid()] {
            if !is_trusted(owner, own) {
                return Err(ConfigError::Foreign {
                    path: path.to_path_buf(),
                    owner,
                });
            }
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(path, &text).map(Some)
    }

    /// Parses the text of a config file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let error = |offset: usize, reason: String| ConfigError::Syntax {
            path: path.to_path_buf(),
            line: line_of(text, offset),
            reason,
        };
        let table = DeTable::parse(text)
            .map_err(|e| error(e.span().map_or(0, |s| s.start), e.message().to_owned()))?;
        let mut file = Self {
            path: path.to_path_buf(),
            ..Self::default()
        };
        for (key, value) in table.get_ref() {
            let name = key.get_ref().as_ref();
            let at = key.span().start;
            if !in_file().any(|known| known == name) {
                let hint = did_you_mean(name, in_file());
                let known = in_file().collect::<Vec<_>>().join(", ");
                return Err(error(
                    at,
                    format!("unknown setting `{name}`{hint}: known are {known}"),
                ));
            }
            if name != "constants" {
                let value = plain(value).ok_or_else(|| error(at, not_plain(name)))?;
                file.settings.insert(name.to_owned(), (line_of(text, at), value));
                continue;
            }
            let DeValue::Table(constants) = value.get_ref() else {
                return Err(error(at, "`constants` is a table: [constants]".into()));
            };
            for (key, value) in constants {
                let (name, at) = (key.get_ref().to_string(), key.span().start);
                let value = plain(value).ok_or_else(|| error(at, not_plain(&name)))?;
                file.constants.insert(name, (line_of(text, at), value));
            }
        }
        Ok(file)
    }

    /// The folder that the file lies in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// A setting at the top level.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Setting> {
        self.settings.get(key).map(|at| self.setting(at))
    }

    /// A constant of `[constants]`.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<Setting> {
        self.constants.get(name).map(|at| self.setting(at))
    }

    /// Every constant of `[constants]`: its name and where it stands.
    #[must_use]
    pub fn constants(&self) -> Vec<(String, Source)> {
        self.constants
            .iter()
            .map(|(name, at)| (name.clone(), self.setting(at).source))
            .collect()
    }

    /// See [`Config::rename_constants`](super::Config::rename_constants). What is set by its
    /// present name, too, stays.
    pub(super) fn rename_constants(
        &mut self,
        renamed: &BTreeMap<String, String>,
    ) -> Vec<(String, String, Source)> {
        let mut found = Vec::new();
        for (former, present) in renamed {
            if let Some(value) = self.constants.remove(former) {
                let source = self.setting(&value).source;
                found.push((former.clone(), present.clone(), source));
                self.constants.entry(present.clone()).or_insert(value);
            }
        }
        found
    }

    fn setting(&self, (line, value): &(usize, String)) -> Setting {
        Setting {
            value: value.clone(),
            source: Source::ConfigFile {
                path: self.path.clone(),
                line: *line,
            },
        }
    }
}

/// Whether a file of this owner may say what this user runs: the user's own, or root's.
fn is_trusted(owner: u32, own: u32) -> bool {
    owner == own || owner == 0
}

/// A scalar, or an array of scalars joined by commas, as users would write it on
/// the command line.
fn plain(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(plain).collect();
            Some(items?.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn not_plain(name: &str) -> String {
    format!("`{name}` takes a number, a text, true or false, or an array of these")
}

/// Line, from 1, of a byte offset.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_users_and_roots_files_are_trusted() {
        assert!(is_trusted(1000, 1000) && is_trusted(0, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1001, 1000));
        assert!(!is_trusted(1000, 0), "root obeys nobody else");
    }
}
