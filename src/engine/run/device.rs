//! What GPUs are here, and a hold on one of them.
//!
//! Invariant: the driver's absence is a typed answer, found out before cudarc is
//! called: cudarc panics where libcuda is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, result, sys};
use serde::Serialize;

use crate::engine::per_process::generation;
use crate::engine::request::target::{Arch, CudaVersion};
use crate::engine::run::driver_error::{self, DriverError};

/// Facts of one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its place in the driver's order.
    pub ordinal: u32,
    /// Its name, as the driver gives it.
    pub name: String,
    /// Compute capability, before the point.
    pub major: u16,
    /// Compute capability, after the point.
    pub minor: u16,
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Shared memory of a multiprocessor, bytes.
    pub shared_mem_per_sm: u32,
    /// Shared memory that one block can have, bytes, static and dynamic together.
    pub shared_mem_per_block: u32,
    /// 32-bit registers of a multiprocessor.
    pub registers_per_sm: u32,
    /// Threads that fit on a multiprocessor.
    pub threads_per_sm: u32,
    /// L2 cache, bytes.
    pub l2_bytes: u32,
    /// Whether cooperative launches are possible.
    pub cooperative: bool,
    /// Whether kernels can read memory of the host's own allocator.
    pub pageable_memory: bool,
}

/// Why there is no GPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No driver library on the loader's path.
    #[error("libcuda is not installed")]
    NoDriver,
    /// The driver is there, a GPU is not.
    #[error("the driver shows no GPU")]
    NoGpu,
    /// There is no GPU of this ordinal.
    #[error("there is no GPU {ordinal}: the driver shows {count}, counted from 0")]
    NoSuchGpu {
        /// What was asked for.
        ordinal: u32,
        /// How many there are.
        count: usize,
    },
    /// No family that was asked for runs on a GPU of this machine.
    #[error("nothing that was requested runs on {gpus}: {needs}")]
    Unsupported {
        /// Which, by [`Device::label`].
        gpus: String,
        /// What the families need.
        needs: String,
    },
    /// CUDA was started before this process was forked.
    #[error("this process was forked from one that had started CUDA: none of its GPU handles work here")]
    Forked,
    /// The driver said no.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl DeviceError {
    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoGpu => Some(
                "`nvidia-smi -L` lists the GPUs of the machine, and CUDA_VISIBLE_DEVICES hides some or all of them",
            ),
            Self::Unsupported { .. } => Some("--arch, or JITC_ARCH, compiles for a GPU that is not here"),
            Self::Forked => Some(
                "fork before the first use of a GPU, or start the process anew: in Python, \
                 `multiprocessing.set_start_method(\"spawn\")`",
            ),
            Self::Driver(said) => said.hint(),
            Self::NoDriver | Self::NoSuchGpu { .. } => None,
        }
    }
}

impl Device {
    /// `GPU 0, NVIDIA H200 (compute capability 9.0)`.
    #[must_use]
    pub fn label(&self) -> String {
        format!(
            "GPU {}, {} (compute capability {}.{})",
            self.ordinal, self.name, self.major, self.minor
        )
    }

    /// The best arch for it.
    #[must_use]
    pub fn arch(&self) -> Arch {
        Arch::of_device(self.major, self.minor)
    }
}

/// The process in which the driver was started by this library, by [`generation`], from 1.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// Notes that the driver is about to be started here; it cannot be in a forked child.
fn start() -> Result<(), DeviceError> {
    let here = generation() + 1;
    match STARTED.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed) {
        Err(other) if other != here => Err(DeviceError::Forked),
        _ => Ok(()),
    }
}

fn present() -> Result<(), DeviceError> {
    // SAFETY: only tries to open the driver's library.
    if unsafe { sys::is_culib_present() } {
        Ok(())
    } else {
        Err(DeviceError::NoDriver)
    }
}

/// The GPUs of this machine; none where there is no driver, or the driver shows none. A
/// driver that cannot be used is an error.
pub fn here() -> Result<Vec<Device>, DeviceError> {
    match list() {
        Err(DeviceError::NoDriver | DeviceError::NoGpu) => Ok(Vec::new()),
        other => other,
    }
}

/// The architectures to compile for unless some are named: those of these GPUs, each once;
/// without a GPU, [`Arch::DEFAULTS`].
#[must_use]
pub fn default_archs(devices: &[Device]) -> Vec<Arch> {
    let mut archs: Vec<Arch> = devices.iter().map(Device::arch).collect();
    archs.sort();
    archs.dedup();
    if archs.is_empty() {
        Arch::DEFAULTS.to_vec()
    } else {
        archs
    }
}

