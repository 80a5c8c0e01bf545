//! `jitc doctor`: what is here, what is missing, and how to fix it.

use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::json;

use super::{Answer, output};
use crate::engine::doctor::{diagnose, try_stores, versions};
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;

pub(super) fn command(_: &Registry) -> clap::Command {
    let about = "Check the installation and suggest fixes";
    let stores = clap::Arg::new("stores")
        .long("stores")
        .action(clap::ArgAction::SetTrue);
    let stores = stores.help("Try a round trip with each store that the fleet shares, too");
    clap::Command::new("doctor").about(about).arg(stores)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let mut found = diagnose(jit)?;
    if matches.get_flag("stores") {
        found.facts.extend(try_stores(jit));
    }
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

pub(super) fn version_command(_: &Registry) -> clap::Command {
    let about = "Print the version; with --verbose those of keys, formats, compiler and driver, too";
    clap::Command::new("version").about(about)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of every verb")]
pub(super) fn version(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let all = versions(jit);
    let shown = if matches.get_count("verbose") > 0 {
        all.len()
    } else {
        1
    };
    let shown = &all[..shown];
    if json {
        let members = shown.iter().map(|(name, text)| ((*name).to_owned(), json!(text)));
        output::json(&serde_json::Value::Object(members.collect()));
    } else {
        for (name, text) in shown {
            output::line(format!("{name} {text}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
