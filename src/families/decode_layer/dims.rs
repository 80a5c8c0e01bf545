//! A layer's sizes.

use std::ops::Deref;

use super::{LayerConfig, LayerGeometry, WeightLayout, WorkspaceError};
use crate::engine::request::spec::KernelSpec;
use crate::families::decode_layer::reference::{Kv, LayerInputs, LayerShape, Lengths, ScaleLayout};
use crate::families::wo_gemv::Accumulate;

/// Which matrices of a layer are packed for tensor cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packed {
    /// None: as checkpoints have them.
    None,
    /// Gate, up and down; `W_O`'s chains read it as checkpoints have it.
    Mlp,
    /// `W_O` too, on tensor cores.
    All,
}

/// Sizes of a layer, from the constants of its spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerDims {
    /// What the layer is; the rest is how it is laid out.
    pub shape: LayerShape,
    /// Slots of `W_O`.
    pub slots: usize,
    /// Blocks of the spread grid.
    pub num_ctas: usize,
    /// Slice groups of `geometry = original`; 0 in the spread one.
    pub slice_ctas: usize,
    /// Whether attention is gated.
    pub output_gate: bool,
    /// Whether the input norm is written.
    pub input_norm: bool,
    /// Whether the MLP's scales lie in padded tiles.
    pub swizzled: bool,
    /// Which matrices are packed for tensor cores (`packed64`).
    pub packed: Packed,
    /// Regions that the kernels time.
    pub num_regions: usize,
}

impl LayerDims {
    /// The sizes of a spec of the decode layer.
    pub fn of(spec: &KernelSpec) -> Result<Self, WorkspaceError> {
        LayerConfig::try_from(spec).map(|config| Self::from(&config))
    }

    /// How the scales of the MLP's matrices lie.
    #[must_use]
    pub fn scale_layout(&self) -> ScaleLayout {
        if self.swizzled {
            ScaleLayout::Swizzled
        } else {
            ScaleLayout::Linear
        }
    }

    /// Random inputs in the layouts of a layer of these sizes.
    #[must_use]
    pub fn inputs(&self, lengths: &[usize], kv: Kv, seed: u64) -> LayerInputs {
        let lengths = Lengths(lengths.to_vec());
        let inputs = LayerInputs::with_layout(&self.shape, &lengths, kv, self.scale_layout(), seed);
        if self.packed == Packed::None {
            inputs
        } else {
            inputs.pack()
        }
    }

    /// Floats that attention's units of work leave for each other.
    pub(super) fn partial_floats(&self, tokens: usize) -> usize {
        let octets = (self.num_q_heads / self.num_kv_heads).div_ceil(8);
        (self.num_ctas + tokens * self.num_kv_heads) * octets * (8 * self.head_dim + 16)
    }
}

impl From<&LayerConfig> for LayerDims {
    fn from(config: &LayerConfig) -> Self {
        Self {
            shape: config.shape,
            slots: config.shape.num_kv_heads * config.wo_split as usize,
            num_ctas: config.num_ctas as usize,
            slice_ctas: match config.geometry {
                LayerGeometry::Original => config.slice_ctas as usize,
                LayerGeometry::Spread => 0,
            },
            output_gate: config.output_gate,
            input_norm: config.input_norm,
            swizzled: config.scale_layout == ScaleLayout::Swizzled,
            packed: match (config.weight_layout, config.accumulate) {
                (WeightLayout::Packed64, Accumulate::Mma) => Packed::All,
                (WeightLayout::Packed64, _) => Packed::Mlp,
                (WeightLayout::Nvfp4, _) => Packed::None,
            },
            num_regions: config.num_regions as usize,
        }
    }
}

/// Its sizes are read as its own.
impl Deref for LayerDims {
    type Target = LayerShape;

    fn deref(&self) -> &LayerShape {
        &self.shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_room_covers_every_unit_of_work() {
        let dims = LayerDims {
            shape: LayerShape {
                hidden: 5120,
                intermediate: 17408,
                num_q_heads: 24,
                num_kv_heads: 4,
                head_dim: 256,
                page_size: 64,
            },
            slots: 32,
            num_ctas: 132,
            slice_ctas: 0,
            output_gate: false,
            input_norm: false,
            swizzled: true,
            packed: Packed::None,
            num_regions: 0,
        };
        // One unit a block, and one more a head where lengths do not divide.
        assert_eq!(dims.partial_floats(2), (132 + 8) * (8 * 256 + 16));
        assert_eq!(dims.k(), 6144);
    }
}
