//! Constants of `wo_gemv`, typed.
//!
//! Invariant: what reads a constant of a spec by its name is here.

use std::fmt;

use super::reference::WoShape;
use crate::engine::request::constant::Value;
use crate::engine::request::spec::KernelSpec;
use crate::families::config::ConstantError;

/// How a slot's products are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accumulate {
    /// A chain in ascending k, one rounding a step.
    Fma,
    /// A chain in ascending k, two roundings a step.
    MulAdd,
    /// Tensor cores, in an order of their own.
    Mma,
}

/// How weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightLayout {
    /// As checkpoints have them.
    Nvfp4,
    /// Reordered so that masks take codes out.
    Packed,
}

/// How a weight is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WoFormat {
    /// Two E2M1 codes a byte, an E4M3 scale for sixteen of them, a scale for all.
    Nvfp4,
    /// An E4M3 code a byte, a scale for all or for each row.
    Fp8,
}

/// How a launch is laid out over the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchGeometry {
    /// Rows over the whole GPU.
    Tiled,
    /// A block a slot, cooperative.
    Original,
}

impl Accumulate {
    const ALL: [Self; 3] = [Self::Fma, Self::MulAdd, Self::Mma];

    /// The value of this name; `None` where there is none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.name() == name)
    }

    /// Its name, as the constant has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fma => "fma",
            Self::MulAdd => "mul_add",
            Self::Mma => "mma",
        }
    }

    /// Whether a product and its sum are rounded once; tensor cores are measured against
    /// the chain that is.
    #[must_use]
    pub fn is_fused(self) -> bool {
        self != Self::MulAdd
    }

    /// Whether its results are the reference's to the bit.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self != Self::Mma
    }
}

impl WeightLayout {
    const ALL: [Self; 2] = [Self::Nvfp4, Self::Packed];

    /// The value of this name; `None` where there is none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.name() == name)
    }

    /// Its name, as the constant has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nvfp4 => "nvfp4",
            Self::Packed => "packed",
        }
    }
}

impl WoFormat {
    const ALL: [Self; 2] = [Self::Nvfp4, Self::Fp8];

    /// The value of this name; `None` where there is none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.name() == name)
    }

    /// Its name, as the constant has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nvfp4 => "nvfp4",
            Self::Fp8 => "fp8",
        }
    }
}

impl LaunchGeometry {
    const ALL: [Self; 2] = [Self::Tiled, Self::Original];

    /// The value of this name; `None` where there is none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.name() == name)
    }

    /// Its name, as the constant has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiled => "tiled",
            Self::Original => "original",
        }
    }
}

impl fmt::Display for Accumulate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for LaunchGeometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a variant of `wo_gemv` was specialized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WoConfig {
    /// Output rows H.
    pub hidden: usize,
    /// Query heads.
    pub num_q_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Slots of a key/value head.
    pub wo_split: usize,
    /// How a slot is summed.
    pub accumulate: Accumulate,
    /// How weights lie.
    pub weight_layout: WeightLayout,
    /// How a weight is written down.
    pub format: WoFormat,
    /// FP8: whether each row has a scale.
    pub row_scales: bool,
    /// How a launch is laid out.
    pub geometry: LaunchGeometry,
    /// Tokens that share one decode of the weights.
    pub tokens_per_pass: usize,
    /// Timing regions; 0 where the timing is compiled out.
    pub num_regions: u32,
    /// Whether weights are requested before the launch ahead of it is done.
    pub is_dependent: bool,
    /// Whether tensor cores run: the mode is theirs and the shape allows it.
    pub by_mma: bool,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
}

impl WoConfig {
    /// The shape of its problem.
    #[must_use]
    pub fn shape(&self) -> WoShape {
        WoShape {
            hidden: self.hidden,
            k: self.num_q_heads * self.head_dim,
            num_kv_heads: self.num_kv_heads,
            wo_split: self.wo_split,
        }
    }

    /// Which of the three orders tensor cores sum in: of NVFP4 weights up to two tokens a decode,
    /// up to eight, or more. FP8 weights have one.
    #[must_use]
    pub fn mma_order(&self) -> usize {
        match self.format {
            WoFormat::Nvfp4 => usize::from(self.tokens_per_pass > 2) + usize::from(self.tokens_per_pass > 8),
            WoFormat::Fp8 => 0,
        }
    }

    /// Whether its launch may start before the one ahead of it is done: only a kernel that
    /// waits inside may.
    #[must_use]
    pub fn may_overlap(&self) -> bool {
        self.is_dependent && self.by_mma
    }
}

impl TryFrom<&KernelSpec> for WoConfig {
    type Error = ConstantError;

