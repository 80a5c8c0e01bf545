//! `jitc dispatch`: which variant a decode step would run, and why. Needs no GPU.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::{Answer, args, output};
use crate::engine::config::Config;
use crate::engine::jit::Jit;
use crate::engine::request::constant::Value;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Family, Registry};
use crate::engine::run::device::{Context, Device};
use crate::engine::run::occupancy::KNOWN_DEVICES;
use crate::engine::run::occupancy::capacity;
use crate::engine::run::occupancy::known_device;
use crate::families::decode_layer::dispatch::Kind;
use crate::families::decode_layer::dispatch::Layers;
use crate::families::decode_layer::dispatch::Path;
use crate::families::decode_layer::dispatch::Policy;
use crate::families::decode_layer::dispatch::Problem;
use crate::families::decode_layer::dispatch::Variant;
use crate::families::decode_layer::dispatch::select;
use crate::families::decode_layer::tune::LAYER_GEOMETRY;
use crate::families::decode_layer::tune::lay_out;
use crate::measure::MeasureError;
use crate::measure::tune::Origin;
use crate::measure::tune::Record;

pub(super) fn command(registry: &Registry) -> Command {
    let command = Command::new("dispatch")
        .about("Say which variant of the decode layer a step would run, and why")
        .arg(
            Arg::new("nat")
                .long("nat")
                .value_name("TOKENS")
                .value_parser(args::count::<u32>)
                .default_value("1")
                .help("Tokens of the step"),
        )
        .arg(Arg::new("device").long("device").value_name("NAME").help(
            "A GPU by ordinal, or one that need not be here: a100, l40s, h100, h200, b200, gb10 [default: 0]",
        ))
        .arg(
            Arg::new("path")
                .long("path")
                .value_name("PATH")
                .help("auto, coop or lite [default: JITC_PATH, else CUTE_PHASE_E_PATH, else auto]"),
        )
        .arg(Arg::new("layers").long("layers").value_name("LIST").help(
            "Layers that take part, such as 3,7 [default: JITC_LAYERS, else CUTE_PHASE_E_LAYERS, else all]",
        ))
        .arg(
            Arg::new("layer")
                .long("layer")
                .value_name("LAYER")
                .value_parser(value_parser!(u32))
                .default_value("0")
                .help("The layer of the step"),
        )
        .arg(
            Arg::new("max-tokens")
                .long("max-tokens")
                .value_name("ROWS")
                .value_parser(args::count::<u32>)
                .default_value("64")
                .help("Rows of the workspace"),
        )
        .arg(
            Arg::new("explain")
                .long("explain")
                .action(ArgAction::SetTrue)
                .help("Show every variant that was looked at"),
        );
    args::constants(command, registry)
}

/// A GPU, and a hold on it if it is here.
struct Target {
    device: Device,
    context: Option<Context>,
}

impl Candidate {
    /// `8, tuned`.
    fn split(&self) -> String {
        format!("{}, {}", self.spec.constants["wo_split"], origin(self.origin))
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Forced => "set",
        Origin::Tuned => "tuned",
        Origin::Heuristic => "by rule",
    }
}

/// A variant with what `explain` shows of it.
struct Candidate {
    spec: KernelSpec,
    /// Where its `wo_split` comes from.
    origin: Origin,
    variant: Variant,
    registers: u32,
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    args::constants_of(jit, &["beta_coop", "beta_lite"])?;
    let (target, policy) = match asked(jit, matches) {
        Ok(asked) => asked,
        Err(reason) => {
            output::error(reason);
            return Ok(ExitCode::from(2));
        }
    };
    let nat = matches.get_one::<u32>("nat").copied().unwrap_or(1);
    let candidates = candidates(jit, &target, nat)?;
    let device = target.device;
    let problem = Problem {
        nat,
        layer: matches.get_one::<u32>("layer").copied().unwrap_or(0),
        decode_only: true,
    };
    let variants: Vec<Variant> = candidates.iter().map(|c| c.variant).collect();
    let choice = select(&variants, &policy, &problem);
    let chosen = choice.variant.map(|at| &candidates[at]);
    if json {
        output::json(
            &json!({"event": "choice", "device": device.name, "nat": problem.nat,
            "layer": problem.layer, "path": policy.path, "kind": chosen.map(|c| c.variant.kind),
            "family": chosen.map(|c| &c.spec.family.name), "variant": chosen.map(|c| c.spec.variant()),
            "wo_split": chosen.map(|c| &c.spec.constants["wo_split"]).map(Value::to_json),
            "origin": chosen.map(|c| c.origin),
            "reason": choice.reason.to_string()}),
        );
    }
    if matches.get_flag("explain") {
        explain(&candidates, problem.nat, json);
    }
    if !json {
        let what = chosen.map_or("nothing".to_owned(), |c| {
            format!("{} {}", c.spec.family.name, c.spec.variant())
        });
        output::line(format!(
            "{}, {} token{}: {what}: {}",
            device.name,
            problem.nat,
            if problem.nat == 1 { "" } else { "s" },
            choice.reason
        ));
        if let Some(c) = chosen {
            output::line(format!("wo_split {}", c.split()));
        }
    }
    Ok(ExitCode::from(u8::from(chosen.is_none())))
}

