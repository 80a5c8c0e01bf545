//! `jitc dispatch`: which variant a decode step would run, and why. Needs no GPU.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::{Answer, args, output};
use crate::constant::Value;
use crate::device::{self, Device};
use crate::dispatch::{
    KNOWN_DEVICES, Kind, Layers, Path, Policy, Problem, Variant, capacity, known_device, select,
};
use crate::jit::{Error, Jit};
use crate::spec::KernelSpec;
use crate::target::Arch;
use crate::template::Registry;

pub(super) fn command(registry: &Registry) -> Command {
    let command = Command::new("dispatch")
        .about("Say which variant of the decode layer a step would run, and why")
        .arg(
            Arg::new("nat")
                .long("nat")
                .value_name("TOKENS")
                .value_parser(value_parser!(u32))
                .default_value("1")
                .help("Tokens of the step"),
        )
        .arg(Arg::new("device").long("device").value_name("NAME").help(
            "A GPU by ordinal, or one that need not be here: a100, h100, h200, b200, gb10 [default: 0]",
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
                .value_parser(value_parser!(u32))
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

/// A variant with what `explain` shows of it.
struct Candidate {
    spec: KernelSpec,
    variant: Variant,
    registers: u32,
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let (device, policy) = match asked(jit, matches) {
        Ok(asked) => asked,
        Err(reason) => {
            output::error(reason);
            return Ok(ExitCode::from(2));
        }
    };
    let candidates = candidates(jit, &device)?;
    let problem = Problem {
        nat: matches.get_one::<u32>("nat").copied().unwrap_or(1),
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
            "{}, {} tokens: {what}: {}",
            device.name, problem.nat, choice.reason
        ));
    }
    Ok(ExitCode::from(u8::from(chosen.is_none())))
}

fn explain(candidates: &[Candidate], nat: u32, json: bool) {
    let mut rows = vec![
        [
            "family",
            "variant",
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
                "variant": c.spec.variant(), "blocks": blocks, "resident": c.variant.capacity,
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

fn asked(jit: &Jit, matches: &ArgMatches) -> Result<(Device, Policy), String> {
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
    let device = match (name.parse::<u32>(), known_device(name)) {
        (_, Some(known)) => known,
        (Ok(ordinal), None) => device::get(ordinal).map_err(|e| {
            format!(
                "{e}; name one that need not be here: --device {}",
                KNOWN_DEVICES.join(", ")
            )
        })?,
        _ => {
            return Err(format!(
                "device `{name}`: expected an ordinal or one of {}",
                KNOWN_DEVICES.join(", ")
            ));
        }
    };
    Ok((device, policy))
}

/// Every variant that the settings ask for; those of several token counts where
/// none is set. Compiles what the cache lacks, for the registers that they use.
fn candidates(jit: &Jit, device: &Device) -> Result<Vec<Candidate>, Error> {
    let arch = Arch::of_device(device.major, device.minor);
    let mut all = Vec::new();
    for (name, kind) in [("beta_coop", Kind::Coop), ("beta_lite", Kind::Lite)] {
        let family = jit.registry().get(name)?;
        for spec in KernelSpec::expand(family, jit.config(), &[arch])? {
            let number = |name: &str| spec.number(name).unwrap_or(0);
            let artifact = jit.prepare(&spec)?.fetched.artifact;
            let registers = artifact.registers();
            let shared = number("shared_bytes");
            let resident = if shared > device.shared_mem_per_block {
                0
            } else {
                capacity(device, registers, number("block_threads"), shared)
            };
            let variant = Variant {
                kind,
                tokens: number("tokens"),
                blocks: match kind {
                    Kind::Coop => number("grid_x") * number("grid_y"),
                    Kind::Lite => number("num_ctas"),
                },
                per_token: spec.constants.get("geometry").and_then(Value::as_name) == Some("original"),
                capacity: resident,
            };
            all.push(Candidate {
                spec,
                variant,
                registers,
            });
        }
    }
    Ok(all)
}
