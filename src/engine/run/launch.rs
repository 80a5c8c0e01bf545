//! The launch itself, cooperative or not, on the caller's stream.
//!
//! Invariant: a launch allocates nothing, formats nothing, reads no environment
//! and takes no lock; what could be checked once was checked when loading or binding.

use std::ffi::{c_uint, c_void};

use cudarc::driver::{result, sys};

use crate::engine::request::template::fits;
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
    /// A grid without blocks; 0 also stands for what does not come out as a whole number.
    #[error("`{entry}`: a grid of {grid:?} blocks launches nothing")]
    EmptyGrid {
        /// The entry point.
        entry: String,
        /// Blocks in x, y, z.
        grid: [u32; 3],
    },
    /// A block without threads or with too many; 0 also stands for what does not come out as a
    /// whole number.
    #[error("`{entry}`: a block of {block:?} threads: the kernel takes 1 to {most}, at most 64 in z")]
    Block {
        /// The entry point.
        entry: String,
        /// Threads in x, y, z.
        block: [u32; 3],
        /// The most threads of a block, by the kernel's registers and `__launch_bounds__`.
        most: u32,
    },
    /// More dynamic shared memory than a block can have.
    #[error("`{entry}`: {} of dynamic shared memory a block, and the kernel can have 0 to {most}", bytes(*asked))]
    SharedMemory {
        /// The entry point.
        entry: String,
        /// Bytes; `None` where that does not come out as a whole number.
        asked: Option<u32>,
        /// The most, bytes.
        most: u32,
    },
    /// A grid that is not made of whole clusters.
    #[error("`{entry}`: a grid of {grid:?} blocks is not made of clusters of {cluster:?}")]
    Cluster {
        /// The entry point.
        entry: String,
        /// Blocks in x, y, z.
        grid: [u32; 3],
        /// Blocks of a cluster in x, y, z.
        cluster: [u32; 3],
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

fn bytes(asked: Option<u32>) -> String {
    asked.map_or_else(
        || "no whole number of bytes".into(),
        |bytes| format!("{bytes} bytes"),
    )
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

/// How a launch is made, its geometry apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct How {
    /// What it waits for; an entry point may be declared to be in programmatic order always.
    pub order: Order,
    /// Its priority; `None` for the entry point's, else the stream's.
    pub priority: Option<i32>,
}

/// The size of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes a block.
    pub shared_mem_bytes: u32,
}

impl EntryPoint {
    /// The size of its launch for these launch sizes, in declared order. Allocates nothing
    /// unless it fails.
    #[inline]
    pub fn geometry(&self, sizes: &[u32]) -> Result<Geometry, LaunchError> {
        let geometry = Geometry {
            grid: self.grid(sizes),
            block: self.block(sizes),
            shared_mem_bytes: self.shared_mem(sizes).unwrap_or(u32::MAX),
        };
        self.check(&geometry).map(|()| geometry)
    }

    /// Whether this may be launched, as far as that is known without the driver.
    #[inline]
    fn check(&self, geometry: &Geometry) -> Result<(), LaunchError> {
        let whole = |cluster: [u32; 3]| {
            let mut axes = geometry.grid.iter().zip(cluster);
            axes.all(|(blocks, cluster)| blocks % cluster.max(1) == 0)
        };
        // What no launch changes was checked when it was loaded.
        let good = geometry.grid.iter().all(|blocks| *blocks > 0)
            && geometry.shared_mem_bytes <= self.max_shared_mem
            && (self.block_threads > 0 || self.takes(geometry.block))
            && self.cluster.is_none_or(whole);
        if good { Ok(()) } else { Err(unfit(self, geometry)) }
    }

    fn takes(&self, block: [u32; 3]) -> bool {
        let threads = block.iter().map(|n| u64::from(*n)).fold(1, u64::saturating_mul);
        (1..=u64::from(self.max_threads)).contains(&threads) && fits(block).is_ok()
    }
}

