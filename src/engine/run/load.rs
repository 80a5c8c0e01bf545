//! `Artifact` -> `LoadedKernel`: machine code in a context, ready to be launched.
//!
//! Invariant: the driver is given verified bytes, never a path; what it loaded
//! stays loaded as long as somebody holds the kernel, and everything that a
//! launch needs (attributes set, capacity known) was done here. It is unloaded only where
//! no launch and no graph can need it: see [`LoadedKernel`]. The context that is current
//! on the caller's thread is as it was after each call.

use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use cudarc::driver::{result, sys};

use crate::engine::build::artifact::Artifact;
use crate::engine::build::image::{self, ImageError};
use crate::engine::build::parameter_info::{self, ParameterError};
use crate::engine::request::signature::GridAxis;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::Entry;
use crate::engine::run::capture::{self, Relaxed};
use crate::engine::run::device::{Context, DeviceError};
use crate::engine::run::driver_error::DriverError;

/// Why a kernel could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The GPU cannot run code for this arch.
    #[error("a cubin for {arch} does not run on {device} (compute capability {major}.{minor})")]
    WrongArch {
        /// What the code was made for.
        arch: crate::engine::request::target::Arch,
        /// The GPU's name.
        device: String,
        /// Compute capability, before the point.
        major: u16,
        /// Compute capability, after the point.
        minor: u16,
    },
    /// The driver would not take the cubin, for its own reasons or for the cubin's.
    #[error("{family} for {arch} was not loaded: {reason}")]
    Refused {
        /// The family.
        family: String,
        /// What the code was made for.
        arch: crate::engine::request::target::Arch,
        /// The driver's word.
        reason: DriverError,
    },
    /// The cubin is not what was asked for; the driver never saw it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The cubin lacks a declared entry point.
    #[error("the cubin of {family} has no entry point `{entry}`")]
    NoEntry {
        /// The family.
        family: String,
        /// The declared name.
        entry: String,
    },
    /// A block of this entry point does not fit on the GPU.
    #[error("{family}: `{entry}` takes {asked} bytes of shared memory a block, and {device} gives {most}")]
    SharedMemory {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// Dynamic shared memory asked for, bytes.
        asked: u32,
        /// The most that a block can have beside its static part, bytes.
        most: u32,
        /// The GPU's name.
        device: String,
    },
    /// The cubin's kernels take something else than the family declares.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The grid does not come out.
    #[error("{family}: `{entry}`: {reason}")]
    Grid {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// A stream captures, and loading could spoil what it captures.
    #[error("{family} for {arch} was not loaded: a stream is capturing a graph")]
    Capturing {
        /// The family.
        family: String,
        /// What the code was made for.
        arch: crate::engine::request::target::Arch,
    },
    /// The context could not be made current.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The driver said no to something about an entry point.
    #[error("{family}: `{entry}`: {reason}")]
    Driver {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// The driver's word.
        reason: DriverError,
    },
}

impl LoadError {
    /// Whether the machine code itself is at fault, so that making it anew may help. No
    /// other trouble of the driver says anything about the code.
    #[must_use]
    pub fn blames_the_image(&self) -> bool {
        matches!(
            self,
            Self::Image(ImageError::Broken { .. })
                | Self::Refused {
                    reason: DriverError::InvalidImage,
                    ..
                }
        )
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { reason, .. } | Self::Driver { reason, .. } => reason.hint(),
            Self::Device(error) => error.hint(),
            Self::Capturing { .. } => {
                Some("load every kernel before the capture begins: asked again, `load` returns the same one")
            }
            _ => None,
        }
    }
}

/// An entry point in a context, with its launch geometry.
#[derive(Debug)]
pub struct EntryPoint {
    name: String,
    function: sys::CUfunction,
    /// Whether the handle was launched or given out.
    used: AtomicBool,
    grid: [GridAxis; 3],
    /// Threads a block.
    pub block_threads: u32,
    /// Dynamic shared memory, bytes a block.
    pub shared_mem_bytes: u32,
    /// Whether it must be launched cooperatively.
    pub cooperative: bool,
    /// Registers a thread, as the driver has it.
    pub registers: u32,
    /// Local memory a thread, bytes.
    pub local_bytes: u32,
    /// Blocks that are resident on one multiprocessor at once, by the driver's own count.
    pub blocks_per_sm: u32,
    /// Blocks that are resident on the whole GPU at once.
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