/// The newest CUDA that the driver knows.
pub fn driver_version() -> Result<CudaVersion, DeviceError> {
    present()?;
    driver_error::driver_version().map_err(|code| DriverError::of_start(result::DriverError(code)).into())
}

/// The GPUs of this machine, in the driver's order.
pub fn list() -> Result<Vec<Device>, DeviceError> {
    present()?;
    start()?;
    match result::init() {
        Err(result::DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(DeviceError::NoGpu),
        other => other.map_err(DriverError::of_start)?,
    }
    let count = result::device::get_count().map_err(DriverError::of_start)?;
    (0..count)
        .map(|ordinal| Ok(describe(ordinal).map_err(DriverError::of_start)?))
        .collect()
}

/// The GPU at this place in the driver's order.
pub fn get(ordinal: u32) -> Result<Device, DeviceError> {
    let mut devices = list()?;
    let count = devices.len();
    match usize::try_from(ordinal).unwrap_or(usize::MAX) {
        _ if count == 0 => Err(DeviceError::NoGpu),
        at if at < count => Ok(devices.swap_remove(at)),
        _ => Err(DeviceError::NoSuchGpu { ordinal, count }),
    }
}

fn describe(ordinal: i32) -> Result<Device, result::DriverError> {
    let device = result::device::get(ordinal)?;
    let attribute = |which| {
        // SAFETY: the device handle was just given by the driver.
        unsafe { result::device::get_attribute(device, which) }.map(i32::unsigned_abs)
    };
    let small = |value: u32| u16::try_from(value).unwrap_or(0);
    Ok(Device {
        ordinal: ordinal.unsigned_abs(),
        name: result::device::get_name(device)?,
        major: small(attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        )?),
        minor: small(attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )?),
        sm_count: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_mem_per_sm: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        shared_mem_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        registers_per_sm: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
        threads_per_sm: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        cooperative: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        pageable_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS)? != 0,
    })
}

/// A context of one GPU: as a rule the primary one, which this process shares with
/// every other CUDA library in it. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Context {
    device: Arc<Device>,
    cuda: Arc<CudaContext>,
    /// Of the process whose context it is.
    generation: u64,
}

impl Context {
    /// Opens a GPU, and makes its context current on this thread.
    pub fn new(ordinal: u32) -> Result<Self, DeviceError> {
        let device = Arc::new(get(ordinal)?);
        let at = usize::try_from(ordinal).unwrap_or(usize::MAX);
        let cuda = CudaContext::new(at).map_err(DriverError::of)?;
        Ok(Self {
            device,
            cuda,
            generation: generation(),
        })
    }

    /// A context that is there already, such as one that is not the GPU's primary.
    pub fn of(cuda: Arc<CudaContext>) -> Result<Self, DeviceError> {
        let ordinal = u32::try_from(cuda.ordinal()).unwrap_or(u32::MAX);
        let device = Arc::new(get(ordinal)?);
        Ok(Self {
            device,
            cuda,
            generation: generation(),
        })
    }

    /// What tells contexts apart; two GPUs have two, and one GPU may have several.
    #[must_use]
    pub fn id(&self) -> usize {
        self.cuda.cu_ctx().addr()
    }

    /// Facts of its GPU.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The context as cudarc has it: streams, memory, events.
    #[must_use]
    pub fn cuda(&self) -> &Arc<CudaContext> {
        &self.cuda
    }

    /// Whether it is of the process that this one was forked from, and of no use here.
    #[must_use]
    #[inline]
    pub fn is_of_parent(&self) -> bool {
        self.generation != generation()
    }

    /// Makes the context current on this thread; a thread that launches does it once.
    pub fn bind(&self) -> Result<(), DeviceError> {
        if self.is_of_parent() {
            return Err(DeviceError::Forked);
        }
        Ok(self.cuda.bind_to_thread().map_err(DriverError::of)?)
    }

    /// Makes the context current on this thread until what is returned is dropped, which
    /// brings back the one that was current before.
    pub fn enter(&self) -> Result<Entered, DeviceError> {
        if self.is_of_parent() {
            return Err(DeviceError::Forked);
        }
        let before = result::ctx::get_current();
        self.bind()?;
        let before = match before {
            Ok(before) if before != Some(self.cuda.cu_ctx()) => Some(before.unwrap_or(std::ptr::null_mut())),
            // What cannot be asked for is not replaced by none.
            _ => None,
        };
        Ok(Entered { before })
    }
}

/// A context that is current on this thread for a while; see [`Context::enter`].
#[must_use = "dropped, the context before is current again"]
#[derive(Debug)]
pub struct Entered {
    /// What to bring back, if anything; null is none.
    before: Option<sys::CUcontext>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: it was current on this thread a moment ago; null is none.
            let _ = unsafe { result::ctx::set_current(before) };
        }
    }
}
