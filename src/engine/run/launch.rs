//! The launch itself, cooperative or not, on the caller's stream.
//!
//! Invariant: a launch allocates nothing, formats nothing, reads no environment
//! and takes no lock; what could be checked once was checked when loading.

use std::ffi::{c_uint, c_void};

use cudarc::driver::{result, sys};

use crate::engine::run::load::EntryPoint;

/// Why a launch did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Waiting blocks would wait for ever for blocks that do not fit.
    #[error(
        "`{entry}` is cooperative: its grid of {blocks} blocks has to be resident at once, and this GPU holds {capacity}"
    )]
    OverCapacity {
        /// The entry point.
        entry: String,
        /// Blocks of the grid.
        blocks: u64,
        /// Resident blocks of the whole GPU.
        capacity: u32,
    },
    /// A grid without blocks.
    #[error("`{entry}`: a grid of {grid:?} blocks launches nothing")]
    EmptyGrid {
        /// The entry point.
        entry: String,
        /// Blocks in x, y, z.
        grid: [u32; 3],
    },
    /// The driver said no.
    #[error("launching `{entry}`: the CUDA driver said {reason:?}")]
    Driver {
        /// The entry point.
        entry: String,
        /// The driver's word.
        reason: result::DriverError,
    },
}

/// The values of a kernel's parameters, in order, without allocation.
///
/// `N` is the most that it holds. Every value gets a slot of 8 bytes, of which
/// the driver reads as many as the parameter has.
#[derive(Debug, Clone)]
pub struct Arguments<const N: usize> {
    values: [u64; N],
    count: usize,
}

impl<const N: usize> Default for Arguments<N> {
    fn default() -> Self {
        Self {
            values: [0; N],
            count: 0,
        }
    }
}

impl<const N: usize> Arguments<N> {
    /// No arguments yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A device pointer; 0 is the null pointer.
    ///
    /// # Panics
    ///
    /// As all of these, with more than `N` values.
    #[must_use]
    pub fn pointer(self, address: sys::CUdeviceptr) -> Self {
        self.push(address.to_le_bytes())
    }

    /// An `unsigned`.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.push(u64::from(value).to_le_bytes())
    }

    /// An `unsigned long long`.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.push(value.to_le_bytes())
    }

    /// A `float`.
    #[must_use]
    pub fn f32(self, value: f32) -> Self {
        self.u32(value.to_bits())
    }

    /// The bytes of a parameter start at its lowest address: little-endian, as is
    /// every machine that has CUDA.
    fn push(mut self, bytes: [u8; 8]) -> Self {
        assert!(self.count < N, "a kernel of more than {N} parameters");
        self.values[self.count] = u64::from_le_bytes(bytes);
        self.count += 1;
        self
    }

    /// The values in order, each in the low bytes of its word.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.values[..self.count]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// How a launch relates to the one before it on the same stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// It starts when the one before is done.
    #[default]
    Serial,
    /// It may start earlier, and waits inside (`griddepcontrol.wait`) before it
    /// touches what the one before writes. Compute capability 9.0 and newer.
    Programmatic,
}

/// Launches an entry point for `nat` tokens on a stream of its context.
///
/// # Safety
///
/// The arguments are those of the entry point, in order and of its types; the
/// memory they point at is of the sizes that the family's page gives and stays
/// alive until the stream is done with it. The kernel's context is current on
/// this thread (see [`crate::engine::run::device::Context::bind`]).
pub unsafe fn launch<const N: usize>(
    entry: &EntryPoint,
    nat: u32,
    order: Order,
    stream: sys::CUstream,
    arguments: &mut Arguments<N>,
) -> Result<(), LaunchError> {
    // SAFETY: as promised by the caller.
    unsafe { launch_grid(entry, entry.grid(nat), order, stream, arguments) }
}