    fn try_from(spec: &KernelSpec) -> Result<Self, ConstantError> {
        let missing = |name: &str| ConstantError::new(spec, name);
        let number = |name: &str| spec.number(name).ok_or_else(|| missing(name));
        let size = |name: &str| number(name).map(|n| n as usize);
        let name = |name: &str| {
            let value = spec.constants().get(name).and_then(Value::as_name);
            value.ok_or_else(|| missing(name))
        };
        Ok(Self {
            hidden: size("hidden")?,
            num_q_heads: size("num_q_heads")?,
            num_kv_heads: size("num_kv_heads")?,
            head_dim: size("head_dim")?,
            wo_split: size("wo_split")?,
            accumulate: Accumulate::of(name("accumulate")?).ok_or_else(|| missing("accumulate"))?,
            weight_layout: WeightLayout::of(name("weight_layout")?)
                .ok_or_else(|| missing("weight_layout"))?,
            format: WoFormat::of(name("wo_format")?).ok_or_else(|| missing("wo_format"))?,
            row_scales: number("row_scales")? == 1,
            geometry: LaunchGeometry::of(name("geometry")?).ok_or_else(|| missing("geometry"))?,
            tokens_per_pass: size("tokens_per_pass")?,
            num_regions: number("num_regions")?,
            is_dependent: number("dependent")? == 1,
            by_mma: number("by_mma")? == 1,
            shared_bytes: number("shared_bytes")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::request::signature::Resolved;
    use crate::engine::request::template::Registry;

    fn spec(family: &str, set: &[(&str, &str)]) -> KernelSpec {
        let registry = Registry::load(None).expect("families");
        let family = registry.get(family).expect("family");
        let arch = "sm_90a".parse().expect("arch");
        KernelSpec::new(family, set.iter().copied(), arch).expect("legal")
    }

    #[test]
    fn a_spec_becomes_its_typed_constants() {
        let set = [
            ("accumulate", "mma"),
            ("dependent", "true"),
            ("tokens_per_pass", "4"),
            ("wo_split", "8"),
        ];
        let config = WoConfig::try_from(&spec("wo_gemv", &set)).expect("config");
        assert_eq!(
            (config.accumulate, config.geometry),
            (Accumulate::Mma, LaunchGeometry::Tiled)
        );
        assert!(config.may_overlap() && config.mma_order() == 1);
        assert_eq!((config.shape().k, config.shape().num_slots()), (6144, 32));
        let config = WoConfig::try_from(&spec("wo_gemv", &[("dependent", "true")])).expect("config");
        assert!(!config.may_overlap(), "a chain does not wait inside");
        assert_eq!((config.format, config.row_scales), (WoFormat::Nvfp4, false));
        let fp8 = [("wo_format", "fp8"), ("row_scales", "true")];
        let config = WoConfig::try_from(&spec("wo_gemv", &fp8)).expect("config");
        assert_eq!((config.format, config.row_scales), (WoFormat::Fp8, true));
    }

    #[test]
    fn nvfp4_weights_have_three_orders_on_tensor_cores_and_fp8_weights_one() {
        let order = |format, tokens| {
            let set = [
                ("accumulate", "mma"),
                ("wo_format", format),
                ("tokens_per_pass", tokens),
            ];
            WoConfig::try_from(&spec("wo_gemv", &set))
                .expect("config")
                .mma_order()
        };
        let nvfp4 = ["1", "2", "4", "8", "16", "24", "32"].map(|tokens| order("nvfp4", tokens));
        assert_eq!(nvfp4, [0, 0, 1, 1, 2, 2, 2]);
        assert_eq!(["1", "2", "4", "8"].map(|tokens| order("fp8", tokens)), [0; 4]);
    }

    #[test]
    fn fp8_weights_are_refused_beside_what_is_of_nvfp4_alone() {
        let registry = Registry::load(None).expect("families");
        let family = registry.get("wo_gemv").expect("family");
        let arch = "sm_90a".parse().expect("arch");
        let fp8 = ("wo_format", "fp8");
        for (set, reason) in [
            (
                vec![fp8, ("weight_layout", "packed")],
                "FP8 weights have one layout",
            ),
            (vec![fp8, ("geometry", "original")], "`wo_format = fp8` needs"),
            (vec![fp8, ("mma_ring", "1")], "`mma_ring` of two pieces or more"),
            (
                vec![fp8, ("accumulate", "mma"), ("tokens_per_pass", "16")],
                "FP8 weights take `tokens_per_pass` up to 8",
            ),
            (vec![("row_scales", "true")], "`row_scales` is of FP8 weights"),
        ] {
            let error = KernelSpec::new(family, set, arch).expect_err(reason);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn fp8_weights_are_a_byte_each_without_scale_bytes_and_with_one_scale_or_one_a_row() {
        let shapes = |set: &[(&str, &str)]| {
            let spec = spec("wo_gemv", set);
            let entry = spec.entries().next().expect("entry");
            let signature = spec.signature(entry).expect("declared");
            ["weight", "scales", "global_scale"].map(|name| {
                let parameter = signature.parameters().iter().find(|p| p.name == name);
                let parameter = parameter.expect("parameter");
                let Ok(Resolved::Pointer { optional, .. }) = signature.resolve(parameter) else {
                    panic!("{name} is a pointer");
                };
                let shape = signature.shape(parameter, &BTreeMap::new()).expect("shape");
                (shape.into_iter().flatten().collect::<Vec<_>>(), optional)
            })
        };
        let nvfp4 = shapes(&[]);
        assert_eq!(nvfp4[0], (vec![5120, 3072], false));
        assert_eq!(nvfp4[2], (vec![1], false));
        assert!(!nvfp4[1].1 && nvfp4[1].0 != [0]);
        let one = shapes(&[("wo_format", "fp8")]);
        assert_eq!(
            one,
            [(vec![5120, 6144], false), (vec![0], true), (vec![1], false)]
        );
        let rows = shapes(&[("wo_format", "fp8"), ("row_scales", "true")]);
        assert_eq!(rows[2], (vec![5120], false));
    }

    #[test]
    fn another_familys_spec_is_refused_by_the_constant_that_it_lacks() {
        let error = WoConfig::try_from(&spec("gemv", &[])).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "gemv: constant `hidden` is missing, or not of the kind that is read"
        );
    }
}
