//! A layer's sizes.

use std::ops::Deref;

use cudarc::driver::sys;

use super::WorkspaceError;
use crate::engine::request::spec::KernelSpec;
use crate::families::decode_layer::reference::{Kv, LayerInputs, LayerShape, Lengths, ScaleLayout};

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
pub struct LayerDims {
    /// What the layer is; the rest is how it is laid out.
    pub shape: LayerShape,
    /// Slots of `W_O`.
    pub slots: usize,
    /// Blocks of the spread grid.
    pub num_ctas: usize,
    /// Slice groups of the original geometry; 0 in the spread one.
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
    /// The sizes of a spec of `beta_coop` or `beta_lite`.
    pub fn of(spec: &KernelSpec) -> Result<Self, WorkspaceError> {
        let family = || WorkspaceError::Family(spec.family.name.clone());
        let number = |name: &str| {
            let value = spec
                .constants
                .get(name)
                .and_then(crate::engine::request::constant::Value::as_u32);
            value.map(|n| n as usize).ok_or_else(family)
        };
        let named = |name: &str| {
            (spec.constants.get(name)).and_then(crate::engine::request::constant::Value::as_name)
        };
        let flag = |name: &str| match spec.constants.get(name) {
            Some(crate::engine::request::constant::Value::Bool(flag)) => Ok(*flag),
            _ => Err(family()),
        };
        Ok(Self {
            shape: LayerShape {
                hidden: number("hidden")?,
                intermediate: number("intermediate")?,
                num_q_heads: number("num_q_heads")?,
                num_kv_heads: number("num_kv_heads")?,
                head_dim: number("head_dim")?,
                page_size: number("page_size")?,
            },
            slots: number("num_kv_heads")? * number("wo_split")?,
            num_ctas: number("num_ctas")?,
            slice_ctas: match named("geometry") {
                Some("original") => number("slice_ctas")?,
                _ => 0,
            },
            output_gate: flag("output_gate")?,
            input_norm: flag("input_norm")?,
            swizzled: named("scale_layout") != Some("linear"),
            packed: match (named("weight_layout"), named("accumulate")) {
                (Some("packed64"), Some("mma")) => Packed::All,
                (Some("packed64"), _) => Packed::Mlp,
                _ => Packed::None,
            },
            // Not every family has regions.
            num_regions: number("num_regions").unwrap_or(0),
        })
    }

    /// A kernel with regions stores to its buffer whether there is one or not.
    pub(super) fn check_timing(&self, region_timing: sys::CUdeviceptr) -> Result<(), WorkspaceError> {
        if self.num_regions == 0 || region_timing != 0 {
            return Ok(());
        }
        Err(WorkspaceError::Tensor {
            name: "region_timing",
            expected: format!("a buffer for the spec's {} regions", self.num_regions),
            found: "none".into(),
        })
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
