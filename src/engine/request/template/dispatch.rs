//! `[dispatch]`: rules from a problem's sizes and a GPU to constants.
//!
//! Invariant: rules that were read come to an answer for every problem whose numbers come
//! out: the last one has no condition, what each sets is legal by itself, and all that they
//! can come to is little enough to be prepared.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::Deserialize;

use super::constants::{Constant, text_of};
use super::parameters::MAX_SIZES;
use crate::engine::refused::Refused;
use crate::engine::request::formula::{Formula, Term};
use crate::engine::request::tera_strict::expression;
use crate::engine::suggest::did_you_mean;

/// What a rule may know of a GPU, by name: numbers, as [`Device`] has them; the compute
/// capability as 90 for 9.0.
///
/// [`Device`]: ../../run/device/struct.Device.html
pub const DEVICE_FACTS: [&str; 7] = [
    "compute_capability",
    "sm_count",
    "shared_mem_per_sm",
    "shared_mem_per_block",
    "registers_per_sm",
    "threads_per_sm",
    "l2_bytes",
];

/// The most variants that the rules of a family may come to.
pub const MAX_OUTCOMES: usize = 1024;

/// A family's rules.
#[derive(Debug)]
#[non_exhaustive]
pub struct Dispatch {
    /// The problem's sizes, in the order in which they are given.
    pub sizes: Vec<String>,
    /// The rules, of which the first that holds decides. The last one always holds.
    pub rules: Vec<DispatchRule>,
}

/// What constants are, where a condition holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct DispatchRule {
    /// Over sizes, [`DEVICE_FACTS`] and constants that no rule sets; `None` always holds.
    pub when: Option<Formula>,
    /// Constants by name.
    pub set: IndexMap<String, Choosing>,
    /// Why, in one line.
    pub because: Option<String>,
}

/// How a rule chooses the value of a constant.
#[derive(Debug)]
pub struct Choosing {
    /// What is compared with the limits; `None` of the one value.
    pub(crate) of: Option<Formula>,
    /// Ascending: the first that is not less chooses the value of its place.
    pub(crate) up_to: Vec<u32>,
    /// The values, as people write them: one for each limit, and maybe one beyond them;
    /// else the last is that.
    pub(crate) values: Vec<String>,
}

/// The TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DispatchFile {
    sizes: Vec<String>,
    rules: Vec<RuleFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    when: Option<String>,
    because: Option<String>,
    set: IndexMap<String, toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketsFile {
    of: String,
    up_to: Vec<u32>,
    values: Option<Vec<toml::Value>>,
}

/// What the expressions of the rules may name.
struct Names<'f> {
    sizes: &'f [String],
    constants: &'f IndexMap<String, Constant>,
    /// Constants that a rule sets.
    set: BTreeSet<String>,
}

impl DispatchFile {
    /// Checks the rules against the family's constants; `known` are all names that it
    /// declares.
    pub(super) fn check(
        self,
        constants: &IndexMap<String, Constant>,
        known: &BTreeSet<String>,
    ) -> Result<Dispatch, String> {
        self.checked(constants, known)
            .map_err(|e| format!("dispatch: {e}"))
    }

    fn checked(
        self,
        constants: &IndexMap<String, Constant>,
        known: &BTreeSet<String>,
    ) -> Result<Dispatch, String> {
        check_sizes(&self.sizes, known)?;
        let names = Names {
            sizes: &self.sizes,
            constants,
            set: (self.rules.iter())
                .flat_map(|rule| rule.set.keys().cloned())
                .collect(),
        };
        let count = self.rules.len();
        let (mut rules, mut outcomes) = (Vec::new(), 0_usize);
        for (index, file) in self.rules.into_iter().enumerate() {
            let (number, is_last) = (index + 1, index + 1 == count);
            let at = |e: String| format!("rule {number}: {e}");
            if is_last != file.when.is_none() {
                return Err(at(if is_last {
                    "the last rule is for all other problems: expected one without `when`".into()
                } else {
                    "has no `when`, so that no later rule is ever reached: expected it last".into()
                }));
            }
            let when = file.when.map(|text| names.formula(&text)).transpose();
            let when = when.map_err(|e| at(format!("when: {e}")))?;
            let mut set = IndexMap::new();
            let mut product = 1_usize;
            for (name, value) in file.set {
                let choosing = names.choosing(&name, value);
                let choosing = choosing.map_err(|e| at(format!("set: `{name}`: {e}")))?;
                product = product.saturating_mul(choosing.values.len());
                set.insert(name, choosing);
            }
            outcomes = outcomes.saturating_add(product);
            if outcomes > MAX_OUTCOMES {
                return Err(at(format!(
                    "the rules come to more than {MAX_OUTCOMES} variants: expected fewer buckets"
                )));
            }
            rules.push(DispatchRule {
                when,
                set,
                because: file.because,
            });
        }
        if rules.is_empty() {
            return Err("there is no rule: expected at least one [[dispatch.rules]]".into());
        }
        Ok(Dispatch {
            sizes: self.sizes,
            rules,
        })
    }
}

