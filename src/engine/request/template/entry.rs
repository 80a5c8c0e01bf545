//! An entry point: its name, launch geometry, launch sizes and parameters.
//!
//! Invariant: every name that the geometry uses is declared, and a launch size
//! stands where only the launch knows it: in the grid, the block, and the shared memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::parameter_file::{ParameterFile, Scope, add_expression, add_rule, check, check_sizes};
use super::parameters::{ParameterList, Rule};
use crate::engine::request::cxx_name::is_identifier;
use crate::engine::request::formula::{Formula, Term};
use crate::engine::request::tera_strict::{Expressions, expression, names_in, shown};
use crate::engine::suggest::did_you_mean;

/// An entry point and its launch geometry.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The `extern "C"` name; of one with an expression, the name that it is asked for by.
    pub name: String,
    /// The C++ that names it, a template's instance say, with `{{ name }}` for constants.
    pub expression: Option<Rule>,
    /// Specs for which it does not hold do not have this entry point.
    pub when: Option<Rule>,
    /// Sizes that a launch gives, by name, in order.
    pub sizes: Vec<String>,
    /// Blocks in x, y, z.
    pub grid: [Axis; 3],
    /// Threads a block in x, y, z.
    pub block: [Axis; 3],
    /// Dynamic shared memory, bytes.
    pub shared_mem_bytes: Axis,
    /// Whether it must be launched cooperatively: 1 or 0.
    pub cooperative: Size,
    /// Blocks of a cluster in x, y, z; `None` where the launch says nothing of clusters.
    pub cluster: Option<[Size; 3]>,
    /// Whether it may start before the launch before it is done, and waits inside: 1 or 0.
    pub programmatic: Size,
    /// Percent of a multiprocessor's memory that it prefers as shared memory.
    pub carveout: Option<Size>,
    /// Priority of its launches, as streams have it: less is sooner.
    pub priority: Option<Formula>,
    /// What it takes, where that is declared.
    pub parameters: Option<Arc<ParameterList>>,
}

/// A number, or the name of a constant or a derived constant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a number, a name or an expression")]
pub enum Size {
    /// As is.
    Fixed(u32),
    /// As is, for `cooperative`.
    Flag(bool),
    /// By name.
    Named(String),
    /// By an expression over constants.
    #[serde(skip)]
    Computed(Formula),
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{}", u32::from(*flag)),
            Self::Named(name) => f.write_str(name),
            Self::Computed(formula) => formula.fmt(f),
        }
    }
}

/// Blocks along one axis of a grid; or another number of a launch.
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
    /// By an expression over constants and launch sizes.
    Computed(Formula),
}

fn nothing() -> Size {
    Size::Fixed(0)
}

fn one() -> Size {
    Size::Fixed(1)
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, a name, an expression or { size = .., per = .. }"
)]
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

/// One number, or one an axis.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, a name, an expression or { size = .., per = .. }, or an array of up to three"
)]
enum AxesFile {
    // First: serde would read an array as the table's values in order.
    All(Vec<AxisFile>),
    One(AxisFile),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, or an expression over constants")]
enum PriorityFile {
    Number(i32),
    Expression(String),
}

/// The TOML of an entry point.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryFile {
    name: String,
    expression: Option<String>,
    when: Option<String>,
    sizes: Option<Vec<String>>,
    grid: AxesFile,
    block: AxesFile,
    shared_mem_bytes: Option<AxisFile>,
    #[serde(default = "nothing")]
    cooperative: Size,
    cluster: Option<AxesFile>,
    #[serde(default = "nothing")]
    programmatic: Size,
    carveout: Option<Size>,
    priority: Option<PriorityFile>,
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
        let expression = match &self.expression {
            None => None,
            Some(text) => {
                let id = format!("{of} expression");
                let added = add_expression(&id, text, scope.known, expressions);
                Some(added.map_err(|e| format!("{of}: expression {e}"))?)
            }
        };
        let sizes = self.sizes.unwrap_or_else(|| shared_sizes.to_vec());
        check_sizes(&sizes, scope.known).map_err(|e| format!("{of}: {e}"))?;
        let mut names = Names {
            of: &of,
            sizes: &sizes,
            known: scope.known,
            expressions,
        };
        let grid = names.axes(self.grid, "grid")?;
        let block = names.axes(self.block, "block")?;
        check_block(&block).map_err(|e| format!("{of}: {e}"))?;
        let dynamic = self.shared_mem_bytes.unwrap_or(AxisFile::Size(nothing()));
        let shared_mem_bytes = names.axis(dynamic, "shared_mem_bytes")?;
        let cluster = match self.cluster {
            None => None,
            Some(file) => {
                let [x, y, z] = names.axes(file, "cluster")?;
                Some([
                    names.fixed(x, "cluster")?,
                    names.fixed(y, "cluster")?,
                    names.fixed(z, "cluster")?,
                ])
            }
        };
        let cooperative = names.size(self.cooperative, "cooperative")?;
        let programmatic = names.size(self.programmatic, "programmatic")?;
        let carveout = self
            .carveout
            .map(|size| names.size(size, "carveout"))
            .transpose()?;
        let priority = match self.priority {
            None => None,
            Some(PriorityFile::Number(number)) => Some(Formula {
                text: number.to_string(),
                term: Term::Number(number.into()),
            }),
            Some(PriorityFile::Expression(text)) => Some(names.formula(&text, "priority", false)?),
        };
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
            expression,
            when,
            sizes,
            grid,
            block,
            shared_mem_bytes,
            cooperative,
            cluster,
            programmatic,
            carveout,
            priority,
            parameters,
        })
    }
}

