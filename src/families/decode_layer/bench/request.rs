//! What is benchmarked of the layer, and the variants that it comes to.
//!
//! Invariant: all variants of a run are of one shape.

use super::super::{FAMILY, Launch, LayerConfig, LayerDims, Packed, launches, tune, with_launch};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{NOTICE, Registry};
use crate::measure::MeasureError;
use crate::measure::bench::{BenchOptions, TOKENS};
use crate::measure::harness::{Flag, Options};
use crate::measure::region::live::requested;

/// Positions and tokens that a measurement has at most: a slip of the hand asks for
/// more memory than any machine has.
const MAX_POSITIONS: usize = 1 << 20;
const MAX_TOKENS: usize = 64;

pub(super) const CONTEXT: Flag = Flag::new(
    "context",
    "LIST",
    Some("1024,4096,16384,32768"),
    "Of the layer: positions of every sequence",
);
/// Where `--tokens` is not given.
const USUAL_TOKENS: &str = "1,2,4,8";
pub(super) const PATH: Flag = Flag::new(
    "path",
    "LIST",
    Some("cooperative,separate,kernels"),
    "Of the layer: one cooperative launch, its five separate launches, and attention, W_O, gate_up and down as kernels of their own",
);

/// One way to run the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchPath {
    /// One cooperative launch.
    Cooperative,
    /// Five ordinary launches with the same bits.
    Separate,
    /// Attention, `W_O`, gate and up, and down as kernels of their own.
    Kernels,
}

impl BenchPath {
    /// Its name among the flag's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cooperative => "cooperative",
            Self::Separate => "separate",
            Self::Kernels => "kernels",
        }
    }
}

/// What is to be benchmarked; which variants, the settings of the [`Jit`] say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerBenchRequest {
    /// Positions of every sequence, a measurement each.
    pub contexts: Vec<usize>,
    /// Tokens of a launch.
    pub token_counts: Vec<usize>,
    /// Ways to run it.
    pub paths: Vec<BenchPath>,
    /// How to launch, how often, and where files go.
    pub options: BenchOptions,
}

impl LayerBenchRequest {
    /// Reads options; needs no GPU. A former name of the family stands for one of the
    /// paths, its present one for all of them.
    ///
    /// # Errors
    /// A value that is none, by the flag's name; a path that the name contradicts.
    pub fn new(registry: &Registry, name: &str, options: &Options) -> Result<Self, MeasureError> {
        let text = |name: &str| match options.text(name) {
            None if name == TOKENS.name => USUAL_TOKENS,
            text => text.unwrap_or_default(),
        };
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
        let mut paths = paths(text(PATH.name)).map_err(MeasureError::Request)?;
        if options.is_given(PATH.name) {
            notes(text(PATH.name)).for_each(|note| tracing::warn!(target: NOTICE, "{note}"));
        }
        if let [launch] = launches(registry, name, None)?.as_slice() {
            let meant = match launch {
                Launch::Cooperative => BenchPath::Cooperative,
                Launch::Separate => BenchPath::Separate,
            };
            if options.is_given(PATH.name) && paths != [meant] {
                return Err(MeasureError::Request(format!(
                    "--path contradicts `{name}`, which stands for `{}`: name the family `{FAMILY}`",
                    meant.name()
                )));
            }
            paths = vec![meant];
        }
        Ok(Self {
            contexts: numbers(CONTEXT.name, MAX_POSITIONS).map_err(MeasureError::Request)?,
            token_counts: numbers(TOKENS.name, MAX_TOKENS).map_err(MeasureError::Request)?,
            paths,
            options: BenchOptions::read(options)?,
        })
    }
}

/// The paths of a list; the words that two of them had are accepted for one release.
fn paths(list: &str) -> Result<Vec<BenchPath>, String> {
    let words = || list.split(',').map(str::trim);
    if ["lite", "separate"]
        .iter()
        .all(|word| words().any(|w| w == *word))
    {
        return Err(
            "--path: `lite` is called `separate`, and what `separate` was is called `kernels`: name `separate` once, \
             or `kernels`"
                .into(),
        );
    }
    let path = |word: &str| match word {
        "cooperative" | "coop" => Ok(BenchPath::Cooperative),
        "separate" | "lite" => Ok(BenchPath::Separate),
        "kernels" => Ok(BenchPath::Kernels),
        other => Err(format!(
            "--path: `{other}`: expected one of cooperative, separate, kernels"
        )),
    };
    words().map(path).collect()
}

/// What to say of a list whose words had other names, or one of them another meaning.
fn notes(list: &str) -> impl Iterator<Item = String> {
    let knows = list.split(',').any(|word| word.trim() == "kernels");
    list.split(',').filter_map(move |word| match word.trim() {
        former @ ("coop" | "lite") => {
            let present = if former == "coop" { "cooperative" } else { "separate" };
            Some(format!(
                "--path {former} is called {present}; the former spelling will go"
            ))
        }
        "separate" if !knows => Some(
            "--path separate is the layer's five launches, which were called lite; kernels of their own, which it \
             meant before, are --path kernels"
                .to_owned(),
        ),
        _ => None,
    })
}

/// A variant launched both ways.
pub(super) struct Variant {
    /// Tokens of a launch.
    pub(super) num_tokens: usize,
    pub(super) cooperative: KernelSpec,
    pub(super) separate: KernelSpec,
}

