//! A typed compile-time value and its C++ literal.
//!
//! Invariant: a [`Value`] is always legal C++ of exactly its type. Templates
//! never format a value themselves: a float that prints as `1.0` is a double to
//! CUDA, and a silent double in a kernel is a bug nobody sees.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// The types that a family may declare for a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Type {
    /// 32-bit unsigned integer; C++ literal `8u`.
    U32,
    /// 32-bit signed integer; C++ literal `8` or `(-8)`.
    I32,
    /// 64-bit unsigned integer; C++ literal `8ull`.
    U64,
    /// 64-bit signed integer; C++ literal `8ll` or `(-8ll)`.
    I64,
    /// Boolean; C++ literal `true` or `false`.
    Bool,
    /// IEEE binary32; C++ literal `1e-6f`, of an infinity by its bits,
    /// `__builtin_bit_cast(float, 0x7f800000u)`. NaN is not a constant.
    F32,
    /// IEEE binary64; C++ literal `1e-6`, an infinity as for [`F32`](Self::F32).
    F64,
    /// One of a declared list of names; C++ literal `::<cxx_type>::<name>`.
    Enum,
    /// A text; C++ literal `"text"`.
    String,
    /// A C++ type, as it is declared: `__half`.
    Type,
    /// Several values in order; their C++ literals with commas between them.
    List,
}

