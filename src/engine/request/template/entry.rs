//! An entry point: its name, launch geometry, launch sizes and parameters.
//!
//! Invariant: every name that the geometry uses is declared, and a launch size
//! stands where only the launch knows it: in the grid.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::parameter_file::{ParameterFile, Scope, add_rule, check, check_sizes};
use super::parameters::{ParameterList, Rule};
use crate::engine::request::tera_strict::Expressions;
use crate::engine::suggest::did_you_mean;

/// An entry point and its launch geometry.
#[derive(Debug)]
pub struct Entry {
    /// The `extern "C"` name.
    pub name: String,
    /// Specs for which it does not hold do not have this entry point.
    pub when: Option<Rule>,
    /// Sizes that a launch gives, by name, in order.
    pub sizes: Vec<String>,
    /// Blocks in x, y, z.
    pub grid: [Axis; 3],
    /// Threads a block.
    pub block: Size,
    /// Dynamic shared memory, bytes.
    pub shared_mem_bytes: Size,
    /// Whether it must be launched cooperatively: 1 or 0.
    pub cooperative: Size,
    /// What it takes, where that is declared.
    pub parameters: Option<Arc<ParameterList>>,
}

/// A number, or the name of a constant or a derived constant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// As is.
    Fixed(u32),
    /// As is, for `cooperative`.
    Flag(bool),
    /// By name.
    Named(String),
}

/// Blocks along one axis of a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axis {
    /// Known before the launch.
    Fixed(Size),
    /// A launch size, by its place among the entry's sizes, divided and rounded up.
    Launch {
        /// Place of the launch size among those of the entry.
        size: usize,
        /// How many of it a block takes.
        per: Size,
        /// A rule over constants: where it does not hold, there is one block.
        when: Option<Rule>,
    },
}

fn nothing() -> Size {
    Size::Fixed(0)
}

fn one() -> Size {
    Size::Fixed(1)
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum AxisFile {
    Size(Size),
    Launch(LaunchFile),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchFile {
    size: String,
    #[serde(default = "one")]
    per: Size,
    when: Option<String>,
}

/// The TOML of an entry point.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryFile {
    name: String,
    when: Option<String>,
    sizes: Option<Vec<String>>,
    grid: [AxisFile; 3],
    block: Size,
    #[serde(default = "nothing")]
    shared_mem_bytes: Size,
    #[serde(default = "nothing")]
    cooperative: Size,
    parameters: Option<Vec<ParameterFile>>,
}

/// What a family declares for all of its entry points.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) sizes: Vec<String>,
    pub(super) parameters: Option<Vec<ParameterFile>>,
    pub(super) parameter_struct: Option<String>,
}

/// Checks the entry points and their parameters. The second value is the list
/// that the family declares for those that have none of their own.
pub(super) fn check_all(
    files: Vec<EntryFile>,
    shared: Shared,
    scope: &Scope<'_>,
    expressions: &mut Expressions,
) -> Result<(Vec<Entry>, Option<Arc<ParameterList>>), String> {
    if files.is_empty() {
        return Err("no entry point: expected at least one [[entries]]".into());
    }
    check_sizes(&shared.sizes, scope.known)?;
    if shared.parameter_struct.is_some() && shared.parameters.is_none() {
        return Err("parameter_struct carries the family's [[parameters]], and there are none".into());
    }
    let of_family = Scope {
        sizes: &shared.sizes,
        ..*scope
    };
    let list = match shared.parameters {
        None => None,
        Some(list) if files.iter().all(|entry| entry.parameters.is_some()) => {
            return Err(format!(
                "the family's {} [[parameters]] are nobody's: every entry has its own",
                list.len()
            ));
        }
        Some(list) => Some(Arc::new(check(
            "the family",
            list,
            shared.parameter_struct,
            &of_family,
            expressions,
        )?)),
    };
    let mut entries: Vec<Entry> = Vec::new();
    for file in files {
        let entry = file.check(&shared.sizes, list.as_ref(), scope, expressions)?;
        let (name, always) = (&entry.name, entry.when.is_none());
        if entries
            .iter()
            .any(|other| other.name == *name && (always || other.when.is_none()))
        {
            return Err(format!("entry `{name}` is declared twice"));
        }
        entries.push(entry);
    }
    Ok((entries, list))
}

