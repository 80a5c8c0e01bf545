//! The launch itself, cooperative or not, on the caller's stream.
//!
//! Invariant: a launch allocates nothing, formats nothing, reads no environment
//! and takes no lock; what could be checked once was checked when loading or binding.

use std::ffi::{c_uint, c_void};

use cudarc::driver::{result, sys};

use crate::engine::run::device::DeviceError;
use crate::engine::run::driver_error::DriverError;
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
    /// A launch size of 0, or over what was bound.
    #[error("`{entry}`: {size} = {asked}: it was bound for 1 to {most}")]
    Size {
        /// The entry point.
        entry: String,
        /// The launch size's name.
        size: String,
        /// Its value in the launch.
        asked: u32,
        /// The largest that was bound.
        most: u32,
    },
    /// Another number of launch sizes.
    #[error("`{entry}`: a launch gives {takes} launch sizes, not {given}")]
    SizeCount {
        /// The entry point.
        entry: String,
        /// Declared ones.
        takes: usize,
        /// Given ones.
        given: usize,
    },
    /// The kernel was loaded before this process was forked.
    #[error("`{entry}` was loaded by the process that this one was forked from, and works only there")]
    Forked {
        /// The entry point.
        entry: String,
    },
    /// The driver said no.
    #[error("launching `{entry}`: {reason}")]
    Driver {
        /// The entry point.
        entry: String,
        /// The driver's word.
        reason: DriverError,
    },
}

impl LaunchError {
    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Driver { reason, .. } => reason.hint(),
            Self::Forked { .. } => DeviceError::Forked.hint(),
            _ => None,
        }
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

/// Launches an entry point with parameters as the driver takes them: a pointer to
/// each. The checked way is to bind a kernel.
///
/// # Safety
///
/// The pointers are to the entry point's parameters, in order and of its types; the
/// memory that these point at is as large as the kernel takes it for and stays
/// alive until the stream is done with it. The kernel is right for this grid, and its
/// context is current on this thread (see [`crate::engine::run::device::Context::bind`]).
pub unsafe fn launch_grid(
    entry: &EntryPoint,
    grid: [u32; 3],
    order: Order,
    stream: sys::CUstream,
    pointers: &mut [*mut c_void],
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
        reason: DriverError::of(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_carries_just_the_attributes_it_needs() {
        assert_eq!(attributes(true, Order::Serial).1, 1);
        assert_eq!(attributes(true, Order::Programmatic).1, 2);
        assert_eq!(attributes(false, Order::Programmatic).1, 1);
    }
}
