//! Tensors as `DLPack` has them.
//!
//! Invariant: a tensor is read during the call and never kept; its memory is its owner's.

use std::ffi::c_void;

use jitc::engine::run::dlpack::{self, DlTensor};
use jitc::engine::run::tensor;

/// The `DLTensor` of `DLPack` 1, member for member and byte for byte, for who has not its
/// header: a pointer to either is as good.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Tensor {
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
    /// Its strides, in elements; NULL of a contiguous one. Others are refused.
    pub strides: *const i64,
    /// Bytes from `data` to its first element.
    pub byte_offset: u64,
}

// One is read as the other.
const _: () =
    assert!(size_of::<Tensor>() == size_of::<DlTensor>() && align_of::<Tensor>() == align_of::<DlTensor>());

/// What a tensor is, for the engine.
///
/// # Safety
///
/// It is null or a tensor, and shape and strides are null or of `ndim` elements.
pub(crate) unsafe fn read(tensor: *const Tensor) -> Result<tensor::Tensor, String> {
    if tensor.is_null() {
        return Err("expected a tensor, got NULL: JITC_KIND_NULL passes a null pointer".into());
    }
    // SAFETY: the caller's promise; both are `DLPack`'s.
    unsafe { dlpack::read(tensor.cast::<DlTensor>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(shape: &[i64], strides: Option<&[i64]>) -> Tensor {
        Tensor {
            data: std::ptr::without_provenance_mut(0x1000),
            device_type: 2,
            device_id: 0,
            ndim: i32::try_from(shape.len()).expect("few"),
            dtype_code: 2,
            dtype_bits: 32,
            dtype_lanes: 1,
            shape: shape.as_ptr(),
            strides: strides.map_or(std::ptr::null(), <[i64]>::as_ptr),
            byte_offset: 0x20,
        }
    }

    fn said(tensor: &Tensor) -> Result<String, String> {
        // SAFETY: shape and strides are as long as it says.
        unsafe { read(tensor) }.map(|tensor| format!("{tensor} at {:#x}", tensor.address))
    }

    #[test]
    fn a_tensor_of_dlpack_is_read_whole() {
        assert_eq!(
            (size_of::<Tensor>(), std::mem::offset_of!(Tensor, byte_offset)),
            (48, 40)
        );
        assert_eq!(said(&of(&[2, 3], None)).as_deref(), Ok("f32 [2, 3] at 0x1020"));
        assert_eq!(
            said(&of(&[2, 3], Some(&[3, 1]))).as_deref(),
            Ok("f32 [2, 3] at 0x1020")
        );
        assert!(
            said(&of(&[], None)).is_ok(),
            "a number has no shape, which may be null"
        );
    }

    #[test]
    fn what_no_kernel_can_take_is_refused() {
        let transposed = said(&of(&[2, 3], Some(&[1, 2]))).expect_err("strides");
        assert!(transposed.contains("contiguous"), "{transposed}");
        let host = said(&Tensor {
            device_type: 1,
            ..of(&[2], None)
        });
        assert!(host.expect_err("host").contains("CPU"));
        assert!(said(&of(&[1; 6], None)).is_err(), "too many dimensions");
        assert!(said(&of(&[-1], None)).is_err(), "a negative one");
        assert!(said(&of(&[i64::MAX, 4], None)).is_err(), "too many elements");
        let typeless = said(&Tensor {
            dtype_bits: 7,
            ..of(&[2], None)
        });
        assert!(typeless.expect_err("type").contains("7 bits"));
        let shapeless = said(&Tensor {
            shape: std::ptr::null(),
            ..of(&[2], None)
        });
        assert!(shapeless.expect_err("shape").contains("NULL"));
    }
}