    /// The driver's handle; good as long as the [`LoadedKernel`] lives, and then as its
    /// module is, which having asked for it keeps.
    #[must_use]
    #[inline]
    pub fn function(&self) -> sys::CUfunction {
        // Read first: a launch after the first writes nothing that threads share.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.function
    }

    /// Blocks in x, y, z for these launch sizes, in declared order.
    #[must_use]
    #[inline]
    pub fn grid(&self, sizes: &[u32]) -> [u32; 3] {
        let [x, y, z] = &self.grid;
        [x.blocks(sizes), y.blocks(sizes), z.blocks(sizes)]
    }
}

/// A module in a context.
///
/// When the last holder drops it the module is unloaded if nothing was ever launched from
/// it, and no handle of its entry points was given out. Otherwise it stays until its
/// context ends, and is counted by [`kept_modules`]: a launch may still be running or be
/// part of a captured graph, which the driver does not tell, and waiting for the GPU in a
/// destructor would stall the caller and spoil captures. Who knows that none is left gives
/// it to [`LoadedKernel::unload`].
#[derive(Debug)]
pub struct LoadedKernel {
    module: sys::CUmodule,
    entries: Vec<EntryPoint>,
    spec: KernelSpec,
    context: Context,
}

// SAFETY: a module handle may be used from any thread; see `EntryPoint`.
unsafe impl Send for LoadedKernel {}
// SAFETY: nothing in it changes after loading.
unsafe impl Sync for LoadedKernel {}

impl LoadedKernel {
    /// Loads an artifact of a spec. The context that is current on this thread stays so.
    ///
    /// While a stream captures this is [`LoadError::Capturing`], before the driver is asked
    /// to load anything, where the driver tells: of a stream that waits for the default
    /// stream, on any thread. For one that does not (made as non-blocking) it loads with
    /// this thread's captures relaxed, so that the capture is not spoilt; a driver that
    /// refuses nevertheless gives the same error.
    pub fn load(context: &Context, spec: &KernelSpec, artifact: &Artifact) -> Result<Self, LoadError> {
        if context.is_of_parent() {
            return Err(DeviceError::Forked.into());
        }
        let device = context.device();
        if !spec.arch().runs_on(device.major, device.minor) {
            return Err(LoadError::WrongArch {
                arch: spec.arch(),
                device: device.name.clone(),
                major: device.major,
                minor: device.minor,
            });
        }
        // The driver believes every offset of an image: it is given whole ones alone.
        image::check(spec, &artifact.cubin)?;
        parameter_info::check(spec, &artifact.cubin)?;
        let _entered = context.enter()?;
        let capturing = || LoadError::Capturing {
            family: spec.family().name.clone(),
            arch: spec.arch(),
        };
        if capture::is_known() {
            return Err(capturing());
        }
        let _relaxed = Relaxed::begin();
        // SAFETY: the bytes are a whole cubin, as was checked, alive during the call.
        let module = unsafe { result::module::load_data(artifact.cubin.as_ptr().cast::<c_void>()) };
        let module = module.map_err(|reason| {
            if capture::is_meant_by(reason) {
                return capturing();
            }
            LoadError::Refused {
                family: spec.family().name.clone(),
                arch: spec.arch(),
                reason: DriverError::of_module(reason, image::made_by(&artifact.cubin)),
            }
        })?;
        // From here on the module is unloaded whatever happens.
        let mut loaded = Self {
            module,
            entries: Vec::new(),
            spec: spec.clone(),
            context: context.clone(),
        };
        for entry in spec.entries() {
            let point = loaded.entry_point(spec, entry)?;
            loaded.entries.push(point);
        }
        Ok(loaded)
    }

    /// The entry points, in declared order; there is at least one.
    #[must_use]
    pub fn entries(&self) -> &[EntryPoint] {
        &self.entries
    }

    /// The entry point of this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&EntryPoint> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// What was loaded.
    #[must_use]
    pub fn spec(&self) -> &KernelSpec {
        &self.spec
    }

