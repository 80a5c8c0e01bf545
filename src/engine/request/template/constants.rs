//! A declared constant, and what is checked of its declaration.

use serde::Deserialize;

use super::legal::{Legal, is_cxx_type, of_text};
use crate::engine::request::constant::{Type, Value};

/// A constant as a family's TOML declares it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Constant {
    /// Its name, `wo_split`.
    pub name: String,
    /// What it may be.
    pub legal: Legal,
    /// What it is unless somebody says otherwise.
    pub default: Value,
    /// One line of help.
    pub help: String,
    /// The environment variables that set it, strongest first.
    pub variables: Vec<String>,
    /// Names that it had, understood wherever constants are named.
    pub former: Vec<String>,
    /// Whether a warm that does not set it makes a variant of every value: the program
    /// that loads them may choose among them.
    pub warm_all: bool,
    /// Whether no bit of a result depends on its value, nor what a launch is given.
    pub neutral: bool,
    /// Values with which a kernel does the work of every other value, the best first. They
    /// may stand in for one that is still being compiled.
    pub general: Vec<Value>,
}

/// The TOML of a constant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConstantFile {
    #[serde(rename = "type")]
    kind: Type,
    values: Option<toml::Value>,
    range: Option<[toml::Value; 2]>,
    multiple_of: Option<u32>,
    default: toml::Value,
    help: String,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    former: Vec<String>,
    #[serde(default)]
    warm_all: bool,
    #[serde(default)]
    neutral: bool,
    general: Option<toml::Value>,
    cxx_type: Option<String>,
    max_length: Option<usize>,
    of: Option<OfFile>,
    length: Option<[usize; 2]>,
}

/// The types of a list's items: of each, or of one after the other.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a type, or an array of types")]
enum OfFile {
    Each(Type),
    Tuple(Vec<Type>),
}

impl ConstantFile {
    /// Checks the declaration, the default included.
    pub(super) fn check(self, name: &str) -> Result<Constant, String> {
        let legal = self.legal()?;
        let default = legal
            .parse(&text_of(&self.default))
            .map_err(|e| format!("default {e}"))?;
        let general = self.general(&legal).map_err(|e| format!("general: {e}"))?;
        let names = std::iter::once(name).chain(self.former.iter().map(String::as_str));
        let mut variables: Vec<String> = names.map(variable_of).collect();
        variables.extend(self.env);
        Ok(Constant {
            name: name.to_owned(),
            legal,
            default,
            help: self.help,
            variables,
            former: self.former,
            warm_all: self.warm_all,
            neutral: self.neutral,
            general,
        })
    }

