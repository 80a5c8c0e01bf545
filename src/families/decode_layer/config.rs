//! A decode layer's constants, typed.
//!
//! Invariant: a [`LayerConfig`] is of a spec of the family, and the one place that looks
//! the constants of a spec up by their names.

use super::WorkspaceError;
use super::reference::{LayerShape, ScaleLayout};
use crate::engine::jit::{Error, Jit};
use crate::engine::request::constant::Value;
use crate::engine::request::spec::{KernelSpec, SpecError};
use crate::engine::request::target::Arch;
use crate::engine::request::template::Registry;
use crate::families::wo_gemv::Accumulate;
use crate::measure::MeasureError;

/// The family's name.
pub const FAMILY: &str = "decode_layer";

/// How the layer is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launch {
    /// One cooperative launch, whose blocks wait for each other.
    Cooperative,
    /// Five ordinary launches, with the same bits.
    Separate,
}

impl Launch {
    /// Both launches.
    pub const ALL: [Self; 2] = [Self::Cooperative, Self::Separate];

    /// Its name, as the constant `launch` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cooperative => "cooperative",
            Self::Separate => "separate",
        }
    }
}

/// How the phases are divided among blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerGeometry {
    /// Every phase over one grid of `num_ctas` blocks.
    Spread,
    /// `slice_ctas` x `num_k_tiles` blocks per token.
    Original,
}

impl LayerGeometry {
    /// Its name, as the constant `geometry` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Original => "original",
        }
    }
}

/// The layout of the weights that tensor cores read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightLayout {
    /// As checkpoints have them.
    Nvfp4,
    /// The same bytes, reordered for tensor cores.
    Packed64,
}

/// The constants of a spec of the decode layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerConfig {
    /// How it is launched.
    pub launch: Launch,
    /// How the phases are divided among blocks.
    pub geometry: LayerGeometry,
    /// How `W_O` is summed.
    pub accumulate: Accumulate,
    /// The layout of the weights that tensor cores read.
    pub weight_layout: WeightLayout,
    /// The layout of the MLP's scales.
    pub scale_layout: ScaleLayout,
    /// Sizes of the layer.
    pub shape: LayerShape,
    /// Slots of a kv head's part of `W_O`.
    pub wo_split: u32,
    /// Tokens that share one pass over the weights.
    pub tokens_per_pass: u32,
    /// Blocks of the spread grid.
    pub num_ctas: u32,
    /// Slice groups of `geometry = original`.
    pub slice_ctas: u32,
    /// Blocks of the grid that do not depend on the number of tokens.
    pub blocks: u32,
    /// Threads of a block that compute.
    pub block_threads: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Regions that the kernels time.
    pub num_regions: u32,
    /// Whether `attn_input` is written.
    pub input_norm: bool,
    /// Whether attention is gated.
    pub output_gate: bool,
    /// Whether a launch may start while the one before it runs.
    pub dependent: bool,
}

impl TryFrom<&KernelSpec> for LayerConfig {
    type Error = WorkspaceError;

