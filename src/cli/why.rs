//! `jitc why`: whether a request is a hit, and what stands in its way.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::json;

use super::{Answer, args, output};
use crate::engine::cache::{Why, passed_over, why};
use crate::engine::jit::{Jit, Verdict};
use crate::engine::request::template::Registry;

pub(super) fn command(registry: &Registry) -> Command {
    let why = Command::new("why")
        .about("Say whether a request is a hit, and if not, what differs from the nearest entry");
    args::constants(why.arg(args::family_names()), registry)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let mut all_hit = true;
    for spec in super::specs(jit, &args::families(matches))? {
        let (request, _) = jit.describe(&spec)?;
        let answer = why(jit.cache().tiers(), &request);
        // What a load would refuse is no hit, whatever the tiers have.
        let refused = match jit.peek_request(&spec, &request)? {
            Verdict::Refused(drift) => Some(drift),
            _ => None,
        };
        let passed_over = passed_over(jit.cache().tiers(), request.key());
        all_hit &= matches!(answer, Why::Hit(_)) && refused.is_none();
        if json {
            let mut object = json!({"key": request.key(), "family": request.family(),
                "constants": request.constants(), "arch": request.arch()});
            let (word, detail) = match &answer {
                Why::Hit(tier) => ("hit", json!({"tier": tier})),
                Why::Bad { tier, fault } => ("bad", json!({"tier": tier, "fault": fault.to_string()})),
                Why::Miss(nearest) => ("miss", json!({"nearest": nearest})),
            };
            object["answer"] = word.into();
            if let Some(drift) = &refused {
                object["answer"] = "refused".into();
                object["refused"] = drift.to_string().into();
            }
            object["passed_over"] = passed_over.into();
            for (name, value) in detail.as_object().into_iter().flatten() {
                object[name] = value.clone();
            }
            output::json(&object);
            continue;
        }
        let requested = format!("{} {} {}", request.family(), spec.variant(), spec.arch());
        if let Some(drift) = refused {
            output::line(format!(
                "refused: {requested}: {drift}, and a receipt is required"
            ));
            // Beside that the tiers may lack it too: what they have instead says why.
            if matches!(answer, Why::Hit(_)) {
                continue;
            }
        }
        match answer {
            Why::Hit(tier) => output::line(format!("hit ({tier}): {requested}: {}", request.key())),
            Why::Bad { tier, fault } => {
                output::line(format!("bad ({tier}): {requested}: {}: {fault}", request.key()));
            }
            Why::Miss(None) => output::line(format!(
                "miss: {requested}: {}: {}",
                request.key(),
                if passed_over.is_empty() {
                    "the cache is empty"
                } else {
                    "the rest of the cache is empty"
                }
            )),
            Why::Miss(Some(nearest)) => {
                output::line(format!("miss: {requested}: {}", request.key()));
                output::line(format!("  nearest is {} ({})", nearest.key, nearest.tier));
                for difference in &nearest.differences {
                    output::line(format!("  {difference}"));
                }
            }
        }
        for sentence in &passed_over {
            output::line(format!("  {sentence}"));
        }
    }
    Ok(ExitCode::from(u8::from(!all_hit)))
}
