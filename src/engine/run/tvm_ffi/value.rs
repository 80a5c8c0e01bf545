//! Values of tvm-ffi, and what a kernel makes of them.
//!
//! Invariant: a value is read as what its kind says, during the call alone; a number is of the
//! parameter's type exactly, but that a float is rounded to it.

use std::ffi::c_void;

use half::{bf16, f16};

use crate::engine::request::dtype::Dtype;
use crate::engine::run::arguments::Argument;
use crate::engine::run::dlpack::{self, DlTensor};

/// A tensor's object begins with a header of so many bytes.
const OBJECT_HEADER: usize = 24;

/// A value of tvm-ffi: what it is, and its bits.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Value {
    kind: i32,
    length: u32,
    bits: Bits,
}

#[repr(C)]
#[derive(Clone, Copy)]
union Bits {
    whole: i64,
    real: f64,
    pointer: *const c_void,
    bytes: [u8; 8],
}

/// What a value is: those that a kernel can take.
mod kind {
    pub(super) const NONE: i32 = 0;
    pub(super) const INT: i32 = 1;
    pub(super) const BOOL: i32 = 2;
    pub(super) const FLOAT: i32 = 3;
    pub(super) const DL_TENSOR: i32 = 7;
    pub(super) const BYTES_POINTER: i32 = 9;
    pub(super) const SMALL_BYTES: i32 = 12;
    pub(super) const BYTES: i32 = 66;
    pub(super) const TENSOR: i32 = 70;
}

#[repr(C)]
pub(super) struct Bytes {
    pub(super) data: *const u8,
    pub(super) count: usize,
}

/// All of these: safe where the value is one of tvm-ffi's, good during the call.
impl Value {
    pub(super) unsafe fn whole(&self) -> Option<i64> {
        // SAFETY: its kind says which member it is, here and below.
        matches!(self.kind, kind::INT | kind::BOOL).then(|| unsafe { self.bits.whole })
    }

    pub(super) unsafe fn scalar(&self, dtype: Dtype) -> Result<Argument, String> {
        // SAFETY: the caller's promise.
        let whole = unsafe { self.whole() };
        let real = match (self.kind, whole) {
            // SAFETY: as above.
            (kind::FLOAT, _) => Some(unsafe { self.bits.real }),
            #[expect(
                clippy::cast_precision_loss,
                reason = "a float is rounded to the parameter's type"
            )]
            (_, whole) => whole.map(|whole| whole as f64),
        };
        number(dtype, whole, real).ok_or_else(|| format!("expected a value of type {dtype}"))
    }

    pub(super) unsafe fn tensor(&self) -> Result<Argument, String> {
        let tensor = match self.kind {
            kind::NONE => return Ok(Argument::Null),
            // SAFETY: its kind says which member it is, here and below.
            kind::DL_TENSOR => unsafe { self.bits.pointer },
            // SAFETY: as above. An object's tensor follows its header.
            kind::TENSOR => unsafe { self.bits.pointer }.wrapping_byte_add(OBJECT_HEADER),
            _ => return Err("expected a tensor".to_owned()),
        };
        // SAFETY: a tensor, as its kind says.
        unsafe { dlpack::read(tensor.cast::<DlTensor>()) }.map(Argument::from)
    }

    pub(super) unsafe fn bytes(&self) -> Result<Argument, String> {
        let bytes = match self.kind {
            kind::SMALL_BYTES => {
                // SAFETY: as above.
                let all = unsafe { &self.bits.bytes };
                return Ok(all[..(self.length as usize).min(all.len())].into());
            }
            // SAFETY: as above.
            kind::BYTES_POINTER => unsafe { self.bits.pointer },
            // SAFETY: as above. An object's bytes follow its header.
            kind::BYTES => unsafe { self.bits.pointer }.wrapping_byte_add(OBJECT_HEADER),
            _ => return Err("expected bytes".to_owned()),
        };
        // SAFETY: bytes, as its kind says.
        let Some(bytes) = (unsafe { bytes.cast::<Bytes>().as_ref() }) else {
            return Err("expected bytes, got NULL".to_owned());
        };
        if bytes.count == 0 {
            return Ok(Argument::Bytes(Box::default()));
        }
        // SAFETY: so many are there.
        Ok(unsafe { std::slice::from_raw_parts(bytes.data, bytes.count) }.into())
    }
}

