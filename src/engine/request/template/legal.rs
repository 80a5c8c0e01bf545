//! The values that a constant may have, and how a text becomes one of them.

use crate::engine::refused::Refused;
use std::fmt;

use crate::engine::request::constant::{NumberF32, NumberF64, Type, Value, split_values};

/// The values that a constant may have.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Legal {
    /// One of these.
    U32Values(Vec<u32>),
    /// From first to last, both included, and a multiple of the third.
    U32Range(u32, u32, u32),
    /// The same, of another type of whole numbers.
    IntegerRange(Type, i128, i128, i128),
    /// `true` or `false`.
    Bool,
    /// From first to last, both included; infinities where they are the bounds.
    F32Range(f32, f32),
    /// The same, of doubles.
    F64Range(f64, f64),
    /// One of these names of the C++ enum.
    Enum {
        /// Qualified C++ type.
        cxx_type: String,
        /// The names.
        names: Vec<String>,
    },
    /// Any text of at most so many bytes.
    Text(usize),
    /// One of these values of any other type.
    Values(Type, Vec<Value>),
    /// A list of legal items, of at least and at most so many.
    ListOf(Box<Legal>, usize, usize),
}

impl Legal {
    /// Every legal value as a text, where they are listed; `None` for ranges.
    #[must_use]
    pub fn listed(&self) -> Option<Vec<String>> {
        match self {
            Self::U32Values(values) => Some(values.iter().map(u32::to_string).collect()),
            Self::Bool => Some(vec!["false".to_owned(), "true".to_owned()]),
            Self::Enum { names, .. } => Some(names.clone()),
            Self::Values(_, values) => Some(values.iter().map(Value::to_string).collect()),
            _ => None,
        }
    }

    /// The names of an enum, or of C++ types; `None` for the others.
    #[must_use]
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Self::Enum { .. } | Self::Values(Type::Type, _) => self.listed(),
            _ => None,
        }
    }

    /// The type of its values.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::U32Values(_) | Self::U32Range(..) => Type::U32,
            Self::IntegerRange(kind, ..) | Self::Values(kind, _) => *kind,
            Self::Bool => Type::Bool,
            Self::F32Range(..) => Type::F32,
            Self::F64Range(..) => Type::F64,
            Self::Enum { .. } => Type::Enum,
            Self::Text(_) => Type::String,
            Self::ListOf(..) => Type::List,
        }
    }

    /// A text as a legal value; else one line saying what would be legal.
    pub fn parse(&self, text: &str) -> Result<Value, Refused> {
        let text = text.trim();
        let value = match self {
            Self::Enum { cxx_type, .. } => Some(Value::Enum {
                cxx_type: cxx_type.clone(),
                name: text.to_owned(),
            }),
            Self::Values(Type::Type | Type::List, values) => {
                let written = items(text).map_or_else(|| text.to_owned(), |items| shown(&items));
                values.iter().find(|value| value.to_string() == written).cloned()
            }
            Self::ListOf(item, ..) => {
                let all =
                    items(text).map(|items| items.into_iter().map(|text| item.parse(text).ok()).collect());
                all.flatten().map(Value::List)
            }
            _ => of_text(self.type_of(), text),
        };
        match value {
            Some(value) if self.allows(&value) => Ok(value),
            _ => Err(format!("`{text}` is not legal: expected {self}").into()),
        }
    }

    /// Whether this value is legal.
    #[must_use]
    pub fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::U32Values(values), Value::U32(v)) => values.contains(v),
            (Self::U32Range(low, high, step), Value::U32(v)) => (low..=high).contains(&v) && v % step == 0,
            (Self::IntegerRange(kind, low, high, step), value) => {
                let within = |n: i128| (*low..=*high).contains(&n) && n % step == 0;
                value.type_of() == *kind && value.as_integer().is_some_and(within)
            }
            (Self::Bool, Value::Bool(_)) => true,
            (Self::F32Range(low, high), Value::F32(v)) => (*low..=*high).contains(&v.get()),
            (Self::F64Range(low, high), Value::F64(v)) => (*low..=*high).contains(&v.get()),
            (Self::Enum { names, cxx_type }, Value::Enum { cxx_type: t, name }) => {
                t == cxx_type && names.contains(name)
            }
            (Self::Text(most), Value::String(text)) => text.len() <= *most,
            (Self::Values(_, values), value) => values.contains(value),
            (Self::ListOf(item, least, most), Value::List(items)) => {
                (*least..=*most).contains(&items.len()) && items.iter().all(|value| item.allows(value))
            }
            _ => false,
        }
    }
}

