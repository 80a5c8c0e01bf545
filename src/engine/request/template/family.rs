//! One family: a TOML of declarations and a source beside it.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::Deserialize;
use tera::Context;

use super::TemplateError;
use super::constants::{Constant, ConstantFile};
use crate::engine::request::constant::Value;
use crate::engine::request::target::Arch;
use crate::engine::request::tera_strict::Expressions;
use crate::engine::suggest::did_you_mean;

/// A file of a family, as it was read.
#[derive(Debug, Clone)]
pub struct TemplateFile {
    /// Its path below the folder that it was read from, for messages.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// A kernel template with everything that may vary in it.
#[derive(Debug)]
pub struct Family {
    /// Its name, `wo_gemv`.
    pub name: String,
    /// One line on what it computes.
    pub summary: String,
    /// Compiler options that it needs, in order.
    pub options: Vec<String>,
    /// The oldest arch whose instructions it can do with, if that matters.
    pub oldest_arch: Option<Arch>,
    /// Declared constants, in the order of the file.
    pub constants: IndexMap<String, Constant>,
    /// Constants worked out from others, in order.
    pub derived: Vec<Derived>,
    /// What must hold between constants.
    pub constraints: Vec<Constraint>,
    /// Named sets of constants.
    pub presets: Vec<Preset>,
    /// Entry points.
    pub entries: Vec<Entry>,
    /// The source before rendering.
    pub source: String,
    expressions: Expressions,
}

/// A u32 worked out from other constants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derived {
    /// Its name.
    pub name: String,
    /// A Tera expression, or a template body if it has `{%`.
    pub value: String,
}

/// What must hold between constants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// A Tera expression that is true or false.
    pub rule: String,
    /// Why, in one line.
    pub because: String,
}

/// A named set of constants: each holds where nobody set that constant otherwise.
#[derive(Debug)]
pub struct Preset {
    /// Its name, `h200`.
    pub name: String,
    /// One line of help.
    pub help: String,
    /// Constants and their values.
    pub constants: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetFile {
    name: String,
    help: String,
    set: BTreeMap<String, toml::Value>,
}

impl PresetFile {
    fn check(self, constants: &IndexMap<String, Constant>) -> Result<Preset, String> {
        let mut set = BTreeMap::new();
        for (name, value) in self.set {
            let at = |e: String| format!("preset `{}`: constant `{name}`: {e}", self.name);
            let Some(constant) = constants.get(&name) else {
                let hint = did_you_mean(&name, constants.keys().map(String::as_str));
                return Err(at(format!("nobody declares it{hint}")));
            };
            let text = match &value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            set.insert(name.clone(), constant.legal.parse(&text).map_err(at)?);
        }
        Ok(Preset {
            name: self.name,
            help: self.help,
            constants: set,
        })
    }
}

/// An entry point and its launch geometry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The `extern "C"` name.
    pub name: String,
    /// Blocks in x, y, z.
    pub grid: [Size; 3],
    /// Threads a block.
    pub block: Size,
    /// Dynamic shared memory, bytes.
    #[serde(default = "nothing")]
    pub shared_mem_bytes: Size,
    /// Whether it must be launched cooperatively: 1 or 0.
    #[serde(default = "nothing")]
    pub cooperative: Size,
}

/// A number, or the name of a constant, a derived constant or, in a grid, the
/// run-time parameter `nat`.
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

