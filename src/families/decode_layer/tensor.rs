//! Tensors in device memory, as facts that can be checked.

use std::fmt;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr, sys};

use super::WorkspaceError;

/// An element's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// binary32.
    F32,
    /// Bytes: E4M3, or two E2M1 codes.
    U8,
    /// Signed 32-bit integers.
    I32,
}

impl Dtype {
    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::U8 => 1,
        }
    }
}

/// A contiguous, row-major tensor in device memory. Plain facts: who made it keeps
/// it alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Its first byte.
    pub address: sys::CUdeviceptr,
    /// Its elements' type.
    pub dtype: Dtype,
    shape: [usize; 5],
    rank: usize,
}

impl Tensor {
    /// The tensor that lies at the start of a slice, which is used on this stream.
    ///
    /// # Panics
    ///
    /// As [`Tensor::new`].
    #[must_use]
    pub fn of<T: DeviceRepr>(
        stream: &CudaStream,
        slice: &CudaSlice<T>,
        dtype: Dtype,
        shape: &[usize],
    ) -> Self {
        Self::new(slice.device_ptr(stream).0, dtype, shape)
    }

    /// A tensor of up to five dimensions.
    ///
    /// # Panics
    ///
    /// With more dimensions than that.
    #[must_use]
    pub fn new(address: sys::CUdeviceptr, dtype: Dtype, shape: &[usize]) -> Self {
        let mut all = [1; 5];
        all[..shape.len()].copy_from_slice(shape);
        Self {
            address,
            dtype,
            shape: all,
            rank: shape.len(),
        }
    }

    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }
}

/// `bf16 [1, 5120]`.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = format!("{:?}", self.dtype).to_lowercase();
        write!(f, "{dtype} {:?}", self.shape())
    }
}

/// Bytes at which the kernels' widest loads start.
const ALIGNMENT: u64 = 16;

fn describe(tensor: &Tensor) -> String {
    format!("{tensor} at {:#x}", tensor.address)
}

pub(super) fn check(
    name: &'static str,
    tensor: &Tensor,
    dtype: Dtype,
    shape: &[usize],
) -> Result<sys::CUdeviceptr, WorkspaceError> {
    // Numbers of four bytes are read one by one.
    let alignment = if dtype.bytes() == 4 { 4 } else { ALIGNMENT };
    let aligned = tensor.address.is_multiple_of(alignment);
    if tensor.dtype == dtype && tensor.shape() == shape && aligned && tensor.address != 0 {
        return Ok(tensor.address);
    }
    Err(WorkspaceError::Tensor {
        name,
        expected: format!("{}, aligned to {alignment} bytes", Tensor::new(0, dtype, shape)),
        found: describe(tensor),
    })
}

/// A tensor that is there only where it is wanted; else the null pointer.
pub(super) fn maybe(
    wanted: bool,
    name: &'static str,
    tensor: Option<&Tensor>,
    shape: &[usize],
) -> Result<sys::CUdeviceptr, WorkspaceError> {
    match tensor {
        Some(tensor) if wanted => check(name, tensor, Dtype::Bf16, shape),
        None if wanted => Err(WorkspaceError::Tensor {
            name,
            expected: Tensor::new(0, Dtype::Bf16, shape).to_string(),
            found: "none".into(),
        }),
        _ => Ok(0),
    }
}

/// Scales of `[rows, k]` weights: bytes, at least one for 16 weights; swizzled ones
/// lie in whole tiles of 128 rows by 4 groups.
pub(super) fn scale_bytes(
    name: &'static str,
    tensor: &Tensor,
    rows: usize,
    k: usize,
    swizzled: bool,
) -> Result<sys::CUdeviceptr, WorkspaceError> {
    let bytes: usize = tensor.shape().iter().product();
    let groups = k.div_ceil(16);
    let least = if swizzled {
        rows.next_multiple_of(128) * groups.next_multiple_of(4)
    } else {
        rows * groups
    };
    let aligned = tensor.address.is_multiple_of(ALIGNMENT);
    if tensor.dtype == Dtype::U8 && bytes >= least && aligned && tensor.address != 0 {
        return Ok(tensor.address);
    }
    Err(WorkspaceError::Tensor {
        name,
        expected: format!("u8, {least} bytes or more, aligned to {ALIGNMENT} bytes"),
        found: describe(tensor),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_tensor_is_named_with_what_was_expected() {
        let good = Tensor::new(0x1000, Dtype::Bf16, &[2, 64]);
        assert_eq!(
            check("query", &good, Dtype::Bf16, &[2, 64]).expect("good"),
            0x1000
        );
        let message = |tensor: Tensor| {
            let error = check("query", &tensor, Dtype::Bf16, &[2, 64]).expect_err("wrong");
            error.to_string()
        };
        let wrong_shape = message(Tensor::new(0x1000, Dtype::Bf16, &[64, 2]));
        assert_eq!(
            wrong_shape,
            "tensor `query`: expected bf16 [2, 64], aligned to 16 bytes, got bf16 [64, 2] at 0x1000"
        );
        assert!(message(Tensor::new(0x1000, Dtype::F32, &[2, 64])).contains("got f32 [2, 64]"));
        assert!(message(Tensor::new(0x1008, Dtype::Bf16, &[2, 64])).contains("at 0x1008"));
        assert!(message(Tensor::new(0, Dtype::Bf16, &[2, 64])).contains("at 0x0"));
    }

    #[test]
    fn an_optional_tensor_is_asked_for_only_where_the_spec_has_it() {
        assert_eq!(maybe(false, "gate", None, &[1, 64]).expect("unused"), 0);
        let error = maybe(true, "gate", None, &[1, 64]).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "tensor `gate`: expected bf16 [1, 64], got none"
        );
    }

    #[test]
    fn too_few_scales_are_refused() {
        let scales = |bytes| Tensor::new(0x1000, Dtype::U8, &[bytes]);
        let error = scale_bytes("wo_scales", &scales(255), 64, 64, false).expect_err("too few");
        assert!(error.to_string().contains("256 bytes or more"), "{error}");
        let error = scale_bytes("up_scales", &scales(256), 64, 64, true).expect_err("half a tile");
        assert!(error.to_string().contains("512 bytes or more"), "{error}");
        assert!(scale_bytes("up_scales", &scales(512), 64, 64, true).is_ok());
        let null = Tensor::new(0, Dtype::U8, &[512]);
        let error = scale_bytes("up_scales", &null, 64, 64, true).expect_err("null");
        assert!(error.to_string().contains("at 0x0"), "{error}");
    }
}
