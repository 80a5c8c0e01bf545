//! `jitc doctor`: what is here, what is missing, and how to fix it.

use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::json;

use super::{Answer, output};
use crate::engine::doctor::{Diagnosis, diagnose};
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;

pub(super) fn command(_: &Registry) -> clap::Command {
    let doctor = clap::Command::new("doctor").about("Check the installation and suggest fixes");
    #[cfg(feature = "remote")]
    let doctor = doctor.arg(super::args::stores(
        "Try a round trip with each store of --remote, too",
    ));
    doctor
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let mut found = diagnose(jit)?;
    ask_stores(jit, matches, &mut found);
    let good = found.is_good();
    if json {
        let facts: Vec<_> = (found.facts.iter())
            .map(|f| json!({"what": f.what, "good": f.good, "text": f.text, "fix": f.fix}))
            .collect();
        let settings: Vec<_> = (found.settings.iter())
            .map(|s| json!({"name": s.name, "value": s.value, "source": s.source.to_string()}))
            .collect();
        output::json(&json!({"good": good, "facts": facts, "settings": settings}));
    } else {
        for fact in &found.facts {
            let sign = if fact.good { "ok     " } else { "missing" };
            output::line(format!("{sign} {:<7} {}", fact.what, fact.text));
            if let Some(fix) = &fact.fix {
                output::line(format!("{:<15} fix: {fix}", ""));
            }
        }
        let mut rows = vec![["setting", "value", "source"].map(str::to_owned).to_vec()];
        rows.extend(found.settings.iter().map(|s| {
            let value = if s.value.is_empty() { "none" } else { &s.value };
            vec![s.name.clone(), value.to_owned(), s.source.to_string()]
        }));
        output::line("");
        output::table(&rows);
    }
    Ok(ExitCode::from(u8::from(!good)))
}

/// Adds what a round trip with each store gave, where that was asked for.
#[cfg(feature = "remote")]
fn ask_stores(jit: &Jit, matches: &ArgMatches, found: &mut Diagnosis) {
    if matches.get_flag("stores") {
        found.facts.extend(crate::engine::doctor::try_stores(jit));
    }
}

#[cfg(not(feature = "remote"))]
fn ask_stores(_: &Jit, _: &ArgMatches, _: &mut Diagnosis) {}
