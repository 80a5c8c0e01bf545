//! `jitc regions`: an account of a launch from the ticks that its blocks wrote.
//!
//! Invariant: a flag that would change nothing is refused, never ignored.

mod flags;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::json;

use super::{Answer, output};
use crate::engine::jit::Jit;
use crate::families;
use crate::families::decode_layer::regions::synthetic;
use crate::measure::MeasureError;
use crate::measure::harness::{Options, Session, Verb};
use crate::measure::region::{self, Run, Ticks, own, reduce};

pub(super) use flags::command;
use flags::{bare, bare_flags, flag, given, unused};

pub(super) fn run(jit: &Jit, matches: &ArgMatches, as_json: bool) -> Answer {
    let words: Vec<&String> = matches.get_many("files").into_iter().flatten().collect();
    let diffing = words.first().is_some_and(|w| *w == "diff");
    let mut runs = match runs(jit, matches, &words[usize::from(diffing)..])? {
        Ok(runs) => runs,
        Err(reason) => return Ok(refused(&reason)),
    };
    if let Some(us) = matches.get_one::<f64>("launch-us") {
        for run in &mut runs {
            run.ticks.launch_us = Some(*us);
            run.reduced = reduce(&run.ticks);
        }
    }
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let reports = region::Reports {
        save: path("save"),
        csv: path("csv"),
        trace: path("trace"),
        html: path("html"),
        wall_us: matches.get_one::<f64>("wall-us").copied(),
    };
    reports.write(&runs)?;
    if diffing {
        let [before, after] = runs.as_slice() else {
            return Ok(refused("`jitc regions diff` takes two buffers"));
        };
        let diff = region::diff((&before.ticks, &before.reduced), (&after.ticks, &after.reduced))?;
        if as_json {
            let mut value = diff.to_json();
            value["before"] = json!(before.ticks.label);
            value["after"] = json!(after.ticks.label);
            output::json(&value);
        } else {
            print(region::account_of_diff(before, after, &diff));
        }
        return Ok(ExitCode::SUCCESS);
    }
    for run in &runs {
        if as_json {
            output::json(&region::to_json(&run.ticks, &run.reduced));
            if let Some(cost) = &run.cost {
                output::json(
                    &json!({"schema": "jitc.regions-cost.v1", "label": run.ticks.label,
                    "device": cost.device, "off_us": cost.off_us, "on_us": cost.on_us,
                    "more_us": cost.more_us, "events_us": cost.events_us}),
                );
            }
        } else {
            print(region::account(run));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an account.
pub(super) fn print(parts: Vec<region::Part>) {
    for part in parts {
        match part {
            region::Part::Line(line) => output::line(line),
            region::Part::Table(rows) => output::table(&rows),
            region::Part::Warning(text) => output::note(text),
        }
    }
}

/// The launches asked for; or one line on why there are none.
fn runs(
    jit: &Jit,
    matches: &ArgMatches,
    files: &[&String],
) -> Result<Result<Vec<Run>, String>, MeasureError> {
    let live = matches.get_one::<String>("live");
    if let Some(file) = files.first()
        && (live.is_some() || matches.contains_id("synthetic"))
    {
        return Ok(Err(format!(
            "{file}: buffers are read, or made with --live or --synthetic; not both at once"
        )));
    }
    if let Some(family) = live {
        let given = match given(matches) {
            Ok(given) => given,
            Err(reason) => return Ok(Err(reason)),
        };
        let harness = families::harness_of(jit.registry(), family);
        let Some(harness) = harness.filter(|h| h.flags(Verb::Regions).is_some()) else {
            if flag(matches, "num_tokens").is_some() {
                return Ok(Err(format!("--tokens: {family} has launch sizes: --with NAME=N")));
            }
            return Ok(Ok(own::live(jit, family, &given)?));
        };
        if let Some(name) = given.keys().next() {
            return Ok(Err(format!("--with {name}: {family} does not take it")));
        }
        let num_tokens = flag(matches, "num_tokens").map_or(Ok(1), |text| text.parse());
        let Ok(num_tokens @ 1..=64) = num_tokens else {
            return Ok(Err("--tokens: expected a whole number from 1 to 64".into()));
        };
        let options = Options::default();
        let session = Session {
            jit,
            name: family,
            options: &options,
        };
        return Ok(Ok(harness.live(session, num_tokens)?));
    }
    if let Some(flag) = unused(jit) {
        return Ok(Err(format!(
            "{flag}: of use with --live alone: a buffer has no such thing"
        )));
    }
    let bare = match bare(jit.registry(), matches) {
        Ok(bare) => bare,
        Err(reason) => return Ok(Err(reason)),
    };
    if let Some(splits) = matches.get_many::<u32>("synthetic") {
        if let Some(family) = &bare.family {
            return Ok(Err(format!(
                "--family {family}: --synthetic draws decode_layer alone"
            )));
        }
        let mut runs = Vec::new();
        for &wo_split in splits {
            runs.push(Run::new(synthetic(jit.registry(), &bare.geometry, wo_split, 20)?));
        }
        return Ok(Ok(runs));
    }
    if files.is_empty() {
        return Ok(Err(
            "nothing to read: name a FILE.npy, or --live FAMILY, or --synthetic 1,8".into(),
        ));
    }
    let mut runs = Vec::new();
    for file in files {
        let path = Path::new(file);
        let beside = region::sidecar(path);
        let ticks = if matches.get_flag("no-sidecar") {
            Ticks::open_bare(path, &bare, jit.registry())?
        } else if beside.exists() && bare_flags(matches) {
            return Ok(Err(format!(
                "{} says what {file} is: leave the geometry's flags out, or say --no-sidecar",
                beside.display()
            )));
        } else {
            Ticks::open(path, &bare, jit.registry())?
        };
        runs.push(Run::new(ticks));
    }
    Ok(Ok(runs))
}

pub(super) fn refused(reason: &str) -> ExitCode {
    output::note(format!("error: {reason}"));
    ExitCode::from(2)
}