/// Launches an entry point with parameters as the driver takes them: a pointer to
/// each. The checked way is to bind a kernel. Block and shared memory are those that were
/// loaded: an entry point whose launches decide them is launched by its [`Geometry`].
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
    let geometry = Geometry {
        grid,
        block: entry.block(&[]),
        shared_mem_bytes: entry.shared_mem(&[]).unwrap_or(u32::MAX),
    };
    let how = How {
        order,
        priority: None,
    };
    // SAFETY: the caller's promise.
    unsafe { launch_as(entry, &geometry, how, stream, pointers) }
}

/// Launches an entry point in a size and a way, with parameters as the driver takes them.
///
/// # Safety
///
/// As for [`launch_grid`]; the kernel is right for this size.
pub unsafe fn launch_as(
    entry: &EntryPoint,
    geometry: &Geometry,
    how: How,
    stream: sys::CUstream,
    pointers: &mut [*mut c_void],
) -> Result<(), LaunchError> {
    entry.check(geometry)?;
    let Geometry {
        grid: [x, y, z],
        block: [block_x, block_y, block_z],
        shared_mem_bytes,
    } = *geometry;
    if entry.cooperative {
        let blocks = (geometry.grid.iter()).fold(1_u64, |all, n| all.saturating_mul(u64::from(*n)));
        let capacity =
            (entry.capacity_of(geometry.block, shared_mem_bytes)).map_err(|e| driver_error(entry, e))?;
        if blocks > u64::from(capacity) {
            return Err(over_capacity(entry, blocks, capacity));
        }
    }
    let (mut attributes, count) = attributes(entry, how);
    let result = if count > 0 {
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: block_x,
            blockDimY: block_y,
            blockDimZ: block_z,
            sharedMemBytes: shared_mem_bytes,
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
                block_x,
                block_y,
                block_z,
                shared_mem_bytes,
                stream,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
    };
    result.result().map_err(|reason| driver_error(entry, reason))
}

/// The most attributes of a launch.
const ATTRIBUTES: usize = 4;

#[inline]
fn attributes(entry: &EntryPoint, how: How) -> ([sys::CUlaunchAttribute; ATTRIBUTES], c_uint) {
    use sys::CUlaunchAttributeID_enum as Id;
    // SAFETY: the attribute is plain data, for which zeros are a value.
    let mut list: [sys::CUlaunchAttribute; ATTRIBUTES] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    if entry.cooperative {
        list[count].id = Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        list[count].value.cooperative = 1;
        count += 1;
    }
    if entry.programmatic || how.order == Order::Programmatic {
        list[count].id = Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        list[count].value.programmaticStreamSerializationAllowed = 1;
        count += 1;
    }
    if let Some([x, y, z]) = entry.cluster {
        list[count].id = Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        list[count].value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        count += 1;
    }
    if let Some(priority) = how.priority.or(entry.priority) {
        list[count].id = Id::CU_LAUNCH_ATTRIBUTE_PRIORITY;
        list[count].value.priority = priority;
        count += 1;
    }
    (list, c_uint::try_from(count).unwrap_or(0))
}

/// What is wrong with the size of a launch.
#[cold]
fn unfit(entry: &EntryPoint, geometry: &Geometry) -> LaunchError {
    let (name, Geometry { grid, block, .. }) = (entry.name().to_owned(), *geometry);
    if grid.contains(&0) {
        return LaunchError::EmptyGrid { entry: name, grid };
    }
    if entry.block_threads == 0 && !entry.takes(block) {
        return LaunchError::Block {
            entry: name,
            block,
            most: entry.max_threads,
        };
    }
    match entry.cluster {
        Some(cluster) if geometry.shared_mem_bytes <= entry.max_shared_mem => LaunchError::Cluster {
            entry: name,
            grid,
            cluster,
        },
        _ => LaunchError::SharedMemory {
            entry: name,
            asked: (geometry.shared_mem_bytes != u32::MAX).then_some(geometry.shared_mem_bytes),
            most: entry.max_shared_mem,
        },
    }
}

#[cold]
fn over_capacity(entry: &EntryPoint, blocks: u64, capacity: u32) -> LaunchError {
    LaunchError::OverCapacity {
        entry: entry.name().to_owned(),
        blocks,
        capacity,
    }
}

#[cold]
fn driver_error(entry: &EntryPoint, reason: result::DriverError) -> LaunchError {
    LaunchError::Driver {
        entry: entry.name().to_owned(),
        reason: DriverError::of(reason),
    }
}
