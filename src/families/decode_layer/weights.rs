//! A layer's weights in a GPU's memory, in one layout or two.
//!
//! Invariant: whatever a layer reads was uploaded before [`LayerWeights::new`] returned.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DriverError};
use half::bf16;

use super::{LayerDims, LayerScales, Packed, WorkspaceError};
use crate::families::decode_layer::reference::{LayerInputs, Matrix};
use crate::families::nvfp4::packed::Weight;

/// Codes and scales of a matrix.
pub(super) type Uploaded = (CudaSlice<u8>, CudaSlice<u8>);

/// The matrices in one layout.
#[derive(Debug)]
struct Matrices {
    wo: Uploaded,
    gate: Uploaded,
    up: Uploaded,
    down: Uploaded,
}

/// What does not change from step to step; problems on several streams share it.
#[derive(Debug)]
pub struct LayerWeights {
    plain: Matrices,
    packed: Option<Matrices>,
    pub(super) wo_global: CudaSlice<f32>,
    pub(super) input_gamma: CudaSlice<u16>,
    pub(super) post_gamma: CudaSlice<u16>,
    pub(super) scales: LayerScales,
}

impl LayerWeights {
    /// Uploads, and waits until all is there: other streams may use it at once.
    pub fn new(stream: &Arc<CudaStream>, inputs: &LayerInputs) -> Result<Self, WorkspaceError> {
        let plain = |m: &Matrix| -> Result<Uploaded, DriverError> {
            Ok((stream.clone_htod(&m.codes)?, stream.clone_htod(&m.scales)?))
        };
        let packed = |m: &Matrix| -> Result<Option<Uploaded>, DriverError> {
            let put = |w: &Weight| Ok((stream.clone_htod(&w.codes)?, stream.clone_htod(&w.scales)?));
            m.packed.as_ref().map(put).transpose()
        };
        let i = inputs;
        let weights = Self {
            plain: Matrices {
                wo: plain(&i.wo)?,
                gate: plain(&i.gate_proj)?,
                up: plain(&i.up_proj)?,
                down: plain(&i.down_proj)?,
            },
            packed: match (
                packed(&i.wo)?,
                packed(&i.gate_proj)?,
                packed(&i.up_proj)?,
                packed(&i.down_proj)?,
            ) {
                (Some(wo), Some(gate), Some(up), Some(down)) => Some(Matrices { wo, gate, up, down }),
                _ => None,
            },
            wo_global: stream.clone_htod(&[inputs.wo_global])?,
            input_gamma: stream.clone_htod(&bits(&inputs.input_gamma))?,
            post_gamma: stream.clone_htod(&bits(&inputs.post_gamma))?,
            scales: LayerScales {
                softmax: inputs.softmax_scale,
                k: inputs.k_scale,
                v: inputs.v_scale,
                rms_eps: inputs.rms_eps,
                gate_up: inputs.gate_up_global,
                down: inputs.down_global,
            },
        };
        stream.synchronize()?;
        Ok(weights)
    }

    /// The matrices as a layer of these sizes reads them.
    ///
    /// # Panics
    ///
    /// If it wants packed ones and the inputs were not [packed](LayerInputs::pack).
    pub(super) fn of(&self, layer: &LayerDims) -> Chosen<'_> {
        let packed = || (self.packed.as_ref()).expect("the inputs' weights were packed");
        let mlp = if layer.packed == Packed::None {
            &self.plain
        } else {
            packed()
        };
        let wo = if layer.packed == Packed::All {
            &packed().wo
        } else {
            &self.plain.wo
        };
        Chosen {
            wo,
            gate: &mlp.gate,
            up: &mlp.up,
            down: &mlp.down,
        }
    }
}

/// The matrices that one layer reads.
pub(super) struct Chosen<'a> {
    pub(super) wo: &'a Uploaded,
    pub(super) gate: &'a Uploaded,
    pub(super) up: &'a Uploaded,
    pub(super) down: &'a Uploaded,
}

pub(super) fn bits(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|v| v.to_bits()).collect()
}
