//! What can go wrong, by stage, and what to do about it.

use std::path::PathBuf;

use crate::engine::build::compile::CompileError;
use crate::engine::build::image::ImageError;
use crate::engine::build::key::CacheKey;
use crate::engine::build::parameter_info::ParameterError;
use crate::engine::build::render::RenderError;
use crate::engine::build::toolchain::ToolchainError;
use crate::engine::cache::{CacheError, Drift, ReceiptError};
use crate::engine::config::{ConfigError, Source};
use crate::engine::regular_file::named;
use crate::engine::request::matrix::MatrixError;
use crate::engine::request::select::SelectError;
use crate::engine::request::spec::SpecError;
use crate::engine::request::template::TemplateError;
use crate::engine::run::device::DeviceError;
use crate::engine::run::dispatch::DispatchError;
use crate::engine::run::load::LoadError;

/// Everything that can go wrong, by stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Reading families.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Validating a request.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Choosing a variant by a family's rules.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// Rendering.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Finding a compiler.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// Looking into the cache; never a reason for a build to fail.
    #[error(transparent)]
    Cache(CacheError),
    /// Sending to stores, and taking from them.
    #[cfg(feature = "remote")]
    #[error(transparent)]
    Fleet(super::FleetError),
    /// Compiling: the compiler's words, the constants in force and where the
    /// rendered source was kept.
    #[error("{source} [{variant}, {arch}]{kept}")]
    Compile {
        /// The compiler's words.
        source: CompileError,
        /// The constants that differ from their defaults.
        variant: Box<str>,
        /// The arch.
        arch: crate::engine::request::target::Arch,
        /// `; source and log: PATH`, or nothing.
        kept: Box<str>,
        /// What to do about the mistakes that are understood, a line each.
        hints: Box<[String]>,
    },
    /// The compiler is older, or newer, than the arch.
    #[error("NVRTC {nvrtc} makes no code for {arch}")]
    UnknownArch {
        /// What was asked for.
        arch: crate::engine::request::target::Arch,
        /// The compiler's version.
        nvrtc: String,
    },
    /// What was compiled is not what the family declares.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The GPUs of this machine; not `From`, since a measurement that lacks one says so itself.
    #[error(transparent)]
    Device(DeviceError),
    /// The kernels take something else than their family declares.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// Loading into a context.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No tier has it, and compiling is forbidden.
    #[error(
        "{variant} for {arch} is in no tier of the cache, and compiling is forbidden (miss = forbid): \
         key {key}; `{command}` would warm it{passed_over}"
    )]
    Forbidden {
        /// The key.
        key: CacheKey,
        /// Family and constants that differ from their defaults.
        variant: String,
        /// The arch.
        arch: crate::engine::request::target::Arch,
        /// The command that would warm it.
        command: String,
        /// `; ` and a sentence for each tier that cannot be read or is not trusted.
        passed_over: Box<str>,
    },
    /// The code at hand is PTX, and compiling is forbidden: the driver's counts.
    #[error(
        "{variant} for {arch} is PTX, which the driver would have to compile, and that is forbidden (miss = forbid, \
         or a receipt is required): machine code for this GPU has to be warmed beforehand"
    )]
    DriverCompile {
        /// Family and constants that differ from their defaults.
        variant: String,
        /// The virtual arch.
        arch: crate::engine::request::target::Arch,
    },
    /// A receipt is required, and this is not what it lists.
    #[error("{variant} for {arch} is refused, as a receipt is required: {drift}")]
    Drift {
        /// What differs.
        drift: Drift,
        /// Family and constants that differ from their defaults.
        variant: String,
        /// The arch.
        arch: crate::engine::request::target::Arch,
    },
    /// Something must be signed, and there is nobody who could have.
    #[error("require = signed, and no key is trusted: name public keys in trusted_keys (JITC_TRUSTED_KEYS)")]
    NoTrustedKey,
    /// What to warm cannot be read.
    #[error("{}", named(path, source))]
    Matrix {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        source: MatrixError,
    },
    /// A rendered source cannot be written; the message names the file.
    #[error("the rendered source: {0}")]
    Source(std::io::Error),
    /// A trace cannot be read; the message names the file.
    #[error("trace: {0}")]
    Trace(std::io::Error),
    /// A line of a trace asks for what there is not.
    #[error("{}, line {line}: {source}", path.display())]
    TraceLine {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with the line.
        source: Box<SelectError>,
    },
    /// A receipt that is required, or to be checked, cannot be used.
    #[error("receipt ({origin}): {}", named(path, source))]
    Receipt {
        /// File of the receipt.
        path: PathBuf,
        /// Who named it.
        origin: Source,
        /// What is wrong with the receipt.
        source: ReceiptError,
    },
}

