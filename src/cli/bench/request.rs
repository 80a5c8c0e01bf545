//! What `jitc bench` and `jitc tune` were asked for.
//!
//! Invariant: a constant that shapes the problem has one value, one that is
//! measured may have many, and every other one is a geometry that somebody forced.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::ArgMatches;

use crate::engine::config::Config;
use crate::engine::request::spec::{self, KernelSpec, SpecError};
use crate::engine::request::target::Arch;
use crate::engine::request::template::Family;
use crate::families::wo_gemv::reference::WoShape;
use crate::measure::tune::Geometry;
use crate::measure::tune::Problem;

/// Constants that say what is worked out; all others only lay it out.
const SHAPE: [&str; 4] = ["hidden", "num_q_heads", "num_kv_heads", "head_dim"];
const MEASURED: [&str; 3] = ["accumulate", "geometry", "wo_split"];
/// Constants that change what a launch reads or writes, or how the original is laid out.
const FIXED: [&str; 3] = ["num_regions", "slice_ctas", "weight_layout"];

/// The lists and single values of a request.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Request {
    /// Shape and fixed constants, all given.
    pub shape: BTreeMap<String, String>,
    /// Values of `accumulate`, `geometry` and `wo_split`, in this order.
    pub lists: [Vec<String>; 3],
    /// Tokens of a launch.
    pub tokens: Vec<usize>,
    /// Global scales.
    pub global_scales: Vec<f32>,
    /// Geometry that was set.
    pub forced: Geometry,
}

/// One variant of a request.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Variant {
    /// `fma`, `mul_add` or `mma`.
    pub accumulate: String,
    /// `tiled` or `original`.
    pub geometry: String,
    /// Slots of a kv head.
    pub wo_split: usize,
}

impl Request {
    /// Reads flags, environment and config file.
    pub(in crate::cli) fn new(
        family: &Arc<Family>,
        config: &Config,
        matches: &ArgMatches,
    ) -> Result<Self, String> {
        let mut request = Self {
            shape: BTreeMap::new(),
            lists: Default::default(),
            tokens: vec![1],
            global_scales: numbers(
                matches.get_one::<String>("global-scale").map_or("1", |t| t),
                "--global-scale",
            )?,
            forced: Geometry::new(),
        };
        for constant in family.constants.values() {
            let name = constant.name.as_str();
            if name == "tokens" {
                // `--tokens` is the number of tokens to launch for; the constant of
                // that name is geometry, and set as such.
                for flag in config.flag_constants().iter().filter(|f| f.name == name) {
                    if flag.flag == "--set" {
                        request.forced.insert(name.into(), flag.value.clone());
                    } else {
                        request.tokens = numbers(&flag.value, &flag.flag)?;
                    }
                }
                continue;
            }
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
                request.lists[at] = value.split(',').map(|v| v.trim().to_owned()).collect();
            } else if SHAPE.contains(&name) || FIXED.contains(&name) {
                request.shape.insert(name.into(), single(name, value)?);
            } else if set.is_some() {
                request.forced.insert(name.into(), single(name, value)?);
            }
        }
        if request.tokens.contains(&0) {
            return Err("--tokens 0: at least one token is launched".into());
        }
        Ok(request)
    }

    fn number(&self, name: &str) -> usize {
        self.shape.get(name).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Query heads and elements of a head.
    pub(in crate::cli) fn heads(&self) -> (usize, usize) {
        (self.number("num_q_heads"), self.number("head_dim"))
    }

    /// Blocks along x in the original geometry.
    pub(in crate::cli) fn slice_ctas(&self) -> usize {
        self.number("slice_ctas")
    }

    /// Whether the kernels take packed weights.
    pub(in crate::cli) fn packed(&self) -> bool {
        self.shape.get("weight_layout").is_some_and(|l| l == "packed")
    }

    /// The shape at a split.
    pub(in crate::cli) fn wo_shape(&self, wo_split: usize) -> WoShape {
        WoShape {
            hidden: self.number("hidden"),
            k: self.number("num_q_heads") * self.number("head_dim"),
            num_kv_heads: self.number("num_kv_heads").max(1),
            wo_split,
        }
    }

    /// Every variant, splits innermost.
    pub(in crate::cli) fn variants(&self) -> Result<Vec<Variant>, String> {
        let [modes, geometries, splits] = &self.lists;
        let mut variants = Vec::new();
        for geometry in geometries {
            for accumulate in modes {
                for split in splits {
                    let wo_split = split
                        .parse()
                        .map_err(|_| format!("wo_split = {split} is no number"))?;
                    variants.push(Variant {
                        accumulate: accumulate.clone(),
                        geometry: geometry.clone(),
                        wo_split,
                    });
                }
            }
        }
        Ok(variants)
    }

    /// A variant in a geometry.
    pub(in crate::cli) fn spec(
        &self,
        family: &Arc<Family>,
        variant: &Variant,
        geometry: &Geometry,
        arch: Arch,
    ) -> Result<KernelSpec, SpecError> {
        let split = variant.wo_split.to_string();
        let own = [
            ("accumulate", variant.accumulate.as_str()),
            ("geometry", variant.geometry.as_str()),
            ("wo_split", split.as_str()),
        ];
        let shape = self.shape.iter().chain(geometry);
        let set = shape.map(|(n, v)| (n.as_str(), v.as_str())).chain(own);
        KernelSpec::new(family, set, arch)
    }

    /// A variant as the record of tuned geometries knows it.
    pub(in crate::cli) fn problem(&self, variant: &Variant, tokens: usize) -> Problem {
        let mut constants = self.shape.clone();
        constants.insert("accumulate".into(), variant.accumulate.clone());
        constants.insert("geometry".into(), variant.geometry.clone());
        constants.insert("wo_split".into(), variant.wo_split.to_string());
        Problem {
            family: "wo_gemv".into(),
            constants,
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        }
    }
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
                .map_err(|_| format!("{flag} {text}: `{part}` is no number"))
        })
        .collect()
}
