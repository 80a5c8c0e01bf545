//! What the CUDA driver says, understood: what is wrong, and what helps.
//!
//! Invariant: only an image that the driver itself calls invalid is the image's fault;
//! whatever else it says is no reason to distrust what was loaded.

use cudarc::driver::{result, sys};
use sys::cudaError_enum as Code;

use crate::engine::request::target::CudaVersion;

/// `CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER`, which bindings of CUDA 12.8 have no name for.
const CALL_REQUIRES_NEWER_DRIVER: u32 = 36;

/// The driver's word for why it did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// No memory left on the GPU.
    #[error("the GPU is out of memory (CUDA_ERROR_OUT_OF_MEMORY)")]
    OutOfMemory,
    /// A kernel that ran earlier, or the hardware, made the context unusable.
    #[error("an earlier fault has spoilt the CUDA context ({0:?})")]
    Spoilt(Code),
    /// The driver is older than the CUDA that the code was made by.
    #[error(
        "the driver is too old for this code: it knows CUDA up to {}, the code is made by CUDA {} ({code:?})",
        text(*driver), text(*needed)
    )]
    TooOld {
        /// What the driver knows, where it says so.
        driver: Option<CudaVersion>,
        /// What made the code, where it says so.
        needed: Option<CudaVersion>,
        /// The driver's word.
        code: Code,
    },
    /// The code holds nothing for this GPU.
    #[error(
        "the driver, of CUDA {}, finds nothing for this GPU in the code, made by CUDA {} (CUDA_ERROR_NO_BINARY_FOR_GPU)",
        text(*driver), text(*made_by)
    )]
    NoBinary {
        /// What the driver knows, where it says so.
        driver: Option<CudaVersion>,
        /// What made the code, where it says so.
        made_by: Option<CudaVersion>,
    },
    /// The image itself is damaged.
    #[error("the driver calls the image invalid (CUDA_ERROR_INVALID_IMAGE)")]
    InvalidImage,
    /// The driver's kernel module and its library are of different versions.
    #[error(
        "the driver's kernel module and its libcuda, of CUDA {}, do not match (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
        text(*driver)
    )]
    Mismatch {
        /// What the library knows, where it says so.
        driver: Option<CudaVersion>,
    },
    /// A package for forward compatibility that this GPU does not allow.
    #[error(
        "the libcuda of a compatibility package, of CUDA {}, is not for this GPU (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)",
        text(*driver)
    )]
    NoCompatibility {
        /// What the library knows, where it says so.
        driver: Option<CudaVersion>,
    },
    /// A library for linking alone stands in the driver's place.
    #[error("the libcuda that was found is the stub for linking (CUDA_ERROR_STUB_LIBRARY)")]
    LinkStub,
    /// What GPUs need of the system is not up yet.
    #[error("the system is not ready for GPUs (CUDA_ERROR_SYSTEM_NOT_READY)")]
    NotReady,
    /// Another process has the GPU to itself.
    #[error("the GPU is another process's (CUDA_ERROR_DEVICE_UNAVAILABLE)")]
    Unavailable,
    /// The Multi-Process Service.
    #[error("the Multi-Process Service does not serve ({0:?})")]
    Mps(Code),
    /// The driver does not come up, and does not say why.
    #[error("the driver does not start ({0:?})")]
    DoesNotStart(Code),
    /// Anything else.
    #[error("the CUDA driver said {0:?}")]
    Other(Code),
}

fn text(version: Option<CudaVersion>) -> String {
    version.map_or_else(|| "of an unknown version".to_owned(), |v| v.to_string())
}

impl DriverError {
    /// Of anything but a module.
    #[must_use]
    pub fn of(said: result::DriverError) -> Self {
        Self::of_module(said, None)
    }

    /// Of a module that a CUDA of this version made.
    #[must_use]
    pub fn of_module(said: result::DriverError, made_by: Option<CudaVersion>) -> Self {
        Self::classify(said.0, made_by, driver_version().ok())
    }

    /// As [`of`](Self::of), while the driver comes up.
    #[must_use]
    pub fn of_start(said: result::DriverError) -> Self {
        match Self::of(said) {
            Self::Other(code) => Self::DoesNotStart(code),
            known => known,
        }
    }

