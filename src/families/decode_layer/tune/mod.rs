//! A decode layer's geometry: its rule, and what there is to try.
//!
//! Invariant: `wo_split` is among whatever either of them gives. The rule's is one
//! that the mode allows; of what there is to try, the caller drops what it forbids.

mod search;

use crate::engine::config::Config;
use crate::engine::jit::{Error, Jit};
use crate::engine::request::spec::{KernelSpec, SpecError};
use crate::engine::request::template::{Family, NamedFamily};
use crate::engine::run::device::Device;
use crate::families::decode_layer::asked_launches;
use crate::measure::MeasureError;
use crate::measure::tune::{Geometry, Gpu, Origin, Problem, Record, Sizes, choose};

pub use search::{FLAGS, TuneRequest, tune};

/// Constants that lay a decode layer out; its others say what is worked out.
pub const LAYER_GEOMETRY: [&str; 6] = [
    "wo_split",
    "tokens_per_pass",
    "num_ctas",
    "stage_chunks",
    "stages",
    "num_threads",
];

/// Tokens that share a pass at most unless more are set: on tensor cores, of packed weights.
/// Sixteen run and are verified; that they are faster than two passes of eight is not
/// measured of the kernels as they are (docs/LAYER.md).
const MOST_TOKENS: u32 = 8;

impl Problem {
    /// What a spec of a decode layer works out for so many tokens: of 1, 2, 4 and 8
    /// the least that is not less, as variants are made for these.
    #[must_use]
    pub fn of_layer(spec: &KernelSpec, tokens: u32) -> Self {
        let fixed = (spec.constants().iter()).filter(|(name, _)| !LAYER_GEOMETRY.contains(&name.as_str()));
        Self {
            family: spec.family().name.clone(),
            constants: fixed.map(|(n, v)| (n.clone(), v.to_string())).collect(),
            tokens: tokens.clamp(1, MOST_TOKENS).next_power_of_two(),
            sizes: Sizes::new(),
        }
    }
}

/// A decode layer, from measurements on one H200 (docs/LAYER.md): eight slots for
/// chains, one for tensor cores, which cut the reduction themselves; a block a
/// multiprocessor, up to four tokens to a pass, eight on tensor cores with packed
/// weights; and rings that shared memory holds.
#[must_use]
pub fn heuristic(gpu: &Gpu, problem: &Problem) -> Geometry {
    let number = |name| problem.number(name).unwrap_or(1);
    let is = |name: &str, value: &str| problem.constants.get(name).is_some_and(|v| v == value);
    let allowed = |split: &u32| !is("geometry", "original") || *split <= number("slice_ctas");
    let split = if is("accumulate", "mma") {
        1
    } else {
        [8, 4, 2].into_iter().find(allowed).unwrap_or(1)
    };
    let mut set = vec![("wo_split", split)];
    if !is("geometry", "original") {
        let kib = gpu.shared_mem_per_block >> 10;
        let packed = is("weight_layout", "packed64") && is("accumulate", "mma");
        let pass = pass(problem.tokens, if packed && kib >= 224 { MOST_TOKENS } else { 4 });
        set.push(("tokens_per_pass", pass.tokens));
        set.push(("num_ctas", gpu.sm_count.clamp(1, 1024)));
        if pass.has_short_ring() {
            set.extend(pass.ring());
        } else if kib < 160 {
            let stages = if packed { 4 } else { 3 };
            set.extend([("stages", stages), ("num_threads", 256), ("stage_chunks", 3)]);
        } else if kib < 224 {
            set.extend([("stages", 5), ("num_threads", 256)]);
        }
    }
    set.into_iter()
        .map(|(n, v)| (n.to_owned(), v.to_string()))
        .collect()
}

/// Tokens that share a pass, and the ring where they leave room for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Tokens that share a pass.
    pub tokens: u32,
    stages: Option<u32>,
    stage_chunks: Option<u32>,
}

impl Pass {
    fn of(tokens: u32) -> Self {
        let (stages, stage_chunks) = match tokens {
            16 => (Some(5), Some(2)),
            8 => (Some(2), None),
            _ => (None, None),
        };
        Self {
            tokens,
            stages,
            stage_chunks,
        }
    }

    fn has_short_ring(self) -> bool {
        self.stages.is_some()
    }

