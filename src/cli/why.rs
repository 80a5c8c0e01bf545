//! `jitc why`: whether a request is a hit, and what stands in its way.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::json;

use super::{Answer, args, output};
use crate::engine::cache::Why;
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;

pub(super) fn command(registry: &Registry) -> Command {
    let why = Command::new("why")
        .about("Say whether a request is a hit, and if not, what differs from the nearest entry");
    args::constants(why.arg(args::family_names()), registry)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let mut all_hit = true;
    for spec in super::specs(jit, &args::families(matches))? {
        let (subject, _) = jit.describe(&spec)?;
        let why = jit.cache().why(&subject);
        all_hit &= matches!(why, Why::Hit(_));
        if json {
            let mut object = json!({"key": subject.key, "family": subject.family,
                "constants": subject.constants, "arch": subject.arch});
            let (answer, detail) = match &why {
                Why::Hit(tier) => ("hit", json!({"tier": tier})),
                Why::Bad { tier, fault } => ("bad", json!({"tier": tier, "fault": fault.to_string()})),
                Why::Miss(nearest) => ("miss", json!({"nearest": nearest})),
            };
            object["answer"] = answer.into();
            for (name, value) in detail.as_object().into_iter().flatten() {
                object[name] = value.clone();
            }
            output::json(&object);
            continue;
        }
        let request = format!("{} {} {}", subject.family, spec.variant(), spec.arch);
        match why {
            Why::Hit(tier) => output::line(format!("hit ({tier}): {request}: {}", subject.key)),
            Why::Bad { tier, fault } => {
                output::line(format!("bad ({tier}): {request}: {}: {fault}", subject.key));
            }
            Why::Miss(None) => output::line(format!("miss: {request}: {}: the cache is empty", subject.key)),
            Why::Miss(Some(nearest)) => {
                output::line(format!("miss: {request}: {}", subject.key));
                output::line(format!("  nearest is {} ({})", nearest.key, nearest.tier));
                for difference in &nearest.differences {
                    output::line(format!("  {difference}"));
                }
            }
        }
    }
    Ok(ExitCode::from(u8::from(!all_hit)))
}
