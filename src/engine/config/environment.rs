//! A copy of the process environment, byte for byte.
//!
//! Invariant: a variable of this program that cannot be what it should be is an error
//! before anything reads it: none counts as unset.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::ConfigError;
use super::settings::{PREFIX, of_variable};

/// Variables from which NVRTC itself takes options.
pub(super) const COMPILER_VARIABLES: [&str; 2] = ["NVRTC_PREPEND_FLAGS", "NVRTC_APPEND_FLAGS"];

/// A copy of the process environment. Empty values of variables that are not this
/// program's count as unset.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Reads the real environment.
    #[must_use]
    pub fn capture() -> Self {
        std::env::vars_os().collect()
    }

    /// The variable's value as text, if it is set and not empty. Bytes that are not UTF-8
    /// are replaced, so that no reader of text takes them for something legal.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(OsStr::to_string_lossy)
    }

    /// The variable's value, if it is set and not empty.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&OsStr> {
        let value = self.0.get(OsStr::new(name))?;
        (!value.is_empty()).then_some(value)
    }

    /// The same as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.bytes(name).map(PathBuf::from)
    }

    /// The names of this program's variables.
    pub(super) fn own(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let names = self.0.keys().filter(|name| is_own(name));
        names.map(|name| name.to_string_lossy())
    }

    /// Refuses variables of this program that are empty or, unless they are paths, not
    /// UTF-8, and options of the compiler that are not, as no key could cover them.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in &self.0 {
            let name_text = name.to_string_lossy();
            let own = is_own(name);
            let refused = |reason: &str| ConfigError::Variable {
                name: name_text.clone().into_owned(),
                reason: reason.to_owned(),
            };
            if own && value.is_empty() {
                return Err(refused("is empty: give it a value, or unset it"));
            }
            let is_path = of_variable(&name_text).is_some_and(|setting| setting.is_path);
            let text = own && !is_path || COMPILER_VARIABLES.contains(&&*name_text);
            if text && value.to_str().is_none() {
                return Err(refused("is not UTF-8: expected text"));
            }
        }
        Ok(())
    }
}

fn is_own(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX.as_bytes())
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.collect())
    }
}
