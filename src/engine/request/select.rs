//! Which families a request means: those it names, else those that its constants fit.
//!
//! Invariant: every value that was written is taken by some family of the selection, or
//! the request is refused; a family that takes none of a constant's values is left out
//! only where nobody named it, and never without being listed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::engine::config::{Config, Setting, Source};
use crate::engine::request::constant::split_values;
use crate::engine::request::spec::{
    KernelSpec, SpecError, SpecId, check_names, count_variants, of_settings, parse, parse_archs, preset,
};
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Constant, Family, NamedFamily, Registry, TemplateError};
use crate::engine::suggest::nearest;

/// Why a selection is empty or wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A family that nobody declares.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Constants that no family takes.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// The families that a request means.
#[derive(Debug)]
#[non_exhaustive]
pub struct Selection {
    /// They, by name or in the order in which they were named.
    pub families: Vec<Selected>,
    /// Families that declare every constant of the request and take none of the values
    /// of one of them, and why; empty where families were named.
    pub skipped: Vec<SpecError>,
}

/// One of them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Selected {
    /// The family, as it was named.
    pub named: NamedFamily,
    /// Values of lists that other families of the selection take and this one does not.
    pub dropped: Vec<SpecError>,
    /// The same by constant, as texts.
    skip: BTreeMap<String, Vec<String>>,
}

impl Registry {
    /// The families of these names; without a name, every family that declares all
    /// constants of the command line, has its preset, and takes a value of each constant
    /// that is set. Of a list, each family takes what is legal for it.
    ///
    /// # Errors
    /// A value that is legal in none of the families, a constant that none of them
    /// declares, a preset of the command line that none of them has, and a named family that
    /// takes no value of a constant's list.
    pub fn select(&self, names: &[String], config: &Config) -> Result<Selection, SelectError> {
        let candidates: Vec<NamedFamily> = if names.is_empty() {
            check_names(self.families(), config)?;
            let set = config.flag_constants();
            let declares_all = |f: &&Arc<Family>| set.iter().all(|c| f.constants.contains_key(&c.name));
            let has_presets = |f: &&Arc<Family>| config.flag_preset().is_none() || !f.presets.is_empty();
            self.check_preset(&self.families().collect::<Vec<_>>(), config)?;
            self.families()
                .filter(declares_all)
                .filter(has_presets)
                .map(NamedFamily::from)
                .collect()
        } else {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.check_constants(&names, config)?;
            names.iter().map(|n| self.named(n)).collect::<Result<_, _>>()?
        };
        if candidates.is_empty() {
            let flags = config.flag_constants().iter().map(|c| c.name.as_str());
            let flags: Vec<&str> = flags.collect();
            return Err(
                SpecError::NoFamily(format!("no family declares all of {}", flags.join(", "))).into(),
            );
        }
        let families: Vec<&Arc<Family>> = candidates.iter().map(NamedFamily::family).collect();
        let dropped = dropped(&families, config)?;
        let mut selection = Selection {
            families: Vec::new(),
            skipped: Vec::new(),
        };
        for (named, dropped) in candidates.into_iter().zip(dropped) {
            let (unfit, dropped): (Vec<_>, Vec<_>) = dropped.into_iter().partition(|d| d.all);
            if let Some(unfit) = unfit.into_iter().next() {
                if !names.is_empty() {
                    return Err(unfit.because.into());
                }
                selection.skipped.push(unfit.because);
                continue;
            }
            let mut skip: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for one in &dropped {
                skip.entry(one.constant.clone())
                    .or_default()
                    .push(one.text.clone());
            }
            selection.families.push(Selected {
                named,
                dropped: dropped.into_iter().map(|d| d.because).collect(),
                skip,
            });
        }
        if selection.families.is_empty() {
            let why: Vec<String> = selection.skipped.iter().map(ToString::to_string).collect();
            return Err(
                SpecError::NoFamily(format!("no family takes these together: {}", why.join("; "))).into(),
            );
        }
        Ok(selection)
    }

    /// Former names of constants, with the present ones; without those that some family has
    /// for a constant of today.
    #[must_use]
    pub fn former_constants(&self) -> BTreeMap<String, String> {
        let constants = self.families().flat_map(|f| f.constants.values());
        let former = constants.flat_map(|c| c.former.iter().map(|former| (former.clone(), c.name.clone())));
        former
            .filter(|(former, _)| !self.families().any(|f| f.constants.contains_key(former)))
            .collect()
    }

    /// Refuses constants and a preset of the command line that none of these families has,
    /// and constants of the config file that no family at all declares.
    pub fn check_constants(&self, names: &[&str], config: &Config) -> Result<(), SelectError> {
        let families: Vec<Arc<Family>> = names
            .iter()
            .map(|n| self.named(n).map(|named| Arc::clone(named.family())))
            .collect::<Result<_, _>>()?;
        check_names(self.families(), config)?;
        let declared = |name: &String| families.iter().any(|f| f.constants.contains_key(name));
        // The file's constants may be other families'.
        if !config.flag_constants().iter().all(|c| declared(&c.name)) {
            check_names(&families, config)?;
        }
        self.check_preset(&families.iter().collect::<Vec<_>>(), config)?;
        Ok(())
    }

