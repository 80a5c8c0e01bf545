//! `jitc tune wo_gemv`: tries a declared space of geometries on this GPU and keeps
//! the fastest of each problem beside the cache.
//!
//! Invariant: only a geometry that the gate lets through is timed, and a record is
//! written only after every candidate of its problem was.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches};
use serde_json::json;

use super::bench::{BenchError, Session};
use super::{Answer, args, output};
use crate::jit::Jit;
use crate::template::Registry;
use crate::tune::{Choice, Geometry, Origin, Record, Winner, space};

pub(super) fn command(registry: &Registry) -> clap::Command {
    let tune = clap::Command::new("tune")
        .about("Try geometries on this GPU, and keep the fastest beside the cache")
        .arg(
            Arg::new("family")
                .value_parser(["wo_gemv"])
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
        );
    args::constants(super::bench::measuring(tune), registry)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    match tune(jit, matches, json) {
        Ok(code) => Ok(code),
        Err(BenchError::Jit(error)) => Err(error),
        Err(error) => {
            output::error(&error);
            Ok(ExitCode::from(2))
        }
    }
}

fn tune(jit: &Jit, matches: &ArgMatches, json: bool) -> Result<ExitCode, BenchError> {
    let request = super::bench::request(jit, matches)?;
    let variants = request.variants().map_err(BenchError::Request)?;
    let family = jit.registry().get("wo_gemv").map_err(crate::jit::Error::from)?;
    let mut given = Vec::new();
    for text in matches.get_many::<String>("space").into_iter().flatten() {
        let (name, list) = text
            .split_once('=')
            .filter(|(name, _)| family.constants.contains_key(*name))
            .ok_or_else(|| {
                BenchError::Request(format!(
                    "--space {text}: expected NAME=LIST of one of this family's constants"
                ))
            })?;
        given.push((
            name.to_owned(),
            list.split(',').map(str::to_owned).collect::<Vec<_>>(),
        ));
    }
    // Legality does not depend on the arch, so a dry run needs no GPU.
    let candidates = |variant: &super::bench::Variant, nat: usize| -> Vec<Geometry> {
        space(&variant.accumulate, nat, &given)
            .into_iter()
            .filter(|geometry| geometry.keys().all(|name| family.constants.contains_key(name)))
            .filter(|geometry| {
                request
                    .spec(family, variant, geometry, crate::target::Arch::DEFAULTS[0])
                    .is_ok()
            })
            .collect()
    };
    if variants.iter().any(|v| v.geometry != "tiled") {
        return Err(BenchError::Request(
            "geometry: only `tiled` has anything to tune; the original's layout is fixed".into(),
        ));
    }
    if matches.get_flag("dry-run") {
        for variant in &variants {
            for nat in &request.tokens {
                for geometry in candidates(variant, *nat) {
                    say(
                        json,
                        &request.problem(variant, *nat).constants,
                        *nat,
                        &geometry,
                        None,
                    );
                }
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(path) = jit.config().cache_dir().map(|dir| Record::path(&dir)) else {
        return Err(BenchError::Request(
            "there is no cache folder to keep the record beside".into(),
        ));
    };
    let session = Session::open(jit, matches, request.clone())?;
    let gs = request.global_scales.first().copied().unwrap_or(1.0);
    let mut inputs = session.inputs(&variants, gs)?;
    let mut untuned = 0;
    for variant in &variants {
        for nat in &request.tokens {
            let problem = request.problem(variant, *nat);
            let mut best: Option<(f64, Geometry)> = None;
            let mut tried = 0;
            let mut measured_floor = f64::NAN;
            for geometry in candidates(variant, *nat) {
                let choice = Choice {
                    origin: Origin::Forced,
                    geometry,
                };
                let measured = session.one(variant, *nat, choice, &mut inputs)?;
                let Some(summary) = measured.summary else { continue };
                tried += 1;
                measured_floor = measured.floor;
                let geometry = measured.choice.geometry;
                say(json, &problem.constants, *nat, &geometry, Some(summary.median));
                if best.as_ref().is_none_or(|(median, _)| summary.median < *median) {
                    best = Some((summary.median, geometry));
                }
            }
            let Some((median_us, geometry)) = best else {
                untuned += 1;
                output::error(format!(
                    "wo_split={}: no candidate passed the gate",
                    variant.wo_split
                ));
                continue;
            };
            if !json {
                output::line(format!(
                    "wo_split={} {} tokens={nat}: {} of {tried}, {median_us:.2} us, {:.2} x streaming",
                    variant.wo_split,
                    variant.accumulate,
                    text(&geometry),
                    median_us / measured_floor
                ));
            }
            // Read again: another process may have tuned something else meanwhile.
            let mut record = Record::load(&path);
            record.put(Winner {
                gpu: session.gpu(),
                problem,
                geometry,
                median_us,
                tried,
            });
            record.save(&path)?;
        }
    }
    if !json {
        output::line(format!("kept in {}", path.display()));
    }
    Ok(ExitCode::from(u8::from(untuned > 0)))
}

fn text(geometry: &Geometry) -> String {
    let set: Vec<String> = geometry.iter().map(|(n, v)| format!("{n}={v}")).collect();
    set.join(" ")
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
        text(geometry)
    ));
}