    /// Where it is loaded.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    fn entry_point(&self, spec: &KernelSpec, entry: &Entry) -> Result<EntryPoint, LoadError> {
        let missing = || LoadError::NoEntry {
            family: spec.family().name.clone(),
            entry: entry.name.clone(),
        };
        let refused = |reason| LoadError::Driver {
            family: spec.family().name.clone(),
            entry: entry.name.clone(),
            reason: DriverError::of(reason),
        };
        let name = CString::new(entry.name.as_str()).map_err(|_| missing())?;
        // SAFETY: the module is loaded.
        let function =
            unsafe { result::module::get_function(self.module, name) }.map_err(|reason| match reason.0 {
                sys::CUresult::CUDA_ERROR_NOT_FOUND => missing(),
                _ => refused(reason),
            })?;
        let attribute = |which| {
            // SAFETY: the function belongs to the loaded module.
            unsafe { result::function::get_function_attribute(function, which) }
                .map(i32::unsigned_abs)
                .map_err(refused)
        };
        let size = |size| spec.size(size).unwrap_or(0);
        let (block_threads, shared_mem_bytes) = (size(&entry.block), size(&entry.shared_mem_bytes));
        let device = self.context.device();
        let fixed = attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let most = device.shared_mem_per_block.saturating_sub(fixed);
        if shared_mem_bytes > most {
            return Err(LoadError::SharedMemory {
                family: spec.family().name.clone(),
                entry: entry.name.clone(),
                asked: shared_mem_bytes,
                most,
                device: device.name.clone(),
            });
        }
        let dynamic = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let asked = c_int::try_from(shared_mem_bytes).unwrap_or(c_int::MAX);
        // SAFETY: as above; the value was checked against the device's limit.
        unsafe { result::function::set_function_attribute(function, dynamic, asked) }.map_err(refused)?;
        let threads = c_int::try_from(block_threads).unwrap_or(c_int::MAX);
        let mut blocks = 0;
        // SAFETY: `blocks` outlives the call.
        let counted = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &raw mut blocks,
                function,
                threads,
                usize::try_from(shared_mem_bytes).unwrap_or(usize::MAX),
            )
        };
        counted.result().map_err(refused)?;
        let blocks_per_sm = blocks.unsigned_abs();
        let axis = |at: usize| {
            spec.axis(&entry.grid[at]).map_err(|reason| LoadError::Grid {
                family: spec.family().name.clone(),
                entry: entry.name.clone(),
                reason,
            })
        };
        Ok(EntryPoint {
            name: entry.name.clone(),
            function,
            used: AtomicBool::new(false),
            grid: [axis(0)?, axis(1)?, axis(2)?],
            block_threads,
            shared_mem_bytes,
            cooperative: size(&entry.cooperative) != 0,
            registers: attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            blocks_per_sm,
            capacity: blocks_per_sm.saturating_mul(device.sm_count),
        })
    }
}

impl LoadedKernel {
    /// Unloads it now, whatever was launched from it.
    ///
    /// # Safety
    ///
    /// Nothing that was launched from it still runs or waits, no graph that captured a
    /// launch of it is launched again, and no handle of its entry points is used.
    pub unsafe fn unload(mut self) {
        for entry in &mut self.entries {
            *entry.used.get_mut() = false;
        }
    }

    fn may_be_needed(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.used.load(Ordering::Relaxed))
    }
}

/// Modules that were dropped, and stay loaded until their context ends.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// How many modules this process has dropped without unloading them: see
/// [`LoadedKernel`].
#[must_use]
pub fn kept_modules() -> u64 {
    KEPT.load(Ordering::Relaxed)
}

impl Drop for LoadedKernel {
    fn drop(&mut self) {
        if self.context.is_of_parent() {
            // The module is the parent's.
            return;
        }
        if self.may_be_needed() {
            KEPT.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Whoever drops it may be at work in another context, which it keeps. In no other
        // context is it unloaded: failure leaves it to its own one's end.
        let entered = self.context.enter();
        if entered.is_err() || capture::is_known() {
            KEPT.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let _relaxed = Relaxed::begin();
        // SAFETY: loaded by `load`, unloaded once, and needed by nothing.
        let _ = unsafe { result::module::unload(self.module) };
    }
}
