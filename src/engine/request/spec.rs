//! A kernel spec: family + constants + options + arch, validated.
//!
//! Invariant: every declared constant has a legal value, every constraint holds
//! and every derived constant is worked out. Later stages never check again.

mod error;
mod general;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::engine::config::{Config, Setting, Source};
use crate::engine::refused::Refused;
use crate::engine::request::constant::{Value, split_values};
use crate::engine::request::formula::{Formula, Named, Term};
use crate::engine::request::regions::{Table, TableError};
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Constant, Entry, Family, NamedFamily, Preset, Size, fits};
use crate::engine::suggest::did_you_mean;

pub use error::SpecError;

/// The most variants of one request: as many entries as a cache keeps unless it is told
/// otherwise. More is a slip, and would take all memory before the first is compiled.
pub const MAX_VARIANTS: usize = 50_000;

/// One kernel to make.
#[derive(Debug, Clone)]
pub struct KernelSpec {
    family: Arc<Family>,
    constants: BTreeMap<String, Value>,
    derived: BTreeMap<String, u32>,
    arch: Arch,
    /// Indices of its entry points among the family's.
    entries: Vec<usize>,
    id: SpecId,
}

/// A spec's identity within one registry: equal for equal requests, and cheap to
/// compare, so that a repeated request needs no rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpecId([u8; 32]);

/// Values with their sources, before validation as a whole.
type Assigned = BTreeMap<String, (Value, Source)>;

