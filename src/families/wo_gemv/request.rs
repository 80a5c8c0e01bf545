//! What benching and tuning are asked for.
//!
//! Invariant: a constant that shapes the problem has one value, one that is
//! measured may have many, and every other one is a geometry that somebody forced.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FAMILY;
use super::config::{Accumulate, LaunchGeometry, WoFormat};
use super::reference::{WoInputs, WoShape};
use crate::engine::config::Config;
use crate::engine::jit::Jit;
use crate::engine::request::spec::{self, KernelSpec, SpecError};
use crate::engine::request::target::Arch;
use crate::engine::request::template::Family;
use crate::measure::MeasureError;
use crate::measure::bench::TOKENS;
use crate::measure::harness::{Flag, Options};
use crate::measure::models::Model;
use crate::measure::tune::{Geometry, Problem, Sizes};

/// Constants that say what is worked out; all others only lay it out.
const SHAPE: [&str; 4] = ["hidden", "num_q_heads", "num_kv_heads", "head_dim"];
const MEASURED: [&str; 3] = ["accumulate", "geometry", "wo_split"];
/// Constants that change what a launch reads or writes, or how nvllm is laid out.
const FIXED: [&str; 3] = ["num_regions", "slice_ctas", "weight_layout"];

/// The format of the weights; a value that is the default's is left out, so that what was
/// tuned before there was a second one is still found.
const FORMAT: [&str; 2] = ["wo_format", "row_scales"];

/// Global scales of a request.
pub(super) const GLOBAL_SCALE: Flag = Flag::new(
    "global-scale",
    "LIST",
    Some("1"),
    "Global scales; one of more than 16 significant bits takes the general path",
);

/// The lists and single values of a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WoRequest {
    /// Shape and fixed constants, all given.
    pub shape: BTreeMap<String, String>,
    /// Every variant, splits innermost.
    pub variants: Vec<WoVariant>,
    /// Tokens of a launch.
    pub tokens: Vec<usize>,
    /// Global scales.
    pub global_scales: Vec<f32>,
    /// Geometry that was set.
    pub forced: Geometry,
}

/// One variant of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WoVariant {
    /// How a slot is summed.
    pub accumulate: Accumulate,
    /// How a launch is laid out.
    pub geometry: LaunchGeometry,
    /// Slots of a kv head.
    pub wo_split: usize,
}

impl WoRequest {
    /// Reads options, and constants of flags, environment and config file; needs no GPU.
    ///
    /// # Errors
    /// A value that is not legal, or that a run cannot measure, with where it was written.
    pub fn new(jit: &Jit, options: &Options) -> Result<Self, MeasureError> {
        jit.registry().check_constants(&[FAMILY], jit.config())?;
        let text = |flag: &Flag| options.text(flag.name).unwrap_or("1");
        let (scales, tokens) = (text(&GLOBAL_SCALE), text(&TOKENS));
        Self::read(jit.registry().get(FAMILY)?, jit.config(), scales, tokens).map_err(MeasureError::Request)
    }

    fn read(
        family: &Arc<Family>,
        config: &Config,
        global_scales: &str,
        tokens: &str,
    ) -> Result<Self, String> {
        let mut lists: [Vec<String>; 3] = Default::default();
        let mut request = Self {
            shape: BTreeMap::new(),
            variants: Vec::new(),
            tokens: numbers(tokens, "--tokens")?,
            global_scales: numbers(global_scales, "--global-scale")?,
            forced: Geometry::new(),
        };
        for constant in family.constants.values() {
            let name = constant.name.as_str();
            let set = config.constant(name, &constant.variables);
            let value = set
                .as_ref()
                .map_or_else(|| constant.default.to_string(), |s| s.value.clone());
            // Whatever is measured or forced is refused here, not once a GPU was found.
            if let Some(set) = &set {
                for one in set.value.split(',') {
                    spec::parse(family, name, one, &set.source).map_err(|error| error.to_string())?;
                }
            }
            if let Some(at) = MEASURED.iter().position(|m| *m == name) {
                lists[at] = value.split(',').map(|v| v.trim().to_owned()).collect();
            } else if FORMAT.contains(&name) {
                if value != constant.default.to_string() {
                    request.shape.insert(name.into(), single(name, value)?);
                }
            } else if SHAPE.contains(&name) || FIXED.contains(&name) {
                request.shape.insert(name.into(), single(name, value)?);
            } else if set.is_some() {
                request.forced.insert(name.into(), single(name, value)?);
            }
        }
        if request.tokens.contains(&0) {
            return Err("--tokens 0: at least one token is launched".into());
        }
        request.variants = variants(&lists)?;
        Ok(request)
    }

    /// The same of a model's shape.
    #[must_use]
    pub fn of_model(&self, model: &Model) -> Self {
        let mut request = self.clone();
        for (name, value) in model.attention_constants() {
            request.shape.insert(name.into(), value.to_string());
        }
        request
    }