/// A number as one of this type: exactly, but that a float is rounded to it.
fn number(dtype: Dtype, whole: Option<i64>, real: Option<f64>) -> Option<Argument> {
    fn exact<T: TryFrom<i64> + Into<Argument>>(whole: Option<i64>) -> Option<Argument> {
        T::try_from(whole?).ok().map(Into::into)
    }
    match dtype {
        Dtype::U8 => exact::<u8>(whole),
        Dtype::I8 => exact::<i8>(whole),
        Dtype::U16 => exact::<u16>(whole),
        Dtype::I16 => exact::<i16>(whole),
        Dtype::U32 => exact::<u32>(whole),
        Dtype::I32 => exact::<i32>(whole),
        Dtype::U64 => exact::<u64>(whole),
        Dtype::I64 => whole.map(Argument::from),
        Dtype::Bool => match whole? {
            0 => Some(false.into()),
            1 => Some(true.into()),
            _ => None,
        },
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float is rounded to the parameter's type"
        )]
        Dtype::F32 => Some((real? as f32).into()),
        Dtype::F64 => real.map(Argument::from),
        Dtype::F16 => Some(f16::from_f64(real?).into()),
        Dtype::Bf16 => Some(bf16::from_f64(real?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn whole(value: i64) -> Value {
        Value {
            kind: kind::INT,
            length: 0,
            bits: Bits { whole: value },
        }
    }

    fn real(value: f64) -> Value {
        Value {
            kind: kind::FLOAT,
            length: 0,
            bits: Bits { real: value },
        }
    }

    fn scalar(value: Value, dtype: Dtype) -> Option<Argument> {
        // SAFETY: a number has no pointer.
        unsafe { value.scalar(dtype) }.ok()
    }

    #[test]
    fn a_value_has_the_layout_of_tvm_ffi() {
        assert_eq!((size_of::<Value>(), std::mem::offset_of!(Value, bits)), (16, 8));
        assert_eq!((size_of::<DlTensor>(), size_of::<Bytes>()), (48, 16));
    }

    #[test]
    fn a_number_is_of_the_parameters_type_or_refused() {
        assert_eq!(scalar(whole(7), Dtype::U32), Some(7_u32.into()));
        assert_eq!(scalar(whole(-1), Dtype::U32), None);
        assert_eq!(scalar(whole(300), Dtype::U8), None);
        assert_eq!(scalar(real(1.5), Dtype::U32), None, "nothing is cut off");
        assert_eq!(scalar(real(1.5), Dtype::F32), Some(1.5_f32.into()));
        assert_eq!(scalar(whole(2), Dtype::F64), Some(2.0_f64.into()));
        assert_eq!(scalar(real(0.5), Dtype::F16), Some(f16::from_f32(0.5).into()));
        assert_eq!(scalar(whole(1), Dtype::Bool), Some(true.into()));
        assert_eq!(scalar(whole(2), Dtype::Bool), None);
    }

    #[test]
    fn bytes_and_tensors_are_told_from_what_they_are_not() {
        let text = *b"abc";
        let long = Bytes {
            data: text.as_ptr(),
            count: 3,
        };
        let pointer = |kind, pointer: *const c_void| Value {
            kind,
            length: 0,
            bits: Bits { pointer },
        };
        let small = Value {
            kind: kind::SMALL_BYTES,
            length: 2,
            bits: Bits { bytes: *b"abcdefgh" },
        };
        let shape = [4_i64];
        let tensor = DlTensor {
            data: ptr::without_provenance_mut(0x1000),
            device_type: 2,
            device_id: 0,
            ndim: 1,
            dtype_code: 2,
            dtype_bits: 32,
            dtype_lanes: 1,
            shape: shape.as_ptr(),
            strides: ptr::null(),
            byte_offset: 0,
        };
        let bytes = pointer(kind::BYTES_POINTER, (&raw const long).cast());
        let tensor = pointer(kind::DL_TENSOR, (&raw const tensor).cast());
        // SAFETY: what they point at lives on, here and below.
        let read = |value: &Value| unsafe { value.bytes() };
        assert_eq!(read(&bytes), Ok(Argument::from(&b"abc"[..])));
        assert_eq!(read(&small), Ok(Argument::from(&b"ab"[..])));
        assert!(read(&whole(1)).is_err() && read(&tensor).is_err());
        // SAFETY: as above.
        let read = |value: &Value| unsafe { value.tensor() };
        assert!(matches!(read(&tensor), Ok(Argument::Tensor(_))));
        assert_eq!(read(&pointer(kind::NONE, ptr::null())), Ok(Argument::Null));
        assert!(read(&pointer(kind::DL_TENSOR, ptr::null())).is_err());
        assert!(read(&whole(1)).is_err() && read(&bytes).is_err());
    }
}