impl Type {
    /// Its name in a family's TOML.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::Bool => "bool",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Enum => "enum",
            Self::String => "string",
            Self::Type => "type",
            Self::List => "list",
        }
    }

    /// The least and the largest value of a whole number's type; `None` of the others.
    #[must_use]
    pub fn bounds(self) -> Option<(i128, i128)> {
        match self {
            Self::U32 => Some((0, u32::MAX.into())),
            Self::I32 => Some((i32::MIN.into(), i32::MAX.into())),
            Self::U64 => Some((0, u64::MAX.into())),
            Self::I64 => Some((i64::MIN.into(), i64::MAX.into())),
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! by_bits {
    ($name:ident, $float:ty, $bits:ty, $doc:literal) => {
        #[doc = $doc]
        /// It compares and hashes by its bits, so that it can stand in a key: `0.0` and
        /// `-0.0` are different constants.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($bits);

        impl $name {
            /// `None` for NaN.
            #[must_use]
            pub fn new(value: $float) -> Option<Self> {
                (!value.is_nan()).then(|| Self(value.to_bits()))
            }

            /// The number.
            #[must_use]
            pub fn get(self) -> $float {
                <$float>::from_bits(self.0)
            }
        }
    };
}

by_bits!(NumberF32, f32, u32, "An f32 that is a number or an infinity.");
by_bits!(NumberF64, f64, u64, "An f64 that is a number or an infinity.");

/// A compile-time value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Value {
    /// See [`Type::U32`].
    U32(u32),
    /// See [`Type::I32`].
    I32(i32),
    /// See [`Type::U64`].
    U64(u64),
    /// See [`Type::I64`].
    I64(i64),
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::F32`].
    F32(NumberF32),
    /// See [`Type::F64`].
    F64(NumberF64),
    /// See [`Type::Enum`]: the C++ enum's qualified name and the enumerator.
    Enum {
        /// Qualified C++ type, without the leading `::`.
        cxx_type: String,
        /// The enumerator, which is also the name that users write.
        name: String,
    },
    /// See [`Type::String`].
    String(String),
    /// See [`Type::Type`].
    Type {
        /// The C++ type.
        cxx: String,
        /// The name that users write.
        name: String,
    },
    /// See [`Type::List`].
    List(Vec<Value>),
}

impl Value {
    /// The type of the value.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::U32(_) => Type::U32,
            Self::I32(_) => Type::I32,
            Self::U64(_) => Type::U64,
            Self::I64(_) => Type::I64,
            Self::Bool(_) => Type::Bool,
            Self::F32(_) => Type::F32,
            Self::F64(_) => Type::F64,
            Self::Enum { .. } => Type::Enum,
            Self::String(_) => Type::String,
            Self::Type { .. } => Type::Type,
            Self::List(_) => Type::List,
        }
    }

    /// The C++ literal that templates receive.
    #[must_use]
    pub fn literal(&self) -> String {
        match self {
            Self::U32(v) => format!("{v}u"),
            // The least has no literal: its digits alone are more than the largest. What
            // begins with a sign is in brackets, so that `x-{{ n }}` is what it looks like.
            Self::I32(i32::MIN) => format!("({} - 1)", i32::MIN + 1),
            Self::I32(v) => signed(&v.to_string()),
            Self::U64(v) => format!("{v}ull"),
            Self::I64(i64::MIN) => format!("({}ll - 1)", i64::MIN + 1),
            Self::I64(v) => signed(&format!("{v}ll")),
            Self::Bool(v) => v.to_string(),
            // NVRTC has no constant expression for it but the bits.
            Self::F32(v) if v.get().is_infinite() => format!("__builtin_bit_cast(float, {:#x}u)", v.0),
            // Rust's shortest form that reads back to the same bits always has
            // a point or an exponent, so the suffix makes it a float literal.
            Self::F32(v) => format!("{:?}f", v.get()),
            Self::F64(v) if v.get().is_infinite() => format!("__builtin_bit_cast(double, {:#x}ull)", v.0),
            Self::F64(v) => signed(&format!("{:?}", v.get())),
            Self::Enum { cxx_type, name } => format!("::{cxx_type}::{name}"),
            Self::String(text) => quoted(text),
            Self::Type { cxx, .. } => cxx.clone(),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::literal).collect();
                items.join(", ")
            }
        }
    }

    /// As JSON: a number, a boolean or a string. An infinity is the string `inf` or `-inf`,
    /// a list the string that users write.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::U32(v) => (*v).into(),
            Self::I32(v) => (*v).into(),
            Self::U64(v) => (*v).into(),
            Self::I64(v) => (*v).into(),
            Self::Bool(v) => (*v).into(),
            Self::F32(v) if v.get().is_finite() => f64::from(v.get()).into(),
            Self::F64(v) if v.get().is_finite() => v.get().into(),
            _ => self.to_string().into(),
        }
    }

    /// As expressions have it: as [`to_json`](Self::to_json), and a list by its elements.
    #[must_use]
    pub fn for_expressions(&self) -> serde_json::Value {
        match self {
            Self::List(items) => items.iter().map(Self::for_expressions).collect(),
            _ => self.to_json(),
        }
    }

    /// The u32 inside, if it is one.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        match self {
            Self::U32(v) => Some(*v),
            _ => None,
        }
    }

    /// The number inside, a bool's being 1 or 0; `None` for what is not a whole number from
    /// 0 that fits into 32 bits.
    #[must_use]
    pub fn as_number(&self) -> Option<u32> {
        self.as_integer().and_then(|number| number.try_into().ok())
    }

    /// The whole number inside, a bool's being 1 or 0; `None` for what is not one.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Self::U32(v) => Some((*v).into()),
            Self::I32(v) => Some((*v).into()),
            Self::U64(v) => Some((*v).into()),
            Self::I64(v) => Some((*v).into()),
            Self::Bool(v) => Some((*v).into()),
            _ => None,
        }
    }

    /// The name that users write, if it is an enum or a C++ type.
    #[must_use]
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::Enum { name, .. } | Self::Type { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// As users write it: `8`, `true`, `1e-6`, `fma`, `[64,128]`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U32(v) => write!(f, "{v}"),
            Self::I32(v) => write!(f, "{v}"),
            Self::U64(v) => write!(f, "{v}"),
            Self::I64(v) => write!(f, "{v}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::F32(v) => write!(f, "{:?}", v.get()),
            Self::F64(v) => write!(f, "{:?}", v.get()),
            Self::Enum { name, .. } | Self::Type { name, .. } => f.write_str(name),
            Self::String(text) => f.write_str(text),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(","))
            }
        }
    }
}

/// The values of a list that a setting gives, separated by commas; those within brackets are
/// part of a value.
#[must_use]
pub fn split_values(text: &str) -> Vec<&str> {
    let (mut depth, mut from) = (0_usize, 0);
    let mut parts = Vec::new();
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn signed(literal: &str) -> String {
    if literal.starts_with('-') {
        format!("({literal})")
    } else {
        literal.to_owned()
    }
}

/// A C++ string literal: what is not plain ASCII by its bytes, in three octal digits, after
/// which any text may follow.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | b'?' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn f32_of(value: f32) -> Value {
        Value::F32(NumberF32::new(value).expect("a number"))
    }

    fn f64_of(value: f64) -> Value {
        Value::F64(NumberF64::new(value).expect("a number"))
    }

    #[test]
    fn literals_are_typed() {
        let fma = Value::Enum {
            cxx_type: "jitc::Accumulate".into(),
            name: "fma".into(),
        };
        let half = Value::Type {
            cxx: "__half".into(),
            name: "f16".into(),
        };
        for (value, literal) in [
            (Value::U32(8), "8u"),
            (Value::I32(8), "8"),
            (Value::I32(-8), "(-8)"),
            (Value::I32(i32::MIN), "(-2147483647 - 1)"),
            (Value::U64(u64::MAX), "18446744073709551615ull"),
            (Value::I64(-1), "(-1ll)"),
            (Value::I64(i64::MIN), "(-9223372036854775807ll - 1)"),
            (Value::Bool(true), "true"),
            (f32_of(1.0), "1.0f"),
            (f32_of(1e-6), "1e-6f"),
            (f32_of(-2.0), "-2.0f"),
            (f32_of(f32::INFINITY), "__builtin_bit_cast(float, 0x7f800000u)"),
            (
                f32_of(f32::NEG_INFINITY),
                "__builtin_bit_cast(float, 0xff800000u)",
            ),
            (f64_of(1.0), "1.0"),
            (f64_of(-0.0), "(-0.0)"),
            (
                f64_of(f64::NEG_INFINITY),
                "__builtin_bit_cast(double, 0xfff0000000000000ull)",
            ),
            (fma, "::jitc::Accumulate::fma"),
            (half.clone(), "__half"),
            (Value::String("a\"\\?\n1é".into()), r#""a\"\\\?\0121\303\251""#),
            (Value::List(vec![Value::U32(64), half]), "64u, __half"),
        ] {
            assert_eq!(value.literal(), literal);
        }
    }

    #[test]
    fn not_a_number_is_refused() {
        assert!(NumberF32::new(f32::NAN).is_none());
        assert!(NumberF64::new(-f64::NAN).is_none());
    }

    #[test]
    fn what_json_has_no_number_for_is_the_text_that_users_write() {
        let list = Value::List(vec![Value::I32(-1), Value::I32(2)]);
        assert_eq!(list.to_json(), "[-1,2]");
        assert_eq!(list.for_expressions(), serde_json::json!([-1, 2]));
        assert_eq!(f32_of(f32::NEG_INFINITY).to_json(), "-inf");
        assert_eq!(f64_of(f64::INFINITY).to_string(), "inf");
        assert_eq!(Value::U64(u64::MAX).to_json(), u64::MAX);
    }

    #[test]
    fn values_are_separated_by_commas_outside_of_brackets() {
        assert_eq!(split_values("1,2"), ["1", "2"]);
        assert_eq!(split_values("[1,2],[3,[4,5]],6"), ["[1,2]", "[3,[4,5]]", "6"]);
        assert_eq!(split_values("]a,b["), ["]a", "b["]);
        assert_eq!(split_values(""), [""]);
    }

    proptest! {
        #[test]
        fn a_float_literal_reads_back_to_the_same_bits(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let literal = f32_of(value).literal();
            let text = literal.strip_suffix('f').expect("suffix");
            prop_assert!(text.contains('.') || text.contains('e'));
            prop_assert_eq!(text.parse::<f32>().expect("number").to_bits(), bits);
        }

        #[test]
        fn a_double_literal_reads_back_to_the_same_bits(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let literal = f64_of(value).literal();
            let text = literal.trim_matches(['(', ')']);
            prop_assert!(text.contains('.') || text.contains('e'));
            prop_assert_eq!(text.parse::<f64>().expect("number").to_bits(), bits);
        }
    }
}