/// As [`launch`], with a grid of the caller's own.
///
/// # Safety
///
/// As of [`launch`]; and the kernel is right for this grid.
pub unsafe fn launch_grid<const N: usize>(
    entry: &EntryPoint,
    grid: [u32; 3],
    order: Order,
    stream: sys::CUstream,
    arguments: &mut Arguments<N>,
) -> Result<(), LaunchError> {
    let blocks = grid
        .iter()
        .fold(1_u64, |all, n| all.saturating_mul(u64::from(*n)));
    if blocks == 0 {
        return Err(empty_grid(entry, grid));
    }
    if entry.cooperative && blocks > u64::from(entry.capacity) {
        return Err(over_capacity(entry, blocks));
    }
    let mut pointers: [*mut c_void; N] = [std::ptr::null_mut(); N];
    for (pointer, value) in pointers.iter_mut().zip(&mut arguments.values) {
        *pointer = std::ptr::from_mut(value).cast();
    }
    let [x, y, z] = grid;
    let result = if entry.cooperative || order == Order::Programmatic {
        let (mut attributes, count) = attributes(entry.cooperative, order);
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: entry.block_threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: entry.shared_mem_bytes,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: count,
        };
        // SAFETY: the handle is a loaded function's, `pointers` has an element for
        // each parameter (the caller's promise), and all outlive the call.
        unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                entry.function(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
    } else {
        // SAFETY: as above.
        unsafe {
            sys::cuLaunchKernel(
                entry.function(),
                x,
                y,
                z,
                entry.block_threads,
                1,
                1,
                entry.shared_mem_bytes,
                stream,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
    };
    result.result().map_err(|reason| driver_error(entry, reason))
}

fn attributes(cooperative: bool, order: Order) -> ([sys::CUlaunchAttribute; 2], c_uint) {
    use sys::CUlaunchAttributeID_enum as Id;
    // SAFETY: the attribute is plain data, for which zeros are a value.
    let mut list: [sys::CUlaunchAttribute; 2] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    if cooperative {
        list[count].id = Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        list[count].value.cooperative = 1;
        count += 1;
    }
    if order == Order::Programmatic {
        list[count].id = Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        list[count].value.programmaticStreamSerializationAllowed = 1;
        count += 1;
    }
    (list, c_uint::try_from(count).unwrap_or(0))
}

#[cold]
fn over_capacity(entry: &EntryPoint, blocks: u64) -> LaunchError {
    LaunchError::OverCapacity {
        entry: entry.name().to_owned(),
        blocks,
        capacity: entry.capacity,
    }
}

#[cold]
fn empty_grid(entry: &EntryPoint, grid: [u32; 3]) -> LaunchError {
    LaunchError::EmptyGrid {
        entry: entry.name().to_owned(),
        grid,
    }
}

#[cold]
fn driver_error(entry: &EntryPoint, reason: result::DriverError) -> LaunchError {
    LaunchError::Driver {
        entry: entry.name().to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_order_and_their_bytes() {
        let arguments = Arguments::<4>::new()
            .pointer(0x1234_5678_9abc)
            .u32(7)
            .f32(-0.5)
            .u64(9);
        assert_eq!(arguments.len(), 4);
        assert_eq!(arguments.values[0], 0x1234_5678_9abc);
        assert_eq!(arguments.values[1].to_le_bytes()[..4], 7_u32.to_le_bytes());
        assert_eq!(arguments.values[2].to_le_bytes()[..4], (-0.5_f32).to_le_bytes());
        assert_eq!(arguments.values[3], 9);
    }

    #[test]
    #[should_panic(expected = "more than 1 parameters")]
    fn a_value_too_many_is_refused() {
        let _ = Arguments::<1>::new().u32(1).u32(2);
    }

    #[test]
    fn a_launch_carries_just_the_attributes_it_needs() {
        assert_eq!(attributes(true, Order::Serial).1, 1);
        assert_eq!(attributes(true, Order::Programmatic).1, 2);
        assert_eq!(attributes(false, Order::Programmatic).1, 1);
    }
}
