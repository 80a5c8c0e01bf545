//! `jitc tune`: tries a declared space of geometries on this GPU and keeps the fastest
//! of each problem beside the cache.
//!
//! Invariant: only a geometry that the gate lets through is timed, and a record is
//! written only after every candidate of its problem was.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches};
use serde_json::json;

use super::bench::{Inputs, Request, Variant, WoSession};
use super::{Answer, args, measured, output};
use crate::engine::jit::Jit;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Family, Registry};
use crate::families::wo_gemv::tune::space;
use crate::measure::MeasureError;
use crate::measure::harness::Verb;
use crate::measure::tune::{
    Choice, Geometry, Origin, Record, Space, Winner, empty_search_space, geometry_text, keep_faster,
    read_space,
};

pub(super) fn command(registry: &Registry) -> clap::Command {
    let tune = clap::Command::new("tune")
        .about("Try geometries on this GPU, and keep the fastest beside the cache")
        .arg(
            Arg::new("family")
                .value_parser(["wo_gemv", "beta_coop", "beta_lite"])
                .default_value("wo_gemv"),
        )
        .arg(
            Arg::new("space")
                .long("space")
                .value_name("NAME=LIST")
                .action(ArgAction::Append)
                .help("Values of a constant to try, instead of the declared ones"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("List the candidates; needs no GPU"),
        )
        .arg(
            Arg::new("context")
                .long("context")
                .value_name("POSITIONS")
                .value_parser(args::count::<usize>)
                .default_value("4096")
                .help("Of a decode layer: the length of every sequence"),
        );
    args::constants(super::bench::measuring(tune), registry)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let family = matches
        .get_one::<String>("family")
        .map_or("wo_gemv", String::as_str);
    let is_layer = family != "wo_gemv";
    let others: &[&str] = if is_layer {
        &["method", "warm", "seed", "global-scale"]
    } else {
        &["context"]
    };
    let tuned = match args::refuse(matches, others, family) {
        Err(reason) => Err(MeasureError::Request(reason)),
        Ok(()) if is_layer => measured::run(Verb::Tune, jit, matches, json),
        Ok(()) => tune(jit, matches, json),
    };
    match tuned {
        Ok(code) => Ok(code),
        Err(error @ MeasureError::Engine(_)) => Err(error),
        Err(error) => {
            output::error(&error);
            Ok(ExitCode::from(2))
        }
    }
}

/// The candidates that the family allows. That does not depend on the arch, so no
/// GPU is needed.
fn candidates(
    family: &Arc<Family>,
    request: &Request,
    variant: &Variant,
    nat: usize,
    given: &Space,
) -> Vec<Geometry> {
    let allowed = |geometry: &Geometry| {
        geometry.keys().all(|name| family.constants.contains_key(name))
            && request.spec(family, variant, geometry, Arch::DEFAULTS[0]).is_ok()
    };
    let mut all = space(&variant.accumulate, nat, given);
    all.retain(allowed);
    all
}

fn tune(jit: &Jit, matches: &ArgMatches, json: bool) -> Result<ExitCode, MeasureError> {
    args::constants_of(jit, &["wo_gemv"])?;
    let request = super::bench::request(jit, matches)?;
    let variants = request.variants().map_err(MeasureError::Request)?;
    let family = jit.registry().get("wo_gemv")?;
    let texts = matches.get_many::<String>("space").into_iter().flatten();
    let given = read_space(family, texts.map(String::as_str))?;
    if variants.iter().any(|v| v.geometry != "tiled") {
        return Err(MeasureError::Request(
            "geometry: only `tiled` has anything to tune; the original's layout is fixed".into(),
        ));
    }
    for (variant, nat) in problems(&variants, &request) {
        if candidates(family, &request, variant, nat, &given).is_empty() {
            let problem = format!(
                "wo_split={} {} tokens={nat}",
                variant.wo_split, variant.accumulate
            );
            return Err(empty_search_space(&problem));
        }
    }
    if matches.get_flag("dry-run") {
        for (variant, nat) in problems(&variants, &request) {
            for geometry in candidates(family, &request, variant, nat, &given) {
                say(
                    json,
                    &request.problem(variant, nat).constants,
                    nat,
                    &geometry,
                    None,
                );
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(path) = jit.config().cache_dir().map(|dir| Record::path(&dir)) else {
        return Err(MeasureError::Request(
            "there is no cache folder to keep the record beside".into(),
        ));
    };
    let run = WoSession::open(jit, matches, request.clone())?;
    let gs = request.global_scales.first().copied().unwrap_or(1.0);
    let mut inputs = run.inputs(&variants, gs)?;
    let mut untuned = 0;
    for (variant, nat) in problems(&variants, &request) {
        let geometries = candidates(family, &request, variant, nat, &given);
        let Some(winner) = best(&run, variant, nat, geometries, &mut inputs, json)? else {
            untuned += 1;
            output::error(format!(
                "wo_split={} {} tokens={nat}: no candidate passed the gate",
                variant.wo_split, variant.accumulate
            ));
            continue;
        };
        // Read again: another process may have tuned something else meanwhile.
        let mut record = Record::load(&path);
        record.put(winner);
        record.save(&path)?;
    }
    if !json {
        output::line(format!("kept in {}", path.display()));
    }
    Ok(ExitCode::from(u8::from(untuned > 0)))
}

/// Every variant at every number of tokens.
fn problems<'a>(variants: &'a [Variant], request: &Request) -> Vec<(&'a Variant, usize)> {
    variants
        .iter()
        .flat_map(|v| request.tokens.iter().map(move |nat| (v, *nat)))
        .collect()
}

/// Measures the candidates of one problem.
fn best(
    run: &WoSession,
    variant: &Variant,
    nat: usize,
    geometries: Vec<Geometry>,
    inputs: &mut Inputs,
    json: bool,
) -> Result<Option<Winner>, MeasureError> {
    let problem = run.request.problem(variant, nat);
    let (mut winner, mut floor, mut tried) = (None::<Winner>, f64::NAN, 0);
    for geometry in geometries {
        let choice = Choice {
            origin: Origin::Forced,
            geometry,
        };
        let measured = run.one(variant, nat, choice, inputs)?;
        let Some(summary) = measured.timed.summary else {
            continue;
        };
        (floor, tried) = (measured.timed.floor, tried + 1);
        let geometry = measured.choice.geometry;
        say(json, &problem.constants, nat, &geometry, Some(summary.median));
        let found = Winner {
            gpu: run.session.gpu(),
            problem: problem.clone(),
            geometry,
            median_us: summary.median,
            tried,
        };
        keep_faster(&mut winner, found);
    }
    if let Some(winner) = &mut winner {
        winner.tried = tried;
        if !json {
            output::line(format!(
                "wo_split={} {} tokens={nat}: {} of {tried}, {:.2} us, {:.2} x streaming",
                variant.wo_split,
                variant.accumulate,
                geometry_text(&winner.geometry),
                winner.median_us,
                winner.median_us / floor
            ));
        }
    }
    Ok(winner)
}

fn say(json: bool, constants: &Geometry, nat: usize, geometry: &Geometry, median_us: Option<f64>) {
    if json {
        output::json(&json!({"event": "candidate", "problem": constants, "tokens": nat,
            "constants": geometry, "median_us": median_us}));
        return;
    }
    let median = median_us.map_or(String::new(), |us| format!("{us:8.2} us  "));
    let problem = ["wo_split", "accumulate"].map(|n| format!("{n}={}", constants[n]));
    output::line(format!(
        "{median}{} tokens={nat}  {}",
        problem.join(" "),
        geometry_text(geometry)
    ));
}