impl KernelSpec {
    /// A spec from texts, the rest at its defaults. For embedding programs.
    pub fn new<'a>(
        family: impl Into<NamedFamily>,
        set: impl IntoIterator<Item = (&'a str, &'a str)>,
        arch: Arch,
    ) -> Result<Self, SpecError> {
        Self::written(family, set, arch, &Source::Api)
    }

    /// The same, of texts that were written there.
    pub fn written<'a>(
        family: impl Into<NamedFamily>,
        set: impl IntoIterator<Item = (&'a str, &'a str)>,
        arch: Arch,
        origin: &Source,
    ) -> Result<Self, SpecError> {
        let named = family.into();
        let family = named.family();
        let mut assigned = defaults(family);
        for (name, text) in set {
            let value = parse(family, name, text, origin)?;
            assigned.insert(family.present_name(name).to_owned(), (value, origin.clone()));
        }
        fix(&named, &mut assigned)?;
        Self::validate(family, &assigned, arch)
    }

    /// This spec with other values for some of its constants.
    pub fn with<'a>(&self, set: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SpecError> {
        let own = self.constants.iter();
        let mut assigned: Assigned = own.map(|(n, v)| (n.clone(), (v.clone(), Source::Api))).collect();
        for (name, text) in set {
            let value = parse(&self.family, name, text, &Source::Api)?;
            let name = self.family.present_name(name).to_owned();
            assigned.insert(name, (value, Source::Api));
        }
        Self::validate(&self.family, &assigned, self.arch)
    }

    /// This spec for another arch.
    ///
    /// # Errors
    /// [`SpecError::TooOld`], where its family cannot do with that arch's instructions.
    pub fn for_arch(&self, arch: Arch) -> Result<Self, SpecError> {
        let own = self.constants.iter();
        let assigned: Assigned = own.map(|(n, v)| (n.clone(), (v.clone(), Source::Api))).collect();
        Self::validate(&self.family, &assigned, arch)
    }

    /// Every spec that the settings ask for: the product of all lists. Constants
    /// that this family does not declare are left to other families; see
    /// [`Registry::select`](crate::engine::request::template::Registry).
    pub fn expand(
        family: impl Into<NamedFamily>,
        config: &Config,
        archs: &[Arch],
    ) -> Result<Vec<Self>, SpecError> {
        Self::expand_where(&family.into(), config, &|c| of_settings(c, config), archs)
    }

    /// The product of the values that are `written` for a constant.
    pub(crate) fn expand_where(
        named: &NamedFamily,
        config: &Config,
        written: &dyn Fn(&Constant) -> Option<Vec<Setting>>,
        archs: &[Arch],
    ) -> Result<Vec<Self>, SpecError> {
        let mut specs = Vec::new();
        for assigned in product(named, config, written, archs.len(), 0)? {
            for arch in archs {
                specs.push(Self::validate(named.family(), &assigned, *arch)?);
            }
        }
        Ok(specs)
    }

    /// The product of the values that `written` gives for a constant, and of those of the
    /// settings for the others. Combinations that a constraint does not allow are counted.
    /// So many variants there are `already`.
    pub(crate) fn expand_over(
        named: &NamedFamily,
        config: &Config,
        written: &dyn Fn(&Constant) -> Option<Vec<Setting>>,
        archs: &[Arch],
        already: usize,
    ) -> Result<(Vec<Self>, usize), SpecError> {
        let over_settings = |constant: &Constant| written(constant).or_else(|| of_settings(constant, config));
        let (mut specs, mut skipped) = (Vec::new(), 0);
        for assigned in product(named, config, &over_settings, archs.len(), already)? {
            for arch in archs {
                match Self::validate(named.family(), &assigned, *arch) {
                    Ok(spec) => specs.push(spec),
                    Err(SpecError::Constraint { .. }) => skipped += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((specs, skipped))
    }

    fn validate(family: &Arc<Family>, assigned: &Assigned, arch: Arch) -> Result<Self, SpecError> {
        if let Some(oldest) = family.oldest_arch
            && !family.does(arch)
        {
            return Err(SpecError::TooOld {
                family: family.name.clone(),
                arch,
                oldest,
            });
        }
        let in_family = |reason: String| SpecError::Derived {
            family: family.name.clone(),
            reason,
        };
        let constants: BTreeMap<String, Value> = assigned
            .iter()
            .map(|(name, (value, _))| (name.clone(), value.clone()))
            .collect();
        let derived = family.derive(&constants).map_err(in_family)?;
        if let Some(broken) = family
            .broken_constraint(&constants, &derived)
            .map_err(in_family)?
        {
            let words: Vec<_> = broken
                .rule
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .collect();
            let written = assigned
                .iter()
                .filter(|(name, _)| words.contains(&name.as_str()))
                .map(|(name, (value, source))| format!("{name} = {value} ({source})"));
            let worked_out = derived
                .iter()
                .filter(|(name, _)| words.contains(&name.as_str()))
                .map(|(name, value)| format!("{name} = {value}"));
            return Err(SpecError::Constraint {
                family: family.name.clone(),
                rule: broken.rule.clone(),
                values: written.chain(worked_out).collect::<Vec<_>>().join(", "),
                because: broken.because.clone(),
            });
        }
        let entries = family.entries_for(&constants, &derived).map_err(in_family)?;
        let spec = Self {
            entries,
            id: identity(family, &constants, arch),
            family: Arc::clone(family),
            constants,
            derived,
            arch,
        };
        spec.check_launches().map_err(in_family)?;
        Ok(spec)
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// Every declared constant, by name.
    #[must_use]
    pub fn constants(&self) -> &BTreeMap<String, Value> {
        &self.constants
    }

    /// Every derived constant, by name.
    #[must_use]
    pub fn derived(&self) -> &BTreeMap<String, u32> {
        &self.derived
    }

    /// What it is compiled for.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// What tells it from every other spec of the same registry.
    #[must_use]
    pub fn id(&self) -> SpecId {
        self.id
    }

    /// Its entry points, in declared order, at least one: those of its family whose
    /// condition holds.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|index| &self.family.entries[*index])
    }

    /// Constants that differ from their defaults, for people: `wo_split=8`, or
    /// `defaults`.
    #[must_use]
    pub fn variant(&self) -> String {
        let set: Vec<String> = self
            .family
            .constants
            .values()
            .filter(|c| self.constants.get(&c.name) != Some(&c.default))
            .map(|c| format!("{}={}", c.name, self.constants[&c.name]))
            .collect();
        if set.is_empty() {
            "defaults".into()
        } else {
            set.join(" ")
        }
    }

    /// A declared or derived constant as a number, by its name or a former one; `None` if
    /// there is no such one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        let derived = self.derived.get(name).copied();
        derived.or_else(|| self.constants.get(self.family.present_name(name))?.as_number())
    }

    /// The table of the regions that it is compiled with; `None` where it has none.
    ///
    /// # Errors
    /// [`TableError::Count`], of a number of regions that its family does not declare.
    pub fn region_table(&self) -> Result<Option<Table>, TableError> {
        self.family.region_table(&self.constants)
    }

    /// The most dynamic shared memory that a block of one of its entry points takes, bytes;
    /// those apart whose launches say how much.
    #[must_use]
    pub fn shared_mem_bytes(&self) -> u32 {
        let fixed = |axis| self.axis(axis).ok()?.fixed();
        let sizes = (self.entries()).filter_map(|entry| fixed(&entry.shared_mem_bytes));
        sizes.max().unwrap_or(0)
    }

    /// Refuses launches that no GPU takes, and those that do not come out.
    fn check_launches(&self) -> Result<(), String> {
        for entry in self.entries() {
            let at = |what: &str, e: &dyn Display| format!("entry `{}`: {what}: {e}", entry.name);
            let [x, y, z] = &entry.block;
            let axis = |axis| self.axis(axis).map_err(|e| at("block", &e));
            let block = [axis(x)?, axis(y)?, axis(z)?].map(|extent| extent.fixed().unwrap_or(1));
            fits(block).map_err(|e| format!("entry `{}`: {e}", entry.name))?;
            for axis in &entry.grid {
                self.axis(axis).map_err(|e| at("grid", &e))?;
            }
            self.axis(&entry.shared_mem_bytes)
                .map_err(|e| at("shared_mem_bytes", &e))?;
            if let Some(cluster) = &entry.cluster {
                let blocks = cluster.each_ref().map(|size| self.size(size).unwrap_or(0));
                let [x, y, z] = blocks;
                if !(1..=16).contains(&blocks.iter().fold(1_u32, |all, n| all.saturating_mul(*n))) {
                    let reason = format!("{x} x {y} x {z} blocks: a GPU takes 1 to 16");
                    return Err(at("cluster", &reason));
                }
            }
            if let Some(percent) = &entry.carveout
                && self.size(percent).is_none_or(|percent| percent > 100)
            {
                return Err(at(
                    "carveout",
                    &format!("{percent} is not a number from 0 to 100"),
                ));
            }
            self.priority(entry).map_err(|e| at("priority", &e))?;
        }
        Ok(())
    }

    /// The priority that an entry point's launches have; `None` for that of their stream.
    pub fn priority(&self, entry: &Entry) -> Result<Option<i32>, Refused> {
        let Some(formula) = &entry.priority else {
            return Ok(None);
        };
        let number = self.term(formula)?.at(&[]).and_then(|n| i32::try_from(n).ok());
        number
            .map(Some)
            .ok_or_else(|| format!("`{formula}` is not a number of 32 bits").into())
    }

    /// A formula with this spec's constants in it.
    pub(crate) fn term(&self, formula: &Formula) -> Result<Term, String> {
        formula.term.with(&|name| match self.derived.get(name) {
            Some(number) => Some(Named::Derived(*number)),
            None => self.constants.get(name).map(Named::Constant),
        })
    }

    /// A size of the launch geometry; `None` where it names something that is not a number.
    #[must_use]
    pub fn size(&self, size: &Size) -> Option<u32> {
        match size {
            Size::Fixed(number) => Some(*number),
            Size::Flag(flag) => Some(u32::from(*flag)),
            Size::Named(name) => self.number(name),
            Size::Computed(formula) => self.term(formula).ok()?.at(&[])?.try_into().ok(),
        }
    }
}

/// Refuses constants of flags and config file that none of the families declares.
pub fn check_names<'a>(
    families: impl IntoIterator<Item = &'a Arc<Family>>,
    config: &Config,
) -> Result<(), SpecError> {
    let declared: Vec<&str> = families
        .into_iter()
        .flat_map(|f| f.constants.keys().map(String::as_str))
        .collect();
    let flags = config
        .flag_constants()
        .iter()
        .map(|c| (c.name.clone(), Source::Flag(c.flag.clone())));
    for (name, origin) in flags.chain(config.file_constants()) {
        if !declared.contains(&name.as_str()) {
            let hint = did_you_mean(&name, declared.iter().copied());
            return Err(SpecError::UnknownConstant {
                constant: name,
                origin,
                hint,
            });
        }
    }
    Ok(())
}

