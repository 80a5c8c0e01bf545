//! A declared constant: its type, what is legal, and how a text becomes a value.

use serde::Deserialize;

use crate::engine::request::constant::{FiniteF32, Type, Value};

/// A constant as a family's TOML declares it.
#[derive(Debug, Clone)]
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
}

/// The values that a constant may have.
#[derive(Debug, Clone, PartialEq)]
pub enum Legal {
    /// One of these.
    U32Values(Vec<u32>),
    /// From first to last, both included, and a multiple of the third.
    U32Range(u32, u32, u32),
    /// `true` or `false`.
    Bool,
    /// From first to last, both included.
    F32Range(f32, f32),
    /// One of these names of the C++ enum.
    Enum {
        /// Qualified C++ type.
        cxx_type: String,
        /// The names.
        names: Vec<String>,
    },
}

/// The TOML of a constant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConstantFile {
    #[serde(rename = "type")]
    kind: Type,
    values: Option<Vec<toml::Value>>,
    range: Option<[f64; 2]>,
    multiple_of: Option<u32>,
    default: toml::Value,
    help: String,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    former: Vec<String>,
    #[serde(default)]
    warm_all: bool,
    cxx_type: Option<String>,
}

impl ConstantFile {
    /// Checks the declaration, the default included.
    pub(super) fn check(self, name: &str) -> Result<Constant, String> {
        let legal = match self.kind {
            Type::Bool => Legal::Bool,
            Type::U32 => match (&self.values, self.range) {
                (Some(values), None) => Legal::U32Values(
                    values
                        .iter()
                        .map(|v| v.as_integer().and_then(|i| u32::try_from(i).ok()))
                        .collect::<Option<_>>()
                        .ok_or("`values` of a u32 are whole numbers from 0")?,
                ),
                (None, Some([low, high])) => {
                    Legal::U32Range(whole(low)?, whole(high)?, self.multiple_of.unwrap_or(1))
                }
                _ => return Err("a u32 needs either `values` or `range`".into()),
            },
            Type::F32 => {
                let [low, high] = self.range.ok_or("an f32 needs `range`")?;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "bounds are written as short decimals"
                )]
                Legal::F32Range(low as f32, high as f32)
            }
            Type::Enum => Legal::Enum {
                cxx_type: self
                    .cxx_type
                    .ok_or("an enum needs `cxx_type`, its qualified C++ type")?,
                names: self
                    .values
                    .unwrap_or_default()
                    .iter()
                    .map(|v| v.as_str().map(str::to_owned))
                    .collect::<Option<_>>()
                    .ok_or("`values` of an enum are names")?,
            },
        };
        let text = match &self.default {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let default = legal.parse(&text).map_err(|e| format!("default {e}"))?;
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
        })
    }
}

/// The program's own variable for a constant of this name.
pub(crate) fn variable_of(name: &str) -> String {
    format!("JITC_{}", name.to_uppercase())
}

fn whole(number: f64) -> Result<u32, String> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked by the comparison"
    )]
    let cast = number as u32;
    if (f64::from(cast) - number).abs() < f64::EPSILON {
        Ok(cast)
    } else {
        Err("`range` of a u32 is two whole numbers from 0".into())
    }
}

impl Legal {
    /// Every legal value as a text, where they are listed; `None` for ranges.
    #[must_use]
    pub fn listed(&self) -> Option<Vec<String>> {
        match self {
            Self::U32Values(values) => Some(values.iter().map(|v| Value::U32(*v).to_string()).collect()),
            Self::Bool => Some(vec!["false".to_owned(), "true".to_owned()]),
            Self::Enum { names, .. } => Some(names.clone()),
            Self::U32Range(..) | Self::F32Range(..) => None,
        }
    }

    /// The type of its values.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::U32Values(_) | Self::U32Range(..) => Type::U32,
            Self::Bool => Type::Bool,
            Self::F32Range(..) => Type::F32,
            Self::Enum { .. } => Type::Enum,
        }
    }

    /// A text as a legal value; else one line saying what would be legal.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = match self {
            Self::U32Values(_) | Self::U32Range(..) => text.parse().ok().map(Value::U32),
            Self::Bool => match text {
                "true" | "1" => Some(Value::Bool(true)),
                "false" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::F32Range(..) => text.parse().ok().and_then(FiniteF32::new).map(Value::F32),
            Self::Enum { cxx_type, .. } => Some(Value::Enum {
                cxx_type: cxx_type.clone(),
                name: text.to_owned(),
            }),
        };
        match value {
            Some(value) if self.allows(&value) => Ok(value),
            _ => Err(format!("`{text}` is not legal: expected {self}")),
        }
    }

    /// Whether this value is legal.
    #[must_use]
    pub fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::U32Values(values), Value::U32(v)) => values.contains(v),
            (Self::U32Range(low, high, step), Value::U32(v)) => (low..=high).contains(&v) && v % step == 0,
            (Self::Bool, Value::Bool(_)) => true,
            (Self::F32Range(low, high), Value::F32(v)) => (*low..=*high).contains(&v.get()),
            (Self::Enum { names, cxx_type }, Value::Enum { cxx_type: t, name }) => {
                t == cxx_type && names.contains(name)
            }
            _ => false,
        }
    }
}

/// What is legal, for people: `one of 1, 2, 4, 8`.
impl std::fmt::Display for Legal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U32Values(values) => {
                let values: Vec<_> = values.iter().map(u32::to_string).collect();
                write!(f, "one of {}", values.join(", "))
            }
            Self::U32Range(low, high, 1) => write!(f, "a whole number from {low} to {high}"),
            Self::U32Range(low, high, step) => write!(f, "a multiple of {step} from {low} to {high}"),
            Self::Bool => f.write_str("true or false"),
            Self::F32Range(low, high) => write!(f, "a number from {low:?} to {high:?}"),
            Self::Enum { names, .. } => write!(f, "one of {}", names.join(", ")),
        }
    }
}