    fn classify(code: Code, made_by: Option<CudaVersion>, driver: Option<CudaVersion>) -> Self {
        let too_old = || Self::TooOld {
            driver,
            needed: made_by,
            code,
        };
        let is_old = || driver.zip(made_by).is_some_and(|(d, m)| !d.loads_code_of(m));
        match code {
            Code::CUDA_ERROR_OUT_OF_MEMORY => Self::OutOfMemory,
            Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | Code::CUDA_ERROR_CONTAINED
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE => Self::Spoilt(code),
            Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => too_old(),
            code if code as u32 == CALL_REQUIRES_NEWER_DRIVER => too_old(),
            // A driver of an older major version does not know the format, and takes
            // the image for damaged.
            Code::CUDA_ERROR_INVALID_IMAGE
            | Code::CUDA_ERROR_NO_BINARY_FOR_GPU
            | Code::CUDA_ERROR_INVALID_PTX
                if is_old() =>
            {
                too_old()
            }
            Code::CUDA_ERROR_NO_BINARY_FOR_GPU => Self::NoBinary { driver, made_by },
            Code::CUDA_ERROR_INVALID_IMAGE => Self::InvalidImage,
            Code::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => Self::Mismatch { driver },
            Code::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => Self::NoCompatibility { driver },
            Code::CUDA_ERROR_STUB_LIBRARY => Self::LinkStub,
            Code::CUDA_ERROR_SYSTEM_NOT_READY => Self::NotReady,
            Code::CUDA_ERROR_DEVICE_UNAVAILABLE => Self::Unavailable,
            Code::CUDA_ERROR_MPS_CONNECTION_FAILED
            | Code::CUDA_ERROR_MPS_RPC_FAILURE
            | Code::CUDA_ERROR_MPS_SERVER_NOT_READY
            | Code::CUDA_ERROR_MPS_MAX_CLIENTS_REACHED
            | Code::CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED => Self::Mps(code),
            other => Self::Other(other),
        }
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::OutOfMemory => "free memory on the GPU: `nvidia-smi` lists who holds it",
            Self::Spoilt(_) => {
                "find the kernel that faulted, as with `compute-sanitizer`, and start the process anew: \
                 nothing works in this context any more"
            }
            Self::TooOld { .. } => {
                "update the driver, or name an NVRTC of the driver's own major version: --nvrtc, JITC_NVRTC"
            }
            Self::NoBinary { .. } => "compile for this GPU's own arch: `jitc doctor` lists the GPUs",
            Self::InvalidImage => "`jitc cache verify` checks every entry",
            Self::Mismatch { .. } => {
                "reboot, or load the kernel module of the driver that was installed last: \
                 `cat /proc/driver/nvidia/version` names the one in use"
            }
            Self::NoCompatibility { .. } => {
                "take the compatibility package off the loader's path, and update the driver instead"
            }
            Self::LinkStub => "take the folder `stubs` off LD_LIBRARY_PATH, and install the driver",
            Self::NotReady => {
                "start nvidia-fabricmanager, and look at `systemctl status nvidia-fabricmanager`"
            }
            Self::Unavailable => {
                "wait for the other process, or set compute mode with `nvidia-smi -c DEFAULT`"
            }
            Self::Mps(_) => "start nvidia-cuda-mps-control, or unset CUDA_MPS_PIPE_DIRECTORY",
            Self::DoesNotStart(_) => "`nvidia-smi` and `dmesg | grep -i nvrm` say more",
            Self::Other(_) => return None,
        })
    }
}

impl From<result::DriverError> for DriverError {
    fn from(said: result::DriverError) -> Self {
        Self::of(said)
    }
}

/// The newest CUDA that the driver knows, or its word for why it does not say. Asked only
/// after the driver was found.
pub(super) fn driver_version() -> Result<CudaVersion, Code> {
    let mut version = 0;
    // SAFETY: `version` outlives the call, which needs no initialized driver.
    let said = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    match (said, version.unsigned_abs()) {
        (Code::CUDA_SUCCESS, 0) => Err(Code::CUDA_ERROR_UNKNOWN),
        (Code::CUDA_SUCCESS, version) => Ok(CudaVersion {
            major: version / 1000,
            minor: version % 1000 / 10,
        }),
        (code, _) => Err(code),
    }
}
