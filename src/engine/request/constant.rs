//! A typed compile-time value and its C++ literal.
//!
//! Invariant: a [`Value`] is always legal C++ of exactly its type. Templates
//! never format a value themselves: a float that prints as `1.0` is a double to
//! CUDA, and a silent double in a kernel is a bug nobody sees.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The types that a family may declare for a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// 32-bit unsigned integer; C++ literal `8u`.
    U32,
    /// Boolean; C++ literal `true` or `false`.
    Bool,
    /// IEEE binary32; C++ literal `1e-6f`. Infinities and NaN are not constants.
    F32,
    /// One of a declared list of names; C++ literal `::<cxx_type>::<name>`.
    Enum,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U32 => "u32",
            Self::Bool => "bool",
            Self::F32 => "f32",
            Self::Enum => "enum",
        })
    }
}

/// A finite f32 that compares and hashes by its bits, so that it can stand in a
/// key: `0.0` and `-0.0` are different constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiniteF32(u32);

impl FiniteF32 {
    /// `None` for infinities and NaN.
    #[must_use]
    pub fn new(value: f32) -> Option<Self> {
        value.is_finite().then(|| Self(value.to_bits()))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

/// A compile-time value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// See [`Type::U32`].
    U32(u32),
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::F32`].
    F32(FiniteF32),
    /// See [`Type::Enum`]: the C++ enum's qualified name and the enumerator.
    Enum {
        /// Qualified C++ type, without the leading `::`.
        cxx_type: String,
        /// The enumerator, which is also the name that users write.
        name: String,
    },
}

impl Value {
    /// The type of the value.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::U32(_) => Type::U32,
            Self::Bool(_) => Type::Bool,
            Self::F32(_) => Type::F32,
            Self::Enum { .. } => Type::Enum,
        }
    }

    /// The C++ literal that templates receive.
    #[must_use]
    pub fn literal(&self) -> String {
        match self {
            Self::U32(v) => format!("{v}u"),
            Self::Bool(v) => v.to_string(),
            // Rust's shortest form that reads back to the same bits always has
            // a point or an exponent, so the suffix makes it a float literal.
            Self::F32(v) => format!("{:?}f", v.get()),
            Self::Enum { cxx_type, name } => format!("::{cxx_type}::{name}"),
        }
    }

    /// As JSON: a number, a boolean or a string.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::U32(v) => (*v).into(),
            Self::Bool(v) => (*v).into(),
            Self::F32(v) => f64::from(v.get()).into(),
            Self::Enum { name, .. } => name.clone().into(),
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

    /// The number inside, a bool's being 1 or 0; `None` for what is no whole number.
    #[must_use]
    pub fn as_number(&self) -> Option<u32> {
        match self {
            Self::U32(v) => Some(*v),
            Self::Bool(v) => Some(u32::from(*v)),
            _ => None,
        }
    }

    /// The enumerator's name, if it is an enum.
    #[must_use]
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::Enum { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// As users write it: `8`, `true`, `1e-6`, `fma`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U32(v) => write!(f, "{v}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::F32(v) => write!(f, "{:?}", v.get()),
            Self::Enum { name, .. } => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_are_typed() {
        assert_eq!(Value::U32(8).literal(), "8u");
        assert_eq!(Value::Bool(true).literal(), "true");
        let one = FiniteF32::new(1.0).expect("finite");
        assert_eq!(Value::F32(one).literal(), "1.0f");
        let eps = FiniteF32::new(1e-6).expect("finite");
        assert_eq!(Value::F32(eps).literal(), "1e-6f");
        let fma = Value::Enum {
            cxx_type: "jitc::Accumulate".into(),
            name: "fma".into(),
        };
        assert_eq!(fma.literal(), "::jitc::Accumulate::fma");
    }

    #[test]
    fn non_finite_floats_are_refused() {
        assert!(FiniteF32::new(f32::NAN).is_none());
        assert!(FiniteF32::new(f32::INFINITY).is_none());
    }

    proptest! {
        #[test]
        fn a_float_literal_reads_back_to_the_same_bits(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let literal = Value::F32(FiniteF32::new(value).expect("finite")).literal();
            let text = literal.strip_suffix('f').expect("suffix");
            prop_assert!(text.contains('.') || text.contains('e'));
            prop_assert_eq!(text.parse::<f32>().expect("number").to_bits(), bits);
        }
    }
}
