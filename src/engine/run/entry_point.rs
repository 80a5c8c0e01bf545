//! An entry point of a loaded kernel, and the numbers of its launches.
//!
//! Invariant: what no launch changes was checked when it was loaded; what a launch decides is
//! worked out without allocating.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::{result, sys};

use crate::engine::request::signature::Extent;

/// An entry point in a context, with its launch geometry.
#[derive(Debug)]
#[non_exhaustive]
pub struct EntryPoint {
    pub(super) name: String,
    pub(super) function: sys::CUfunction,
    /// Whether the handle was launched or given out.
    pub(super) used: AtomicBool,
    pub(super) grid: [Extent; 3],
    pub(super) block: [Extent; 3],
    pub(super) shared_mem: Extent,
    /// Threads a block; 0 where the launch says how many.
    pub block_threads: u32,
    /// Dynamic shared memory, bytes a block; 0 where the launch says how much.
    pub shared_mem_bytes: u32,
    /// Whether it must be launched cooperatively.
    pub cooperative: bool,
    /// Whether it may start before the launch before it is done, and waits inside.
    pub programmatic: bool,
    /// Blocks of a cluster in x, y, z, where the launch sets that.
    pub cluster: Option<[u32; 3]>,
    /// Priority of its launches; `None` for that of their stream.
    pub priority: Option<i32>,
    /// The most threads of a block, by its registers and `__launch_bounds__`.
    pub max_threads: u32,
    /// The most dynamic shared memory that a block can have, bytes.
    pub max_shared_mem: u32,
    pub(super) sm_count: u32,
    /// Registers a thread, as the driver has it.
    pub registers: u32,
    /// Local memory a thread, bytes.
    pub local_bytes: u32,
    /// Blocks that are resident on one multiprocessor at once, by the driver's own count; 0
    /// where the launch says how large they are.
    pub blocks_per_sm: u32,
    /// Blocks that are resident on the whole GPU at once; 0 where the launch says how large
    /// they are.
    pub capacity: u32,
}

// SAFETY: a function handle may be used from any thread in which its context is
// current, as launching demands anyway.
unsafe impl Send for EntryPoint {}
// SAFETY: nothing in it changes after loading.
unsafe impl Sync for EntryPoint {}

impl EntryPoint {
    /// Its `extern "C"` name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The driver's handle; good as long as the [`LoadedKernel`](super::load::LoadedKernel)
    /// lives, and then as its module is, which having asked for it keeps.
    #[must_use]
    #[inline]
    pub fn function(&self) -> sys::CUfunction {
        // Read first: a launch after the first writes nothing that threads share.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.function
    }

    /// Blocks in x, y, z for these launch sizes, in declared order; 0 where an expression
    /// does not come out.
    #[must_use]
    #[inline]
    pub fn grid(&self, sizes: &[u32]) -> [u32; 3] {
        self.grid.each_ref().map(|axis| axis.at(sizes).unwrap_or(0))
    }

    /// Threads in x, y, z for these launch sizes; 0 where an expression does not come out.
    #[must_use]
    #[inline]
    pub fn block(&self, sizes: &[u32]) -> [u32; 3] {
        self.block.each_ref().map(|axis| axis.at(sizes).unwrap_or(0))
    }

    /// Dynamic shared memory for these launch sizes, bytes a block; `None` where an
    /// expression does not come out.
    #[must_use]
    #[inline]
    pub fn shared_mem(&self, sizes: &[u32]) -> Option<u32> {
        self.shared_mem.at(sizes)
    }

    /// Blocks of this size that are resident on the whole GPU at once.
    pub(super) fn capacity_of(&self, block: [u32; 3], shared_mem: u32) -> Result<u32, result::DriverError> {
        if self.capacity > 0 {
            return Ok(self.capacity);
        }
        let threads = block.iter().product();
        Ok(occupancy(self.function, threads, shared_mem)?.saturating_mul(self.sm_count))
    }
}

/// Blocks of so many threads and bytes that are resident on one multiprocessor at once.
pub(super) fn occupancy(
    function: sys::CUfunction,
    threads: u32,
    shared_mem: u32,
) -> Result<u32, result::DriverError> {
    let mut blocks = 0;
    // SAFETY: `blocks` outlives the call; the function belongs to a loaded module.
    let counted = unsafe {
        sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
            &raw mut blocks,
            function,
            c_int::try_from(threads).unwrap_or(c_int::MAX),
            usize::try_from(shared_mem).unwrap_or(usize::MAX),
        )
    };
    counted.result()?;
    Ok(blocks.unsigned_abs())
}
