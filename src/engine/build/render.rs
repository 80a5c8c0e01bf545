//! `KernelSpec` -> `RenderedSource`. Pure.
//!
//! Invariant: source and headers are every byte that the compiler will see
//! besides its own built-ins. The headers are the transitive closure of what the
//! source includes; a header that this closure misses cannot be read from
//! anywhere else, so a miss is a compile error and never a stale kernel. Header sets are
//! handed over whole, so nothing of them can be missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::build::key::{KeyInputs, Preimage};
use crate::engine::build::options;
use crate::engine::request::header_set::{SetUse, included, name_in_full};
use crate::engine::request::regions::{self, TableError};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::ToolchainIdentity;
use crate::engine::request::template::{PARAMS_HEADER, Registry, literals};

/// Why a spec could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The template engine refused.
    #[error("{file}: {reason}")]
    Template {
        /// The source.
        file: String,
        /// The engine's words.
        reason: String,
    },
    /// An option that a family may not have.
    #[error("{family}: option `{option}` is refused: {why}")]
    Option {
        /// The family, or the variable of the environment.
        family: String,
        /// The option.
        option: String,
        /// What is wrong with it.
        why: String,
    },
    /// A number of regions for which the family has no table.
    #[error(transparent)]
    Regions(#[from] TableError),
    /// A header set of the family's own that cannot be read.
    #[error("{family}: header set `{set}`: {reason}")]
    HeaderSet {
        /// The family.
        family: String,
        /// The set.
        set: String,
        /// The folder or file, and what is wrong with it.
        reason: String,
    },
}

/// What the compiler will see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RenderedSource {
    /// The source's name, as messages show it.
    pub name: String,
    /// The source.
    pub source: String,
    /// Included headers: name and text, sorted by name. The texts are the registry's own,
    /// so thousands of variants hold them once.
    pub headers: Vec<(String, Arc<str>)>,
    /// Header sets, handed over whole behind the headers: the first that has a name is meant.
    pub sets: Vec<SetUse>,
    /// Entry points that C++ names: the declared name, and the expression.
    pub expressions: Vec<(String, String)>,
    /// Options, in order, the arch's among them.
    pub options: Vec<String>,
}

/// What every compile is given. Without the first, a quoted include that no header in
/// memory answers is read from the working folder, which no key covers. NVRTC's own disk
/// cache would hide the ptxas report and make cold figures warm.
const OWN_OPTIONS: [&str; 3] = ["--no-source-include", "--no-cache", "--ptxas-options=-v"];

/// Renders a spec.
pub fn render(registry: &Registry, spec: &KernelSpec) -> Result<RenderedSource, RenderError> {
    let family = spec.family();
    let mut own =
        (family.options_of(spec.constants(), spec.derived())).map_err(|reason| RenderError::Template {
            file: family.name.clone(),
            reason,
        })?;
    own.extend(
        family
            .given()
            .into_iter()
            .flat_map(|given| given.options.iter().cloned()),
    );
    for option in &own {
        if let Some(why) = options::refused(option) {
            return Err(RenderError::Option {
                family: family.name.clone(),
                option: option.clone(),
                why,
            });
        }
    }
    let literals = literals(spec.constants(), spec.derived());
    let name = family.source_name();
    let in_template = |reason: String| RenderError::Template {
        file: name.clone(),
        reason,
    };
    let source = family.render(&literals).map_err(in_template)?;
    let mut expressions = Vec::new();
    for entry in spec.entries() {
        if let Some(expression) = family.render_expression(entry, &literals).map_err(in_template)? {
            expressions.push((entry.name.clone(), expression));
        }
    }
    let mut made = BTreeMap::from([(regions::HEADER, Arc::from(region_table(spec)?))]);
    made.extend(family.params_header.clone().map(|text| (PARAMS_HEADER, text)));
    let all = family.given().map_or(registry.headers(), |given| &given.headers);
    let known = |name: &str| all.contains_key(name) || made.contains_key(name);
    let source = name_in_full(&name, &source, known).into_owned();
    let headers = match family.given() {
        Some(given) => given.headers.clone().into_iter().collect(),
        None => closure(&source, all, &made),
    };
    let given_sets = family
        .given()
        .into_iter()
        .flat_map(|given| given.sets.iter().cloned());
    let sets = family.header_sets.iter().map(|used| {
        (registry.header_set(used)).map_err(|e| RenderError::HeaderSet {
            family: family.name.clone(),
            set: used.name.clone(),
            reason: e.to_string(),
        })
    });
    let sets = given_sets.map(Ok).chain(sets).collect::<Result<_, _>>()?;
    let mut options = vec![format!("--gpu-architecture={}", spec.arch())];
    options.extend(own);
    options.extend(OWN_OPTIONS.map(str::to_owned));
    Ok(RenderedSource {
        name,
        source,
        headers,
        sets,
        expressions,
        options,
    })
}

/// The preimage of a rendered spec's key.
#[must_use]
pub fn preimage(
    spec: &KernelSpec,
    rendered: &RenderedSource,
    toolchain: &ToolchainIdentity,
    compiler_env: &[(String, String)],
) -> Preimage {
    Preimage::new(&KeyInputs {
        family: &spec.family().name,
        entries: spec.entries().map(|e| e.name.as_str()).collect(),
        constants: spec
            .constants()
            .iter()
            .map(|(n, v)| (n.as_str(), v.literal()))
            .collect(),
        source: &rendered.source,
        headers: &rendered.headers,
        sets: (rendered.sets.iter())
            .map(|set| (set.name.as_str(), set.identity.as_str()))
            .collect(),
        expressions: (rendered.expressions.iter())
            .map(|(entry, expression)| (entry.as_str(), expression.as_str()))
            .collect(),
        options: &rendered.options,
        arch: spec.arch(),
        toolchain,
        compiler_env,
    })
}

/// The region table's header for a spec. Like that of the parameters it is made, and
/// stands in no folder; like any header, only sources that include it are given it.
fn region_table(spec: &KernelSpec) -> Result<String, TableError> {
    spec.family().region_header(spec.constants())
}

fn closure(
    source: &str,
    headers: &BTreeMap<String, Arc<str>>,
    made: &BTreeMap<&str, Arc<str>>,
) -> Vec<(String, Arc<str>)> {
    let mut found: BTreeMap<&str, &Arc<str>> = BTreeMap::new();
    let mut texts = vec![source];
    while let Some(text) = texts.pop() {
        for (name, _) in text.lines().filter_map(included) {
            if let Some(text) = made.get(name).or_else(|| headers.get(name))
                && found.insert(name, text).is_none()
            {
                texts.push(text);
            }
        }
    }
    found
        .into_iter()
        .map(|(name, text)| (name.to_owned(), Arc::clone(text)))
        .collect()
}
