//! `jitc dispatch`: which variant a decode step, or a problem of another family, would run,
//! and why. Needs no GPU, and changes nothing unless it is told to compile.

mod family;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::constant_flags::of_families;
use super::{Answer, args, output};
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;
use crate::engine::run::occupancy::KNOWN_DEVICES;
use crate::families::decode_layer::FAMILY;
use crate::families::decode_layer::dispatch::{
    Candidate, Explanation, Missing, Policy, Problem, Target, explain,
};
use crate::measure::MeasureError;

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
        output::json(&explained.to_json(&policy));
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
        output::line(format!("wo_split {}", c.split()));
    }
}

fn print_candidates(explained: &Explanation, json: bool) {
    let mut rows = vec![Candidate::TITLES.map(str::to_owned).to_vec()];
    for candidate in &explained.candidates {
        if json {
            output::json(&candidate.to_json(explained.problem.num_tokens));
        }
        rows.push(candidate.row(explained.problem.num_tokens).to_vec());
    }
    if !json {
        output::table(&rows);
        output::line("");
    }
}