    fn try_from(spec: &KernelSpec) -> Result<Self, WorkspaceError> {
        let constants = Constants(spec);
        let size = |name| constants.number(name).map(|n| n as usize);
        let launch = constants.one_of("launch", Launch::ALL.map(|l| (l.name(), l)))?;
        Ok(Self {
            launch,
            geometry: constants.one_of(
                "geometry",
                [LayerGeometry::Spread, LayerGeometry::Original].map(|g| (g.name(), g)),
            )?,
            accumulate: constants.one_of(
                "accumulate",
                [
                    ("fma", Accumulate::Fma),
                    ("mul_add", Accumulate::MulAdd),
                    ("mma", Accumulate::Mma),
                ],
            )?,
            weight_layout: constants.one_of(
                "weight_layout",
                [
                    ("nvfp4", WeightLayout::Nvfp4),
                    ("packed64", WeightLayout::Packed64),
                ],
            )?,
            scale_layout: constants.one_of(
                "scale_layout",
                [
                    ("swizzled", ScaleLayout::Swizzled),
                    ("linear", ScaleLayout::Linear),
                ],
            )?,
            shape: LayerShape {
                hidden: size("hidden")?,
                intermediate: size("intermediate")?,
                num_q_heads: size("num_q_heads")?,
                num_kv_heads: size("num_kv_heads")?,
                head_dim: size("head_dim")?,
                page_size: size("page_size")?,
            },
            wo_split: constants.number("wo_split")?,
            tokens_per_pass: constants.number("tokens_per_pass")?,
            num_ctas: constants.number("num_ctas")?,
            slice_ctas: constants.number("slice_ctas")?,
            blocks: match launch {
                Launch::Cooperative => constants.number("grid_x")? * constants.number("grid_y")?,
                Launch::Separate => constants.number("num_ctas")?,
            },
            block_threads: constants.number("block_threads")?,
            shared_bytes: constants.number("shared_bytes")?,
            num_regions: constants.number("num_regions")?,
            input_norm: constants.number("input_norm")? == 1,
            output_gate: constants.number("output_gate")? == 1,
            dependent: constants.number("dependent")? == 1,
        })
    }
}

/// Look-ups of which none can fail in a spec of the family.
struct Constants<'a>(&'a KernelSpec);

impl Constants<'_> {
    fn other_family(&self) -> WorkspaceError {
        WorkspaceError::Family(self.0.family().name.clone())
    }

    fn number(&self, name: &str) -> Result<u32, WorkspaceError> {
        self.0.number(name).ok_or_else(|| self.other_family())
    }

    fn one_of<T: Copy, const N: usize>(
        &self,
        name: &str,
        values: [(&str, T); N],
    ) -> Result<T, WorkspaceError> {
        let found = self.0.constants().get(name).and_then(Value::as_name);
        let value = values.iter().find(|(text, _)| Some(*text) == found);
        value.map(|(_, value)| *value).ok_or_else(|| self.other_family())
    }
}

/// Constants that only a cooperative launch has a choice of.
const COOPERATIVE_ONLY: [&str; 6] = [
    "geometry",
    "slice_ctas",
    "tile_s",
    "tile_k",
    "tick_source",
    "timeout_ms",
];

/// The same layer launched otherwise, with the same bits. Separate launches have the
/// defaults of what only a cooperative one has a choice of.
pub fn with_launch(spec: &KernelSpec, launch: Launch) -> Result<KernelSpec, SpecError> {
    let mut set = vec![("launch", launch.name().to_owned())];
    if launch == Launch::Separate {
        let declared = COOPERATIVE_ONLY
            .iter()
            .filter_map(|name| spec.family().constants.get(*name));
        let defaults: Vec<(&str, String)> = declared
            .map(|constant| (constant.name.as_str(), constant.default.to_string()))
            .collect();
        set.extend(defaults);
    }
    spec.with(set.iter().map(|(name, value)| (*name, value.as_str())))
}

/// Every spec that the settings ask for; where they do not choose a `launch`, each
/// launched in both ways, cooperative ones first.
pub fn asked_launches(jit: &Jit, arch: Arch) -> Result<Vec<KernelSpec>, Error> {
    let family = jit.registry().get(FAMILY)?;
    let mut specs = KernelSpec::expand(family, jit.config(), &[arch])?;
    let chosen = (family.constants.get("launch"))
        .is_some_and(|launch| jit.config().constant(&launch.name, &launch.variables).is_some());
    if !chosen {
        specs = both_launches(specs)?;
    }
    Ok(specs)
}

/// Each of these specs and the same launched separately, each once.
fn both_launches(mut specs: Vec<KernelSpec>) -> Result<Vec<KernelSpec>, SpecError> {
    let separate = (specs.iter())
        .map(|spec| with_launch(spec, Launch::Separate))
        .collect::<Result<Vec<_>, _>>()?;
    for spec in separate {
        if specs.iter().all(|other| other.id() != spec.id()) {
            specs.push(spec);
        }
    }
    Ok(specs)
}