/// A text as a value of a type of single values.
pub(super) fn of_text(kind: Type, text: &str) -> Option<Value> {
    // What is too large for its type is read as an infinity that nobody wrote.
    let says_infinity = || text.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    match kind {
        Type::U32 => text.parse().ok().map(Value::U32),
        Type::I32 => text.parse().ok().map(Value::I32),
        Type::U64 => text.parse().ok().map(Value::U64),
        Type::I64 => text.parse().ok().map(Value::I64),
        Type::Bool => match text {
            "true" | "1" => Some(Value::Bool(true)),
            "false" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        Type::F32 => {
            let number: f32 = text.parse().ok()?;
            let meant = number.is_finite() || says_infinity();
            NumberF32::new(number).filter(|_| meant).map(Value::F32)
        }
        Type::F64 => {
            let number: f64 = text.parse().ok()?;
            let meant = number.is_finite() || says_infinity();
            NumberF64::new(number).filter(|_| meant).map(Value::F64)
        }
        Type::String => Some(Value::String(text.to_owned())),
        Type::Type => is_cxx_type(text).then(|| Value::Type {
            cxx: text.to_owned(),
            name: text.to_owned(),
        }),
        Type::Enum | Type::List => None,
    }
}

/// The items of a list as users write it: `[64, 128]`.
pub(super) fn items(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?.trim();
    if inner.is_empty() {
        return Some(Vec::new());
    }
    // A TOML file may end its last item with a comma.
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    Some(split_values(inner).into_iter().map(unquoted).collect())
}

/// An item as TOML may write it, in quotes.
fn unquoted(item: &str) -> &str {
    let item = item.trim();
    let inner = |quote: char| item.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(item)
}

fn shown(items: &[&str]) -> String {
    format!("[{}]", items.join(","))
}

/// Whether a text can be a C++ type and nothing else: names, brackets in pairs, and what
/// stands between them.
pub(super) fn is_cxx_type(text: &str) -> bool {
    let mut open = Vec::new();
    for letter in text.chars() {
        match letter {
            '<' | '(' | '[' => open.push(letter),
            '>' | ')' | ']' => {
                let pair = matches!(
                    (open.pop(), letter),
                    (Some('<'), '>') | (Some('('), ')') | (Some('['), ']')
                );
                if !pair {
                    return false;
                }
            }
            ',' if open.is_empty() => return false,
            ',' | ':' | '*' | '&' | ' ' | '_' => {}
            _ if letter.is_ascii_alphanumeric() => {}
            _ => return false,
        }
    }
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    open.is_empty() && text.starts_with(begins)
}

/// What is legal, for people: `one of 1, 2, 4, 8`.
impl fmt::Display for Legal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(values), false) = (self.listed(), matches!(self, Self::Bool)) {
            return write!(f, "one of {}", values.join(", "));
        }
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::U32Range(low, high, 1) => write!(f, "a whole number from {low} to {high}"),
            Self::U32Range(low, high, step) => write!(f, "a multiple of {step} from {low} to {high}"),
            Self::IntegerRange(_, low, high, 1) => write!(f, "a whole number from {low} to {high}"),
            Self::IntegerRange(_, low, high, step) => write!(f, "a multiple of {step} from {low} to {high}"),
            Self::F32Range(low, high) => write!(f, "a number from {low:?} to {high:?}"),
            Self::F64Range(low, high) => write!(f, "a number from {low:?} to {high:?}"),
            Self::Text(most) => write!(f, "a text of at most {most} bytes"),
            Self::ListOf(item, least, most) if least == most => {
                write!(f, "a list such as [..] of {least}, each {item}")
            }
            Self::ListOf(item, least, most) => {
                write!(f, "a list such as [..] of {least} to {most}, each {item}")
            }
            Self::U32Values(_) | Self::Enum { .. } | Self::Values(..) => Ok(()),
        }
    }
}