impl EntryFile {
    fn check(
        self,
        shared_sizes: &[String],
        shared: Option<&Arc<ParameterList>>,
        scope: &Scope<'_>,
        expressions: &mut Expressions,
    ) -> Result<Entry, String> {
        let of = format!("entry `{}`", self.name);
        if self.sizes.is_some() && self.parameters.is_none() && shared.is_some() {
            return Err(format!(
                "{of} has sizes of its own, and the family's parameters speak of the family's"
            ));
        }
        let when = match &self.when {
            None => None,
            Some(rule) => {
                let id = format!("{of} when {rule}");
                Some(add_rule(&id, rule, scope.known, expressions).map_err(|e| format!("{of}: when {e}"))?)
            }
        };
        let sizes = self.sizes.unwrap_or_else(|| shared_sizes.to_vec());
        check_sizes(&sizes, scope.known).map_err(|e| format!("{of}: {e}"))?;
        for size in [&self.block, &self.shared_mem_bytes, &self.cooperative] {
            size.check(&of, scope.known)?;
        }
        let [x, y, z] = self.grid;
        let mut axis =
            |file: AxisFile, letter: char| file.check(&of, letter, &sizes, scope.known, expressions);
        let grid = [axis(x, 'x')?, axis(y, 'y')?, axis(z, 'z')?];
        let scope = Scope {
            sizes: &sizes,
            ..*scope
        };
        let parameters = match self.parameters {
            None => shared.cloned(),
            Some(own) => Some(Arc::new(check(&of, own, None, &scope, expressions)?)),
        };
        Ok(Entry {
            name: self.name,
            when,
            sizes,
            grid,
            block: self.block,
            shared_mem_bytes: self.shared_mem_bytes,
            cooperative: self.cooperative,
            parameters,
        })
    }
}

impl Size {
    fn check(&self, of: &str, known: &BTreeSet<String>) -> Result<(), String> {
        match self {
            Self::Named(name) if !known.contains(name) => {
                let hint = did_you_mean(name, known.iter().map(String::as_str));
                Err(format!("{of} uses `{name}`, which nobody declares{hint}"))
            }
            _ => Ok(()),
        }
    }
}

impl AxisFile {
    fn check(
        self,
        of: &str,
        letter: char,
        sizes: &[String],
        known: &BTreeSet<String>,
        expressions: &mut Expressions,
    ) -> Result<Axis, String> {
        let place = |name: &str| sizes.iter().position(|size| size == name);
        match self {
            Self::Size(Size::Named(name)) => match place(&name) {
                Some(size) => Ok(Axis::Launch {
                    size,
                    per: one(),
                    when: None,
                }),
                None if known.contains(&name) => Ok(Axis::Fixed(Size::Named(name))),
                None => {
                    let names = known.iter().chain(sizes).map(String::as_str);
                    let hint = did_you_mean(&name, names);
                    Err(format!("{of} uses `{name}`, which nobody declares{hint}"))
                }
            },
            Self::Size(size) => Ok(Axis::Fixed(size)),
            Self::Launch(LaunchFile { size, per, when }) => {
                per.check(of, known)?;
                if per == Size::Fixed(0) {
                    return Err(format!("{of}: grid {letter}: `per` is at least 1"));
                }
                let Some(place) = place(&size) else {
                    let hint = did_you_mean(&size, sizes.iter().map(String::as_str));
                    return Err(format!(
                        "{of}: grid {letter}: `{size}` is not a launch size{hint}"
                    ));
                };
                let when = when
                    .map(|rule| {
                        add_rule(&format!("{of} grid {letter}"), &rule, known, expressions)
                            .map_err(|e| format!("{of}: grid {letter}: `when` {e}"))
                    })
                    .transpose()?;
                Ok(Axis::Launch {
                    size: place,
                    per,
                    when,
                })
            }
        }
    }
}