fn check_sizes(sizes: &[String], known: &BTreeSet<String>) -> Result<(), String> {
    if sizes.is_empty() || sizes.len() > MAX_SIZES {
        return Err(format!("sizes: expected 1 to {MAX_SIZES} names of sizes"));
    }
    let mut seen = BTreeSet::new();
    for name in sizes {
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!(
                "sizes: `{name}` is not a name: expected letters, digits and `_`"
            ));
        }
        if known.contains(name) || DEVICE_FACTS.contains(&name.as_str()) || !seen.insert(name) {
            return Err(format!("sizes: `{name}` is the name of something else already"));
        }
    }
    Ok(())
}

impl Names<'_> {
    fn formula(&self, text: &str) -> Result<Formula, String> {
        let term = Term::new(&expression(text)?, self.sizes)?;
        let mut used = BTreeSet::new();
        term.names(&mut used);
        for name in used {
            if self.set.contains(&name) {
                return Err(format!(
                    "`{name}` is set by a rule, so no condition may depend on it"
                ));
            }
            if !DEVICE_FACTS.contains(&name.as_str()) && !self.constants.contains_key(&name) {
                let sizes = self.sizes.iter().map(String::as_str);
                let known = sizes
                    .chain(DEVICE_FACTS)
                    .chain(self.constants.keys().map(String::as_str));
                let hint = did_you_mean(&name, known);
                return Err(format!(
                    "`{name}` is neither a size nor a fact of a GPU nor a constant{hint}"
                ));
            }
        }
        Ok(Formula {
            text: text.to_owned(),
            term,
        })
    }

    fn choosing(&self, name: &str, value: toml::Value) -> Result<Choosing, String> {
        let constant = self.constants.get(name).ok_or_else(|| {
            let hint = did_you_mean(name, self.constants.keys().map(String::as_str));
            format!("nobody declares it{hint}")
        })?;
        let legal = |value: &toml::Value| {
            let text = text_of(value);
            constant.legal.parse(&text).map(|_| text)
        };
        let toml::Value::Table(table) = value else {
            return Ok(Choosing {
                of: None,
                up_to: Vec::new(),
                values: vec![legal(&value)?],
            });
        };
        let file: BucketsFile = table.try_into().map_err(|e: toml::de::Error| {
            format!(
                "{}: expected {{ of = \"n\", up_to = [..] }}, and maybe values",
                e.message()
            )
        })?;
        if file.up_to.is_empty() || !file.up_to.is_sorted_by(|a, b| a < b) {
            return Err("up_to: expected numbers, each greater than the one before".into());
        }
        let values = (file.values).unwrap_or_else(|| {
            file.up_to
                .iter()
                .map(|n| toml::Value::Integer((*n).into()))
                .collect()
        });
        let limits = file.up_to.len();
        if values.len() != limits && values.len() != limits + 1 {
            return Err(format!(
                "values: expected one for each of the {limits} limits, and maybe one beyond them; there are {}",
                values.len()
            ));
        }
        Ok(Choosing {
            of: Some(self.formula(&file.of).map_err(|e| format!("of: {e}"))?),
            up_to: file.up_to,
            values: values.iter().map(legal).collect::<Result<_, _>>()?,
        })
    }
}

impl std::fmt::Display for Choosing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = self.values.join(", ");
        match &self.of {
            None => f.write_str(&values),
            Some(of) => {
                let limits: Vec<String> = self.up_to.iter().map(u32::to_string).collect();
                write!(f, "{values} by {of} up to {}", limits.join(", "))
            }
        }
    }
}

impl Dispatch {
    /// Sizes by name as the list that a selection takes, each once.
    ///
    /// # Errors
    /// A size that is missing, or that is none of the problem's, in one line.
    pub fn in_order(&self, given: &BTreeMap<String, u32>) -> Result<Vec<u32>, Refused> {
        let all = || self.sizes.join(", ");
        if let Some(stray) = given.keys().find(|name| !self.sizes.contains(name)) {
            let hint = did_you_mean(stray, self.sizes.iter().map(String::as_str));
            let reason = format!("`{stray}` is not a size of the problem{hint}: expected {}", all());
            return Err(reason.into());
        }
        let size = |name: &String| {
            let missing = || Refused::new(format_args!("the size `{name}` is missing: expected {}", all()));
            given.get(name).copied().ok_or_else(missing)
        };
        self.sizes.iter().map(size).collect()
    }
}