/// The product of these lengths, where it and what there `already` is are not too many.
pub(crate) fn count_variants(
    what: &str,
    lengths: impl IntoIterator<Item = usize>,
    already: usize,
) -> Result<usize, SpecError> {
    let product = lengths
        .into_iter()
        .fold(1_u64, |product, length| product.saturating_mul(length as u64));
    let count = product.saturating_add(already as u64);
    match usize::try_from(count) {
        Ok(count) if count <= MAX_VARIANTS => Ok(count),
        _ => Err(SpecError::TooMany {
            what: what.to_owned(),
            count,
        }),
    }
}

/// Refuses more variants than a request may ask for.
///
/// # Errors
/// [`SpecError::TooMany`].
pub fn check_count(what: &str, count: usize) -> Result<(), SpecError> {
    count_variants(what, [count], 0).map(|_| ())
}

/// Parses a list of architectures.
pub fn parse_archs(setting: &Setting) -> Result<Vec<Arch>, SpecError> {
    setting
        .value
        .split(',')
        .map(|text| {
            text.parse().map_err(|reason| SpecError::Arch {
                origin: setting.source.clone(),
                reason,
            })
        })
        .collect()
}

fn identity(family: &Family, constants: &BTreeMap<String, Value>, arch: Arch) -> SpecId {
    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    field(&family.name);
    field(&arch.to_string());
    for (name, value) in constants {
        field(name);
        field(&value.literal());
        // Two names of one C++ type may be different types of a parameter.
        field(value.as_name().unwrap_or_default());
    }
    // Two sources of programs may have one name.
    if let Some(given) = family.given() {
        hash.update(given.digest());
    }
    SpecId(hash.finalize().into())
}