/// What the numbers of an entry point's launch may name, and whose they are.
struct Names<'a> {
    of: &'a str,
    sizes: &'a [String],
    known: &'a BTreeSet<String>,
    expressions: &'a mut Expressions,
}

impl Names<'_> {
    /// Three axes, of which the last may be left out; one number is that of the first.
    fn axes(&mut self, file: AxesFile, what: &str) -> Result<[Axis; 3], String> {
        let files = match file {
            AxesFile::One(axis) => vec![axis],
            AxesFile::All(axes) => axes,
        };
        if files.is_empty() || files.len() > 3 {
            return Err(format!(
                "{}: {what} has {} axes: expected 1 to 3",
                self.of,
                files.len()
            ));
        }
        let mut axes = [const { Axis::Fixed(Size::Fixed(1)) }; 3];
        for ((axis, file), letter) in axes.iter_mut().zip(files).zip(["x", "y", "z"]) {
            *axis = self.axis(file, &format!("{what} {letter}"))?;
        }
        Ok(axes)
    }

    fn axis(&mut self, file: AxisFile, what: &str) -> Result<Axis, String> {
        let of = self.of;
        let place = |name: &str| self.sizes.iter().position(|size| size == name);
        match file {
            AxisFile::Size(Size::Named(name)) if is_identifier(&name) => match place(&name) {
                Some(size) => Ok(Axis::Launch {
                    size,
                    per: one(),
                    when: None,
                }),
                None if self.known.contains(&name) => Ok(Axis::Fixed(Size::Named(name))),
                None => {
                    let names = self.known.iter().chain(self.sizes).map(String::as_str);
                    let hint = did_you_mean(&name, names);
                    Err(format!("{of} uses `{name}`, which nobody declares{hint}"))
                }
            },
            AxisFile::Size(Size::Named(text)) => {
                let formula = self.formula(&text, what, true)?;
                Ok(if formula.term.has_size() {
                    Axis::Computed(formula)
                } else {
                    Axis::Fixed(Size::Computed(formula))
                })
            }
            AxisFile::Size(size) => Ok(Axis::Fixed(size)),
            AxisFile::Launch(LaunchFile { size, per, when }) => {
                let place = place(&size);
                let per = self.size(per, what)?;
                if per == Size::Fixed(0) {
                    return Err(format!("{of}: {what}: `per` is at least 1"));
                }
                let Some(place) = place else {
                    let hint = did_you_mean(&size, self.sizes.iter().map(String::as_str));
                    return Err(format!("{of}: {what}: `{size}` is not a launch size{hint}"));
                };
                let when = when
                    .map(|rule| {
                        add_rule(&format!("{of} {what}"), &rule, self.known, self.expressions)
                            .map_err(|e| format!("{of}: {what}: `when` {e}"))
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

    /// A number that constants alone give.
    fn size(&self, size: Size, what: &str) -> Result<Size, String> {
        match size {
            Size::Named(name) if is_identifier(&name) => {
                if self.known.contains(&name) {
                    return Ok(Size::Named(name));
                }
                let hint = did_you_mean(&name, self.known.iter().map(String::as_str));
                Err(format!("{} uses `{name}`, which nobody declares{hint}", self.of))
            }
            Size::Named(text) => self.formula(&text, what, false).map(Size::Computed),
            size => Ok(size),
        }
    }

    fn fixed(&self, axis: Axis, what: &str) -> Result<Size, String> {
        match axis {
            Axis::Fixed(size) => Ok(size),
            _ => Err(format!("{}: {what} is of constants, and no launch size", self.of)),
        }
    }

    /// An expression; with launch sizes in it, if it may have them.
    fn formula(&self, text: &str, what: &str, sizes: bool) -> Result<Formula, String> {
        let at = |e: String| format!("{}: {what}: `{}` {e}", self.of, shown(text));
        let expr = expression(text).map_err(|e| at(format!("is wrong: {e}")))?;
        let of_launch = if sizes { self.sizes } else { &[] };
        let known = || self.known.iter().chain(of_launch);
        if let Some(name) = names_in(&expr)
            .iter()
            .find(|name| !known().any(|known| known == *name))
        {
            let hint = did_you_mean(name, known().map(String::as_str));
            return Err(at(format!("uses `{name}`, which nobody declares{hint}")));
        }
        Ok(Formula {
            text: text.to_owned(),
            term: Term::new(&expr, of_launch).map_err(at)?,
        })
    }
}

/// The most threads of a block, and the most in z: of every GPU that there is.
const MAX_THREADS: u64 = 1024;
const MAX_Z: u32 = 64;

/// Refuses a block that is too large whatever the constants are.
fn check_block(block: &[Axis; 3]) -> Result<(), String> {
    let known = |axis: &Axis| match axis {
        Axis::Fixed(Size::Fixed(threads)) => *threads,
        _ => 1,
    };
    let [x, y, z] = block;
    fits([known(x), known(y), known(z)])
}

/// Whether a GPU has blocks of so many threads in x, y, z; the text says why not.
pub(crate) fn fits(block: [u32; 3]) -> Result<(), String> {
    let threads: u64 = block.iter().map(|n| u64::from(*n)).fold(1, u64::saturating_mul);
    let [x, y, z] = block;
    if threads == 0 {
        return Err(format!("a block of {x} x {y} x {z} threads has none"));
    }
    if threads > MAX_THREADS {
        return Err(format!(
            "a block of {x} x {y} x {z} is {threads} threads: a GPU takes at most {MAX_THREADS}"
        ));
    }
    if z > MAX_Z {
        return Err(format!(
            "a block of {z} threads in z: a GPU takes at most {MAX_Z}"
        ));
    }
    Ok(())
}
