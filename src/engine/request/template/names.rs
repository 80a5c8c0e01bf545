//! Named sets of constants: presets, and the names that a family once had.
//!
//! Invariant: every constant of a set is declared by its family and has a legal value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indexmap::IndexMap;
use serde::Deserialize;

use super::constants::{Constant, text_of};
use super::{Family, Registry, TemplateError};
use crate::engine::config::Config;
use crate::engine::request::constant::Value;
use crate::engine::suggest::did_you_mean;

/// The target of events that are advice and not trouble: something is called otherwise now.
pub const NOTICE: &str = "jitc::notice";

/// A named set of constants: each holds where nobody set that constant otherwise.
#[derive(Debug)]
#[non_exhaustive]
pub struct Preset {
    /// Its name, `h200`.
    pub name: String,
    /// One line of help.
    pub help: String,
    /// A Tera expression over constants: where it is false, the preset sets nothing.
    pub when: Option<String>,
    /// Constants and their values.
    pub constants: BTreeMap<String, Value>,
}

/// A name that a family once had, accepted in the place of its present one together
/// with the constants that it stands for.
#[derive(Debug)]
#[non_exhaustive]
pub struct FormerName {
    /// The former name.
    pub name: String,
    /// Constants that the name fixes, with their values.
    pub constants: BTreeMap<String, Value>,
    /// Constants that a family of this name did not have.
    pub lacked: BTreeSet<String>,
    /// What it stands for, for people: `launch = separate`.
    pub meaning: String,
    /// Whether its use was reported already.
    is_reported: AtomicBool,
}

/// A family as somebody named it: by its own name, or by a former one, which fixes
/// some of its constants.
#[derive(Debug, Clone)]
pub struct NamedFamily {
    family: Arc<Family>,
    /// Index into the family's former names.
    former: Option<usize>,
}

impl Family {
    /// Whether a flag, a variable, a file or a preset sets a constant.
    #[must_use]
    pub fn is_set(&self, config: &Config, name: &str) -> bool {
        let preset = config.preset(&self.preset_variables);
        let preset = preset.and_then(|preset| self.preset(&preset.value));
        let constant = self.constants.get(name);
        constant.is_some_and(|c| config.constant(name, &c.variables).is_some())
            || preset.is_some_and(|preset| preset.constants.contains_key(name))
    }
}

impl NamedFamily {
    fn formerly(family: &Arc<Family>, former: &FormerName) -> Self {
        let named = Self {
            family: Arc::clone(family),
            former: family.former_names.iter().position(|f| f.name == former.name),
        };
        named.report();
        named
    }

    /// The family.
    #[must_use]
    pub fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// The former name, if it was named so.
    #[must_use]
    pub fn former_name(&self) -> Option<&FormerName> {
        self.family.former_names.get(self.former?)
    }

    /// Constants that a flag, a variable, a file, a preset or a former name of the family sets.
    #[must_use]
    pub fn forced(&self, config: &Config) -> Vec<&str> {
        let former = self.former_name();
        let names = self.family.constants.keys().map(String::as_str);
        let by_name = |name: &str| former.is_some_and(|former| former.constants.contains_key(name));
        names
            .filter(|name| self.family.is_set(config, name) || by_name(name))
            .collect()
    }

    /// Reports once that the name is a former one.
    fn report(&self) {
        if let Some(former) = self.former_name()
            && !former.is_reported.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                target: NOTICE,
                "`{}` is the former name of `{}` with {}",
                former.name,
                self.family.name,
                former.meaning
            );
        }
    }
}

impl From<&Arc<Family>> for NamedFamily {
    fn from(family: &Arc<Family>) -> Self {
        Self {
            family: Arc::clone(family),
            former: None,
        }
    }
}

impl From<&NamedFamily> for NamedFamily {
    fn from(named: &NamedFamily) -> Self {
        named.clone()
    }
}

