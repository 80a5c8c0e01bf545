//! Tensors as `DLPack` has them.
//!
//! Invariant: a tensor is read during the call and never kept; its memory is its owner's.

use std::ffi::c_void;

use arrayvec::ArrayVec;

use crate::engine::run::tensor::{Dtype, MAX_RANK, Tensor, is_contiguous};

/// The `DLTensor` of `DLPack` 1, member for member and byte for byte.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DlTensor {
    /// Address of its memory on the GPU.
    pub data: *mut c_void,
    /// 2 of a GPU's memory, 3 of pinned and 13 of managed memory.
    pub device_type: i32,
    /// Which GPU, in the driver's order.
    pub device_id: i32,
    /// How many dimensions there are, at most 5.
    pub ndim: i32,
    /// 0 signed, 1 unsigned, 2 binary floating point, 4 bfloat16, 6 bool.
    pub dtype_code: u8,
    /// Bits of an element.
    pub dtype_bits: u8,
    /// 1, but 2 of pairs of 4-bit codes.
    pub dtype_lanes: u16,
    /// Its dimensions, in elements.
    pub shape: *const i64,
    /// Its strides, in elements; null of a contiguous one. Others are refused.
    pub strides: *const i64,
    /// Bytes from `data` to its first element.
    pub byte_offset: u64,
}

/// What a tensor is, for the engine; the text says what is wrong with it.
///
/// # Errors
/// It is none, or not in a GPU's memory, row-major without gaps and of a type of a parameter.
///
/// # Safety
///
/// It is null or a tensor, and shape and strides are null or of `ndim` elements.
pub unsafe fn read(tensor: *const DlTensor) -> Result<Tensor, String> {
    // SAFETY: the caller's promise.
    let Some(tensor) = (unsafe { tensor.as_ref() }) else {
        return Err("expected a tensor, got NULL".to_owned());
    };
    match tensor.device_type {
        2 | 3 | 13 => {}
        1 => return Err("expected memory of a GPU, got memory of the CPU".to_owned()),
        other => {
            return Err(format!(
                "expected memory of a GPU, got DLPack's device type {other}"
            ));
        }
    }
    let (code, bits, lanes) = (tensor.dtype_code, tensor.dtype_bits, tensor.dtype_lanes);
    let dtype = Dtype::of_dlpack(code, bits, lanes).ok_or_else(|| {
        format!("DLPack's type {code} of {bits} bits and {lanes} lanes is not a type of a parameter")
    })?;
    let rank = usize::try_from(tensor.ndim)
        .ok()
        .filter(|rank| *rank <= MAX_RANK)
        .ok_or_else(|| format!("expected at most {MAX_RANK} dimensions, got {}", tensor.ndim))?;
    if tensor.shape.is_null() && rank > 0 {
        return Err("its shape is NULL".to_owned());
    }
    let dims = if rank == 0 {
        &[]
    } else {
        // SAFETY: the caller's promise: so many are there.
        unsafe { std::slice::from_raw_parts(tensor.shape, rank) }
    };
    let mut shape: ArrayVec<usize, MAX_RANK> = ArrayVec::new();
    for dim in dims {
        shape.push(usize::try_from(*dim).map_err(|_| format!("a dimension is {dim}"))?);
    }
    if shape
        .iter()
        .try_fold(1_usize, |all, dim| all.checked_mul(*dim))
        .is_none()
    {
        return Err(format!("a shape of {shape:?} has too many elements"));
    }
    if !tensor.strides.is_null() && rank > 0 {
        // SAFETY: the caller's promise.
        let strides = unsafe { std::slice::from_raw_parts(tensor.strides, rank) };
        if !is_contiguous(&shape, strides, 1) {
            return Err(format!(
                "expected contiguous memory, got strides {strides:?} of shape {shape:?}"
            ));
        }
    }
    let address = (tensor.data.addr() as u64).wrapping_add(tensor.byte_offset);
    Ok(Tensor::new(address, dtype, &shape))
}
