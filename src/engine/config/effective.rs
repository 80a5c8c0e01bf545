//! What is in force and who said it, for people; and variables that nothing reads.
//!
//! Invariant: values come from where the program itself reads them, so that what is shown
//! is what is used.

use std::collections::BTreeSet;
use std::path::Path;

use super::settings::{Effect, OTHERS, PREFIX, SETTINGS, of_variable};
use super::{Config, ConfigError, EnvFile, Setting, Source};
use crate::engine::suggest::nearest;

/// A setting that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effective {
    /// Its name: a setting's, or a variable's of others.
    pub name: String,
    /// Its value for people; what is not UTF-8 is shown as replaced. Empty: there is none.
    pub value: String,
    /// Who said it.
    pub source: Source,
}

impl Effective {
    /// A setting by its name.
    #[must_use]
    pub fn new(name: &str, setting: Setting) -> Self {
        Self {
            name: name.to_owned(),
            value: setting.value,
            source: setting.source,
        }
    }
}

impl Config {
    /// Every setting but the constants, by name, with its value or default, then those
    /// variables of others that are set.
    #[must_use]
    pub fn effective(&self) -> Vec<Effective> {
        let settings = SETTINGS
            .iter()
            .filter(|s| (s.in_file || s.variable) && s.name != "constants");
        let settings = settings.map(|setting| {
            let (value, source) = match self.raw(setting.name) {
                // As it is used: joined to the folder of the file that says it.
                Some(raw) if setting.is_path => {
                    let paths = match setting.name {
                        "cache_ro" => self.cache_ro(),
                        name => self.path(name).into_iter().collect(),
                    };
                    let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
                    (shown.join(":"), raw.source)
                }
                Some(raw) if setting.name == "remote" => {
                    let text = raw.value.to_string_lossy().into_owned();
                    let urls: Vec<String> = text.split(',').map(without_secrets).collect();
                    (urls.join(","), raw.source)
                }
                Some(raw) => (raw.value.to_string_lossy().into_owned(), raw.source),
                None => self.unsaid(setting.name, setting.default),
            };
            Effective {
                name: setting.name.to_owned(),
                value,
                source,
            }
        });
        let others = OTHERS.iter().filter_map(|name| {
            Some(Effective {
                name: (*name).to_owned(),
                value: self.env.get(name)?.into_owned(),
                source: Source::Variable((*name).to_owned()),
            })
        });
        settings.chain(others).collect()
    }

    /// The value of a setting that nobody said.
    fn unsaid(&self, name: &str, default: &str) -> (String, Source) {
        let shown = |path: &Path| path.display().to_string();
        match (name, &self.file) {
            ("config", Some(file)) => (shown(file.path()), Source::WorkingFolder),
            ("cache_dir", _) => match self.usual_cache_dir() {
                Some((path, source)) => (shown(&path), source),
                None => (String::new(), Source::Default),
            },
            _ => (default.to_owned(), Source::Default),
        }
    }

    /// A line for each variable of this program, of the environment and of the environment
    /// file, that is neither a setting nor one of `known`, with the nearest name.
    ///
    /// # Errors
    /// One that is nearly the name of a policy: who misspells what they forbid does not
    /// allow it.
    pub fn unknown_variables(&self, known: &BTreeSet<String>) -> Result<Vec<String>, ConfigError> {
        let real = self.env.own().map(|name| (name.into_owned(), None));
        let file = self.env_file.iter().flat_map(EnvFile::own);
        let all = real.chain(file.map(|(name, source)| (name, Some(source))));
        let mut lines = Vec::new();
        for (name, place) in all {
            // Both are read before there is an environment file.
            let too_late = place.is_some() && ["JITC_CONFIG", "JITC_ENV_FILE"].contains(&name.as_str());
            if !too_late && (of_variable(&name).is_some() || known.contains(&name)) {
                continue;
            }
            let place = place.map_or_else(String::new, |source| format!(" ({source})"));
            if too_late {
                lines.push(format!(
                    "{name}{place} is read from the environment alone: set it there"
                ));
                continue;
            }
            let word = name.trim_start_matches(PREFIX).to_uppercase();
            if let Some(policy) = nearly_a_policy(&word) {
                return Err(ConfigError::Variable {
                    name: format!("{name}{place}"),
                    reason: format!(
                        "is unknown, and nearly the policy {policy}: correct its name, or unset it"
                    ),
                });
            }
            let settings = SETTINGS.iter().filter(|s| s.variable);
            let settings: Vec<String> = settings
                .map(super::settings::KnownSetting::variable_name)
                .collect();
            let names = settings
                .iter()
                .chain(known)
                .filter_map(|name| name.strip_prefix(PREFIX));
            let hint = nearest(&word, names)
                .map_or_else(String::new, |name| format!(" (did you mean `{PREFIX}{name}`?)"));
            lines.push(format!(
                "unknown environment variable {name}{hint}{place}: nothing reads it"
            ));
        }
        Ok(lines)
    }
}

/// What may be shown of a URL, good or not: neither whom it names nor what it asks.
pub(super) fn without_secrets(url: &str) -> String {
    let url = url.trim();
    let url = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let (scheme, rest) = url
        .split_once("://")
        .map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{rest}")
}

/// The variable of a policy that this word, in capitals, was likely meant to be: a slip in
/// one letter of four at most.
fn nearly_a_policy(word: &str) -> Option<String> {
    let policies = SETTINGS.iter().filter(|s| s.effect == Effect::Policy);
    let mut near = policies.filter(|s| {
        let name = s.name.to_uppercase();
        strsim::osa_distance(word, &name) * 4 <= name.len()
    });
    near.next().map(super::settings::KnownSetting::variable_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_the_name_of_a_policy_is_told_from_another_name() {
        for (word, policy) in [
            ("MISSS", "JITC_MISS"),
            ("MIS", "JITC_MISS"),
            ("REQUIRE_RECIEPT", "JITC_REQUIRE_RECEIPT"),
            ("REQUIRED_RECEIPTS", "JITC_REQUIRE_RECEIPT"),
            ("OFLINE", "JITC_OFFLINE"),
        ] {
            assert_eq!(nearly_a_policy(word).as_deref(), Some(policy), "{word}");
        }
        for other in ["REQUIRE_GPU", "WO_SPILT", "MASS_UNIT", "ONLINE_MODE", ""] {
            assert_eq!(nearly_a_policy(other), None, "{other}");
        }
    }
}
