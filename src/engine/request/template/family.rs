//! One family: a TOML of declarations and a source beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;
use tera::Context;

use super::TemplateError;
use super::constants::{Constant, ConstantFile};
use super::dispatch::{Dispatch, DispatchFile};
use super::entry::{self, Entry, EntryFile, Shared};
use super::given::Given;
use super::headers::HeadersFile;
use super::measure::{self, MeasureFile, Measured, SearchFile};
use super::names::{FormerName, FormerNameFile, Preset, PresetFile};
use super::options::{self, CompilerOptions, DefineFile};
use super::parameter_file::{ParameterFile, Scope};
use super::parameters::ParameterList;
use super::regions;
use crate::engine::config::settings::why_reserved;
use crate::engine::request::constant::Value;
use crate::engine::request::header_set::SetName;
use crate::engine::request::regions::{Regions, RegionsFile};
use crate::engine::request::target::Arch;
use crate::engine::request::tera_strict::{Body, Expressions, shown};
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
#[non_exhaustive]
pub struct Family {
    /// Its name, `wo_gemv`.
    pub name: String,
    /// One line on what it computes.
    pub summary: String,
    /// Compiler options and macros that it needs, in order.
    pub options: CompilerOptions,
    /// Header sets that its sources may include from, the strongest first.
    pub header_sets: Vec<SetName>,
    /// The oldest arch whose instructions it can do with, if that matters.
    pub oldest_arch: Option<Arch>,
    /// Whether bits of its results may depend on the arch that it is compiled for: then no
    /// other arch's code stands in for it.
    pub arch_changes_bits: bool,
    /// Declared constants, in the order of the file.
    pub constants: IndexMap<String, Constant>,
    /// Constants worked out from others, in order.
    pub derived: Vec<Derived>,
    /// What must hold between constants.
    pub constraints: Vec<Constraint>,
    /// Named sets of constants.
    pub presets: Vec<Preset>,
    /// Names that it had, still accepted.
    pub former_names: Vec<FormerName>,
    /// The environment variables that name a preset, strongest first; of a family
    /// without presets, none.
    pub preset_variables: Vec<String>,
    /// Entry points, of which a spec has those whose condition holds.
    pub entries: Vec<Entry>,
    /// The parameters of entry points that have no list of their own.
    pub parameters: Option<Arc<ParameterList>>,
    /// The header that declares the struct of its parameters, where one carries them.
    pub params_header: Option<Arc<str>>,
    /// Whether the source may define kernels that it does not name.
    pub other_kernels: bool,
    /// Its region tables, if it has any.
    pub regions: Option<Regions>,
    /// Rules from a problem and a GPU to constants, if it has any.
    pub dispatch: Option<Dispatch>,
    /// How it is measured by its declaration.
    pub measured: Measured,
    /// The source before rendering.
    pub source: String,
    /// What a program gave with the source, where it is no family of files.
    pub(super) given: Option<Given>,
    pub(super) expressions: Expressions,
}

/// A u32 worked out from other constants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Derived {
    /// Name of the family.
    pub name: String,
    /// A Tera expression, or a template body if it has `{%`.
    pub value: String,
}

/// What must hold between constants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Constraint {
    /// A Tera expression that is true or false.
    pub rule: String,
    /// Why, in one line.
    pub because: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyFile {
    summary: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    defines: IndexMap<String, DefineFile>,
    #[serde(default)]
    headers: HeadersFile,
    oldest_arch: Option<Arch>,
    #[serde(default)]
    arch_changes_bits: bool,
    #[serde(default)]
    constants: IndexMap<String, ConstantFile>,
    #[serde(default)]
    derived: Vec<Derived>,
    #[serde(default)]
    constraints: Vec<Constraint>,
    #[serde(default)]
    presets: Vec<PresetFile>,
    #[serde(default)]
    former_names: Vec<FormerNameFile>,
    #[serde(default)]
    preset_env: Vec<String>,
    #[serde(default)]
    sizes: Vec<String>,
    parameter_struct: Option<String>,
    parameters: Option<Vec<ParameterFile>>,
    entries: Vec<EntryFile>,
    #[serde(default)]
    other_kernels: bool,
    regions: Option<RegionsFile>,
    dispatch: Option<DispatchFile>,
    measure: Option<MeasureFile>,
    tune: Option<SearchFile>,
}

