//! `jitc doctor`: what is here, what is missing, and how to fix it.

mod cache;
mod gpu;
mod settings;
mod toolchain;

use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::json;

use super::{Answer, output};
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;

pub(super) fn command(_: &Registry) -> clap::Command {
    clap::Command::new("doctor").about("Check the installation and suggest fixes")
}

/// One thing that was looked at.
struct Fact {
    what: &'static str,
    /// Whether the main job, `jitc warm`, could run for all of this.
    good: bool,
    text: String,
    /// How to fix it, where there is something to fix.
    fix: Option<String>,
}

impl Fact {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            what,
            good: true,
            text: text.into(),
            fix: None,
        }
    }

    fn missing(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what,
            good: false,
            text: text.into(),
            fix: Some(fix.into()),
        }
    }
}

pub(super) fn run(jit: &Jit, _: &ArgMatches, json: bool) -> Answer {
    let config = jit.config();
    let python = toolchain::pip_version();
    let mut facts = vec![
        toolchain::facts(config, python.is_some())?,
        toolchain::header_sets(config),
        match python {
            Some(version) => Fact::good("python", version),
            None => Fact::good(
                "python",
                "no python3 with pip; only fetching NVRTC and header sets needs it",
            ),
        },
    ];
    facts.extend(gpu::facts(jit)?);
    facts.push(cache::fact(config));
    facts.extend(cache::passed_over(jit));
    facts.extend(settings::fact(config));
    let good = facts.iter().all(|fact| fact.good);
    let settings = settings::effective(jit);
    if json {
        let facts: Vec<_> = facts
            .iter()
            .map(|f| json!({"what": f.what, "good": f.good, "text": f.text, "fix": f.fix}))
            .collect();
        let settings: Vec<_> = settings
            .iter()
            .map(|s| json!({"name": s.name, "value": s.value, "source": s.source.to_string()}))
            .collect();
        output::json(&json!({"good": good, "facts": facts, "settings": settings}));
    } else {
        for fact in &facts {
            let sign = if fact.good { "ok     " } else { "missing" };
            output::line(format!("{sign} {:<7} {}", fact.what, fact.text));
            if let Some(fix) = &fact.fix {
                output::line(format!("{:<15} fix: {fix}", ""));
            }
        }
        let mut rows = vec![["setting", "value", "source"].map(str::to_owned).to_vec()];
        rows.extend(settings.iter().map(|s| {
            let value = if s.value.is_empty() { "none" } else { &s.value };
            vec![s.name.clone(), value.to_owned(), s.source.to_string()]
        }));
        output::line("");
        output::table(&rows);
    }
    Ok(ExitCode::from(u8::from(!good)))
}
