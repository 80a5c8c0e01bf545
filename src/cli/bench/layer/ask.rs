//! What `jitc bench layer` was asked for, and the variants that it comes to.
//!
//! Invariant: all variants of a run are of one shape.

use std::sync::Arc;

use clap::{Arg, ArgMatches, Command};

use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::Family;
use crate::families::decode_layer::tune;
use crate::families::decode_layer::{LayerDims, Packed};
use crate::measure::MeasureError;

/// Positions and tokens that a measurement has at most: a slip of the hand asks for
/// more memory than any machine has.
const MOST_POSITIONS: usize = 1 << 20;
const MOST_TOKENS: usize = 64;

/// What only the layer takes.
pub(in crate::cli::bench) fn args(command: Command) -> Command {
    let list = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("LIST")
            .default_value(default)
            .help(help)
            .help_heading("Of the layer")
    };
    command.args([
        list("context", "1024,4096,16384,32768", "Positions of every sequence"),
        list("nat", "1,2,4,8", "Tokens of a launch"),
        list(
            "path",
            "coop,lite,separate",
            "beta_coop, beta_lite, and attention, W_O, gate_up and down as kernels of their own",
        ),
    ])
}

/// One way to run the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Coop,
    Lite,
    Separate,
}

impl Path {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Coop => "coop",
            Self::Lite => "lite",
            Self::Separate => "separate",
        }
    }
}

/// What was asked for.
pub(super) struct Ask {
    pub(super) contexts: Vec<usize>,
    pub(super) nats: Vec<usize>,
    pub(super) paths: Vec<Path>,
}

impl Ask {
    pub(super) fn new(matches: &ArgMatches) -> Result<Self, String> {
        let text = |name: &str| matches.get_one::<String>(name).map_or("", |t| t.as_str());
        let numbers = |name: &str, most: usize| -> Result<Vec<usize>, String> {
            let one = |part: &str| part.trim().parse().ok().filter(|n| (1..=most).contains(n));
            let parts = text(name).split(',');
            parts
                .map(|part| {
                    let error = || {
                        format!("--{name}: `{part}`: expected whole numbers from 1 to {most}, such as 1,4")
                    };
                    one(part).ok_or_else(error)
                })
                .collect()
        };
        let path = |part: &str| match part.trim() {
            "coop" => Ok(Path::Coop),
            "lite" => Ok(Path::Lite),
            "separate" => Ok(Path::Separate),
            other => Err(format!("--path: `{other}` is none of coop, lite, separate")),
        };
        Ok(Self {
            contexts: numbers("context", MOST_POSITIONS)?,
            nats: numbers("nat", MOST_TOKENS)?,
            paths: text("path").split(',').map(path).collect::<Result<_, _>>()?,
        })
    }
}

/// The variant in this family, for so many tokens: unless it was chosen, by itself or
/// with a preset, `tokens` is what shares a pass by rule; eight on tensor cores with
/// packed weights, where they fit.
pub(super) fn with_tokens(
    spec: &KernelSpec,
    family: &Arc<Family>,
    nat: usize,
    chosen: bool,
) -> Result<KernelSpec, MeasureError> {
    let is_default = |name: &str| spec.constants[name] == spec.family.constants[name].default;
    let nat = u32::try_from(nat).unwrap_or(u32::MAX);
    let laid = |eight: bool| {
        let (tokens, short_ring) = tune::pass(nat, eight);
        let texts: Vec<(&str, String)> = spec
            .constants
            .iter()
            .filter(|(name, _)| family.constants.contains_key(name.as_str()))
            .map(|(name, value)| {
                let free = !chosen && is_default(name);
                let text = match (name.as_str(), short_ring) {
                    ("tokens", _) if free => tokens.to_string(),
                    ("stages", Some(stages)) if free => stages.to_string(),
                    _ => value.to_string(),
                };
                (name.as_str(), text)
            })
            .collect();
        let set = texts.iter().map(|(name, text)| (*name, text.as_str()));
        KernelSpec::new(family, set, spec.arch)
    };
    if LayerDims::of(spec)?.packed == Packed::All
        && let Ok(eight) = laid(true)
    {
        return Ok(eight);
    }
    Ok(laid(false)?)
}

/// Sizes that every variant fits in.
pub(super) fn roof(specs: &[KernelSpec]) -> Result<LayerDims, MeasureError> {
    if specs.iter().any(|spec| spec.number("num_regions") > Some(0)) {
        return Err(MeasureError::Request(
            "num_regions: a layer is timed without regions; `jitc regions --live beta_coop` is for them"
                .into(),
        ));
    }
    let all: Vec<LayerDims> = specs.iter().map(LayerDims::of).collect::<Result<_, _>>()?;
    let Some(mut roof) = all.first().copied() else {
        return Err(MeasureError::Request(
            "no variant of beta_coop fits this GPU".into(),
        ));
    };
    for dims in &all {
        if dims.shape != roof.shape {
            return Err(MeasureError::Request(
                "a run measures one shape; lists are for wo_split, accumulate, weight_layout and geometry"
                    .into(),
            ));
        }
        roof.slots = roof.slots.max(dims.slots);
        roof.num_ctas = roof.num_ctas.max(dims.num_ctas);
        roof.slice_ctas = roof.slice_ctas.max(dims.slice_ctas);
        roof.packed = roof.packed.max(dims.packed);
    }
    Ok(roof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_weights_on_tensor_cores_have_eight_tokens_a_pass_where_they_fit() {
        let registry = crate::engine::request::template::Registry::load(None).expect("families");
        let family = registry.get("beta_coop").expect("family");
        let tokens = |set: &[(&str, &str)], nat, chosen| {
            let arch = "sm_90a".parse().expect("arch");
            let spec = KernelSpec::new(family, set.iter().copied(), arch).expect("legal");
            let laid = with_tokens(&spec, family, nat, chosen).expect("laid");
            laid.number("tokens").expect("tokens")
        };
        let (packed, mma) = (("weight_layout", "packed64"), ("accumulate", "mma"));
        assert_eq!(tokens(&[], 8, false), 4);
        assert_eq!(tokens(&[packed], 8, false), 4);
        assert_eq!(tokens(&[packed, mma], 8, false), 8);
        assert_eq!(tokens(&[packed, mma], 3, false), 4);
        assert_eq!(tokens(&[packed, mma, ("wo_split", "8")], 8, false), 4);
        assert_eq!(tokens(&[packed, mma], 8, true), 1);
    }
}