fn explain(candidates: &[Candidate], nat: u32, json: bool) {
    let mut rows = vec![
        [
            "family",
            "variant",
            "wo_split",
            "blocks",
            "resident",
            "registers",
            "shared",
            "fits",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for c in candidates {
        let (blocks, fits) = (c.variant.grid_blocks(nat), c.variant.fits(nat));
        let shared = c.spec.derived.get("shared_bytes").copied().unwrap_or(0);
        if json {
            output::json(&json!({"event": "candidate", "family": c.spec.family.name,
                "variant": c.spec.variant(), "origin": c.origin, "blocks": blocks, "resident": c.variant.capacity,
                "registers": c.registers, "shared_bytes": shared, "tokens": c.variant.tokens, "fits": fits}));
        }
        let needs = if c.variant.kind == Kind::Lite {
            "need not be"
        } else {
            ""
        };
        rows.push(vec![
            c.spec.family.name.clone(),
            c.spec.variant(),
            c.split(),
            blocks.to_string(),
            if needs.is_empty() {
                c.variant.capacity.to_string()
            } else {
                needs.to_owned()
            },
            c.registers.to_string(),
            shared.to_string(),
            if fits { "yes" } else { "no" }.to_owned(),
        ]);
    }
    if !json {
        output::table(&rows);
        output::line("");
    }
}

fn asked(jit: &Jit, matches: &ArgMatches) -> Result<(Target, Policy), String> {
    let text = |flag: &str, names: [&str; 2]| {
        (matches.get_one::<String>(flag).cloned()).or_else(|| jit.config().variable(&names).map(|s| s.value))
    };
    let path = match text("path", ["JITC_PATH", "CUTE_PHASE_E_PATH"]) {
        Some(path) => path.parse()?,
        None => Path::Auto,
    };
    let layers = text("layers", ["JITC_LAYERS", "CUTE_PHASE_E_LAYERS"]);
    let policy = Policy {
        path,
        layers: Layers::parse(layers.as_deref().unwrap_or_default())?,
        max_tokens: matches.get_one::<u32>("max-tokens").copied().unwrap_or(64),
    };
    let name = matches.get_one::<String>("device").map_or("0", String::as_str);
    let target = match (name.parse::<u32>(), known_device(name)) {
        (_, Some(device)) => Target {
            device,
            context: None,
        },
        (Ok(ordinal), None) => {
            let context = Context::new(ordinal).map_err(|e| {
                format!(
                    "{}; name one that need not be here: --device {}",
                    MeasureError::Device(e),
                    KNOWN_DEVICES.join(", ")
                )
            })?;
            Target {
                device: context.device().clone(),
                context: Some(context),
            }
        }
        _ => {
            return Err(format!(
                "device `{name}`: expected an ordinal or one of {}",
                KNOWN_DEVICES.join(", ")
            ));
        }
    };
    Ok((target, policy))
}

/// Every variant that the settings ask for, laid out as was set, measured, or by
/// rule. Compiles what the cache lacks, for the registers that they use; the
/// capacity is the driver's own where the GPU is here.
fn candidates(jit: &Jit, target: &Target, nat: u32) -> Result<Vec<Candidate>, MeasureError> {
    let device = &target.device;
    let arch = Arch::of_device(device.major, device.minor);
    let record = jit
        .config()
        .cache_dir()
        .map(|dir| Record::load(&Record::path(&dir)));
    let record = record.unwrap_or_default();
    let mut all = Vec::new();
    for name in ["beta_coop", "beta_lite"] {
        let family = jit.registry().get(name)?;
        let set = set_geometry(jit.config(), family);
        for asked in KernelSpec::expand(family, jit.config(), &[arch])? {
            let (spec, origin) = lay_out(&record, device, &asked, nat, &set)?;
            let artifact = jit.prepare(&spec)?.fetched.artifact;
            let number = |name: &str| spec.number(name).unwrap_or(0);
            let (registers, shared) = (artifact.registers(), number("shared_bytes"));
            let resident = match &target.context {
                _ if shared > device.shared_mem_per_block => 0,
                Some(context) => jit.load(&spec, context)?.entries()[0].capacity,
                None => capacity(device, registers, number("launch_threads"), shared),
            };
            let Some(variant) = Variant::of(&spec, resident) else {
                continue;
            };
            all.push(Candidate {
                spec,
                origin,
                variant,
                registers,
            });
        }
    }
    Ok(all)
}

/// Constants of a layer's geometry that a flag, a variable, a file or a preset sets.
pub(super) fn set_geometry(config: &Config, family: &Family) -> Vec<&'static str> {
    let preset = config.preset().and_then(|name| family.preset(&name.value));
    let is_set = |name: &&str| {
        let constant = family.constants.get(*name);
        constant.is_some_and(|c| config.constant(name, &c.variables).is_some())
            || preset.is_some_and(|p| p.constants.contains_key(*name))
    };
    LAYER_GEOMETRY.into_iter().filter(is_set).collect()
}
