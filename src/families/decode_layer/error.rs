//! Why a layer could not be set up or launched.

use cudarc::driver::DriverError;

use crate::engine::run::launch::LaunchError;

/// Why a layer could not be set up or launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The spec is of another family.
    #[error("`{0}` is not a decode layer: expected decode_layer")]
    Family(String),
    /// A tensor is not what the layer takes.
    #[error("tensor `{name}`: expected {expected}, got {found}")]
    Tensor {
        /// Its name, as in [`LayerTensors`](super::LayerTensors).
        name: &'static str,
        /// What was expected.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The workspace was made for a smaller layer.
    #[error(
        "workspace: `{name}` has {found} elements, and this layer takes {least}: make it for the largest variant"
    )]
    Small {
        /// Which part.
        name: &'static str,
        /// Its elements.
        found: usize,
        /// Elements that the layer takes.
        least: usize,
    },
    /// More tokens than there is room for, or none.
    #[error("{asked} tokens: this layer was bound for 1 to {room}")]
    Tokens {
        /// Tokens asked for.
        asked: u32,
        /// Tokens that there is room for.
        room: u32,
    },
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