    /// Constants of the ring that it takes, by name.
    pub fn ring(self) -> impl Iterator<Item = (&'static str, u32)> {
        let named = [("stages", self.stages), ("stage_chunks", self.stage_chunks)];
        named.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// What so many tokens share: a pass of up to four, beyond which a pass for each four is
/// faster, or of up to eight where there is room for `most`.
#[must_use]
pub fn pass(tokens: u32, most: u32) -> Pass {
    Pass::of(tokens.min(most).next_power_of_two())
}

/// The passes to try for so many tokens, the widest first.
pub fn passes(tokens: u32) -> impl Iterator<Item = Pass> {
    [MOST_TOKENS, 4].map(|most| pass(tokens, most)).into_iter()
}

/// What `jitc tune` tries of a decode layer: the splits, how many tokens share a
/// pass, and a grid of all multiprocessors or of just those that own rows.
#[must_use]
pub fn layer_space(gpu: &Gpu, problem: &Problem) -> Vec<Geometry> {
    let all = gpu.sm_count.clamp(1, 1024);
    let hidden = problem.number("hidden").unwrap_or(1);
    let owners = hidden.div_ceil((hidden.div_ceil(all * 8) * 8).max(1));
    let mut grids = vec![all];
    if owners < all {
        grids.push(owners);
    }
    let most = problem.tokens.next_power_of_two().min(MOST_TOKENS);
    let mut geometries = Vec::new();
    for split in [1, 2, 4, 8] {
        for tokens in [1, 2, 4, 8].into_iter().filter(|tokens| *tokens <= most) {
            for grid in &grids {
                let own = Problem {
                    tokens,
                    ..problem.clone()
                };
                let mut geometry = heuristic(gpu, &own);
                for (name, value) in [
                    ("wo_split", split),
                    ("tokens_per_pass", tokens),
                    ("num_ctas", *grid),
                ] {
                    geometry.insert(name.to_owned(), value.to_string());
                }
                geometries.push(geometry);
            }
        }
    }
    geometries
}

/// A decode layer's spec laid out for a GPU and so many tokens, and where its `wo_split`
/// comes from: the record, or the rule. Constants in `set` stay as they are asked for.
/// What does not fit into shared memory gives up tokens.
pub fn lay_out(
    record: &Record,
    device: &Device,
    asked: &KernelSpec,
    num_tokens: u32,
    set: &[&str],
) -> Result<(KernelSpec, Origin), SpecError> {
    let (gpu, problem) = (Gpu::from(device), Problem::of_layer(asked, num_tokens));
    let forced: Geometry = (set.iter())
        .filter(|name| **name == "wo_split")
        .map(|name| ((*name).to_owned(), asked.constants()[*name].to_string()))
        .collect();
    let choice = choose(record, &gpu, &problem, &forced, heuristic);
    let mut geometry = match choice.origin {
        // The split alone was set: the rest by rule.
        Origin::Forced => heuristic(&gpu, &problem),
        _ => choice.geometry,
    };
    // A record may have a constant by the name that it had when it was written.
    geometry = (geometry.into_iter())
        .map(|(name, value)| (asked.family().present_name(&name).to_owned(), value))
        .collect();
    // More tokens than the rule takes have a ring of their own.
    let tokens = asked.number("tokens_per_pass").unwrap_or(1);
    if set.contains(&"tokens_per_pass") && tokens > MOST_TOKENS {
        let ring = Pass::of(tokens).ring();
        geometry.extend(ring.map(|(name, value)| (name.to_owned(), value.to_string())));
    }
    geometry.retain(|name, _| !set.contains(&name.as_str()));
    loop {
        let laid = asked.with(geometry.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let shared = laid.as_ref().map(KernelSpec::shared_mem_bytes);
        let fits = shared.is_ok_and(|bytes| bytes <= device.shared_mem_per_block);
        let tokens = geometry
            .get("tokens_per_pass")
            .and_then(|n| n.parse::<u32>().ok());
        match tokens {
            Some(tokens) if !fits && tokens > 1 => {
                geometry.insert("tokens_per_pass".into(), (tokens / 2).to_string());
                // The ring of more tokens was as short as it gets.
                if tokens >= 8 {
                    for name in ["stages", "stage_chunks"] {
                        geometry.remove(name);
                    }
                    let ring = Pass::of(tokens / 2).ring();
                    let free = ring.filter(|(name, _)| !set.contains(name));
                    geometry.extend(free.map(|(name, value)| (name.to_owned(), value.to_string())));
                }
            }
            _ => return Ok((laid?, choice.origin)),
        }
    }
}

/// Every variant that a dispatch of the layer looks at on a GPU, for any number of tokens:
/// what was tuned there, else by rule.
///
/// # Errors
/// Settings that come to no legal variant.
pub fn dispatched(jit: &Jit, named: &NamedFamily, device: &Device) -> Result<Vec<KernelSpec>, MeasureError> {
    let record = jit.tuned();
    let set = set_geometry(jit.config(), named.family());
    let former = named.former_name();
    let mut specs: Vec<KernelSpec> = Vec::new();
    for asked in asked_launches(jit, device.arch())? {
        // A former name means one launch of the two.
        let fixed = former.iter().flat_map(|former| &former.constants);
        if fixed
            .into_iter()
            .any(|(name, value)| asked.constants().get(name) != Some(value))
        {
            continue;
        }
        // Variants are laid out for these numbers of tokens: `Problem::of_layer`.
        for num_tokens in [1, 2, 4, 8] {
            let (spec, _) = lay_out(&record, device, &asked, num_tokens, &set).map_err(Error::from)?;
            if specs.iter().all(|other| other.id() != spec.id()) {
                specs.push(spec);
            }
        }
    }
    Ok(specs)
}

/// Constants of a layer's geometry that a flag, a variable, a file or a preset sets.
#[must_use]
pub fn set_geometry(config: &Config, family: &Family) -> Vec<&'static str> {
    let is_set = |name: &&str| family.is_set(config, name);
    LAYER_GEOMETRY.into_iter().filter(is_set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::decode_layer::FAMILY;
    use crate::measure::tune::Winner;

    fn gpu(sm_count: u32) -> Gpu {
        Gpu {
            name: "NVIDIA H200".into(),
            compute_capability: "9.0".into(),
            sm_count,
            shared_mem_per_block: 232_448,
        }
    }

    fn problem(tokens: u32) -> Problem {
        let constants = [
            ("hidden", 5120),
            ("num_q_heads", 24),
            ("head_dim", 256),
            ("num_kv_heads", 4),
        ];
        Problem {
            family: FAMILY.into(),
            constants: constants.map(|(n, v)| (n.into(), v.to_string())).into(),
            tokens,
            sizes: Sizes::new(),
        }
    }

    #[test]
    fn by_rule_chains_have_eight_slots_and_tensor_cores_one() {
        let mut layer = problem(3);
        let set = |problem: &Problem| {
            let geometry = heuristic(&gpu(132), problem);
            ["wo_split", "tokens_per_pass", "num_ctas"].map(|name| geometry[name].clone())
        };
        assert_eq!(set(&layer), ["8", "4", "132"]);
        layer.constants.insert("accumulate".into(), "mma".into());
        assert_eq!(set(&layer), ["1", "4", "132"]);
        let small = Gpu {
            shared_mem_per_block: 101_376,
            ..gpu(48)
        };
        assert_eq!(heuristic(&small, &layer)["stages"], "3");
    }

    #[test]
    fn a_layer_is_laid_out_to_fit_any_gpu_that_dispatch_knows() {
        let registry = crate::engine::request::template::Registry::load(None).expect("families");
        for name in crate::engine::run::occupancy::KNOWN_DEVICES {
            let device = crate::engine::run::occupancy::known_device(name).expect("device");
            let arch = device.arch();
            let layouts = ["nvfp4", "packed64"];
            let cases = [
                ("fma", 1),
                ("fma", 4),
                ("fma", 16),
                ("mma", 1),
                ("mma", 8),
                ("mma", 9),
                ("mma", 64),
            ];
            for (layout, (mode, num_tokens)) in layouts.into_iter().flat_map(|l| cases.map(|c| (l, c))) {
                let family = registry.get(FAMILY).expect("family");
                let set = [("accumulate", mode), ("weight_layout", layout)];
                let asked = KernelSpec::new(family, set, arch).expect("legal");
                let (spec, origin) =
                    lay_out(&Record::default(), &device, &asked, num_tokens, &[]).expect("laid out");
                assert_eq!(origin, Origin::Heuristic);
                assert!(
                    spec.shared_mem_bytes() <= device.shared_mem_per_block,
                    "{name} {layout} {mode} {num_tokens}"
                );
                let tokens = if (layout, mode) == ("packed64", "mma") {
                    num_tokens.next_power_of_two().clamp(4, 8)
                } else {
                    4
                };
                if name == "h200" && num_tokens >= 4 {
                    assert_eq!(spec.number("tokens_per_pass"), Some(tokens), "{layout} {mode}");
                }
                assert_eq!(spec.number("num_ctas"), Some(device.sm_count));
            }
        }
    }

    #[test]
    fn sixteen_tokens_share_a_pass_only_where_they_are_set_and_have_a_ring_that_fits() {
        let registry = crate::engine::request::template::Registry::load(None).expect("families");
        let device = crate::engine::run::occupancy::known_device("h200").expect("device");
        let arch = device.arch();
        let family = registry.get(FAMILY).expect("family");
        let preset = (family.presets.iter()).find(|preset| preset.name == "h200-packed-batch16");
        let constants = &preset.expect("preset").constants;
        let texts: Vec<_> = constants.iter().map(|(n, v)| (n, v.to_string())).collect();
        let set = texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let asked = KernelSpec::new(family, set, arch).expect("legal");
        let laid = |num_tokens: u32, set: &[&str]| {
            let laid = lay_out(&Record::default(), &device, &asked, num_tokens, set);
            let (spec, _) = laid.expect("laid out");
            assert!(spec.shared_mem_bytes() <= device.shared_mem_per_block);
            ["tokens_per_pass", "stages", "stage_chunks"].map(|name| spec.number(name))
        };
        let all: Vec<&str> = constants.keys().map(String::as_str).collect();
        for num_tokens in [1, 16, 17] {
            assert_eq!(laid(num_tokens, &all), [Some(16), Some(5), Some(2)]);
            assert_eq!(laid(num_tokens, &["tokens_per_pass"]), laid(num_tokens, &all));
        }
        let tried = layer_space(&gpu(132), &Problem::of_layer(&asked, 32));
        assert!(tried.iter().any(|geometry| geometry["tokens_per_pass"] == "8"));
        assert!(tried.iter().all(|geometry| geometry["tokens_per_pass"] != "16"));
    }

    /// A record of before the constant was renamed: its split, and so the bits, must be found.
    #[test]
    fn a_record_with_a_constants_former_name_is_used_as_it_was_meant() {
        let registry = crate::engine::request::template::Registry::load(None).expect("families");
        let device = crate::engine::run::occupancy::known_device("h200").expect("device");
        let arch = device.arch();
        let asked = KernelSpec::new(registry.get(FAMILY).expect("family"), [], arch).expect("legal");
        let former = "tokens";
        let geometry = [("wo_split", "4"), (former, "2"), ("num_ctas", "120")];
        let mut record = Record::default();
        record.put(Winner {
            gpu: Gpu::from(&device),
            problem: Problem::of_layer(&asked, 4),
            geometry: geometry.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            median_us: 90.0,
            tried: 8,
            policy: None,
        });
        let number = |set: &[&str], name: &str| {
            let (spec, origin) = lay_out(&record, &device, &asked, 4, set).expect("laid out");
            assert_eq!(origin, Origin::Tuned);
            spec.number(name)
        };
        assert_eq!(number(&[], "wo_split"), Some(4));
        assert_eq!(number(&[], "tokens_per_pass"), Some(2));
        assert_eq!(number(&[], former), Some(2), "readers of the former name");
        assert_eq!(
            number(&["tokens_per_pass"], "tokens_per_pass"),
            Some(1),
            "set otherwise"
        );
    }

    #[test]
    fn a_layers_record_decides_its_split_until_somebody_sets_one() {
        let layer = problem(1);
        let split = |split: &str| Geometry::from([("wo_split".to_owned(), split.to_owned())]);
        let mut record = Record::default();
        record.put(Winner {
            gpu: gpu(132),
            problem: layer.clone(),
            geometry: split("4"),
            median_us: 90.0,
            tried: 8,
            policy: None,
        });
        let chosen = |forced: &Geometry| choose(&record, &gpu(132), &layer, forced, heuristic);
        assert_eq!(chosen(&Geometry::new()).origin, Origin::Tuned);
        assert_eq!(chosen(&Geometry::new()).geometry, split("4"));
        assert_eq!(chosen(&split("2")).origin, Origin::Forced);
        let space = layer_space(&gpu(132), &layer);
        assert_eq!(space.len(), 4 * 2);
        assert!(
            space
                .iter()
                .any(|g| g["num_ctas"] == "128" && g["wo_split"] == "8")
        );
    }
}
