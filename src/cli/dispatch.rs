//! `jitc dispatch`: which variant a decode step, or a problem of another family, would run,
//! and why. Needs no GPU, and changes nothing unless it is told to compile.

mod family;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::constant_flags::of_families;
use super::{Answer, args, output};
use crate::engine::jit::Jit;
use crate::engine::request::constant::Value;
use crate::engine::request::template::Registry;
use crate::engine::run::occupancy::KNOWN_DEVICES;
use crate::families::decode_layer::FAMILY;
use crate::families::decode_layer::dispatch::{
    Candidate, Explanation, Kind, Missing, Policy, Problem, Target, explain,
};
use crate::measure::MeasureError;
use crate::measure::tune::Origin;

pub(super) fn command(registry: &Registry) -> Command {
    let command = Command::new("dispatch")
        .about("Say which variant of a family a problem would run, and why")
        .arg(
            Arg::new("family")
                .value_name("FAMILY")
                .default_value(FAMILY)
                .help("The decode layer, or a family with rules in its TOML ([dispatch])"),
        )
        .arg(
            Arg::new("size")
                .long("size")
                .value_name("NAME=COUNT")
                .action(ArgAction::Append)
                .help("A size of the problem of a family with rules; once for each"),
        )
        .arg(
            Arg::new("tokens")
                .long("tokens")
                .value_name("COUNT")
                .value_parser(args::count::<u32>)
                .default_value("1")
                .help("Tokens of the step"),
        )
        .arg(Arg::new("device").long("device").value_name("NAME").help(
            "A GPU by ordinal, or one that need not be here: a100, l40s, h100, h200, b200, gb10 [default: 0]",
        ))
        .arg(
            Arg::new("path").long("path").value_name("PATH").help(
                "auto, cooperative or separate [default: JITC_PATH, else CUTE_PHASE_E_PATH, else auto]",
            ),
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
            Arg::new("compile")
                .long("compile")
                .action(ArgAction::SetTrue)
                .help(
                    "Compile into the cache what it lacks, for its registers [default: say what is unknown]",
                ),
        )
        .arg(
            Arg::new("explain")
                .long("explain")
                .action(ArgAction::SetTrue)
                .help("Show every variant, or rule, that was looked at"),
        );
    let command = args::constants(command, registry);
    match registry.get(FAMILY) {
        Ok(family) => of_families(command, &[family]),
        Err(_) => command,
    }
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let name = text("family").unwrap_or(FAMILY);
    let of_layer = is_layer(jit, name);
    if of_layer {
        args::constants_of(jit, &[FAMILY])?;
    }
    let number = |name: &str| matches.get_one::<u32>(name).copied();
    let max_tokens = number("max-tokens").unwrap_or(64);
    let policy = Policy::of(jit.config(), text("path"), text("layers"), max_tokens)?;
    let target = match Target::named(text("device").unwrap_or("0")) {
        Err(error @ MeasureError::Device(_)) => {
            output::error(format!(
                "{error}; name one that need not be here: --device {}",
                KNOWN_DEVICES.join(", ")
            ));
            return Ok(ExitCode::from(2));
        }
        target => target?,
    };
    if !of_layer {
        return family::run(jit, matches, json, name, target.device());
    }
    if matches.contains_id("size") {
        return Err(MeasureError::Request(format!(
            "--size is about families with rules: expected --tokens for `{FAMILY}`"
        )));
    }
    let problem = Problem {
        num_tokens: number("tokens").unwrap_or(1),
        layer: number("layer").unwrap_or(0),
        decode_only: true,
    };
    let missing = if matches.get_flag("compile") {
        Missing::Compile
    } else {
        Missing::Report
    };
    let explained = explain(jit, target, &policy, problem, missing)?;
    if json {
        output::json(&choice_json(&explained, &policy));
    }
    if matches.get_flag("explain") {
        print_candidates(&explained, json);
    }
    if !json {
        print_choice(&explained);
    }
    for lacking in explained.lacking() {
        output::note(note_of(jit, lacking));
    }
    let answered = explained.chosen().is_some_and(|c| c.registers.is_some());
    Ok(ExitCode::from(u8::from(!answered)))
}