/// The launches that a name of the family means: a former name one of them, its present
/// name the one in `launch`, else both.
///
/// # Errors
/// A name of another family, and a `launch` that there is not or that the name contradicts.
pub fn launches(registry: &Registry, name: &str, launch: Option<&str>) -> Result<Vec<Launch>, MeasureError> {
    let named = registry.named(name).map_err(Error::from)?;
    let of = |text: &str| Launch::ALL.into_iter().find(|launch| launch.name() == text);
    let asked = match launch {
        None => None,
        Some(text) => Some(of(text).ok_or_else(|| {
            MeasureError::Request(format!("--launch: `{text}`: expected cooperative or separate"))
        })?),
    };
    let Some(former) = named.former_name() else {
        return Ok(asked.map_or_else(|| Launch::ALL.to_vec(), |launch| vec![launch]));
    };
    let stands = former
        .constants
        .get("launch")
        .and_then(Value::as_name)
        .and_then(of);
    match (stands, asked) {
        (Some(launch), None) => Ok(vec![launch]),
        (Some(launch), Some(asked)) if launch == asked => Ok(vec![launch]),
        _ => Err(MeasureError::Request(format!(
            "--launch contradicts `{}`, the former name of `{}` with {}",
            former.name,
            named.family().name,
            former.meaning
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::template::Registry;

    fn spec(family: &str, set: &[(&str, &str)]) -> KernelSpec {
        let registry = Registry::load(None).expect("families");
        let family = registry.get(family).expect("family");
        let arch = "sm_90a".parse().expect("arch");
        KernelSpec::new(family, set.iter().copied(), arch).expect("legal")
    }

    #[test]
    fn every_value_of_an_enum_constant_has_a_type() {
        for (name, values) in [
            ("launch", &["cooperative", "separate"][..]),
            ("geometry", &["spread", "original"]),
            ("accumulate", &["fma", "mul_add", "mma"]),
            ("weight_layout", &["nvfp4", "packed64"]),
            ("scale_layout", &["swizzled", "linear"]),
        ] {
            let layer = spec(FAMILY, &[]);
            let legal = layer.family().constants[name].legal.to_string();
            assert_eq!(legal, format!("one of {}", values.join(", ")));
            for value in values {
                let layer = spec(FAMILY, &[(name, value)]);
                LayerConfig::try_from(&layer).expect(value);
            }
        }
        let other = LayerConfig::try_from(&spec("wo_gemv", &[])).expect_err("another family");
        assert!(other.to_string().contains("wo_gemv"), "{other}");
    }

    #[test]
    fn separate_launches_of_a_layer_have_one_geometry_and_its_other_constants() {
        let set = [
            ("geometry", "original"),
            ("tile_s", "128"),
            ("slice_ctas", "16"),
            ("timeout_ms", "200"),
            ("wo_split", "4"),
        ];
        let both = both_launches(vec![spec(FAMILY, &set), spec(FAMILY, &[("wo_split", "4")])]);
        let both = both.expect("legal");
        let variants: Vec<String> = both.iter().map(KernelSpec::variant).collect();
        assert_eq!(variants.len(), 3, "{variants:?}");
        assert_eq!(variants[2], "launch=separate wo_split=4");
    }

    #[test]
    fn a_name_of_the_family_means_one_launch_or_both() {
        let registry = Registry::load(None).expect("families");
        let of = |name, launch| launches(&registry, name, launch).map_err(|e| e.to_string());
        assert_eq!(of(FAMILY, None), Ok(Launch::ALL.to_vec()));
        assert_eq!(of(FAMILY, Some("separate")), Ok(vec![Launch::Separate]));
        assert_eq!(of("beta_coop", None), Ok(vec![Launch::Cooperative]));
        assert_eq!(of("beta_lite", Some("separate")), Ok(vec![Launch::Separate]));
        assert_eq!(
            of("beta_lite", Some("cooperative")),
            Err(
                "--launch contradicts `beta_lite`, the former name of `decode_layer` with launch = separate"
                    .into()
            )
        );
        assert_eq!(
            of(FAMILY, Some("both")),
            Err("--launch: `both`: expected cooperative or separate".into())
        );
    }
}