/// The values of a constant that the settings list.
pub(crate) fn of_settings(constant: &Constant, config: &Config) -> Option<Vec<Setting>> {
    let Setting { value, source } = config.constant(&constant.name, &constant.variables)?;
    let one = |text: &str| Setting {
        value: text.to_owned(),
        source: source.clone(),
    };
    Some(split_values(&value).into_iter().map(one).collect())
}

/// Every combination of the values that are `written` for a constant, the others at their
/// defaults, with what a former name and a preset stand for. They are counted before any
/// is made, for so many architectures and with what there is `already`.
fn product(
    named: &NamedFamily,
    config: &Config,
    written: &dyn Fn(&Constant) -> Option<Vec<Setting>>,
    archs: usize,
    already: usize,
) -> Result<Vec<Assigned>, SpecError> {
    let family = named.family();
    let preset = preset(family, config)?;
    let constants = family.constants.values();
    let lists: Vec<(&Constant, Vec<Setting>)> = constants.filter_map(|c| Some((c, written(c)?))).collect();
    let lengths = lists.iter().map(|(_, values)| values.len());
    count_variants(&family.name, lengths.chain([archs]), already)?;
    let mut product = vec![defaults(family)];
    for (constant, values) in lists {
        let mut next = Vec::new();
        for Setting { value, source } in values {
            let value = parse(family, &constant.name, &value, &source)?;
            for assigned in &product {
                let mut assigned = assigned.clone();
                assigned.insert(constant.name.clone(), (value.clone(), source.clone()));
                next.push(assigned);
            }
        }
        product = next;
    }
    for assigned in &mut product {
        fix(named, assigned)?;
        if let Some(preset) = preset {
            apply(family, preset, assigned)?;
        }
    }
    Ok(product)
}

