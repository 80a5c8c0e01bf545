//! `Artifact` -> `LoadedKernel`: machine code in a context, ready to be launched.
//!
//! Invariant: the driver is given verified bytes, never a path; what it loaded
//! stays loaded as long as somebody holds the kernel, and everything that a
//! launch needs (attributes set, capacity known) was done here. It is unloaded only where
//! no launch and no graph can need it: see [`LoadedKernel`]. The context that is current
//! on the caller's thread is as it was after each call.

use std::borrow::Cow;
use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use cudarc::driver::{result, sys};

use crate::engine::build::artifact::Artifact;
use crate::engine::build::image::{self, ImageError};
use crate::engine::build::parameter_info::{self, ParameterError};
use crate::engine::request::signature::Extent;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::{Axis, Entry};
use crate::engine::run::capture::{self, Relaxed};
use crate::engine::run::device::{Context, DeviceError};
use crate::engine::run::driver_error::DriverError;
use crate::engine::run::entry_point::occupancy;

pub use crate::engine::run::entry_point::EntryPoint;

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
    /// A block of this entry point has more threads than the kernel can have.
    #[error("{family}: `{entry}` has blocks of {threads} threads, and the kernel takes at most {most}")]
    Block {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// Threads a block.
        threads: u32,
        /// The most, by its registers and `__launch_bounds__`.
        most: u32,
    },
    /// A way of launching that the GPU does not have.
    #[error(
        "{family}: `{entry}` is launched {how}, which takes compute capability 9.0: {device} has {major}.{minor}"
    )]
    TooOld {
        /// The family.
        family: String,
        /// The entry point.
        entry: String,
        /// `in clusters`, `in programmatic order`.
        how: &'static str,
        /// The GPU's name.
        device: String,
        /// Compute capability, before the point.
        major: u16,
        /// Compute capability, after the point.
        minor: u16,
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

/// The most blocks of a cluster that every GPU with clusters takes.
const PORTABLE_CLUSTER: u32 = 8;

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
    variables: Vec<(String, u64)>,
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
        image::check_named(spec, artifact)?;
        parameter_info::check(spec, artifact)?;
        let _entered = context.enter()?;
        let capturing = || LoadError::Capturing {
            family: spec.family().name.clone(),
            arch: spec.arch(),
        };
        if capture::is_known() {
            return Err(capturing());
        }
        let _relaxed = Relaxed::begin();
        let mut code = Cow::Borrowed(artifact.cubin.as_slice());
        if spec.arch().is_ptx() {
            // The driver reads a text up to its NUL; none is in it, as was checked.
            code.to_mut().push(0);
        }
        // SAFETY: a whole cubin, or PTX that ends with a NUL, as was checked; alive during the
        // call.
        let module = unsafe { result::module::load_data(code.as_ptr().cast::<c_void>()) };
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
            variables: image::variables(&artifact.cubin),
            spec: spec.clone(),
            context: context.clone(),
        };
        for entry in spec.entries() {
            let point = loaded.entry_point(spec, entry, artifact.symbol(&entry.name))?;
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

    /// Its `__constant__` and `__device__` variables, as the machine code names them, with
    /// their bytes.
    #[must_use]
    pub fn variables(&self) -> &[(String, u64)] {
        &self.variables
    }

    pub(super) fn module(&self) -> sys::CUmodule {
        self.module
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

    /// Whether the GPU has the ways in which an entry point is launched.
    fn can_launch(&self, entry: &Entry, clusters: bool, programmatic: bool) -> Result<(), LoadError> {
        let device = self.context.device();
        let how = match (clusters, programmatic) {
            _ if device.major >= 9 => return Ok(()),
            (true, _) => "in clusters",
            (_, true) => "in programmatic order",
            _ => return Ok(()),
        };
        Err(LoadError::TooOld {
            family: self.spec.family().name.clone(),
            entry: entry.name.clone(),
            how,
            device: device.name.clone(),
            major: device.major,
            minor: device.minor,
        })
    }

    fn entry_point(&self, spec: &KernelSpec, entry: &Entry, symbol: &str) -> Result<EntryPoint, LoadError> {
        let missing = || LoadError::NoEntry {
            family: spec.family().name.clone(),
            entry: entry.name.clone(),
        };
        let refused = |reason| LoadError::Driver {
            family: spec.family().name.clone(),
            entry: entry.name.clone(),
            reason: DriverError::of(reason),
        };
        let name = CString::new(symbol).map_err(|_| missing())?;
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
        let axis = |axis: &Axis| {
            spec.axis(axis).map_err(|reason| LoadError::Grid {
                family: spec.family().name.clone(),
                entry: entry.name.clone(),
                reason: reason.into(),
            })
        };
        let all = |[x, y, z]: &[Axis; 3]| Ok::<_, LoadError>([axis(x)?, axis(y)?, axis(z)?]);
        let (grid, block) = (all(&entry.grid)?, all(&entry.block)?);
        let shared_mem = axis(&entry.shared_mem_bytes)?;
        let size = |size| spec.size(size).unwrap_or(0);
        let device = self.context.device();
        let (cluster, programmatic) = (entry.cluster.as_ref(), size(&entry.programmatic) != 0);
        self.can_launch(entry, cluster.is_some(), programmatic)?;
        let fixed = attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let most = device.shared_mem_per_block.saturating_sub(fixed);
        // What a launch decides may be all that there is.
        let asked = shared_mem.fixed().unwrap_or(most);
        if asked > most {
            return Err(LoadError::SharedMemory {
                family: spec.family().name.clone(),
                entry: entry.name.clone(),
                asked,
                most,
                device: device.name.clone(),
            });
        }
        let max_threads = attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        let threads: Option<u32> = block.iter().map(Extent::fixed).product();
        if let Some(threads) = threads.filter(|threads| *threads > max_threads) {
            return Err(LoadError::Block {
                family: spec.family().name.clone(),
                entry: entry.name.clone(),
                threads,
                most: max_threads,
            });
        }
        let set = |which, value: u32| {
            let value = c_int::try_from(value).unwrap_or(c_int::MAX);
            // SAFETY: the function belongs to the loaded module; the driver checks the value.
            unsafe { result::function::set_function_attribute(function, which, value) }.map_err(refused)
        };
        set(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, asked)?;
        if let Some(percent) = &entry.carveout {
            set(
                Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                size(percent),
            )?;
        }
        let cluster = cluster.map(|sizes| sizes.each_ref().map(size));
        if cluster.is_some_and(|blocks| blocks.iter().product::<u32>() > PORTABLE_CLUSTER) {
            set(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        let (block_threads, shared_mem_bytes) = (threads.unwrap_or(0), shared_mem.fixed().unwrap_or(0));
        let blocks_per_sm = if threads.is_some() && shared_mem.fixed().is_some() {
            occupancy(function, block_threads, shared_mem_bytes).map_err(refused)?
        } else {
            0
        };
        Ok(EntryPoint {
            name: entry.name.clone(),
            function,
            used: AtomicBool::new(false),
            grid,
            block,
            shared_mem,
            block_threads,
            shared_mem_bytes,
            cooperative: size(&entry.cooperative) != 0,
            programmatic,
            cluster,
            priority: spec.priority(entry).ok().flatten(),
            max_threads,
            max_shared_mem: most,
            sm_count: device.sm_count,
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
