//! `jitc why`: whether a request is a hit, and what stands in its way.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::json;

use super::{Answer, args, output};
use crate::engine::build::toolchain::pinned_identity;
use crate::engine::cache::{Why, passed_over, store_answers};
use crate::engine::jit::Jit;
use crate::engine::request::target::ToolchainIdentity;
use crate::engine::request::template::Registry;

pub(super) fn command(registry: &Registry) -> Command {
    let why = Command::new("why")
        .about("Say whether a request is a hit, and if not, what differs from the nearest entry");
    args::constants(why.arg(args::family_names()), registry)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let mut all_hit = true;
    for spec in super::specs(jit, &args::families(matches))? {
        let (request, answer) = jit.why(&spec)?;
        let passed_over = passed_over(jit.cache().tiers(), request.key());
        let stand_in = jit.stand_in(&spec)?;
        all_hit &= stand_in.is_some() || matches!(answer, Why::Hit(_));
        if json {
            let mut object = json!({"key": request.key(), "family": request.family(),
                "constants": request.constants(), "arch": request.arch(), "toolchain": request.toolchain()});
            let (word, detail) = match (&stand_in, &answer) {
                (Some(stand_in), _) => (
                    "compatible",
                    json!({"tier": stand_in.tier, "code": {"arch": stand_in.spec.arch(), "key": stand_in.request.key()}}),
                ),
                (None, Why::Hit(tier)) => ("hit", json!({"tier": tier})),
                (None, Why::Bad { tier, fault }) => {
                    ("bad", json!({"tier": tier, "fault": fault.to_string()}))
                }
                (None, Why::Refused(drift)) => ("refused", json!({"reason": drift.to_string()})),
                (None, Why::Miss(nearest)) => ("miss", json!({"nearest": nearest})),
            };
            object["answer"] = word.into();
            object["passed_over"] = passed_over.into();
            object["stores"] = json!(store_answers(jit.cache().tiers(), request.key()));
            for (name, value) in detail.as_object().into_iter().flatten() {
                object[name] = value.clone();
            }
            output::json(&object);
            continue;
        }
        let requested = format!("{} {} {}", request.family(), spec.variant(), spec.arch());
        if let Some(stand_in) = stand_in {
            let (tier, arch, key) = (stand_in.tier, stand_in.spec.arch(), stand_in.request.key());
            output::line(format!("hit ({tier}): {requested}: by code for {arch}: {key}"));
            continue;
        }
        match answer {
            Why::Hit(tier) => {
                output::line(format!("hit ({tier}): {requested}: {}", request.key()));
                // Where nothing is compiled it does not matter whether one is found.
                if let Ok(found) = jit.identity()
                    && found != *request.toolchain()
                {
                    output::line(format!(
                        "  made by {}; {found} is found here",
                        request.toolchain()
                    ));
                }
            }
            Why::Bad { tier, fault } => {
                output::line(format!("bad ({tier}): {requested}: {}: {fault}", request.key()));
            }
            Why::Refused(drift) => {
                output::line(format!("refused: {requested}: as a receipt is required: {drift}"));
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
                if nearest.differs_in_compiler_alone() {
                    output::line(format!(
                        "  made by {}, and requested of {}: JITC_TOOLCHAIN={} looks it up",
                        nearest.made_by,
                        request.toolchain(),
                        choice(&nearest.made_by)
                    ));
                }
                for difference in &nearest.differences {
                    output::line(format!("  {difference}"));
                }
            }
        }
        for sentence in &passed_over {
            output::line(format!("  {sentence}"));
        }
        for answer in store_answers(jit.cache().tiers(), request.key()) {
            output::line(format!("  {answer}"));
        }
    }
    Ok(ExitCode::from(u8::from(!all_hit)))
}

/// The value of `toolchain` that asks for this compiler's identity.
fn choice(made_by: &ToolchainIdentity) -> &str {
    if pinned_identity().as_ref() == Some(made_by) {
        "pinned"
    } else {
        &made_by.version
    }
}
