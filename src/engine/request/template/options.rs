//! Compiler options and macros of a family, which may name constants.
//!
//! Invariant: what a constant adds is in the option's own text, which the key covers and
//! which is judged whole like any other.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::Deserialize;

use super::Family;
use super::parameter_file::add_rule;
use super::parameters::Rule;
use crate::engine::request::constant::Value;
use crate::engine::request::cxx_name::is_identifier;
use crate::engine::request::tera_strict::{Body, Expressions, shown};
use crate::engine::suggest::did_you_mean;

/// A family's options, in order, and its macros behind them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CompilerOptions {
    /// As the TOML has them, with `{{ name }}` for a constant as users write it.
    pub options: Vec<String>,
    /// Macros, in declared order.
    pub defines: Vec<Define>,
}

/// A macro.
#[derive(Debug)]
#[non_exhaustive]
pub struct Define {
    /// The macro's name.
    pub name: String,
    /// What stands for it, with `{{ name }}` for a constant's C++ literal; `None` for the
    /// compiler's own 1.
    pub text: Option<String>,
    /// Where it does not hold, the macro is not defined.
    pub when: Option<Rule>,
}

/// The TOML of a macro.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected true, false, a number, a text, or { when = .., value = .. }"
)]
pub(super) enum DefineFile {
    Flag(bool),
    Number(i64),
    Text(String),
    Table(DefineTable),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefineTable {
    when: String,
    value: Option<DefineValue>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DefineValue {
    Number(i64),
    Text(String),
}

/// Checks options and macros: the names in them are declared.
pub(super) fn check(
    options: Vec<String>,
    defines: IndexMap<String, DefineFile>,
    known: &BTreeSet<String>,
    expressions: &mut Expressions,
) -> Result<CompilerOptions, String> {
    for option in &options {
        add_text(&option_id(option), option, known, expressions)
            .map_err(|e| format!("option `{}` {e}", shown(option)))?;
    }
    let mut checked = Vec::new();
    for (name, file) in defines {
        let at = |e: String| format!("[defines] {name}: {e}");
        if !is_identifier(&name) {
            return Err(at("is not the name of a macro: letters, digits and `_`".into()));
        }
        let (text, when) = match file {
            DefineFile::Flag(false) => continue,
            DefineFile::Flag(true) => (None, None),
            DefineFile::Number(number) => (Some(number.to_string()), None),
            DefineFile::Text(text) => (Some(text), None),
            DefineFile::Table(DefineTable { when, value }) => {
                let text = value.map(|value| match value {
                    DefineValue::Number(number) => number.to_string(),
                    DefineValue::Text(text) => text,
                });
                (text, Some(when))
            }
        };
        if let Some(text) = &text {
            if text.contains(['\n', '\r', '\0']) {
                return Err(at("a macro is one line".into()));
            }
            add_text(&define_id(&name), text, known, expressions).map_err(at)?;
        }
        let when = when
            .map(|rule| add_rule(&format!("define when {name}"), &rule, known, expressions))
            .transpose()
            .map_err(|e| at(format!("`when` {e}")))?;
        checked.push(Define { name, text, when });
    }
    Ok(CompilerOptions {
        options,
        defines: checked,
    })
}

/// Whether a text has nothing that is Tera's.
fn is_literal(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().all(|tag| !text.contains(tag))
}

fn add_text(
    id: &str,
    text: &str,
    known: &BTreeSet<String>,
    expressions: &mut Expressions,
) -> Result<(), String> {
    if is_literal(text) {
        return Ok(());
    }
    let used = expressions.add(id, Body::Source(text))?;
    if let Some(what) = expressions.beyond_substitution(id) {
        return Err(format!(
            "has {what}: expected text and constants as {{{{ name }}}}"
        ));
    }
    match used.iter().find(|name| !known.contains(*name)) {
        None => Ok(()),
        Some(name) => {
            let hint = did_you_mean(name, known.iter().map(String::as_str));
            Err(format!("uses `{name}`, which nobody declares{hint}"))
        }
    }
}

impl CompilerOptions {
    /// The options of one variant. `plain` and `literals`: constants as users write them,
    /// and as C++. `holds` tells whether a rule does. The text says what is wrong.
    pub(super) fn of_variant(
        &self,
        expressions: &Expressions,
        plain: &BTreeMap<String, String>,
        literals: &BTreeMap<String, String>,
        holds: impl Fn(&Rule) -> Result<bool, String>,
    ) -> Result<Vec<String>, String> {
        let render = |id: &str, text: &str, values: &BTreeMap<String, String>| {
            if is_literal(text) {
                return Ok(text.to_owned());
            }
            let mut context = tera::Context::new();
            for (name, value) in values {
                context.insert(name, value);
            }
            expressions.evaluate(id, &context)
        };
        let mut all = Vec::new();
        for option in &self.options {
            all.push(render(&option_id(option), option, plain)?);
        }
        for define in &self.defines {
            if let Some(rule) = &define.when
                && !holds(rule).map_err(|e| format!("[defines] {}: {e}", define.name))?
            {
                continue;
            }
            all.push(match &define.text {
                None => format!("-D{}", define.name),
                Some(text) => {
                    let text = render(&define_id(&define.name), text, literals)?;
                    format!("-D{}={text}", define.name)
                }
            });
        }
        Ok(all)
    }
}

fn option_id(option: &str) -> String {
    format!("option {option}")
}

fn define_id(name: &str) -> String {
    format!("define {name}")
}

impl Family {
    /// Compiler options of one variant, macros behind them; the text says what is wrong.
    pub(crate) fn options_of(
        &self,
        constants: &BTreeMap<String, Value>,
        derived: &BTreeMap<String, u32>,
    ) -> Result<Vec<String>, String> {
        let mut plain: BTreeMap<String, String> =
            derived.iter().map(|(n, v)| (n.clone(), v.to_string())).collect();
        plain.extend(
            constants
                .iter()
                .map(|(name, value)| (name.clone(), value.to_string())),
        );
        let holds = |rule: &Rule| self.evaluate(&rule.id, constants, derived, &BTreeMap::new());
        (self.options).of_variant(&self.expressions, &plain, &literals(constants, derived), |rule| {
            holds(rule).map(|text| text == "1")
        })
    }
}

/// Constants and derived ones as C++.
pub(crate) fn literals(
    constants: &BTreeMap<String, Value>,
    derived: &BTreeMap<String, u32>,
) -> BTreeMap<String, String> {
    let mut literals: BTreeMap<String, String> = constants
        .iter()
        .map(|(name, value)| (name.clone(), value.literal()))
        .collect();
    literals.extend(
        derived
            .iter()
            .map(|(name, value)| (name.clone(), format!("{value}u"))),
    );
    literals
}
