//! The decode layer: paged FP8 attention, `W_O`, norm and an NVFP4 MLP.
//!
//! Invariant: tensors are checked once, when a [`Layer`] is bound; a launch checks nothing
//! but the number of tokens.

mod dims;
pub mod dispatch;
mod error;
mod layer;
mod problem;
pub mod reference;
mod tensor;
pub mod tune;
mod weights;
mod workspace;

pub use dims::{LayerDims, Packed};
pub use error::WorkspaceError;
pub use layer::{BoundLayer, Layer, VALUES};
pub use problem::{LayerProblem, Room, Written};
pub use tensor::{Dtype, Tensor};
pub use weights::LayerWeights;
pub use workspace::{LayerScales, LayerTensors, Workspace};
