//! Values by parameter name, and their packing into what a launch passes. Pure.
//!
//! Invariant: a [`Packet`] holds a value for every declared parameter, in order, of
//! its type and of at least its length for every launch up to the bound sizes.

use std::collections::BTreeMap;

use cudarc::driver::sys;
use half::{bf16, f16};

use crate::engine::request::dtype::Dtype;
use crate::engine::request::signature::{Resolved, Signature};
use crate::engine::request::template::{Parameter, ParameterKind};
use crate::engine::run::bind_error::{BindError, Mismatch};
use crate::engine::run::packet::{Blob, Packet};
use crate::engine::run::tensor::Tensor;
use crate::engine::suggest::did_you_mean;

/// A value for a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Argument {
    /// Device memory.
    Tensor(Tensor),
    /// The null pointer.
    Null,
    /// A scalar: its type, and its bits from the lowest byte.
    Scalar(Dtype, u64),
    /// A value that is passed whole, byte for byte: a struct, or a tensor map.
    Bytes(Box<[u8]>),
}

/// A struct's bytes, as CUDA has it; those of padding are of no meaning.
impl From<&[u8]> for Argument {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// A tensor map, as the driver encoded it.
impl From<&sys::CUtensorMap> for Argument {
    fn from(map: &sys::CUtensorMap) -> Self {
        // Little-endian, as is every machine that has CUDA.
        Self::Bytes(map.opaque.iter().flat_map(|word| word.to_le_bytes()).collect())
    }
}

impl From<Tensor> for Argument {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

/// Nothing is the null pointer.
impl From<Option<Tensor>> for Argument {
    fn from(tensor: Option<Tensor>) -> Self {
        tensor.map_or(Self::Null, Self::Tensor)
    }
}

macro_rules! scalar {
    ($($type:ty => $dtype:ident, $bits:expr;)*) => {$(
        impl From<$type> for Argument {
            fn from(value: $type) -> Self {
                let bits: fn($type) -> u64 = $bits;
                Self::Scalar(Dtype::$dtype, bits(value))
            }
        }
    )*};
}

scalar! {
    bool => Bool, u64::from;
    u8 => U8, u64::from;
    i8 => I8, |v| u64::from(v.cast_unsigned());
    u16 => U16, u64::from;
    i16 => I16, |v| u64::from(v.cast_unsigned());
    u32 => U32, u64::from;
    i32 => I32, |v| u64::from(v.cast_unsigned());
    u64 => U64, |v| v;
    i64 => I64, i64::cast_unsigned;
    f32 => F32, |v| u64::from(v.to_bits());
    f64 => F64, f64::to_bits;
    bf16 => Bf16, |v| u64::from(v.to_bits());
    f16 => F16, |v| u64::from(v.to_bits());
}

/// Values by parameter name, and the most of each launch size. Nothing is checked
/// before they are bound; the same ones may be bound to several variants.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    values: Vec<(String, Argument)>,
    sizes: Vec<(String, u32)>,
}

impl Arguments {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A parameter's value.
    #[must_use]
    pub fn arg(mut self, name: &str, value: impl Into<Argument>) -> Self {
        self.values.push((name.to_owned(), value.into()));
        self
    }

    /// The largest value of a launch size that the memory has room for.
    #[must_use]
    pub fn size(mut self, name: &str, most: u32) -> Self {
        self.sizes.push((name.to_owned(), most));
        self
    }

