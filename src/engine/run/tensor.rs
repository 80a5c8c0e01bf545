//! Tensors in device memory, as facts that can be checked.
//!
//! Invariant: a descriptor owns nothing. Who made it keeps the memory alive.

use std::fmt;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, sys};

pub use crate::engine::request::dtype::Dtype;

/// The most dimensions of a [`Tensor`].
pub const MAX_RANK: usize = 5;

/// Whether memory of these strides is row-major without gaps. `unit`: the stride of
/// neighbors, 1 where strides count elements.
#[must_use]
pub fn is_contiguous(shape: &[usize], strides: &[i64], unit: i64) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = unit;
    for (dim, stride) in shape.iter().zip(strides).rev() {
        if *dim != 1 && *stride != expected {
            return false;
        }
        expected = expected.saturating_mul(i64::try_from(*dim).unwrap_or(i64::MAX));
    }
    true
}

/// A contiguous, row-major tensor in device memory. Plain facts: who made it keeps
/// it alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tensor {
    /// Its first byte.
    pub address: sys::CUdeviceptr,
    /// Its elements' type.
    pub dtype: Dtype,
    /// How many elements there are, where that is known.
    elements: Option<usize>,
    shape: [usize; MAX_RANK],
    rank: usize,
    /// The context that it was allocated in, where that is known.
    context: Option<usize>,
}

impl Tensor {
    /// The tensor that lies at the start of a slice, which is used on this stream.
    ///
    /// # Panics
    ///
    /// As [`Tensor::new`], and with more elements than the slice has room for.
    #[must_use]
    pub fn of<T>(stream: &CudaStream, slice: &CudaSlice<T>, dtype: Dtype, shape: &[usize]) -> Self {
        let tensor = Self::new(slice.device_ptr(stream).0, dtype, shape);
        let bytes = tensor.elements.map(|count| count.saturating_mul(dtype.bytes()));
        assert!(
            bytes <= Some(slice.num_bytes()),
            "{tensor} in {} bytes",
            slice.num_bytes()
        );
        Self {
            context: Some(slice.context().cu_ctx().addr()),
            ..tensor
        }
    }

    /// All of a slice, as elements of a type, without a shape.
    #[must_use]
    pub fn all_of<T>(stream: &CudaStream, slice: &CudaSlice<T>, dtype: Dtype) -> Self {
        Self {
            context: Some(slice.context().cu_ctx().addr()),
            ..Self::flat(
                slice.device_ptr(stream).0,
                dtype,
                slice.num_bytes() / dtype.bytes(),
            )
        }
    }

    /// A tensor of one to five dimensions.
    ///
    /// # Panics
    ///
    /// With more dimensions than that.
    #[must_use]
    pub fn new(address: sys::CUdeviceptr, dtype: Dtype, shape: &[usize]) -> Self {
        let mut all = [1; MAX_RANK];
        all[..shape.len()].copy_from_slice(shape);
        Self {
            shape: all,
            rank: shape.len(),
            ..Self::flat(address, dtype, shape.iter().product())
        }
    }

    /// So many elements, of which no shape is known: only their number is checked.
    #[must_use]
    pub fn flat(address: sys::CUdeviceptr, dtype: Dtype, elements: usize) -> Self {
        Self {
            elements: Some(elements),
            ..Self::at(address, dtype)
        }
    }

    /// Memory of unknown length: for parameters that take any number of elements.
    #[must_use]
    pub fn at(address: sys::CUdeviceptr, dtype: Dtype) -> Self {
        Self {
            address,
            dtype,
            elements: None,
            shape: [1; MAX_RANK],
            rank: 0,
            context: None,
        }
    }

    /// The same elements, without a shape.
    #[must_use]
    pub fn flattened(self) -> Self {
        Self { rank: 0, ..self }
    }

    /// Its dimensions; empty where no shape is known.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    /// How many elements there are; `None` where that is not known.
    #[must_use]
    pub fn elements(&self) -> Option<usize> {
        self.elements
    }

    /// What tells the context that it was allocated in, where that is known.
    pub(super) fn context(&self) -> Option<usize> {
        self.context
    }
}

/// `bf16 [1, 5120]`; `bf16, 5120 elements` without a shape.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rank, self.elements) {
            (0, None) => write!(f, "{} of unknown length", self.dtype),
            (0, Some(elements)) => write!(f, "{}, {elements} elements", self.dtype),
            _ => write!(f, "{} {:?}", self.dtype, self.shape()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_says_what_is_known_of_it() {
        let tensor = Tensor::new(0x1000, Dtype::Bf16, &[2, 64]);
        assert_eq!(tensor.to_string(), "bf16 [2, 64]");
        assert_eq!(tensor.elements(), Some(128));
        assert_eq!(tensor.flattened().to_string(), "bf16, 128 elements");
        assert!(tensor.flattened().shape().is_empty());
        assert_eq!(Tensor::at(1, Dtype::U64).to_string(), "u64 of unknown length");
    }
}