    /// Refuses a shape that was set where models have one each, and takes every split
    /// where none was.
    ///
    /// # Errors
    /// A constant of the shape that is set, with where it was written.
    pub fn over_models(&mut self, jit: &Jit) -> Result<(), MeasureError> {
        let family = jit.registry().get(FAMILY)?;
        let set = |name: &str| {
            let constant = family.constants.get(name)?;
            jit.config().constant(name, &constant.variables)
        };
        for name in SHAPE {
            if let Some(set) = set(name) {
                return Err(MeasureError::Request(format!(
                    "--models: every model has its own {name}, and it is set ({})",
                    set.source
                )));
            }
        }
        if set("wo_split").is_none() {
            let splits = [1, 2, 4, 8];
            let one = self.variants.clone().into_iter();
            self.variants = one
                .flat_map(|variant| splits.map(|wo_split| WoVariant { wo_split, ..variant }))
                .collect();
        }
        Ok(())
    }

    fn number(&self, name: &str) -> usize {
        self.shape.get(name).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Query heads and elements of a head.
    #[must_use]
    pub fn heads(&self) -> (usize, usize) {
        (self.number("num_q_heads"), self.number("head_dim"))
    }

    /// Blocks along x in `geometry = original`.
    #[must_use]
    pub fn slice_ctas(&self) -> usize {
        self.number("slice_ctas")
    }

    /// Whether the kernels take packed weights.
    #[must_use]
    pub fn packed(&self) -> bool {
        self.shape.get("weight_layout").is_some_and(|l| l == "packed")
    }

    /// How weights are written down.
    #[must_use]
    pub fn format(&self) -> WoFormat {
        let set = self.shape.get("wo_format").and_then(|name| WoFormat::of(name));
        set.unwrap_or(WoFormat::Nvfp4)
    }

    /// Whether each row of FP8 weights has a scale.
    #[must_use]
    pub fn row_scales(&self) -> bool {
        self.shape.contains_key("row_scales")
    }

    /// Random inputs of this shape and format.
    pub(super) fn random(&self, shape: &WoShape, num_tokens: usize, scale: f32, seed: u64) -> WoInputs {
        match self.format() {
            WoFormat::Nvfp4 => WoInputs::random(shape, num_tokens, scale, seed),
            WoFormat::Fp8 => WoInputs::random_fp8(shape, num_tokens, scale, self.row_scales(), seed),
        }
    }

    /// The shape at a split.
    #[must_use]
    pub fn wo_shape(&self, wo_split: usize) -> WoShape {
        WoShape {
            hidden: self.number("hidden"),
            k: self.number("num_q_heads") * self.number("head_dim"),
            num_kv_heads: self.number("num_kv_heads").max(1),
            wo_split,
        }
    }

    /// A variant in a geometry.
    ///
    /// # Errors
    /// What the family forbids.
    pub fn spec(
        &self,
        family: &Arc<Family>,
        variant: &WoVariant,
        geometry: &Geometry,
        arch: Arch,
    ) -> Result<KernelSpec, SpecError> {
        let split = variant.wo_split.to_string();
        let own = [
            ("accumulate", variant.accumulate.name()),
            ("geometry", variant.geometry.name()),
            ("wo_split", split.as_str()),
        ];
        let shape = self.shape.iter().chain(geometry);
        let set = shape.map(|(n, v)| (n.as_str(), v.as_str())).chain(own);
        KernelSpec::new(family, set, arch)
    }

    /// A variant as the record of tuned geometries knows it.
    #[must_use]
    pub fn problem(&self, variant: &WoVariant, tokens: usize) -> Problem {
        let mut constants = self.shape.clone();
        constants.insert("accumulate".into(), variant.accumulate.to_string());
        constants.insert("geometry".into(), variant.geometry.to_string());
        constants.insert("wo_split".into(), variant.wo_split.to_string());
        Problem {
            family: FAMILY.into(),
            constants,
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            sizes: Sizes::new(),
        }
    }
}

fn variants([modes, geometries, splits]: &[Vec<String>; 3]) -> Result<Vec<WoVariant>, String> {
    let unknown = |name: &str, text: &str| format!("{name} = {text}: nothing measures it");
    let mut variants = Vec::new();
    for geometry in geometries {
        for accumulate in modes {
            for split in splits {
                variants.push(WoVariant {
                    accumulate: Accumulate::of(accumulate)
                        .ok_or_else(|| unknown("accumulate", accumulate))?,
                    geometry: LaunchGeometry::of(geometry).ok_or_else(|| unknown("geometry", geometry))?,
                    wo_split: (split.parse()).map_err(|_| format!("wo_split = {split} is not a number"))?,
                });
            }
        }
    }
    Ok(variants)
}

fn single(name: &str, value: String) -> Result<String, String> {
    if value.contains(',') {
        return Err(format!(
            "{name} = {value}: a run measures one value of it; lists are for {MEASURED:?} and --tokens"
        ));
    }
    Ok(value)
}

fn numbers<T: std::str::FromStr>(text: &str, flag: &str) -> Result<Vec<T>, String> {
    text.split(',')
        .map(|part| {
            part.trim()
                .parse()
                .map_err(|_| format!("{flag} {text}: `{part}` is not a number"))
        })
        .collect()
}