/// Every variant that the settings ask for, and sizes that all fit in. Without a GPU
/// (`here`) what is not legal is refused just so.
pub(super) fn variants(
    jit: &Jit,
    token_counts: &[usize],
    here: Option<Arch>,
) -> Result<(Vec<Variant>, LayerDims), MeasureError> {
    let mut specs: Vec<KernelSpec> = Vec::new();
    for spec in requested(jit, FAMILY, here)? {
        // `--path` says how it is launched.
        let spec = with_launch(&spec, Launch::Cooperative)?;
        if specs.iter().all(|other| other.id() != spec.id()) {
            specs.push(spec);
        }
    }
    let dims = max_dims(&specs)?;
    let tokens = &jit.registry().get(FAMILY)?.constants["tokens_per_pass"];
    let chosen = jit
        .config()
        .constant("tokens_per_pass", &tokens.variables)
        .is_some();
    let mut variants = Vec::new();
    for num_tokens in token_counts {
        for spec in &specs {
            variants.push(Variant {
                num_tokens: *num_tokens,
                cooperative: with_tokens(spec, *num_tokens, chosen)?,
                separate: with_tokens(&with_launch(spec, Launch::Separate)?, *num_tokens, chosen)?,
            });
        }
    }
    Ok((variants, dims))
}

/// The variant for so many tokens: unless it was chosen, by itself or
/// with a preset, `tokens` is what shares a pass by rule; up to eight on tensor cores
/// with packed weights, where they fit.
fn with_tokens(spec: &KernelSpec, num_tokens: usize, chosen: bool) -> Result<KernelSpec, MeasureError> {
    let is_default = |name: &str| spec.constants()[name] == spec.family().constants[name].default;
    let num_tokens = u32::try_from(num_tokens).unwrap_or(u32::MAX);
    let laid = |pass: tune::Pass| {
        let texts: Vec<(&str, String)> = spec
            .constants()
            .iter()
            .map(|(name, value)| {
                let free = !chosen && is_default(name);
                let laid = match name.as_str() {
                    _ if !free => None,
                    "tokens_per_pass" => Some(pass.tokens),
                    name => pass.ring().find_map(|(of, value)| (of == name).then_some(value)),
                };
                let text = laid.map_or_else(|| value.to_string(), |value| value.to_string());
                (name.as_str(), text)
            })
            .collect();
        let set = texts.iter().map(|(name, text)| (*name, text.as_str()));
        spec.with(set)
    };
    let wide = LayerDims::of(spec)?.packed == Packed::All;
    let laid_out = tune::passes(num_tokens).filter(|pass| wide || pass.tokens <= 4);
    match laid_out.map(laid).find_map(Result::ok) {
        Some(spec) => Ok(spec),
        None => Ok(laid(tune::pass(num_tokens, 4))?),
    }
}

/// Sizes that every variant fits in.
fn max_dims(specs: &[KernelSpec]) -> Result<LayerDims, MeasureError> {
    let configs: Vec<LayerConfig> = (specs.iter())
        .map(LayerConfig::try_from)
        .collect::<Result<_, _>>()?;
    if configs.iter().any(|config| config.num_regions > 0) {
        return Err(MeasureError::Request(
            "num_regions: a layer is timed without regions; `jitc regions --live decode_layer` is for them"
                .into(),
        ));
    }
    let all: Vec<LayerDims> = specs.iter().map(LayerDims::of).collect::<Result<_, _>>()?;
    let Some(mut most) = all.first().copied() else {
        return Err(MeasureError::Request(
            "no variant of decode_layer fits this GPU".into(),
        ));
    };
    for dims in &all {
        if dims.shape != most.shape {
            return Err(MeasureError::Request(
                "a run measures one shape; lists are for wo_split, accumulate, weight_layout and geometry"
                    .into(),
            ));
        }
        most.slots = most.slots.max(dims.slots);
        most.num_ctas = most.num_ctas.max(dims.num_ctas);
        most.slice_ctas = most.slice_ctas.max(dims.slice_ctas);
        most.packed = most.packed.max(dims.packed);
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_words_of_a_path_are_understood_and_noted() {
        use BenchPath::{Cooperative, Kernels, Separate};
        let noted = |list: &str| notes(list).count();
        assert_eq!(paths("coop, lite"), Ok(vec![Cooperative, Separate]));
        assert_eq!(noted("coop, lite"), 2);
        assert_eq!(
            paths("cooperative,separate,kernels"),
            Ok(vec![Cooperative, Separate, Kernels])
        );
        assert_eq!(noted("cooperative,separate,kernels"), 0);
    }

    #[test]
    fn separate_changed_its_meaning_and_that_is_said() {
        let said: Vec<String> = notes("separate").collect();
        assert!(said[0].contains("five launches") && said[0].contains("--path kernels"));
        let both = paths("coop,lite,separate").expect_err("its words meant three paths");
        assert!(both.contains("is called `kernels`"), "{both}");
    }

    #[test]
    fn packed_weights_on_tensor_cores_have_eight_tokens_a_pass_where_they_fit() {
        let registry = crate::engine::request::template::Registry::load(None).expect("families");
        let family = registry.get(FAMILY).expect("family");
        let tokens = |set: &[(&str, &str)], num_tokens, chosen| {
            let arch = "sm_90a".parse().expect("arch");
            let spec = KernelSpec::new(family, set.iter().copied(), arch).expect("legal");
            let laid = with_tokens(&spec, num_tokens, chosen).expect("laid");
            laid.number("tokens_per_pass").expect("tokens")
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
