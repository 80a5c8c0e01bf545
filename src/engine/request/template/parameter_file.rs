//! The TOML of a list of parameters, and what is checked of it when a family is read.
//!
//! Invariant: a list that passed is consistent: names are unique, types are known,
//! and every expression uses only what may be known when it is evaluated.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Deserialize;

use super::constants::Constant;
use super::fill::{Fill, FillFile, FillKind};
use super::parameters::{
    Access, Dim, Element, MAX_BYTES, MAX_PARAMETERS, MAX_SIZES, Optional, Parameter, ParameterKind,
    ParameterList, Rule, TENSOR_MAP,
};
use crate::engine::request::cxx_name::{check_name, is_identifier};
use crate::engine::request::dtype::Dtype;
use crate::engine::request::tera_strict::{Body, Expressions, shown};
use crate::engine::suggest::did_you_mean;

/// Bytes at which tensors start unless a parameter says otherwise: what the widest loads need.
const ALIGNMENT: u32 = 16;

/// The TOML of a parameter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParameterFile {
    name: String,
    #[serde(rename = "type")]
    dtype: String,
    shape: Option<Vec<DimFile>>,
    access: Option<Access>,
    optional: Option<OptionalFile>,
    value: Option<String>,
    alignment: Option<u32>,
    bytes: Option<u32>,
    #[serde(default)]
    help: String,
    fill: Option<FillFile>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DimFile {
    Number(u32),
    Expression(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OptionalFile {
    Flag(bool),
    Rule(String),
}

/// What the expressions of a list may name.
pub(super) struct Scope<'a> {
    pub(super) constants: &'a IndexMap<String, Constant>,
    /// Constants and derived ones.
    pub(super) known: &'a BTreeSet<String>,
    /// The launch sizes of the entries that the list is of.
    pub(super) sizes: &'a [String],
}

/// Names launch sizes as they may be named.
pub(super) fn check_sizes(sizes: &[String], known: &BTreeSet<String>) -> Result<(), String> {
    if sizes.len() > MAX_SIZES {
        return Err(format!("at most {MAX_SIZES} launch sizes, not {}", sizes.len()));
    }
    for (at, size) in sizes.iter().enumerate() {
        let size_at = |e: &str| Err(format!("launch size `{size}` {e}"));
        if !is_identifier(size) {
            return size_at("is not a name: letters, digits and `_`");
        }
        if known.contains(size) {
            return size_at("has the name of a constant");
        }
        if sizes[..at].contains(size) {
            return size_at("is declared twice");
        }
    }
    Ok(())
}

/// Checks a list; `of` says whose it is, in messages and for its expressions.
pub(super) fn check(
    of: &str,
    files: Vec<ParameterFile>,
    cxx_struct: Option<String>,
    scope: &Scope<'_>,
    expressions: &mut Expressions,
) -> Result<ParameterList, String> {
    if files.len() > MAX_PARAMETERS {
        return Err(format!(
            "{of}: at most {MAX_PARAMETERS} parameters, not {}",
            files.len()
        ));
    }
    if let Some(name) = cxx_struct.as_deref()
        && !name.split("::").all(|part| check_name(part).is_ok())
    {
        return Err(format!(
            "{of}: parameter_struct `{name}` is not the qualified name of a CUDA type"
        ));
    }
    let mut in_shapes = scope.known.clone();
    in_shapes.extend(scope.sizes.iter().cloned());
    for (at, file) in files.iter().enumerate() {
        let name = &file.name;
        check_name(name).map_err(|e| format!("{of}: parameter `{name}` {e}"))?;
        if files[..at].iter().any(|other| other.name == *name) {
            return Err(format!("{of}: parameter `{name}` is declared twice"));
        }
        if file.shape.is_none() && file.dtype.parse().is_ok_and(Dtype::is_integer) {
            // A shape that names it would be ambiguous.
            if scope.known.contains(name) {
                return Err(format!("{of}: parameter `{name}` has the name of a constant"));
            }
            in_shapes.insert(name.clone());
        }
    }
    let mut parameters = Vec::new();
    for file in files {
        let at = |e: String| format!("{of}: parameter `{}`: {e}", file.name);
        let id = format!("{of} {}", file.name);
        let kind = file.kind(&id, scope, &in_shapes, expressions).map_err(at)?;
        let fill = match file.fill {
            None => None,
            Some(fill) => {
                let fill = fill.check().and_then(|fill| fits(fill, &kind));
                Some(fill.map_err(|e| format!("{of}: parameter `{}`: fill: {e}", file.name))?)
            }
        };
        parameters.push(Parameter {
            name: file.name,
            kind,
            help: file.help,
            fill,
        });
    }
    let by_value = |p: &&Parameter| matches!(p.kind, ParameterKind::Bytes { .. });
    if let (Some(name), Some(parameter)) = (&cxx_struct, parameters.iter().find(by_value)) {
        return Err(format!(
            "{of}: parameter `{}`: parameter_struct `{name}` has a word a parameter: give an entry with this one a list of its own",
            parameter.name
        ));
    }
    let list = ParameterList {
        parameters,
        cxx_struct,
    };
    let end = list.places().last().map_or(0, |last| last.offset + last.size);
    if end > MAX_BYTES {
        return Err(format!(
            "{of}: {end} bytes of parameters: a kernel takes at most {MAX_BYTES}"
        ));
    }
    Ok(list)
}

impl ParameterFile {
    fn kind(
        &self,
        id: &str,
        scope: &Scope<'_>,
        in_shapes: &BTreeSet<String>,
        expressions: &mut Expressions,
    ) -> Result<ParameterKind, String> {
        if let "struct" | "tensor_map" = self.dtype.as_str() {
            return self.by_value();
        }
        if self.bytes.is_some() {
            return Err("`bytes` is of the type struct".into());
        }
        let Some(shape) = &self.shape else {
            return self.scalar(scope);
        };
        if self.value.is_some() {
            return Err("`value` is of scalars, and a `shape` makes it a pointer".into());
        }
        let element = self.element(scope)?;
        let dims = (shape.iter().enumerate())
            .map(|(at, dim)| dim.check(&format!("{id} {at}"), scope, in_shapes, expressions))
            .collect::<Result<Vec<_>, _>>()?;
        if dims.iter().skip(1).any(|dim| dim.id.is_none()) {
            return Err("only the first dimension may be `*`".into());
        }
        let alignment = aligned(self.alignment.unwrap_or(ALIGNMENT), 4096)?;
        let optional = match &self.optional {
            None => Optional::Fixed(false),
            Some(OptionalFile::Flag(flag)) => Optional::Fixed(*flag),
            Some(OptionalFile::Rule(rule)) => {
                let rule = add_rule(&format!("{id} optional"), rule, scope.known, expressions);
                Optional::When(rule.map_err(|e| format!("`optional` {e}"))?)
            }
        };
        Ok(ParameterKind::Pointer {
            element,
            shape: dims,
            access: self.access.unwrap_or_default(),
            optional,
            alignment,
        })
    }

    /// A struct, or a tensor map.
    fn by_value(&self) -> Result<ParameterKind, String> {
        for (key, given) in [
            ("shape", self.shape.is_some()),
            ("access", self.access.is_some()),
            ("optional", self.optional.is_some()),
            ("value", self.value.is_some()),
        ] {
            if given {
                return Err(format!("`{key}` says nothing of what is passed by value"));
            }
        }
        if self.dtype == "tensor_map" {
            if self.bytes.is_some() || self.alignment.is_some() {
                return Err("a tensor_map has 128 bytes, aligned to 64".into());
            }
            let (size, alignment) = TENSOR_MAP;
            return Ok(ParameterKind::Bytes {
                size,
                alignment,
                tensor_map: true,
            });
        }
        let (Some(size), Some(alignment)) = (self.bytes, self.alignment) else {
            return Err("a struct needs `bytes` and `alignment`: sizeof and alignof of its CUDA type".into());
        };
        let alignment = aligned(alignment, 256)?;
        if size == 0 || size > MAX_BYTES || !size.is_multiple_of(alignment) {
            return Err(format!(
                "`bytes` of a struct is a multiple of its alignment, {alignment}, up to {MAX_BYTES}, not {size}"
            ));
        }
        Ok(ParameterKind::Bytes {
            size,
            alignment,
            tensor_map: false,
        })
    }

    fn scalar(&self, scope: &Scope<'_>) -> Result<ParameterKind, String> {
        for (key, given) in [
            ("access", self.access.is_some()),
            ("optional", self.optional.is_some()),
            ("alignment", self.alignment.is_some()),
        ] {
            if given {
                return Err(format!("`{key}` is of pointers, which have a `shape`"));
            }
        }
        let Element::Fixed(dtype) = self.element(scope)? else {
            return Err("only a pointer's elements may have the type that a constant names".into());
        };
        let Some(size) = &self.value else {
            return Ok(ParameterKind::Scalar { dtype, value: None });
        };
        let Some(at) = scope.sizes.iter().position(|s| s == size) else {
            let hint = did_you_mean(size, scope.sizes.iter().map(String::as_str));
            return Err(format!("`value` is `{size}`, which is not a launch size{hint}"));
        };
        if !dtype.is_integer() || dtype.bytes() < 4 {
            return Err(format!(
                "a launch size is passed as u32, i32, u64 or i64, not as {dtype}"
            ));
        }
        Ok(ParameterKind::Scalar {
            dtype,
            value: Some(at),
        })
    }

    fn element(&self, scope: &Scope<'_>) -> Result<Element, String> {
        let text = &self.dtype;
        if let Ok(dtype) = text.parse() {
            return Ok(Element::Fixed(dtype));
        }
        let types = Dtype::ALL.map(Dtype::name);
        let Some(names) = scope
            .constants
            .get(text)
            .and_then(|constant| constant.legal.names())
        else {
            let hint = did_you_mean(text, types);
            return Err(format!(
                "unknown type `{text}`{hint}: known are {}, struct, tensor_map, and constants that name types",
                types.join(", ")
            ));
        };
        match names.iter().find(|name| !types.contains(&name.as_str())) {
            None => Ok(Element::Constant(text.clone())),
            Some(name) => Err(format!(
                "type `{text}` is a constant that may be `{name}`, which is not a type"
            )),
        }
    }
}

/// Whether a parameter can be filled so, as far as its declaration says.
fn fits(fill: Fill, kind: &ParameterKind) -> Result<Fill, String> {
    match kind {
        ParameterKind::Scalar { value: Some(_), .. } => Err("a launch size is what the launch says".into()),
        ParameterKind::Bytes { .. } if !matches!(fill.kind, FillKind::File(_)) => {
            Err("what is passed by value is filled from a FILE.npy of its bytes".into())
        }
        ParameterKind::Scalar { dtype, value: None } => match fill.kind {
            FillKind::Value(_) => Ok(fill.check(*dtype).map(|()| fill)?),
            _ => Err("a scalar is a number".into()),
        },
        ParameterKind::Pointer {
            element: Element::Fixed(dtype),
            ..
        } => Ok(fill.check(*dtype).map(|()| fill)?),
        _ => Ok(fill),
    }
}

fn aligned(alignment: u32, most: u32) -> Result<u32, String> {
    if alignment.is_power_of_two() && alignment <= most {
        return Ok(alignment);
    }
    Err(format!(
        "`alignment` is a power of two up to {most}, not {alignment}"
    ))
}

impl DimFile {
    fn check(
        &self,
        id: &str,
        scope: &Scope<'_>,
        in_shapes: &BTreeSet<String>,
        expressions: &mut Expressions,
    ) -> Result<Dim, String> {
        let text = match self {
            Self::Number(number) => number.to_string(),
            Self::Expression(text) => text.clone(),
        };
        if text == "*" {
            return Ok(Dim {
                text,
                id: None,
                launch: false,
            });
        }
        let used = add_known(id, Body::Value(&text), in_shapes, expressions)
            .map_err(|e| format!("dimension `{}` {e}", shown(&text)))?;
        Ok(Dim {
            text,
            id: Some(id.to_owned()),
            launch: used.iter().any(|name| scope.sizes.contains(name)),
        })
    }
}

/// Adds a rule that is true or false.
pub(super) fn add_rule(
    id: &str,
    rule: &str,
    known: &BTreeSet<String>,
    expressions: &mut Expressions,
) -> Result<Rule, String> {
    add_known(id, Body::Rule(rule), known, expressions)?;
    Ok(Rule {
        text: rule.to_owned(),
        id: id.to_owned(),
    })
}

/// C++ that names a kernel: text and `{{ name }}` alone, like a source.
pub(super) fn add_expression(
    id: &str,
    text: &str,
    known: &BTreeSet<String>,
    expressions: &mut Expressions,
) -> Result<Rule, String> {
    if text.trim().is_empty() || text.contains(['\n', '\0']) {
        return Err("is not one line of C++ that names a kernel".into());
    }
    add_known(id, Body::Source(text), known, expressions)?;
    if let Some(what) = expressions.beyond_substitution(id) {
        return Err(format!(
            "has {what}: expected C++ with constants as {{{{ name }}}}"
        ));
    }
    Ok(Rule {
        text: text.to_owned(),
        id: id.to_owned(),
    })
}

/// Adds an expression that uses only known names, and gives those.
fn add_known(
    id: &str,
    body: Body<'_>,
    known: &BTreeSet<String>,
    expressions: &mut Expressions,
) -> Result<BTreeSet<String>, String> {
    let used = expressions.add(id, body).map_err(|e| format!("is wrong: {e}"))?;
    match used.iter().find(|name| !known.contains(*name)) {
        None => Ok(used),
        Some(name) => {
            let hint = did_you_mean(name, known.iter().map(String::as_str));
            Err(format!("uses `{name}`, which nobody declares{hint}"))
        }
    }
}