    /// The device memory among the values, by parameter.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.values.iter().filter_map(|(name, value)| match value {
            Argument::Tensor(tensor) => Some((name.as_str(), tensor)),
            _ => None,
        })
    }

    /// Checks every value against what an entry point takes, and packs them.
    pub fn pack(&self, signature: &Signature) -> Result<Packet, BindError> {
        let at = At(signature);
        let sizes = self.sizes_of(&at)?;
        self.check_names(&at)?;
        let mut numbers: BTreeMap<String, u64> = (signature.sizes().iter().cloned())
            .zip(sizes.iter().map(|size| u64::from(*size)))
            .collect();
        let scalars = self.scalars(&at)?;
        numbers.extend(scalars.iter().filter_map(|(name, scalar)| {
            let (dtype, bits) = *scalar;
            Some(((*name).to_owned(), whole(dtype, bits)?))
        }));
        let mut packet = Packet {
            words: Vec::new(),
            blobs: Vec::new(),
            patches: Vec::new(),
            most: sizes,
            in_struct: signature.is_struct(),
        };
        for parameter in signature.parameters() {
            let resolved = (signature.resolve(parameter)).map_err(|e| at.declaration(parameter, e.into()))?;
            let word = match resolved {
                Resolved::Scalar {
                    value: Some(size), ..
                } => {
                    packet.patches.push((packet.words.len(), size));
                    0
                }
                Resolved::Scalar { value: None, .. } => {
                    scalars.get(parameter.name.as_str()).map_or(0, |(_, bits)| *bits)
                }
                Resolved::Bytes { size, .. } => {
                    let bytes = self.bytes(&at, parameter, size)?;
                    packet.blobs.push((packet.words.len(), Blob::new(bytes)));
                    0
                }
                Resolved::Pointer { .. } => self.pointer(&at, parameter, resolved, &numbers)?,
            };
            packet.words.push(word);
        }
        Ok(packet)
    }

    fn sizes_of(&self, at: &At<'_>) -> Result<Vec<u32>, BindError> {
        let declared = at.0.sizes();
        for (place, (name, most)) in self.sizes.iter().enumerate() {
            if !declared.contains(name) {
                let hint = did_you_mean(name, declared.iter().map(String::as_str));
                let known = if declared.is_empty() {
                    "it has none".to_owned()
                } else {
                    format!("it has {}", declared.join(", "))
                };
                return Err(at.size(
                    name,
                    format!("it is not a launch size of the entry{hint}: {known}"),
                ));
            }
            if self.sizes[..place].iter().any(|(other, _)| other == name) {
                return Err(at.size(name, "it is given twice".into()));
            }
            if *most == 0 {
                return Err(at.size(name, "at least 1".into()));
            }
        }
        let most = |name: &String| {
            let given = self.sizes.iter().find(|(given, _)| given == name);
            given
                .map(|(_, most)| *most)
                .ok_or_else(|| at.size(name, "its largest value is not given".into()))
        };
        declared.iter().map(most).collect()
    }

    fn check_names(&self, at: &At<'_>) -> Result<(), BindError> {
        let declared = at.0.parameters();
        for (place, (name, _)) in self.values.iter().enumerate() {
            let Some(parameter) = declared.iter().find(|p| p.name == *name) else {
                let names: Vec<&str> = declared.iter().map(|p| p.name.as_str()).collect();
                return Err(BindError::Unknown {
                    family: at.0.family().to_owned(),
                    entry: at.0.entry().to_owned(),
                    parameter: name.clone(),
                    hint: did_you_mean(name, names.iter().copied()),
                    known: names.join(", "),
                });
            };
            if self.values[..place].iter().any(|(other, _)| other == name) {
                return Err(at.mismatch(name, Mismatch::Twice));
            }
            if let Ok(Resolved::Scalar {
                value: Some(size), ..
            }) = at.0.resolve(parameter)
            {
                let size = at.0.sizes().get(size).cloned().unwrap_or_default();
                return Err(at.mismatch(name, Mismatch::LaunchSize(size)));
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Argument> {
        let found = self.values.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value)
    }

    /// The bytes of a parameter that is passed by value.
    fn bytes(&self, at: &At<'_>, parameter: &Parameter, size: u32) -> Result<&[u8], BindError> {
        let found = match self.find(&parameter.name) {
            Some(Argument::Bytes(bytes)) if u32::try_from(bytes.len()) == Ok(size) => return Ok(bytes),
            Some(Argument::Bytes(bytes)) => format!("{} bytes", bytes.len()),
            Some(Argument::Scalar(dtype, _)) => format!("a scalar of type {dtype}"),
            Some(Argument::Tensor(_) | Argument::Null) => "a tensor".to_owned(),
            None => return Err(at.missing(parameter)),
        };
        let expected = parameter.type_text(at.0.sizes());
        Err(at.mismatch(&parameter.name, Mismatch::Bytes { expected, found }))
    }

    /// Every declared scalar that the caller gives, which shapes may name.
    fn scalars<'a>(&self, at: &At<'a>) -> Result<BTreeMap<&'a str, (Dtype, u64)>, BindError> {
        let mut scalars = BTreeMap::new();
        for parameter in at.0.parameters() {
            let ParameterKind::Scalar { dtype, value: None } = parameter.kind else {
                continue;
            };
            let wrong = |mismatch| Err(at.mismatch(&parameter.name, mismatch));
            match self.find(&parameter.name) {
                Some(Argument::Scalar(given, bits)) if *given == dtype => {
                    scalars.insert(parameter.name.as_str(), (dtype, *bits));
                }
                Some(Argument::Scalar(found, _)) => {
                    return wrong(Mismatch::Dtype {
                        expected: dtype,
                        found: *found,
                    });
                }
                Some(Argument::Bytes(bytes)) => {
                    return wrong(Mismatch::Bytes {
                        expected: dtype.to_string(),
                        found: format!("{} bytes", bytes.len()),
                    });
                }
                Some(_) => return wrong(Mismatch::NotScalar(dtype)),
                None => return Err(at.missing(parameter)),
            }
        }
        Ok(scalars)
    }

    fn pointer(
        &self,
        at: &At<'_>,
        parameter: &Parameter,
        resolved: Resolved,
        numbers: &BTreeMap<String, u64>,
    ) -> Result<u64, BindError> {
        let Resolved::Pointer {
            dtype,
            optional,
            alignment,
            ..
        } = resolved
        else {
            return Ok(0);
        };
        let wrong = |mismatch| Err(at.mismatch(&parameter.name, mismatch));
        let expected = || parameter.type_text(at.0.sizes());
        let tensor = match self.find(&parameter.name) {
            Some(Argument::Tensor(tensor)) if tensor.address != 0 => *tensor,
            Some(Argument::Scalar(..)) => return wrong(Mismatch::NotPointer { expected: expected() }),
            Some(Argument::Bytes(bytes)) => {
                return wrong(Mismatch::Bytes {
                    expected: expected(),
                    found: format!("{} bytes", bytes.len()),
                });
            }
            Some(_) | None if optional => return Ok(0),
            Some(_) => return wrong(Mismatch::Null { expected: expected() }),
            None => return Err(at.missing(parameter)),
        };
        if !dtype.takes(tensor.dtype) {
            return wrong(Mismatch::Dtype {
                expected: dtype,
                found: tensor.dtype,
            });
        }
        let shape = (at.0.shape(parameter, numbers)).map_err(|e| at.declaration(parameter, e.into()))?;
        if let Some(mismatch) = check_shape(&tensor, dtype, &shape, || parameter.grows()) {
            return wrong(mismatch);
        }
        if !tensor.address.is_multiple_of(u64::from(alignment)) {
            return wrong(Mismatch::Alignment {
                needed: alignment,
                address: tensor.address,
            });
        }
        Ok(tensor.address)
    }
}

