//! Why a layer could not be set up or launched.

use cudarc::driver::DriverError;

use crate::engine::run::bind_error::BindError;
use crate::engine::run::launch::LaunchError;

/// Why a layer could not be set up or launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The spec is of another family.
    #[error("`{0}` is not a decode layer: expected decode_layer")]
    Family(String),
    /// The memory is not what the layer takes.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The kernel has too few registers to share out among its warps.
    #[error(
        "`{entry}` was compiled to {found} registers a thread, and its warps wait for ever with fewer than {least}: compile it \
         with the NVRTC that `jitc toolchain` fetches, or take weight_layout = nvfp4"
    )]
    Registers {
        /// The entry point.
        entry: String,
        /// What it has.
        found: u32,
        /// What it needs.
        least: u32,
    },
    /// The kernel left a counter that the next launch expects to be zero.
    #[error("a launch left counter {index} at {value}: the next one would not wait for it")]
    Counter {
        /// Which one.
        index: usize,
        /// What it holds.
        value: u32,
    },
    /// The launch did not happen.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A launch that was to become a graph left none.
    #[error("the launch was captured, and no graph came of it")]
    NoGraph,
    /// The driver said no.
    #[error("the CUDA driver said {0:?}")]
    Driver(#[from] DriverError),
}
