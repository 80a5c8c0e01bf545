//! `jitc.toml`: settings that a project keeps beside its code.
//!
//! Invariant: an unknown name is an error, never ignored: a misspelt setting
//! that silently does nothing costs somebody an afternoon. Of a file that nobody named and
//! that somebody else may have written, nothing is taken that runs or redirects anything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::settings::{Effect, in_file, setting};
use super::text_file::{self, line_of};
use super::{ConfigError, PassedOver, Setting, Source, trust};
use crate::engine::suggest::did_you_mean;

/// A parsed config file. Values are kept as text, lists separated by commas.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    path: PathBuf,
    settings: BTreeMap<String, Written>,
    constants: BTreeMap<String, Written>,
}

/// A value as it was written.
#[derive(Debug, Clone)]
struct Written {
    line: usize,
    /// Of a list, its items.
    texts: Vec<String>,
    is_list: bool,
}

impl ConfigFile {
    /// Reads and parses the file: regular, at most 1 MiB, UTF-8 with or without a byte
    /// order mark.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let (text, _) = text_file::read(path).map_err(unreadable)?;
        Self::parse(path, &text)
    }

    /// The same of a file that nobody named; `None`: there is none. Where somebody else may
    /// have written it, what could run or redirect something is taken out and given beside
    /// it. Whose word it is: this user's or root's, if file and folder are theirs and nobody
    /// else may write to them, and no folder above is somebody else's or open to others
    /// without being sticky.
    pub fn find(path: &Path) -> Result<Option<(Self, Option<PassedOver>)>, ConfigError> {
        // In a folder that may not be searched nothing is anybody's to find.
        let nothing = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            )
        };
        if fs_err::symlink_metadata(path).is_err_and(|error| nothing(&error)) {
            return Ok(None);
        }
        let (text, metadata) = match text_file::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unreadable)?,
        };
        let mut file = Self::parse(path, &text)?;
        let reason = trust::why_not_ours(path, &metadata)
            .unwrap_or_else(|error| Some(format!("lies where its owners cannot be seen ({error})")));
        let passed_over = reason.and_then(|reason| file.keep_harmless(reason));
        Ok(Some((file, passed_over)))
    }

    /// Takes out what could run or redirect something, or forbids something.
    fn keep_harmless(&mut self, reason: String) -> Option<PassedOver> {
        let harmless = |name: &str| setting(name).is_some_and(|s| s.effect == Effect::Harmless);
        let mut settings = Vec::new();
        self.settings.retain(|name, written| {
            let keep = harmless(name);
            if !keep {
                settings.push((name.clone(), written.line));
            }
            keep
        });
        (!settings.is_empty()).then(|| PassedOver {
            path: self.path.clone(),
            reason,
            settings,
        })
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
                let written = written(text, at, value).ok_or_else(|| error(at, not_plain(name)))?;
                file.settings.insert(name.to_owned(), written);
                continue;
            }
            let DeValue::Table(constants) = value.get_ref() else {
                return Err(error(at, "`constants` is a table: [constants]".into()));
            };
            for (key, value) in constants {
                let (name, at) = (key.get_ref().to_string(), key.span().start);
                let written = written(text, at, value).ok_or_else(|| error(at, not_plain(&name)))?;
                file.constants.insert(name, written);
            }
        }
        Ok(file)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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

    /// A setting that is a list of paths, each from the file's folder.
    #[must_use]
    pub fn paths(&self, key: &str) -> Vec<PathBuf> {
        let Some(written) = self.settings.get(key) else {
            return Vec::new();
        };
        let join = |text: &str| self.folder().join(text);
        match written.texts.as_slice() {
            [list] if !written.is_list => list.split(',').map(join).collect(),
            items => items.iter().map(|item| join(item)).collect(),
        }
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

    fn setting(&self, written: &Written) -> Setting {
        Setting {
            value: written.texts.join(","),
            source: Source::ConfigFile {
                path: self.path.clone(),
                line: written.line,
            },
        }
    }
}

fn unreadable(source: io::Error) -> ConfigError {
    ConfigError::Read {
        what: "config file".into(),
        source,
    }
}

/// A scalar, or an array of scalars.
fn written(text: &str, at: usize, value: &Spanned<DeValue<'_>>) -> Option<Written> {
    let (texts, is_list) = match value.get_ref() {
        DeValue::Array(items) => (items.iter().map(scalar).collect::<Option<_>>()?, true),
        _ => (vec![scalar(value)?], false),
    };
    Some(Written {
        line: line_of(text, at),
        texts,
        is_list,
    })
}

/// A scalar, as users would write it on the command line.
pub(crate) fn scalar(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        // In decimal, however it is written.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Array(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn not_plain(name: &str) -> String {
    format!("`{name}` takes a number, a text, true or false, or an array of these")
}
