//! `[regions]` of a family's TOML, read and checked.
//!
//! Invariant: in every set ids are rows, in order, without gaps, and names are unique.
//! Sums and what they sum name each other, masks read declared constants alone, and the
//! sets that a kernel can be compiled with are the legal values of the constant that
//! counts them.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;

use super::declared::{HashedAs, Regions, Set};
use super::{Active, Mask, PLACES, Region, Rule, Scope, Shared, Together};
use crate::engine::request::cxx_name::{check_name, is_identifier};
use crate::engine::suggest::did_you_mean;

/// `[regions]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegionsFile {
    count: String,
    clock: Option<String>,
    #[serde(default = "region_timing")]
    buffer: String,
    identity: Option<IdentityFile>,
    #[serde(default)]
    read_only: Vec<u32>,
    #[serde(default)]
    classes: Vec<String>,
    #[serde(default)]
    waits: Vec<String>,
    #[serde(default)]
    active: IndexMap<String, ActiveFile>,
    #[serde(default)]
    rules: Vec<RuleFile>,
    together: Option<Together>,
    #[serde(default)]
    parts: IndexMap<String, String>,
    #[serde(default)]
    along_k: IndexMap<String, String>,
    rows: Vec<RowFile>,
}

/// What stands for the family in its tables' identity: a name, or a name for each value
/// of one enum constant.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum IdentityFile {
    Name(String),
    By(BTreeMap<String, BTreeMap<String, String>>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ActiveFile {
    Condition(String),
    Hashed(HashedFile),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HashedFile {
    blocks: String,
    hashed_as: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    rule: String,
    because: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowFile {
    id: u32,
    name: String,
    class: String,
    #[serde(default = "all")]
    active: String,
    /// Whether it is written in every iteration of a loop.
    #[serde(default)]
    iterates: bool,
    /// The region that sums its iterations.
    sum: Option<u32>,
    sum_of: Option<u32>,
    inside: Option<u32>,
    /// The sets that have it, where not all that are large enough do.
    sets: Option<Vec<u32>>,
}

fn region_timing() -> String {
    "region_timing".to_owned()
}

fn all() -> String {
    "all".to_owned()
}

/// What the rest of the family's file says of its constants.
pub(crate) struct Constants<'a> {
    /// The legal values of a u32 constant that is one of a list.
    pub(crate) values: &'a dyn Fn(&str) -> Option<Vec<u32>>,
    /// The names that an enum constant may be.
    pub(crate) names: &'a dyn Fn(&str) -> Option<Vec<String>>,
    /// The default of a u32 or bool constant.
    pub(crate) default: &'a dyn Fn(&str) -> Option<u32>,
    /// Every declared constant.
    pub(crate) all: Vec<&'a str>,
}

impl RegionsFile {
    /// Checks the declaration against the family's constants.
    pub(crate) fn check(self, family: &str, constants: &Constants<'_>) -> Result<Regions, String> {
        let counts = (constants.values)(&self.count)
            .filter(|values| values.contains(&0))
            .ok_or_else(|| {
                format!(
                    "count = `{}`: expected a u32 constant with `values`, 0 among them",
                    self.count
                )
            })?;
        if let Some(clock) = &self.clock
            && (constants.names)(clock).is_none()
        {
            return Err(format!("clock = `{clock}`: expected an enum constant"));
        }
        let masks = self.masks()?;
        let rules = self.read_rules()?;
        let mut read: Vec<(String, u32)> = Vec::new();
        let conditions = rules.iter().map(|rule| &rule.condition);
        for name in conditions
            .chain(masks.values().map(|mask| &**mask))
            .flat_map(Mask::constants)
        {
            if read.iter().any(|(known, _)| known == name) {
                continue;
            }
            let default = (constants.default)(name).ok_or_else(|| {
                let hint = did_you_mean(name, constants.all.iter().copied().chain(PLACES));
                format!("a mask uses `{name}`, which is neither a place nor a u32 or bool constant{hint}")
            })?;
            read.push((name.to_owned(), default));
        }
        let mut sets = Vec::new();
        for (counts, read_only) in [(&counts, false), (&self.read_only, true)] {
            for count in counts.iter().copied().filter(|count| *count > 0) {
                let regions = self.set(count, &masks)?.into();
                sets.push(Set { regions, read_only });
            }
        }
        sets.sort_by_key(|set| set.regions.len());
        let used = |row: &RowFile| {
            sets.iter()
                .flat_map(|set| &*set.regions)
                .any(|r| *r.name == *row.name)
        };
        if let Some(row) = self.rows.iter().find(|row| !used(row)) {
            return Err(format!("region `{}` is in no set", row.name));
        }
        let names = || self.rows.iter().map(|row| row.name.as_str());
        if let Some(stray) = self.along_k.keys().find(|name| !names().any(|n| n == *name)) {
            let hint = did_you_mean(stray, names());
            return Err(format!("along_k: there is no region `{stray}`{hint}"));
        }
        if let Some(twice) = sets
            .windows(2)
            .find(|two| two[0].regions.len() == two[1].regions.len())
        {
            return Err(format!("{} regions are declared twice", twice[0].regions.len()));
        }
        Ok(Regions {
            family: family.into(),
            hashed_as: hashed_as(self.identity, family, constants)?,
            count: self.count,
            clock: self.clock,
            buffer: self.buffer,
            sets,
            shared: Arc::new(Shared {
                constants: read,
                rules,
                together: self.together,
                parts: self.parts.into_iter().collect(),
                along_k: self.along_k.into_iter().collect(),
            }),
        })
    }

    /// Every mask by what rows call it: named ones, and conditions of rows themselves.
    fn masks(&self) -> Result<IndexMap<String, Arc<Mask>>, String> {
        let mut masks = IndexMap::new();
        for (name, active) in &self.active {
            let (text, hashed_as) = match active {
                ActiveFile::Condition(text) => (text, None),
                ActiveFile::Hashed(file) => (&file.blocks, Some(file.hashed_as.as_str())),
            };
            if general(name).is_some() || !is_identifier(name) {
                return Err(format!("active `{name}`: is taken already, or is not a name"));
            }
            let mask = Mask::parse(text, hashed_as).map_err(|e| format!("active `{name}`: `{text}` {e}"))?;
            masks.insert(name.clone(), Arc::new(mask));
        }
        for row in &self.rows {
            let text = &row.active;
            if general(text).is_some() || masks.contains_key(text) {
                continue;
            }
            let at = |e: String| format!("region `{}`: active `{text}` {e}", row.name);
            if is_identifier(text) {
                let names = self.active.keys().map(String::as_str);
                let hint = did_you_mean(text, names.chain(["all", "elected", "elected_per_tile"]));
                return Err(at(format!("is declared nowhere{hint}")));
            }
            masks.insert(text.clone(), Arc::new(Mask::parse(text, None).map_err(at)?));
        }
        Ok(masks)
    }

    fn read_rules(&self) -> Result<Vec<Rule>, String> {
        let read = |file: &RuleFile| {
            let at = |e: String| format!("rule `{}` {e}", file.rule);
            let condition = Mask::parse(&file.rule, None).map_err(at)?;
            if condition
                .names()
                .iter()
                .any(|name| ["bx", "by", "bz"].contains(name))
            {
                return Err(at(
                    "is about one block: expected the grid and constants".to_owned()
                ));
            }
            Ok(Rule {
                condition,
                because: file.because.clone(),
            })
        };
        self.rules.iter().map(read).collect()
    }

    /// The rows of a set: those with smaller ids, each in one of the forms declared.
    fn set(&self, count: u32, masks: &IndexMap<String, Arc<Mask>>) -> Result<Vec<Region>, String> {
        let mut regions: Vec<Region> = Vec::new();
        for id in 0..count {
            let own = |row: &&RowFile| row.id == id && row.sets.as_ref().is_none_or(|s| s.contains(&count));
            let rows: Vec<&RowFile> = self.rows.iter().filter(own).collect();
            let [row] = rows.as_slice() else {
                return Err(format!(
                    "the set of {count} has {} regions with id {id}: expected one",
                    rows.len()
                ));
            };
            if regions.iter().any(|region| *region.name == *row.name) {
                return Err(format!("the set of {count} has two regions `{}`", row.name));
            }
            regions.push(self.region(row, count, masks)?);
        }
        for region in &regions {
            let scope_of = |id: u32| regions.get(id as usize).map(|r| r.scope);
            let agrees = match region.scope {
                Scope::PerLaunch | Scope::PerIteration { sum: None } => true,
                Scope::PerIteration { sum: Some(sum) } => scope_of(sum) == Some(Scope::Sum { of: region.id }),
                Scope::Sum { of } => scope_of(of) == Some(Scope::PerIteration { sum: Some(region.id) }),
                Scope::Inside { of } => of != region.id && scope_of(of).is_some(),
            };
            if !agrees {
                return Err(format!(
                    "region `{}` of the set of {count}: a sum and what it sums name each other, and a region is \
                     inside another one of its set",
                    region.name
                ));
            }
        }
        Ok(regions)
    }

    fn region(
        &self,
        row: &RowFile,
        count: u32,
        masks: &IndexMap<String, Arc<Mask>>,
    ) -> Result<Region, String> {
        let at = |e: String| format!("region `{}`: {e}", row.name);
        check_name(&row.name).map_err(|e| at(format!("its name becomes a C++ type, and {e}")))?;
        let wait = self.waits.contains(&row.class);
        if !wait && !self.classes.contains(&row.class) {
            let known = self.classes.iter().chain(&self.waits).map(String::as_str);
            let hint = did_you_mean(&row.class, known);
            return Err(at(format!(
                "class `{}` is in neither `classes` nor `waits`{hint}",
                row.class
            )));
        }
        let scope = match (row.iterates, row.sum, row.sum_of, row.inside) {
            (false, None, None, None) => Scope::PerLaunch,
            // A set that is too small for the sum has the last iteration alone.
            (true, sum, None, None) => Scope::PerIteration {
                sum: sum.filter(|id| *id < count),
            },
            (false, None, Some(of), None) => Scope::Sum { of },
            (false, None, None, Some(of)) => Scope::Inside { of },
            _ => {
                return Err(at(
                    "is one of `iterates` (perhaps with `sum`), `sum_of`, `inside`".to_owned(),
                ));
            }
        };
        let active = match general(&row.active) {
            Some(active) => active,
            None => Active::Blocks(Arc::clone(&masks[&row.active])),
        };
        Ok(Region {
            id: row.id,
            name: row.name.as_str().into(),
            class: row.class.as_str().into(),
            wait,
            active,
            scope,
        })
    }
}

fn hashed_as(
    identity: Option<IdentityFile>,
    family: &str,
    constants: &Constants<'_>,
) -> Result<HashedAs, String> {
    let by = match identity {
        None => return Ok(HashedAs::Name(family.into())),
        Some(IdentityFile::Name(name)) => return Ok(HashedAs::Name(name.into())),
        Some(IdentityFile::By(by)) => by,
    };
    let expected = || "identity: expected a name, or one enum constant with a name for each value".to_owned();
    let [(constant, names)] =
        <[_; 1]>::try_from(by.into_iter().collect::<Vec<_>>()).map_err(|_| expected())?;
    let mut legal = (constants.names)(&constant).ok_or_else(expected)?;
    legal.sort();
    if !names.keys().eq(&legal) {
        return Err(expected());
    }
    let names = names.into_iter().map(|(value, name)| (value, name.into()));
    Ok(HashedAs::By(constant, names.collect()))
}

/// The activities that need no condition.
fn general(name: &str) -> Option<Active> {
    match name {
        "all" => Some(Active::All),
        "elected" => Some(Active::Elected),
        "elected_per_tile" => Some(Active::ElectedPerTile),
        _ => None,
    }
}