impl Registry {
    /// The family that a person, or a file of any age, calls so: by its name, else by a
    /// former one, which is reported once.
    pub fn named(&self, name: &str) -> Result<NamedFamily, TemplateError> {
        match self.formerly(name) {
            Some((family, former)) => Ok(NamedFamily::formerly(family, former)),
            None => self.get(name).map(NamedFamily::from),
        }
    }

    /// The family that has this former name, and the name with what it stands for;
    /// `None` where a family bears the name now. Its use is not reported.
    #[must_use]
    pub fn formerly(&self, name: &str) -> Option<(&Arc<Family>, &FormerName)> {
        if self.get(name).is_ok() {
            return None;
        }
        self.families().find_map(|family| {
            let former = family.former_names.iter().find(|f| f.name == name)?;
            Some((family, former))
        })
    }

    /// The families that a pattern fits: by their names, else by former ones.
    pub(crate) fn fitting(&self, fits: impl Fn(&str) -> bool) -> Vec<NamedFamily> {
        let mut found = Vec::new();
        for family in self.families() {
            if fits(&family.name) {
                found.push(family.into());
                continue;
            }
            for former in family.former_names.iter().filter(|f| fits(&f.name)) {
                // A family of its own may bear the name now.
                if self.get(&former.name).is_err() {
                    found.push(NamedFamily::formerly(family, former));
                }
            }
        }
        found
    }
}

/// Two families cannot both have borne a name.
pub(super) fn check_former_names(families: &BTreeMap<String, Arc<Family>>) -> Result<(), TemplateError> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for family in families.values() {
        for former in &family.former_names {
            if let Some(other) = seen.insert(&former.name, &family.name) {
                return Err(TemplateError::Declaration {
                    file: family.name.clone(),
                    reason: format!("former name `{}` is also one of `{other}`", former.name),
                });
            }
        }
    }
    Ok(())
}

/// The TOML of a preset.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PresetFile {
    name: String,
    help: String,
    when: Option<String>,
    set: BTreeMap<String, toml::Value>,
}

impl PresetFile {
    pub(super) fn check(self, constants: &IndexMap<String, Constant>) -> Result<Preset, String> {
        let set = values(&format!("preset `{}`", self.name), self.set, constants)?;
        Ok(Preset {
            name: self.name,
            help: self.help,
            when: self.when,
            constants: set,
        })
    }
}

/// The TOML of a former name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormerNameFile {
    name: String,
    set: BTreeMap<String, toml::Value>,
    /// Constants that a family of this name did not have: they keep their defaults.
    #[serde(default)]
    without: Vec<String>,
}

impl FormerNameFile {
    pub(super) fn check(self, constants: &IndexMap<String, Constant>) -> Result<FormerName, String> {
        let what = format!("former name `{}`", self.name);
        let mut set = values(&what, self.set, constants)?;
        let meaning: Vec<String> = set
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let mut lacked = BTreeSet::new();
        for name in self.without {
            let constant = constants
                .get(&name)
                .ok_or_else(|| unknown(&what, &name, constants))?;
            set.entry(name.clone())
                .or_insert_with(|| constant.default.clone());
            lacked.insert(name);
        }
        Ok(FormerName {
            name: self.name,
            constants: set,
            lacked,
            meaning: meaning.join(", "),
            is_reported: AtomicBool::new(false),
        })
    }
}

fn values(
    what: &str,
    set: BTreeMap<String, toml::Value>,
    constants: &IndexMap<String, Constant>,
) -> Result<BTreeMap<String, Value>, String> {
    let mut checked = BTreeMap::new();
    for (name, value) in set {
        let at = |e: String| format!("{what}: constant `{name}`: {e}");
        let constant = constants
            .get(&name)
            .ok_or_else(|| unknown(what, &name, constants))?;
        let text = text_of(&value);
        checked.insert(
            name.clone(),
            constant.legal.parse(&text).map_err(|e| at(e.into()))?,
        );
    }
    Ok(checked)
}

fn unknown(what: &str, name: &str, constants: &IndexMap<String, Constant>) -> String {
    let hint = did_you_mean(name, constants.keys().map(String::as_str));
    format!("{what}: constant `{name}`: nobody declares it{hint}")
}