impl From<SelectError> for Error {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::Template(error) => Self::Template(error),
            SelectError::Spec(error) => Self::Spec(error),
        }
    }
}

/// The stage at which something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Settings.
    Config,
    /// Families.
    Template,
    /// Requests.
    Spec,
    /// Rendering.
    Render,
    /// The compiler's whereabouts.
    Toolchain,
    /// The cache.
    Cache,
    /// Compiling.
    Compile,
    /// Loading.
    Load,
    /// The driver and its GPUs.
    Device,
    /// What the policy allows.
    Policy,
}

impl Error {
    /// The stage.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Config,
            Self::Template(_) | Self::Parameters(_) | Self::Image(_) => ErrorKind::Template,
            Self::Spec(_)
            | Self::Dispatch(_)
            | Self::Matrix { .. }
            | Self::Trace(_)
            | Self::TraceLine { .. } => ErrorKind::Spec,
            Self::Render(_) | Self::Source(_) => ErrorKind::Render,
            Self::Toolchain(_) | Self::UnknownArch { .. } => ErrorKind::Toolchain,
            Self::Device(_) => ErrorKind::Device,
            Self::Cache(_) => ErrorKind::Cache,
            #[cfg(feature = "remote")]
            Self::Fleet(_) => ErrorKind::Cache,
            Self::Compile { .. } => ErrorKind::Compile,
            Self::Load(_) => ErrorKind::Load,
            Self::DriverCompile { .. }
            | Self::Forbidden { .. }
            | Self::Drift { .. }
            | Self::Receipt { .. }
            | Self::NoTrustedKey => ErrorKind::Policy,
        }
    }

    /// All that the compiler said, where it refused the source: every error and warning,
    /// with the lines and carets, in the terms of the family's files.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        match self {
            Self::Compile { source, .. } => source.log(),
            _ => None,
        }
    }

    /// What to do about it, a line each, where there is something.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Compile { hints, .. } => hints.to_vec(),
            other => other.hint().map(str::to_owned).into_iter().collect(),
        }
    }

    /// The one line for all errors of a kind, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            // These say themselves what to do.
            Self::Spec(SpecError::Arch { .. } | SpecError::TooOld { .. })
            | Self::Toolchain(
                ToolchainError::Changed { .. }
                | ToolchainError::Untrusted { .. }
                | ToolchainError::Busy { .. }
                | ToolchainError::FetchHeaders { .. }
                | ToolchainError::OfflineHeaders { .. }
                | ToolchainError::MissingWheels { .. }
                | ToolchainError::UnknownWheel { .. }
                | ToolchainError::NoHeaderSet { .. },
            ) => None,
            Self::Spec(_) => {
                Some("`jitc families` lists every constant with its legal values and its default")
            }
            Self::UnknownArch { .. } => Some(
                "name an NVRTC that knows it (--nvrtc, JITC_NVRTC, CUDA_HOME), or another arch: --arch, JITC_ARCH",
            ),
            Self::Load(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Toolchain(_) => Some("`jitc doctor` shows where NVRTC was looked for"),
            Self::Template(TemplateError::UnknownFamily { .. }) => Some("`jitc families` lists them"),
            Self::Forbidden { .. } => {
                Some("`jitc why` with the same request says what the cache has instead")
            }
            Self::Drift { .. } => Some("`jitc cache verify --against RECEIPT` lists every drift"),
            _ => None,
        }
    }
}