/// A whole number for shapes; a negative one is no length, and counts as 0.
fn whole(dtype: Dtype, bits: u64) -> Option<u64> {
    let unused = 64 - 8 * u32::try_from(dtype.bytes()).ok()?;
    let signed = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
    let value = if signed {
        u64::try_from((bits << unused).cast_signed() >> unused).unwrap_or(0)
    } else {
        bits
    };
    dtype.is_integer().then_some(value)
}

/// Checks a tensor's shape, or its length where it has none. A dimension that grows
/// with a launch size may be longer where it is the outermost.
fn check_shape(
    tensor: &Tensor,
    dtype: Dtype,
    shape: &[Option<u64>],
    grows: impl Fn() -> bool,
) -> Option<Mismatch> {
    let text = || {
        let dims: Vec<String> = shape
            .iter()
            .map(|dim| dim.map_or_else(|| "*".to_owned(), |n| n.to_string()))
            .collect();
        format!("{dtype} [{}]", dims.join(", "))
    };
    let given = tensor.shape();
    if !given.is_empty() {
        let fits = |(at, (needed, given)): (usize, (&Option<u64>, &usize))| match needed {
            None => true,
            Some(needed) if at == 0 && grows() => *given as u64 >= *needed,
            Some(needed) => *given as u64 == *needed,
        };
        let fits = given.len() == shape.len() && shape.iter().zip(given).enumerate().all(fits);
        return (!fits).then(|| Mismatch::Shape {
            expected: text(),
            found: tensor.to_string(),
        });
    }
    let known: Option<u64> = shape
        .iter()
        .copied()
        .try_fold(1_u64, |all, dim| Some(all.saturating_mul(dim?)));
    match (known, tensor.elements()) {
        (None, _) => None,
        (Some(needed), Some(found)) if found as u64 >= needed => None,
        (Some(needed), found) => Some(Mismatch::Length {
            expected: text(),
            needed,
            found,
        }),
    }
}

/// An entry point, for errors.
struct At<'a>(&'a Signature);

impl At<'_> {
    fn size(&self, size: &str, reason: String) -> BindError {
        BindError::Size {
            family: self.0.family().to_owned(),
            entry: self.0.entry().to_owned(),
            size: size.to_owned(),
            reason,
        }
    }

    fn missing(&self, parameter: &Parameter) -> BindError {
        let expected = parameter.type_text(self.0.sizes());
        self.mismatch(&parameter.name, Mismatch::Missing { expected })
    }

    fn mismatch(&self, parameter: &str, mismatch: Mismatch) -> BindError {
        BindError::Parameter {
            family: self.0.family().to_owned(),
            entry: self.0.entry().to_owned(),
            parameter: parameter.to_owned(),
            mismatch: Box::new(mismatch),
        }
    }

    fn declaration(&self, parameter: &Parameter, reason: String) -> BindError {
        self.mismatch(&parameter.name, Mismatch::Declaration(reason))
    }
}