impl Family {
    /// Parses and checks a family: its declarations and its source.
    pub fn parse(name: &str, toml: &TemplateFile, source: &TemplateFile) -> Result<Self, TemplateError> {
        let in_toml = |reason: String| TemplateError::Declaration {
            file: toml.path.clone(),
            reason,
        };
        let file = declarations(&toml.text).map_err(in_toml)?;
        let constants = checked(file.constants, &file.derived).map_err(in_toml)?;
        let preset_variables = preset_variables(file.presets.is_empty(), file.preset_env).map_err(in_toml)?;
        let presets = file.presets.into_iter().map(|preset| preset.check(&constants));
        let presets: Vec<Preset> = presets.collect::<Result<_, _>>().map_err(in_toml)?;
        let former = file.former_names.into_iter().map(|name| name.check(&constants));
        let former_names: Vec<FormerName> = former.collect::<Result<_, _>>().map_err(in_toml)?;

        let mut known: BTreeSet<String> = constants.keys().cloned().collect();
        let mut expressions = Expressions::new();
        let mut add = |id: String, what: &str, body: Body<'_>, known: &BTreeSet<String>| {
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
        // What a preset depends on is known before anything is worked out.
        for preset in &presets {
            if let Some(when) = &preset.when {
                let what = format!("preset `{}`", preset.name);
                add(preset_id(&preset.name), &what, Body::Rule(when), &known)?;
            }
        }
        for derived in &file.derived {
            let what = format!("derived `{}`", derived.name);
            let body = Body::Value(&derived.value);
            add(derived_id(&derived.name), &what, body, &known)?;
            if !known.insert(derived.name.clone()) {
                return Err(in_toml(format!("{what} is declared twice")));
            }
        }
        for (index, constraint) in file.constraints.iter().enumerate() {
            let what = format!("constraint `{}`", shown(&constraint.rule));
            add(constraint_id(index), &what, Body::Rule(&constraint.rule), &known)?;
        }
        let options =
            options::check(file.options, file.defines, &known, &mut expressions).map_err(in_toml)?;
        let scope = Scope {
            constants: &constants,
            known: &known,
            sizes: &[],
        };
        let shared = Shared {
            sizes: file.sizes.clone(),
            parameters: file.parameters,
            parameter_struct: file.parameter_struct,
        };
        let (entries, parameters) =
            entry::check_all(file.entries, shared, &scope, &mut expressions).map_err(in_toml)?;
        let params_header = (parameters.as_ref())
            .and_then(|list| list.header(name, &file.sizes))
            .map(Arc::from);
        check_source(&source_name(name), toml, source, &known, &mut expressions)?;
        let regions = file
            .regions
            .map(|file| regions::check(file, name, &constants))
            .transpose()
            .map_err(|e| in_toml(format!("regions: {e}")))?;
        let dispatch = (file.dispatch)
            .map(|file| file.check(&constants, &known))
            .transpose()
            .map_err(in_toml)?;
        let tables = (file.measure, file.tune, entries.as_slice(), dispatch.as_ref());
        let measured = measure::check(tables, &constants, &known, &mut expressions).map_err(in_toml)?;
        let family = Self {
            name: name.to_owned(),
            summary: file.summary,
            options,
            header_sets: file.headers.check().map_err(in_toml)?,
            oldest_arch: file.oldest_arch,
            arch_changes_bits: file.arch_changes_bits,
            constants,
            derived: file.derived,
            constraints: file.constraints,
            presets,
            former_names,
            preset_variables,
            entries,
            parameters,
            params_header,
            other_kernels: file.other_kernels,
            regions,
            dispatch,
            measured,
            source: source.text.clone(),
            given: None,
            expressions,
        };
        family.check_general().map_err(in_toml)?;
        Ok(family)
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
        match self.given {
            Some(_) => format!("{}.cu", self.name),
            None => source_name(&self.name),
        }
    }