fn nothing() -> Size {
    Size::Fixed(0)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyFile {
    summary: String,
    #[serde(default)]
    options: Vec<String>,
    oldest_arch: Option<Arch>,
    constants: IndexMap<String, ConstantFile>,
    #[serde(default)]
    derived: Vec<Derived>,
    #[serde(default)]
    constraints: Vec<Constraint>,
    #[serde(default)]
    presets: Vec<PresetFile>,
    entries: Vec<Entry>,
}

impl Family {
    /// Parses and checks a family: its declarations and its source.
    pub fn parse(name: &str, toml: &TemplateFile, source: &TemplateFile) -> Result<Self, TemplateError> {
        let in_toml = |reason: String| TemplateError::Declaration {
            file: toml.path.clone(),
            reason,
        };
        let file: FamilyFile = toml::from_str(&toml.text).map_err(|e| {
            let line = e
                .span()
                .map_or(1, |s| toml.text[..s.start].lines().count().max(1));
            in_toml(format!("line {line}: {}", e.message()))
        })?;
        let constants: IndexMap<String, Constant> = file
            .constants
            .into_iter()
            .map(|(name, constant)| {
                let checked = constant
                    .check(&name)
                    .map_err(|e| in_toml(format!("constant `{name}`: {e}")))?;
                Ok((name, checked))
            })
            .collect::<Result<_, TemplateError>>()?;

        let presets: Vec<Preset> = file
            .presets
            .into_iter()
            .map(|preset| preset.check(&constants).map_err(in_toml))
            .collect::<Result<_, TemplateError>>()?;

        let mut known: BTreeSet<String> = constants.keys().cloned().collect();
        let mut expressions = Expressions::new();
        let mut add = |id: String, what: &str, body: &str, known: &BTreeSet<String>| {
            let used = expressions
                .add(&id, body)
                .map_err(|e| in_toml(format!("{what}: {e}")))?;
            match used.iter().find(|n| !known.contains(*n)) {
                Some(n) => {
                    let hint = did_you_mean(n, known.iter().map(String::as_str));
                    Err(in_toml(format!(
                        "{what} uses `{n}`, which nobody declares before it{hint}"
                    )))
                }
                None => Ok(()),
            }
        };
        for derived in &file.derived {
            let what = format!("derived `{}`", derived.name);
            add(derived_id(&derived.name), &what, &body_of(&derived.value), &known)?;
            if !known.insert(derived.name.clone()) {
                return Err(in_toml(format!("{what} is declared twice")));
            }
        }
        for (index, constraint) in file.constraints.iter().enumerate() {
            let body = format!("{{% if {} %}}1{{% else %}}0{{% endif %}}", constraint.rule);
            add(
                constraint_id(index),
                &format!("constraint `{}`", constraint.rule),
                &body,
                &known,
            )?;
        }
        for entry in &file.entries {
            let rest = [&entry.block, &entry.shared_mem_bytes, &entry.cooperative];
            let grid = entry.grid.iter().map(|s| (s, true));
            for (size, in_grid) in grid.chain(rest.into_iter().map(|s| (s, false))) {
                if let Size::Named(n) = size
                    && !known.contains(n)
                    && !(in_grid && n == "nat")
                {
                    let hint = did_you_mean(n, known.iter().map(String::as_str));
                    return Err(in_toml(format!(
                        "entry `{}` uses `{n}`, which nobody declares{hint}",
                        entry.name
                    )));
                }
            }
        }
        check_source(&source_name(name), toml, source, &known, &mut expressions)?;
        Ok(Self {
            name: name.to_owned(),
            summary: file.summary,
            options: file.options,
            oldest_arch: file.oldest_arch,
            constants,
            derived: file.derived,
            constraints: file.constraints,
            presets,
            entries: file.entries,
            source: source.text.clone(),
            expressions,
        })
    }

    /// Whether this arch has the instructions that it needs.
    #[must_use]
    pub fn does(&self, arch: Arch) -> bool {
        self.oldest_arch
            .is_none_or(|oldest| arch.number() >= oldest.number())
    }

    /// The source's name, as the compiler knows it, wherever the file stands.
    #[must_use]
    pub fn source_name(&self) -> String {
        source_name(&self.name)
    }

    /// The preset of this name.
    #[must_use]
    pub fn preset(&self, name: &str) -> Option<&Preset> {
        self.presets.iter().find(|p| p.name == name)
    }

    /// Works out the derived constants.
    pub(crate) fn derive(
        &self,
        constants: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, u32>, String> {
        let mut context = plain_context(constants);
        let mut out = BTreeMap::new();
        for derived in &self.derived {
            let text = self
                .expressions
                .evaluate(&derived_id(&derived.name), &context)
                .map_err(|e| format!("derived `{}` = {}: {e}", derived.name, derived.value))?;
            let number: u32 = text.trim().parse().map_err(|_| {
                format!(
                    "derived `{}` = {} comes out as {}, which is not a u32",
                    derived.name,
                    derived.value,
                    text.trim()
                )
            })?;
            context.insert(&derived.name, &number);
            out.insert(derived.name.clone(), number);
        }
        Ok(out)
    }

    /// The first constraint that does not hold.
    pub(crate) fn broken_constraint(
        &self,
        constants: &BTreeMap<String, Value>,
        derived: &BTreeMap<String, u32>,
    ) -> Result<Option<&Constraint>, String> {
        let mut context = plain_context(constants);
        for (name, value) in derived {
            context.insert(name, value);
        }
        for (index, constraint) in self.constraints.iter().enumerate() {
            if self.expressions.evaluate(&constraint_id(index), &context)? != "1" {
                return Ok(Some(constraint));
            }
        }
        Ok(None)
    }

    /// Renders the source with literals.
    pub(crate) fn render(&self, literals: &BTreeMap<String, String>) -> Result<String, String> {
        let mut context = Context::new();
        for (name, literal) in literals {
            context.insert(name, literal);
        }
        self.expressions.evaluate(&self.source_name(), &context)
    }
}

fn source_name(family: &str) -> String {
    format!("{family}.cu.tera")
}

fn check_source(
    id: &str,
    toml: &TemplateFile,
    source: &TemplateFile,
    known: &BTreeSet<String>,
    expressions: &mut Expressions,
) -> Result<(), TemplateError> {
    let error = |reason: String| TemplateError::Declaration {
        file: source.path.clone(),
        reason,
    };
    let used = expressions.add(id, &source.text).map_err(error)?;
    if let Some(what) = expressions.beyond_substitution(id) {
        return Err(error(format!(
            "has {what}: a source holds typed constexprs as {{{{ name }}}} and includes, algorithms live in headers"
        )));
    }
    let Some(stray) = used.iter().find(|n| !known.contains(*n)) else {
        return Ok(());
    };
    let line = source
        .text
        .lines()
        .position(|l| l.contains(stray.as_str()))
        .map_or(1, |i| i + 1);
    let hint = did_you_mean(stray, known.iter().map(String::as_str));
    Err(error(format!(
        "line {line} uses `{stray}`, which {} does not declare{hint}",
        toml.path
    )))
}

/// Constants as plain numbers, booleans and names, for expressions.
fn plain_context(constants: &BTreeMap<String, Value>) -> Context {
    let mut context = Context::new();
    for (name, value) in constants {
        context.insert(name, &value.to_json());
    }
    context
}

fn body_of(expression: &str) -> String {
    if expression.contains("{%") {
        expression.to_owned()
    } else {
        format!("{{{{ {expression} }}}}")
    }
}

fn derived_id(name: &str) -> String {
    format!("derived {name}")
}

fn constraint_id(index: usize) -> String {
    format!("constraint {index}")
}