/// Sets what a preset says where nobody said otherwise.
fn apply(family: &Family, preset: &Preset, assigned: &mut Assigned) -> Result<(), SpecError> {
    let constants = assigned
        .iter()
        .map(|(n, (v, _))| (n.clone(), v.clone()))
        .collect();
    let holds = family.preset_holds(preset, &constants);
    let holds = holds.map_err(|reason| SpecError::Derived {
        family: family.name.clone(),
        reason,
    })?;
    if !holds {
        return Ok(());
    }
    for (name, value) in &preset.constants {
        if let Some(slot @ (_, Source::Default)) = assigned.get_mut(name) {
            *slot = (value.clone(), Source::Preset(preset.name.clone()));
        }
    }
    Ok(())
}

/// Sets what a former name stands for; a constant that was set otherwise contradicts it.
fn fix(named: &NamedFamily, assigned: &mut Assigned) -> Result<(), SpecError> {
    let Some(former) = named.former_name() else {
        return Ok(());
    };
    for (name, value) in &former.constants {
        match assigned.get(name) {
            Some((other, origin)) if *origin != Source::Default && other != value => {
                return Err(SpecError::FormerName {
                    family: named.family().name.clone(),
                    constant: name.clone(),
                    value: other.to_string(),
                    origin: Box::new(origin.clone()),
                    name: former.name.as_str().into(),
                    meaning: former.meaning.as_str().into(),
                });
            }
            _ => assigned.insert(
                name.clone(),
                (value.clone(), Source::FormerName(former.name.clone())),
            ),
        };
    }
    Ok(())
}

/// The preset that the settings name. A family without presets leaves the name to others.
pub(crate) fn preset<'f>(family: &'f Family, config: &Config) -> Result<Option<&'f Preset>, SpecError> {
    let setting = config.preset(&family.preset_variables);
    let Some(setting) = setting.filter(|_| !family.presets.is_empty()) else {
        return Ok(None);
    };
    if let Some(preset) = family.preset(&setting.value) {
        return Ok(Some(preset));
    }
    let names: Vec<&str> = family.presets.iter().map(|p| p.name.as_str()).collect();
    let hint = did_you_mean(&setting.value, names.iter().copied());
    Err(SpecError::Preset {
        family: family.name.clone(),
        origin: setting.source,
        reason: format!(
            "there is no `{}`{hint}; there are: {}",
            setting.value,
            names.join(", ")
        ),
    })
}

fn defaults(family: &Family) -> Assigned {
    family
        .constants
        .values()
        .map(|c| (c.name.clone(), (c.default.clone(), Source::Default)))
        .collect()
}

/// A text as a value of a constant; an error names where it was written.
pub(crate) fn parse(family: &Family, name: &str, text: &str, origin: &Source) -> Result<Value, SpecError> {
    let Some(constant) = family.constant(name) else {
        return Err(SpecError::UnknownConstant {
            constant: name.to_owned(),
            origin: origin.clone(),
            hint: did_you_mean(name, family.constants.keys().map(String::as_str)),
        });
    };
    constant.legal.parse(text).map_err(|reason| SpecError::Value {
        family: family.name.clone(),
        constant: constant.name.clone(),
        origin: origin.clone(),
        reason: reason.into(),
    })
}
