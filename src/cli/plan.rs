//! What `jitc warm` is asked for, from flags, a matrix or a trace.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::output;
use super::warm::Warmed;
use crate::engine::atomic_file::write_atomically;
use crate::engine::cache::Receipt;
use crate::engine::config::{Config, Setting, Source};
use crate::engine::jit::{Error, Jit, Plan};
use crate::engine::run::occupancy::KNOWN_DEVICES;
use crate::families::for_gpus;
use crate::measure::MeasureError;

/// `--matrix`, `--from-trace`, `--shard`.
pub(super) fn args(command: Command) -> Command {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .conflicts_with("family")
            .help(help)
    };
    command.args([
        file(
            "matrix",
            "Warm what this file lists: families, constants, archs; globs and products. Flags hold where it says nothing",
        ),
        file("from-trace", "Warm what JITC_TRACE recorded in this file").conflicts_with("matrix"),
        Arg::new("gpu")
            .long("gpu")
            .value_name("NAMES")
            .conflicts_with_all(["matrix", "from-trace"])
            .help(format!(
                "Warm for these GPUs, which need not be here: names of {}",
                KNOWN_DEVICES.join(", ")
            )),
        Arg::new("for-dispatch")
            .long("for-dispatch")
            .action(ArgAction::SetTrue)
            .conflicts_with_all(["matrix", "from-trace"])
            .help("Warm just what dispatchers can select on those GPUs, or on the ones that are here"),
        Arg::new("shard")
            .long("shard")
            .value_name("I/N")
            .value_parser(shard)
            .help("Only part I of N: disjoint, and together complete"),
    ])
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/');
    let numbers = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match numbers {
        Some((i, n)) if (1..=n).contains(&i) => Ok((i, n)),
        _ => Err("expected I/N with I from 1 to N, such as 2/8".to_owned()),
    }
}

/// The variants that are requested, and how many a matrix left out.
pub(super) fn make(jit: &Jit, matches: &ArgMatches) -> Result<(Plan, usize), MeasureError> {
    let (specs, skipped) = if let Some(path) = matches.get_one::<PathBuf>("matrix") {
        let families = || jit.registry().families().map(|family| &**family);
        let mut archs = super::usual_archs(jit, families())?;
        archs.retain(|arch| families().any(|f| f.does(*arch)));
        let expansion = jit.specs_of_matrix(path, archs)?;
        (expansion.specs, expansion.skipped)
    } else if let Some(path) = matches.get_one::<PathBuf>("from-trace") {
        if let Some(flag) = beside_a_trace(jit.config()) {
            return Err(MeasureError::Request(format!(
                "{flag} beside --from-trace: each line of a trace says its constants and its arch; leave it out"
            )));
        }
        (jit.specs_of_trace(path)?, 0)
    } else if matches.contains_id("gpu") || matches.get_flag("for-dispatch") {
        let gpus = matches.get_one::<String>("gpu").map(String::as_str);
        let all = for_gpus(
            jit,
            &super::args::families(matches),
            gpus,
            matches.get_flag("for-dispatch"),
        )?;
        all.notes.iter().for_each(output::note);
        (all.specs, 0)
    } else {
        (super::specs_to_warm(jit, &super::args::families(matches))?, 0)
    };
    let plan = Plan::of(jit, specs)?;
    Ok(match matches.get_one::<(usize, usize)>("shard") {
        Some((part, parts)) => (plan.shard(*part, *parts), skipped),
        None => (plan, skipped),
    })
}

/// Lists what a load would not find, and why; 1 if there is any.
pub(super) fn check(plan: &Plan, jit: &Jit, json: bool) -> Result<ExitCode, Error> {
    let mut gaps = 0;
    let why_passed_over = plan.gaps(jit, &mut |gap| {
        gaps += 1;
        let (request, word, reason) = (&gap.request, gap.word, gap.reason);
        if json {
            output::json(
                &json!({"event": "gap", "family": request.family(), "constants": request.constants(),
                "arch": request.arch(), "key": request.key(), "answer": word, "reason": reason}),
            );
        } else {
            output::line(format!(
                "{word}: {} {} {}: {}{}",
                request.family(),
                gap.spec.variant(),
                request.arch(),
                request.key(),
                reason.map_or_else(String::new, |reason| format!(" ({reason})"))
            ));
        }
    })?;
    why_passed_over.iter().for_each(output::note);
    let requested = plan.requests().len();
    if json {
        output::json(&json!({"event": "summary", "requested": requested,
            // Its former name, for one release.
            "asked": requested, "missing": gaps}));
    } else {
        output::line(format!("{requested} requested, {gaps} missing"));
    }
    Ok(ExitCode::from(u8::from(gaps > 0)))
}

/// Writes the receipt beside its place and renames it.
pub(super) fn write_receipt(
    plan: &Plan,
    jit: &Jit,
    results: &[Result<Warmed, Error>],
    path: &Path,
) -> std::io::Result<()> {
    let words = std::env::args_os().skip(1);
    let mut receipt = Receipt::new(words.map(|w| w.to_string_lossy().into_owned()).collect());
    for (planned, result) in plan.requests().iter().zip(results) {
        match result {
            Ok(warmed) => receipt.add(jit.cache(), &warmed.request, &warmed.provenance),
            Err(error) => receipt.add_failure(&planned.request, &error.to_string()),
        }
    }
    write_atomically(path, 0o600, |file| file.write_all(&receipt.to_bytes()))
}

/// The flag that says what every line of a trace says, too, if one does.
fn beside_a_trace(config: &Config) -> Option<String> {
    let flag = |setting: Option<Setting>| match setting?.source {
        Source::Flag(flag) => Some(flag),
        _ => None,
    };
    let constant = config
        .flag_constants()
        .first()
        .map(|constant| constant.flag.clone());
    constant
        .or_else(|| flag(config.arch()))
        .or_else(|| flag(config.preset(&[])))
}
