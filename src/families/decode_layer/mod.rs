//! The decode layer: paged FP8 attention, `W_O`, norm and an NVFP4 MLP.
//!
//! Invariant: tensors are checked once, when a [`Layer`] is bound; a launch checks nothing
//! but the number of tokens.

pub mod bench;
mod config;
mod copies;
mod dims;
pub mod dispatch;
mod error;
mod harness;
mod layer;
mod problem;
pub mod reference;
pub mod regions;
pub mod tune;
pub mod verify;
mod weights;
mod workspace;

pub use crate::engine::run::tensor::{Dtype, Tensor};
pub use config::{
    FAMILY, Launch, LayerConfig, LayerGeometry, WeightLayout, asked_launches, launches, with_launch,
};
pub use dims::{LayerDims, Packed};
pub use error::WorkspaceError;
pub use harness::HARNESS;
pub use layer::{BoundLayer, Layer};
pub use problem::{LayerProblem, Room, Written};
pub use weights::LayerWeights;
pub use workspace::{LayerScales, LayerTensors, Workspace};