    /// Refuses a preset of the command line that none of these families has.
    pub(crate) fn check_preset(&self, families: &[&Arc<Family>], config: &Config) -> Result<(), SpecError> {
        let Some(Setting { value, source }) = config.flag_preset() else {
            return Ok(());
        };
        if families.iter().any(|family| family.preset(&value).is_some()) {
            return Ok(());
        }
        if let [family] = families {
            // One that has others lists them.
            preset(family, config)?;
        }
        let having = |name: &str| -> String {
            let having = self.families().filter(|family| family.preset(name).is_some());
            having
                .map(|family| family.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let named: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        let none = match named.as_slice() {
            [one] => format!("{one} has no"),
            _ if named.len() == self.families().count() => "no family has a".to_owned(),
            several => format!("none of {} has a", several.join(", ")),
        };
        let all = self.families().flat_map(|family| &family.presets);
        let elsewhere = match having(&value) {
            families if !families.is_empty() => format!("; there is one of {families}"),
            _ => nearest(&value, all.map(|preset| preset.name.as_str())).map_or_else(String::new, |near| {
                format!(" (did you mean `{near}` of {}?)", having(near))
            }),
        };
        Err(SpecError::NoPreset {
            origin: source,
            reason: format!("{none} preset `{value}`{elsewhere}"),
        })
    }
}

impl Selection {
    /// Every spec of the selection, for the architectures of the settings; where they
    /// name none, for those of `usual` that a family can do with.
    pub fn specs(
        &self,
        config: &Config,
        usual: impl FnOnce() -> Vec<Arch>,
    ) -> Result<Vec<KernelSpec>, SpecError> {
        let mut specs = Vec::new();
        for (selected, archs) in self.with_archs(config, usual)? {
            let own = selected.specs(config, &archs)?;
            count_variants("all families together", [own.len()], specs.len())?;
            specs.extend(own);
        }
        Ok(specs)
    }

    /// As [`specs`](Self::specs), and for each constant that is declared `warm_all` and that
    /// neither settings nor a former name of the family set, the same with its other values,
    /// where constraints allow them. A preset holds for those that its condition fits.
    pub fn specs_to_warm(
        &self,
        config: &Config,
        usual: impl FnOnce() -> Vec<Arch>,
    ) -> Result<Vec<KernelSpec>, SpecError> {
        to_warm(config, self.with_archs(config, usual)?)
    }

    /// The same for these architectures, whatever the settings say, as far as a family can
    /// do with them.
    pub fn specs_to_warm_for(&self, config: &Config, archs: &[Arch]) -> Result<Vec<KernelSpec>, SpecError> {
        let able = |selected: &Selected| {
            let family = selected.named.family();
            archs.iter().copied().filter(|arch| family.does(*arch)).collect()
        };
        to_warm(config, self.families.iter().map(|s| (s, able(s))).collect())
    }

    /// The families with the architectures of the settings; where they name none, with
    /// those of `usual` that a family can do with.
    fn with_archs(
        &self,
        config: &Config,
        usual: impl FnOnce() -> Vec<Arch>,
    ) -> Result<Vec<(&Selected, Vec<Arch>)>, SpecError> {
        let named = config.arch().map(|setting| parse_archs(&setting)).transpose()?;
        let usual = if named.is_none() { usual() } else { Vec::new() };
        let archs = |selected: &Selected| {
            // Nobody named the usual ones: what a family cannot do is left out.
            let able = usual.iter().filter(|arch| selected.named.family().does(**arch));
            named.clone().unwrap_or_else(|| able.copied().collect())
        };
        Ok(self.families.iter().map(|s| (s, archs(s))).collect())
    }

    /// A line for each family, and each value of a list, that was left out.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let families = self.skipped.iter().map(|why| format!("left out: {why}"));
        let values = self.families.iter().flat_map(|selected| &selected.dropped);
        families.chain(values.map(|why| format!("left out of the list: {why}")))
    }
}

impl Selected {
    /// The values that the settings list for a constant and that this family takes.
    fn written(&self, constant: &Constant, config: &Config) -> Option<Vec<Setting>> {
        let skip = self.skip.get(&constant.name);
        let taken = |text: &str| skip.is_none_or(|skip| skip.iter().all(|one| one != text));
        let values = of_settings(constant, config)?.into_iter();
        Some(values.filter(|one| taken(&one.value)).collect())
    }

