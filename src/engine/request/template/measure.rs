//! `[measure]` and `[tune]`: how a family is measured by its declaration, and what there is
//! to try.
//!
//! Invariant: every value to try is legal by itself, and a size is one that a launch or a
//! rule of dispatch takes.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::Deserialize;

use super::constants::{Constant, text_of};
use super::parameter_file::add_rule;
use super::parameters::Rule;
use super::{Dispatch, Entry, Family};
use crate::engine::refused::Refused;
use crate::engine::request::constant::Value;
use crate::engine::request::tera_strict::Expressions;
use crate::engine::suggest::did_you_mean;

/// The most candidates of a search.
pub const MAX_CANDIDATES: usize = 1024;

/// By what part of the time of what the rules choose a candidate has to be faster.
const MARGIN: f64 = 0.02;

/// How a family is measured where a command says nothing else.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Measured {
    /// Sizes by name, each with the values that are measured.
    pub sizes: IndexMap<String, Vec<u32>>,
    /// Relative tolerance of comparisons; with neither, bits are compared.
    pub rtol: Option<f64>,
    /// Absolute tolerance.
    pub atol: Option<f64>,
    /// What a search for the fastest variant tries, if there is anything to try.
    pub search: Option<Search>,
}

/// What a search for the fastest variant tries.
#[derive(Debug)]
#[non_exhaustive]
pub struct Search {
    /// Constants with the values to try, as people write them.
    pub space: IndexMap<String, Vec<String>>,
    /// Candidates for which it does not hold are not tried.
    pub when: Option<Rule>,
    /// By what part of the time of what the rules choose a winner has to be faster.
    pub margin: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MeasureFile {
    #[serde(default)]
    sizes: IndexMap<String, SizesFile>,
    rtol: Option<f64>,
    atol: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a whole number from 1, or an array of such")]
enum SizesFile {
    One(u32),
    All(Vec<u32>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchFile {
    space: IndexMap<String, toml::Value>,
    when: Option<String>,
    margin: Option<f64>,
}

/// The two tables, and what their names are of.
type Tables<'a> = (
    Option<MeasureFile>,
    Option<SearchFile>,
    &'a [Entry],
    Option<&'a Dispatch>,
);

/// Checks both tables; `known` are the names of constants and derived ones.
pub(super) fn check(
    (measure, tune, entries, dispatch): Tables<'_>,
    constants: &IndexMap<String, Constant>,
    known: &BTreeSet<String>,
    expressions: &mut Expressions,
) -> Result<Measured, String> {
    let measured = measure.map(|file| file.check(entries, dispatch)).transpose();
    let search = tune
        .map(|file| file.check(constants, known, expressions))
        .transpose();
    let measured = measured.map_err(|e| format!("measure: {e}"))?;
    Ok(Measured {
        search: search.map_err(|e| format!("tune: {e}"))?,
        ..measured.unwrap_or_default()
    })
}

impl MeasureFile {
    fn check(self, entries: &[Entry], dispatch: Option<&Dispatch>) -> Result<Measured, String> {
        let of_launch = entries.iter().flat_map(|entry| &entry.sizes);
        let known: BTreeSet<&str> = of_launch
            .chain(dispatch.iter().flat_map(|dispatch| &dispatch.sizes))
            .map(String::as_str)
            .collect();
        let mut sizes = IndexMap::new();
        for (name, file) in self.sizes {
            if !known.contains(name.as_str()) {
                let hint = did_you_mean(&name, known.iter().copied());
                return Err(format!(
                    "sizes: `{name}` is not a size of a launch or of [dispatch]{hint}"
                ));
            }
            let values = match file {
                SizesFile::One(size) => vec![size],
                SizesFile::All(sizes) => sizes,
            };
            if values.is_empty() || values.contains(&0) {
                return Err(format!("sizes: `{name}`: expected whole numbers from 1"));
            }
            sizes.insert(name, values);
        }
        for (name, tolerance) in [("rtol", self.rtol), ("atol", self.atol)] {
            if tolerance.is_some_and(|t| !t.is_finite() || t < 0.0) {
                return Err(format!("{name}: expected a finite number from 0"));
            }
        }
        Ok(Measured {
            sizes,
            rtol: self.rtol,
            atol: self.atol,
            search: None,
        })
    }
}

impl SearchFile {
    fn check(
        self,
        constants: &IndexMap<String, Constant>,
        known: &BTreeSet<String>,
        expressions: &mut Expressions,
    ) -> Result<Search, String> {
        let (mut space, mut count) = (IndexMap::new(), 1_usize);
        for (name, value) in self.space {
            let constant = constants.get(&name).ok_or_else(|| {
                let hint = did_you_mean(&name, constants.keys().map(String::as_str));
                format!("space: nobody declares `{name}`{hint}")
            })?;
            let values = values_of(constant, &value).map_err(|e| format!("space: `{name}`: {e}"))?;
            count = count.saturating_mul(values.len());
            space.insert(name, values);
        }
        if space.is_empty() {
            return Err("space: expected at least one constant with values to try".into());
        }
        if count > MAX_CANDIDATES {
            return Err(format!(
                "space: {count} candidates: expected at most {MAX_CANDIDATES}, so fewer values"
            ));
        }
        let rule = |text: String| add_rule("tune when", &text, known, expressions);
        let when = self.when.map(rule).transpose().map_err(|e| format!("when {e}"))?;
        let margin = self.margin.unwrap_or(MARGIN);
        if !(0.0..1.0).contains(&margin) {
            return Err(format!("margin: {margin}: expected a part from 0 to below 1"));
        }
        Ok(Search { space, when, margin })
    }
}

impl Family {
    /// The constants that may be chosen by a measurement: those of the space of its `[tune]`,
    /// and those that rules of its `[dispatch]` set.
    #[must_use]
    pub fn geometry(&self) -> Vec<&str> {
        let space = self.measured.search.iter().flat_map(|search| search.space.keys());
        let rules = self.dispatch.iter().flat_map(|dispatch| &dispatch.rules);
        let names = space.chain(rules.flat_map(|rule| rule.set.keys()));
        let names: BTreeSet<&str> = names.map(String::as_str).collect();
        names.into_iter().collect()
    }

    /// Whether a search tries a variant of these constants, by the condition of its `[tune]`.
    ///
    /// # Errors
    /// A condition that does not come out, in one line.
    pub fn tries(
        &self,
        constants: &BTreeMap<String, Value>,
        derived: &BTreeMap<String, u32>,
    ) -> Result<bool, Refused> {
        let Some(when) = self
            .measured
            .search
            .as_ref()
            .and_then(|search| search.when.as_ref())
        else {
            return Ok(true);
        };
        Ok(self.evaluate(&when.id, constants, derived, &BTreeMap::new())? == "1")
    }
}

/// Values to try: an array, or `"all"` that are declared.
fn values_of(constant: &Constant, value: &toml::Value) -> Result<Vec<String>, String> {
    let values = match value {
        toml::Value::Array(values) => values.iter().map(text_of).collect(),
        toml::Value::String(word) if word == "all" => (constant.legal.listed()).ok_or_else(|| {
            format!(
                "declares no list of values ({}): expected an array",
                constant.legal
            )
        })?,
        other => return Err(format!("is {other}: expected an array of values, or \"all\"")),
    };
    if values.is_empty() {
        return Err("expected at least one value".into());
    }
    let mut seen = BTreeSet::new();
    for value in &values {
        let parsed = constant.legal.parse(value)?;
        if !seen.insert(parsed.to_string()) {
            return Err(format!("`{value}` is there twice"));
        }
    }
    Ok(values)
}