    /// The constant that has this name, or had it.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<&Constant> {
        let had = |c: &&Constant| c.former.iter().any(|former| former == name);
        (self.constants.get(name)).or_else(|| self.constants.values().find(had))
    }

    /// The name of the constant that has this name, or had it; any other name as it is.
    #[must_use]
    pub fn present_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.constant(name).map_or(name, |constant| &constant.name)
    }

    /// The preset of this name.
    #[must_use]
    pub fn preset(&self, name: &str) -> Option<&Preset> {
        self.presets.iter().find(|p| p.name == name)
    }

    /// Whether a preset's condition holds for these constants; a preset without one
    /// always holds.
    pub(crate) fn preset_holds(
        &self,
        preset: &Preset,
        constants: &BTreeMap<String, Value>,
    ) -> Result<bool, String> {
        if preset.when.is_none() {
            return Ok(true);
        }
        let held = (self.expressions).evaluate(&preset_id(&preset.name), &plain_context(constants));
        held.map(|text| text == "1")
            .map_err(|e| format!("preset `{}`: when: {e}", preset.name))
    }

    /// The former name that stands for these constants, if one does.
    #[must_use]
    pub fn former_name_of(&self, constants: &BTreeMap<String, Value>) -> Option<&FormerName> {
        let says = |former: &&FormerName| {
            (former.constants.iter()).all(|(name, value)| constants.get(name) == Some(value))
        };
        self.former_names.iter().find(says)
    }

    /// Which of the entry points there are for these constants: indices into
    /// [`entries`](Self::entries), at least one.
    pub(crate) fn entries_for(
        &self,
        constants: &BTreeMap<String, Value>,
        derived: &BTreeMap<String, u32>,
    ) -> Result<Vec<usize>, String> {
        let context = full_context(constants, derived);
        let mut there = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let holds = match &entry.when {
                None => true,
                Some(when) => {
                    let held = self.expressions.evaluate(&when.id, &context);
                    held.map_err(|e| format!("entry `{}`: when = {when}: {e}", entry.name))? == "1"
                }
            };
            if holds {
                there.push(index);
            }
        }
        if there.is_empty() {
            let conditions: Vec<&str> = (self.entries.iter())
                .filter_map(|e| Some(e.when.as_ref()?.text.as_str()))
                .collect();
            return Err(format!(
                "no entry point is left: none of these conditions holds: {}",
                conditions.join("; ")
            ));
        }
        Ok(there)
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
                .map_err(|e| format!("derived `{}` = {}: {e}", derived.name, shown(&derived.value)))?;
            let number: u32 = text.trim().parse().map_err(|_| {
                format!(
                    "derived `{}` = {} comes out as {}, which is not a u32",
                    derived.name,
                    shown(&derived.value),
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
        let context = full_context(constants, derived);
        for (index, constraint) in self.constraints.iter().enumerate() {
            if self.expressions.evaluate(&constraint_id(index), &context)? != "1" {
                return Ok(Some(constraint));
            }
        }
        Ok(None)
    }

    /// Evaluates an expression over constants, derived ones and further numbers.
    pub(crate) fn evaluate(
        &self,
        id: &str,
        constants: &BTreeMap<String, Value>,
        derived: &BTreeMap<String, u32>,
        more: &BTreeMap<String, u64>,
    ) -> Result<String, String> {
        let mut context = full_context(constants, derived);
        for (name, value) in more {
            context.insert(name, value);
        }
        self.expressions.evaluate(id, &context)
    }

    /// Renders the source with literals.
    pub(crate) fn render(&self, literals: &BTreeMap<String, String>) -> Result<String, String> {
        if self.given.is_some() {
            return Ok(self.source.clone());
        }
        self.expressions
            .evaluate(&self.source_name(), &of_literals(literals))
    }

    /// The C++ that names an entry point, with literals, where it has such.
    pub(crate) fn render_expression(
        &self,
        entry: &Entry,
        literals: &BTreeMap<String, String>,
    ) -> Result<Option<String>, String> {
        let rendered = entry.expression.as_ref().map(|expression| {
            (self.expressions.evaluate(&expression.id, &of_literals(literals)))
                .map_err(|e| format!("entry `{}`: expression: {e}", entry.name))
        });
        rendered.transpose()
    }
}

/// The TOML as it is written; an error names the line.
fn declarations(text: &str) -> Result<FamilyFile, String> {
    toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start].lines().count().max(1));
        format!("line {line}: {}", e.message())
    })
}

fn source_name(family: &str) -> String {
    format!("{family}.cu.tera")
}

/// Variables that name a preset: the program's own, then the family's.
fn preset_variables(no_presets: bool, own: Vec<String>) -> Result<Vec<String>, String> {
    match (no_presets, own.is_empty()) {
        (true, true) => Ok(own),
        (true, false) => Err("`preset_env` names a preset, and there are none".into()),
        (false, _) => Ok(std::iter::once("JITC_PRESET".to_owned()).chain(own).collect()),
    }
}

/// Declared constants, each checked by itself, and their names among each other.
fn checked(
    declared: IndexMap<String, ConstantFile>,
    derived: &[Derived],
) -> Result<IndexMap<String, Constant>, String> {
    let mut constants = IndexMap::new();
    for (name, constant) in declared {
        let checked = match why_reserved(&name) {
            Some(reason) => Err(format!("`{name}` {reason}")),
            None => constant.check(&name),
        };
        let checked = checked.map_err(|e| format!("constant `{name}`: {e}"))?;
        constants.insert(name, checked);
    }
    let derived = derived.iter().map(|d| d.name.as_str());
    let mut taken: BTreeSet<&str> = constants.keys().map(String::as_str).chain(derived).collect();
    for (name, constant) in &constants {
        if let Some(former) = constant.former.iter().find(|f| !taken.insert(f.as_str())) {
            return Err(format!("constant `{name}`: its former name `{former}` is taken"));
        }
    }
    Ok(constants)
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
    let used = expressions.add(id, Body::Source(&source.text)).map_err(error)?;
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

fn of_literals(literals: &BTreeMap<String, String>) -> Context {
    let mut context = Context::new();
    for (name, literal) in literals {
        context.insert(name, literal);
    }
    context
}

/// Constants as plain numbers, booleans and names, for expressions.
fn plain_context(constants: &BTreeMap<String, Value>) -> Context {
    let mut context = Context::new();
    for (name, value) in constants {
        context.insert(name, &value.for_expressions());
    }
    context
}

/// The same with derived constants.
fn full_context(constants: &BTreeMap<String, Value>, derived: &BTreeMap<String, u32>) -> Context {
    let mut context = plain_context(constants);
    for (name, value) in derived {
        context.insert(name, value);
    }
    context
}

pub(super) fn derived_id(name: &str) -> String {
    format!("derived {name}")
}

fn constraint_id(index: usize) -> String {
    format!("constraint {index}")
}

fn preset_id(name: &str) -> String {
    format!("preset {name}")
}