    fn specs(&self, config: &Config, archs: &[Arch]) -> Result<Vec<KernelSpec>, SpecError> {
        KernelSpec::expand_where(&self.named, config, &|c| self.written(c, config), archs)
    }
}

/// Every variant that the settings ask for, and those of `warm_all` constants.
fn to_warm(config: &Config, selected: Vec<(&Selected, Vec<Arch>)>) -> Result<Vec<KernelSpec>, SpecError> {
    let mut specs = Vec::new();
    for (selected, archs) in selected {
        let mut own = selected.specs(config, &archs)?;
        let also = warm_all(&selected.named, |c| of_settings(c, config).is_some());
        if !also.is_empty() {
            let written = |c: &Constant| also.get(&c.name).cloned().or_else(|| selected.written(c, config));
            let others = KernelSpec::expand_over(&selected.named, config, &written, &archs, specs.len())?;
            let mut seen: HashSet<SpecId> = own.iter().map(KernelSpec::id).collect();
            own.extend(others.0.into_iter().filter(|spec| seen.insert(spec.id())));
        }
        count_variants("all families together", [own.len()], specs.len())?;
        specs.extend(own);
    }
    Ok(specs)
}

/// The values of a family's `warm_all` constants, by name, without those that are set
/// already or fixed by the name that the family was given.
pub(crate) fn warm_all(
    named: &NamedFamily,
    is_set: impl Fn(&Constant) -> bool,
) -> BTreeMap<String, Vec<Setting>> {
    let fixed = |c: &Constant| {
        let former = named.former_name();
        former.is_some_and(|former| former.constants.contains_key(&c.name))
    };
    let values = |c: &Constant| -> Vec<Setting> {
        let listed = c.legal.listed().unwrap_or_default().into_iter();
        let source = Source::Api;
        listed
            .map(|value| Setting {
                value,
                source: source.clone(),
            })
            .collect()
    };
    let constants = named.family().constants.values();
    constants
        .filter(|c| c.warm_all && !fixed(c) && !is_set(c))
        .map(|c| (c.name.clone(), values(c)))
        .collect()
}

/// A value that a family does not take.
struct Dropped {
    constant: String,
    text: String,
    because: SpecError,
    /// Whether it takes no other value of the constant either.
    all: bool,
}

/// What each of these families does not take, by family. A value that none of them takes
/// is an error.
fn dropped(families: &[&Arc<Family>], config: &Config) -> Result<Vec<Vec<Dropped>>, SpecError> {
    let mut all = Vec::new();
    for family in families {
        let mut dropped = Vec::new();
        if let Some(because) = unknown_preset(family, families, config)? {
            dropped.push(because);
        }
        for (name, constant) in &family.constants {
            let Some(Setting { value, source }) = config.constant(name, &constant.variables) else {
                continue;
            };
            let mut unfit = Vec::new();
            let values = split_values(&value);
            for text in &values {
                let Err(because) = parse(family, name, text, &source) else {
                    continue;
                };
                let others = families.iter().filter_map(|f| f.constants.get(name));
                if !others.clone().any(|c| c.legal.parse(text).is_ok()) {
                    return Err(legal_nowhere(families, name, text, because));
                }
                unfit.push(Dropped {
                    constant: name.clone(),
                    text: (*text).to_owned(),
                    because,
                    all: false,
                });
            }
            let none = unfit.len() == values.len();
            for one in &mut unfit {
                one.all = none;
            }
            dropped.extend(unfit);
        }
        all.push(dropped);
    }
    Ok(all)
}

/// A preset that this family lacks and another of them has.
fn unknown_preset(
    family: &Family,
    families: &[&Arc<Family>],
    config: &Config,
) -> Result<Option<Dropped>, SpecError> {
    let Err(because) = preset(family, config) else {
        return Ok(None);
    };
    let known = |f: &&&Arc<Family>| {
        let named = preset(f, config);
        named.is_ok_and(|named| named.is_some())
    };
    if !families.iter().any(|f| known(&f)) {
        return Err(because);
    }
    Ok(Some(Dropped {
        constant: String::new(),
        text: String::new(),
        because,
        all: true,
    }))
}

/// The error of a value that none of the families that declare the constant takes: of
/// one family its own; of several, with what is legal in each.
fn legal_nowhere(families: &[&Arc<Family>], name: &str, text: &str, own: SpecError) -> SpecError {
    let mut legal: Vec<(String, Vec<&str>)> = Vec::new();
    for family in families {
        let Some(constant) = family.constants.get(name) else {
            continue;
        };
        let what = constant.legal.to_string();
        match legal.iter_mut().find(|(known, _)| *known == what) {
            Some((_, names)) => names.push(&family.name),
            None => legal.push((what, vec![&family.name])),
        }
    }
    match own {
        SpecError::Value { origin, .. } if legal.iter().map(|(_, f)| f.len()).sum::<usize>() > 1 => {
            let each = legal
                .iter()
                .map(|(what, names)| format!("{what} ({})", names.join(", ")));
            let expected = each.collect::<Vec<_>>().join("; ");
            SpecError::LegalNowhere {
                constant: name.to_owned(),
                origin,
                reason: format!("`{}` is not legal: expected {expected}", text.trim()),
            }
        }
        own => own,
    }
}

#[cfg(test)]
mod tests;