    /// The values that do the work of all: one, or an array of them.
    fn general(&self, legal: &Legal) -> Result<Vec<Value>, String> {
        let Some(written) = &self.general else {
            return Ok(Vec::new());
        };
        if !self.neutral {
            return Err(
                "a value may stand in for others only where no bit depends on it: expected \
                        `neutral = true` beside it"
                    .into(),
            );
        }
        let is_one =
            |items: &[toml::Value]| self.kind == Type::List && !items.iter().all(toml::Value::is_array);
        let values = match written {
            toml::Value::Array(items) if !is_one(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        if values.is_empty() {
            return Err("there is no value: expected one, or an array of them".into());
        }
        let legal = |value| legal.parse(&text_of(value)).map_err(String::from);
        values.iter().map(legal).collect()
    }

    fn legal(&self) -> Result<Legal, String> {
        self.only_its_keys()?;
        match self.kind {
            Type::Bool => Ok(Legal::Bool),
            Type::List => self.list(),
            Type::Type => self.types(),
            Type::Enum => Ok(Legal::Enum {
                cxx_type: (self.cxx_type.clone())
                    .ok_or("an enum needs `cxx_type`, its qualified C++ type")?,
                names: (self.array()?.iter())
                    .map(|v| v.as_str().map(str::to_owned))
                    .collect::<Option<_>>()
                    .ok_or("`values` of an enum are names")?,
            }),
            Type::String => match (&self.values, self.max_length) {
                (Some(_), None) => self.listed(Type::String),
                (None, Some(most)) => Ok(Legal::Text(most)),
                _ => Err("a string needs either `values` or `max_length`, in bytes".into()),
            },
            kind => match (&self.values, &self.range) {
                (Some(_), None) => self.listed(kind),
                (None, Some(range)) => self.ranged(kind, range),
                _ => Err(format!(
                    "{} {kind} needs either `values` or `range`",
                    article(kind)
                )),
            },
        }
    }

    /// Refuses keys that say nothing of a constant of this type.
    fn only_its_keys(&self) -> Result<(), String> {
        use Type::{Bool, Enum, List, String, Type as CxxType};
        let numbers = !matches!(self.kind, Bool | Enum | String | CxxType);
        for (key, given, fits) in [
            ("values", self.values.is_some(), self.kind != Bool),
            ("range", self.range.is_some(), numbers),
            ("multiple_of", self.multiple_of.is_some(), numbers),
            ("cxx_type", self.cxx_type.is_some(), self.kind == Enum),
            ("max_length", self.max_length.is_some(), self.kind == String),
            ("of", self.of.is_some(), self.kind == List),
            ("length", self.length.is_some(), self.kind == List),
        ] {
            if given && !fits {
                return Err(format!(
                    "`{key}` says nothing of {} {}",
                    article(self.kind),
                    self.kind
                ));
            }
        }
        if self.multiple_of == Some(0) {
            return Err("`multiple_of` is at least 1".into());
        }
        Ok(())
    }

    fn array(&self) -> Result<&[toml::Value], String> {
        match &self.values {
            Some(toml::Value::Array(values)) => Ok(values),
            None => Ok(&[]),
            Some(_) => Err(format!(
                "`values` of {} {} is an array",
                article(self.kind),
                self.kind
            )),
        }
    }

    /// Listed values of a type of single values.
    fn listed(&self, kind: Type) -> Result<Legal, String> {
        let mut all = Vec::new();
        for value in self.array()? {
            let text = text_of(value);
            let parsed = of_text(kind, &text).filter(|_| is_written_as(value, kind));
            let expected = match kind.bounds() {
                Some((0, _)) => format!("`values` of a {kind} are whole numbers from 0"),
                Some((low, high)) => format!("`values` of an {kind} are whole numbers from {low} to {high}"),
                None if kind == Type::String => "`values` of a string are texts".to_owned(),
                None => format!("`values` of an {kind} are numbers"),
            };
            all.push(parsed.ok_or_else(|| format!("{expected}, not `{text}`"))?);
        }
        if kind == Type::U32 {
            return Ok(Legal::U32Values(all.iter().filter_map(Value::as_u32).collect()));
        }
        Ok(Legal::Values(kind, all))
    }

    fn ranged(&self, kind: Type, [low, high]: &[toml::Value; 2]) -> Result<Legal, String> {
        if let Some((least, most)) = kind.bounds() {
            let bound = |value: &toml::Value| {
                let number = whole(value).filter(|number| (least..=most).contains(number));
                number.ok_or_else(|| {
                    if least == 0 {
                        format!("`range` of a {kind} is two whole numbers from 0")
                    } else {
                        format!("`range` of an {kind} is two whole numbers from {least} to {most}")
                    }
                })
            };
            let (low, high, step) = (
                bound(low)?,
                bound(high)?,
                i128::from(self.multiple_of.unwrap_or(1)),
            );
            let narrow = |number: i128| u32::try_from(number).ok();
            return Ok(match (kind, narrow(low), narrow(high), narrow(step)) {
                (Type::U32, Some(low), Some(high), Some(step)) => Legal::U32Range(low, high, step),
                _ => Legal::IntegerRange(kind, low, high, step),
            });
        }
        if self.multiple_of.is_some() {
            return Err(format!("`multiple_of` says nothing of an {kind}"));
        }
        let bound =
            |value: &toml::Value| of_text(kind, &text_of(value)).filter(|_| is_written_as(value, kind));
        match (bound(low), bound(high)) {
            (Some(Value::F32(low)), Some(Value::F32(high))) => Ok(Legal::F32Range(low.get(), high.get())),
            (Some(Value::F64(low)), Some(Value::F64(high))) => Ok(Legal::F64Range(low.get(), high.get())),
            _ => Err(format!(
                "`range` of an {kind} is two numbers, perhaps -inf and inf"
            )),
        }
    }

    /// C++ types by name: as they are spelled, or by shorter names of a table.
    fn types(&self) -> Result<Legal, String> {
        let named: Vec<(String, String)> = match &self.values {
            Some(toml::Value::Table(table)) => (table.iter())
                .map(|(name, cxx)| (name.clone(), text_of(cxx)))
                .collect(),
            _ => self
                .array()?
                .iter()
                .map(text_of)
                .map(|cxx| (cxx.clone(), cxx))
                .collect(),
        };
        if named.is_empty() {
            return Err("a type needs `values`: C++ types, or a table of names and C++ types".into());
        }
        for (name, cxx) in &named {
            if !is_cxx_type(cxx) {
                return Err(format!("`{cxx}` is not a C++ type"));
            }
            if name.contains([',', '[', ']']) {
                return Err(format!(
                    "`{name}` needs a name without commas and brackets: values = {{ name = \"{cxx}\" }}"
                ));
            }
        }
        let value = |(name, cxx)| Value::Type { cxx, name };
        Ok(Legal::Values(Type::Type, named.into_iter().map(value).collect()))
    }

    fn list(&self) -> Result<Legal, String> {
        const SINGLE: &str =
            "`of` is a type of single values, or an array of such: \"u32\", [\"u32\", \"type\"]";
        let of = match self
            .of
            .as_ref()
            .ok_or("a list needs `of`, the type of its items")?
        {
            OfFile::Each(kind) => vec![*kind],
            OfFile::Tuple(kinds) => kinds.clone(),
        };
        if of.is_empty() || of.iter().any(|kind| matches!(kind, Type::List | Type::Enum)) {
            return Err(SINGLE.into());
        }
        let each = matches!(self.of, Some(OfFile::Each(_)));
        let Some(_) = &self.values else {
            let (Some(range), Some([least, most]), true) = (&self.range, self.length, each) else {
                return Err(
                    "a list needs either `values`, or `range` and `length` of one type of numbers".into(),
                );
            };
            if of[0].bounds().is_none() && !matches!(of[0], Type::F32 | Type::F64) {
                return Err(format!("`range` says nothing of {} {}", article(of[0]), of[0]));
            }
            return Ok(Legal::ListOf(Box::new(self.ranged(of[0], range)?), least, most));
        };
        if self.range.is_some() || self.length.is_some() {
            return Err(
                "a list needs either `values`, or `range` and `length` of one type of numbers".into(),
            );
        }
        let mut all = Vec::new();
        for value in self.array()? {
            let wrong = |why: &str| format!("`values` of a list are lists of its types: `{value}` {why}");
            let items = value.as_array().ok_or_else(|| wrong("is not a list"))?;
            if !each && items.len() != of.len() {
                return Err(wrong(&format!("has {} items, and not {}", items.len(), of.len())));
            }
            let item = |(at, item): (usize, &toml::Value)| {
                let kind = of[if each { 0 } else { at }];
                let text = text_of(item);
                let parsed = of_text(kind, &text)
                    .filter(|_| !text.contains([',', '[', ']']) && is_written_as(item, kind));
                parsed.ok_or_else(|| {
                    wrong(&format!(
                        "has the item `{text}`, which is not {} {kind}",
                        article(kind)
                    ))
                })
            };
            all.push(Value::List(
                items.iter().enumerate().map(item).collect::<Result<_, _>>()?,
            ));
        }
        Ok(Legal::Values(Type::List, all))
    }
}

/// The program's own variable for a constant of this name.
pub(crate) fn variable_of(name: &str) -> String {
    format!("JITC_{}", name.to_uppercase())
}

fn article(kind: Type) -> &'static str {
    match kind {
        Type::I32 | Type::I64 | Type::F32 | Type::F64 | Type::Enum => "an",
        _ => "a",
    }
}

/// A TOML value as users would write it.
pub(super) fn text_of(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a TOML value is of the kind that a constant's type is written in: a text stands
/// for numbers beyond those of TOML.
fn is_written_as(value: &toml::Value, kind: Type) -> bool {
    use toml::Value::{Boolean, Float, Integer, String};
    match kind {
        Type::Bool => matches!(value, Boolean(_)),
        Type::String | Type::Type | Type::Enum => matches!(value, String(_)),
        Type::F32 | Type::F64 => matches!(value, Integer(_) | Float(_) | String(_)),
        _ => matches!(value, Integer(_) | String(_)),
    }
}

/// A whole number, perhaps written as a float, or as a text beyond TOML's own.
fn whole(value: &toml::Value) -> Option<i128> {
    match value {
        toml::Value::Integer(number) => Some((*number).into()),
        toml::Value::Float(number) if number.fract() == 0.0 && number.abs() <= 2_f64.powi(53) => {
            number.to_string().parse().ok()
        }
        toml::Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
