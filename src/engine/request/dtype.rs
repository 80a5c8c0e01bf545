//! The types of a kernel's scalars and of what its pointers point at.
//!
//! Invariant: an element has the same size on the host, in CUDA and in every
//! language that hands tensors over.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An element's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// binary16.
    F16,
    /// binary32.
    F32,
    /// binary64.
    F64,
    /// Bytes: any of them, also E4M3 or two E2M1 codes.
    U8,
    /// Signed bytes.
    I8,
    /// Unsigned 16-bit integers.
    U16,
    /// Signed 16-bit integers.
    I16,
    /// Unsigned 32-bit integers.
    U32,
    /// Signed 32-bit integers.
    I32,
    /// Unsigned 64-bit integers.
    U64,
    /// Signed 64-bit integers.
    I64,
    /// 8-bit floating point, 4 bits of exponent, no infinities.
    E4m3,
    /// 8-bit floating point, 5 bits of exponent.
    E5m2,
    /// Powers of two in a byte: MX block scales.
    E8m0,
    /// Two 4-bit floating-point codes in a byte.
    E2m1x2,
    /// A byte that is 0 or 1.
    Bool,
}

impl Dtype {
    /// The type of a code of `DLPack`, with its bits and lanes.
    #[must_use]
    pub fn of_dlpack(code: u8, bits: u8, lanes: u16) -> Option<Self> {
        Some(match (code, bits, lanes) {
            (0, 8, 1) => Self::I8,
            (0, 16, 1) => Self::I16,
            (0, 32, 1) => Self::I32,
            (0, 64, 1) => Self::I64,
            (1, 8, 1) => Self::U8,
            (1, 16, 1) => Self::U16,
            (1, 32, 1) => Self::U32,
            (1, 64, 1) => Self::U64,
            (2, 16, 1) => Self::F16,
            (2, 32, 1) => Self::F32,
            (2, 64, 1) => Self::F64,
            (4, 16, 1) => Self::Bf16,
            (6, 8, 1) => Self::Bool,
            (10, 8, 1) => Self::E4m3,
            (12, 8, 1) => Self::E5m2,
            (14, 8, 1) => Self::E8m0,
            (17, 4, 2) => Self::E2m1x2,
            _ => return None,
        })
    }

    /// Every type, in the order of the documentation.
    pub const ALL: [Self; 17] = [
        Self::Bf16,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::E4m3,
        Self::E5m2,
        Self::E8m0,
        Self::E2m1x2,
        Self::Bool,
    ];

    /// Its name in a family's TOML, in messages and in JSON: `bf16`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
            Self::E8m0 => "e8m0",
            Self::E2m1x2 => "e2m1x2",
            Self::Bool => "bool",
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::E4m3 | Self::E5m2 | Self::E8m0 | Self::E2m1x2 | Self::Bool => 1,
            Self::Bf16 | Self::F16 | Self::U16 | Self::I16 => 2,
            Self::F32 | Self::U32 | Self::I32 => 4,
            Self::F64 | Self::U64 | Self::I64 => 8,
        }
    }

    /// The CUDA type that holds its bits; the short floating-point types are held
    /// by unsigned integers of their size.
    #[must_use]
    pub const fn cxx(self) -> &'static str {
        match self {
            Self::Bf16 | Self::F16 | Self::U16 => "unsigned short",
            Self::I16 => "short",
            Self::F32 => "float",
            Self::F64 => "double",
            Self::U8 | Self::E4m3 | Self::E5m2 | Self::E8m0 | Self::E2m1x2 => "unsigned char",
            Self::I8 => "signed char",
            Self::Bool => "bool",
            Self::U32 => "unsigned",
            Self::I32 => "int",
            Self::U64 => "unsigned long long",
            Self::I64 => "long long",
        }
    }

    /// Whether it is a whole number.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        matches!(
            self,
            Self::U8 | Self::I8 | Self::U16 | Self::I16 | Self::U32 | Self::I32 | Self::U64 | Self::I64
        )
    }

    /// Whether a tensor of the type `given` holds what a parameter of this type
    /// points at: the same type, or plain bytes for a type of one byte and back.
    #[must_use]
    pub fn takes(self, given: Self) -> bool {
        let bytes = |dtype: Self| dtype.bytes() == 1 && dtype != Self::I8;
        self == given || (bytes(self) && bytes(given) && (self == Self::U8 || given == Self::U8))
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_type_everywhere() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            let json = serde_json::to_string(&dtype).expect("json");
            assert_eq!(json, format!("\"{}\"", dtype.name()));
        }
        assert_eq!("float".parse::<Dtype>(), Err(()));
    }

    #[test]
    fn plain_bytes_hold_every_type_of_one_byte_and_no_other() {
        assert!(Dtype::E4m3.takes(Dtype::U8) && Dtype::U8.takes(Dtype::E2m1x2));
        assert!(!Dtype::E4m3.takes(Dtype::E5m2), "two formats of a byte");
        assert!(!Dtype::U8.takes(Dtype::I8));
        assert!(!Dtype::Bf16.takes(Dtype::U16) && !Dtype::Bf16.takes(Dtype::F16));
        assert!(Dtype::F32.takes(Dtype::F32));
    }
}