/// Whether a name is that of the decode layer, or was.
fn is_layer(jit: &Jit, name: &str) -> bool {
    let formerly = || jit.registry().formerly(name);
    name == FAMILY || formerly().is_some_and(|(family, _)| family.name == FAMILY)
}

/// What to do about a kernel that a load would not find.
fn note_of(jit: &Jit, candidate: &Candidate) -> String {
    let name = format!("{} {}", candidate.spec.family().name, candidate.spec.variant());
    match &candidate.refused {
        Some(drift) => format!("{name} is refused, as a receipt is required: {drift}"),
        None => format!(
            "{name} is not in the cache: `{}` would warm it, and so would --compile",
            jit.warm_command(&candidate.spec)
        ),
    }
}

fn choice_json(explained: &Explanation, policy: &Policy) -> serde_json::Value {
    let chosen = explained.chosen();
    json!({"event": "choice", "device": explained.device.name, "num_tokens": explained.problem.num_tokens,
        // Its former name, for one release.
        "nat": explained.problem.num_tokens,
        "layer": explained.problem.layer, "path": policy.path, "kind": chosen.map(|c| c.variant.kind),
        "family": chosen.map(|c| &c.spec.family().name), "variant": chosen.map(|c| c.spec.variant()),
        "wo_split": chosen.map(|c| &c.spec.constants()["wo_split"]).map(Value::to_json),
        "origin": chosen.map(|c| c.origin), "cached": chosen.map(|c| c.registers.is_some()),
        "reason": explained.choice.reason.to_string()})
}

fn print_choice(explained: &Explanation) {
    let (chosen, num_tokens) = (explained.chosen(), explained.problem.num_tokens);
    let what = chosen.map_or("nothing".to_owned(), |c| {
        format!("{} {}", c.spec.family().name, c.spec.variant())
    });
    output::line(format!(
        "{}, {num_tokens} token{}: {what}: {}",
        explained.device.name,
        if num_tokens == 1 { "" } else { "s" },
        explained.choice.reason
    ));
    if let Some(c) = chosen {
        output::line(format!("wo_split {}", split(c)));
    }
}

/// `8, tuned`.
fn split(candidate: &Candidate) -> String {
    let origin = match candidate.origin {
        Origin::Forced => "set",
        Origin::Tuned => "tuned",
        Origin::Heuristic => "by rule",
    };
    format!("{}, {origin}", candidate.spec.constants()["wo_split"])
}

fn print_candidates(explained: &Explanation, json: bool) {
    let num_tokens = explained.problem.num_tokens;
    let titles = [
        "family",
        "variant",
        "wo_split",
        "blocks",
        "resident",
        "registers",
        "shared",
        "fits",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for c in &explained.candidates {
        let blocks = c.variant.grid_blocks(num_tokens);
        let known = c.variant.kind == Kind::Lite || c.resident.is_some();
        let fits = known.then(|| c.variant.fits(num_tokens));
        let or_unknown = |number: Option<u32>| number.map_or("unknown".to_owned(), |n| n.to_string());
        let shared = c.spec.derived().get("shared_bytes").copied().unwrap_or(0);
        if json {
            output::json(&json!({"event": "candidate", "family": c.spec.family().name,
                "variant": c.spec.variant(), "origin": c.origin, "blocks": blocks, "resident": c.resident,
                "registers": c.registers, "shared_bytes": shared, "tokens_per_pass": c.variant.tokens_per_pass,
                // Its former name, for one release.
                "tokens": c.variant.tokens_per_pass, "fits": fits}));
        }
        let resident = match c.variant.kind {
            Kind::Lite => "need not be".to_owned(),
            Kind::Coop => or_unknown(c.resident),
        };
        rows.push(vec![
            c.spec.family().name.clone(),
            c.spec.variant(),
            split(c),
            blocks.to_string(),
            resident,
            or_unknown(c.registers),
            shared.to_string(),
            fits.map_or("unknown", |fits| if fits { "yes" } else { "no" })
                .to_owned(),
        ]);
    }
    if !json {
        output::table(&rows);
        output::line("");
    }
}
