//! `jitc dispatch FAMILY`: which variant a family's own rules choose, and whether the cache
//! has it. Writes nothing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::json;

use crate::cli::{Answer, args, output};
use crate::engine::cache::Judged;
use crate::engine::jit::{DispatchExplanation, Error, ExplainError, Jit};
use crate::engine::run::device::Device;
use crate::engine::run::dispatch::Chosen;
use crate::measure::MeasureError;

/// Flags that are about the decode layer alone.
const OF_LAYER: [&str; 6] = ["tokens", "path", "layers", "layer", "max-tokens", "compile"];

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool, name: &str, device: &Device) -> Answer {
    let named = jit.registry().named(name).map_err(Error::from)?;
    let family = named.family();
    args::constants_of(jit, &[family.name.as_str()])?;
    let given = |flag: &&&str| matches.value_source(flag) == Some(ValueSource::CommandLine);
    if let Some(flag) = OF_LAYER.iter().find(given) {
        return Err(MeasureError::Request(format!(
            "--{flag} is about the decode layer: expected --size NAME=COUNT for `{}`",
            family.name
        )));
    }
    let explained = jit.explain_dispatch(&named, device, &sizes_of(matches)?);
    let explained = explained.map_err(|error| match error {
        ExplainError::Jit(error) => error.into(),
        other => MeasureError::Request(other.to_string()),
    })?;
    let (spec, key) = (&explained.spec, explained.request.key());
    let tier = match &explained.judged {
        Judged::Hit { tier, .. } => Some(tier.to_string()),
        _ => None,
    };
    let chosen = explained.selected;
    if json {
        let sizes: BTreeMap<&str, u32> = explained.problem.iter().map(|(n, s)| (n.as_str(), *s)).collect();
        output::json(&json!({"event": "choice", "device": device.name, "sizes": sizes,
            "family": family.name, "variant": spec.variant(), "arch": spec.arch().to_string(),
            "origin": chosen.chosen, "rule": chosen.rule, "key": key.to_string(),
            "cached": tier.is_some(), "tier": tier}));
    }
    if matches.get_flag("explain") {
        print_rules(&explained, json);
    }
    if !json {
        let by = chosen.rule.map_or(String::new(), |number| {
            let rule = &explained.rules[number - 1];
            let when = rule.when.as_deref().unwrap_or("all other problems");
            let because = (rule.because.as_ref()).map_or(String::new(), |why| format!(": {why}"));
            format!(" {number}: {when}{because}")
        });
        let problem: Vec<String> = (explained.problem.iter().map(|(n, s)| format!("{n} = {s}"))).collect();
        output::line(format!(
            "{}, {}: {} {}: {}{by}",
            device.name,
            problem.join(", "),
            family.name,
            spec.variant(),
            match chosen.chosen {
                Chosen::Forced => "set, and by rule".to_owned(),
                other => other.to_string(),
            },
        ));
        match &tier {
            Some(tier) => output::line(format!("hit in {tier}: {}", key.short())),
            None => output::line(format!("miss: {}", key.short())),
        }
    }
    if let Judged::Refused(drift) = &explained.judged {
        output::note(format!("refused, as a receipt is required: {drift}"));
    } else if tier.is_none() {
        output::note(format!("`{}` would warm it", jit.warm_command(spec)));
    }
    Ok(ExitCode::from(u8::from(tier.is_none())))
}

/// `--size NAME=COUNT`, as often as there are sizes.
fn sizes_of(matches: &ArgMatches) -> Result<BTreeMap<String, u32>, MeasureError> {
    let mut sizes = BTreeMap::new();
    for word in matches.get_many::<String>("size").into_iter().flatten() {
        let read = word
            .split_once('=')
            .and_then(|(name, count)| Some((name, count.parse().ok()?)));
        let Some((name, count)) = read else {
            return Err(MeasureError::Request(format!(
                "--size {word}: expected NAME=COUNT, such as n=4096"
            )));
        };
        if sizes.insert(name.to_owned(), count).is_some() {
            return Err(MeasureError::Request(format!(
                "--size {word}: `{name}` was given already"
            )));
        }
    }
    Ok(sizes)
}

fn print_rules(explained: &DispatchExplanation, json: bool) {
    let mut rows = vec![["rule", "when", "holds", "sets"].map(str::to_owned).to_vec()];
    for (index, rule) in explained.rules.iter().enumerate() {
        let number = index + 1;
        if json {
            output::json(
                &json!({"event": "rule", "rule": number, "when": rule.when, "holds": rule.holds,
                "sets": rule.sets, "because": rule.because, "selected": explained.selected.rule == Some(number)}),
            );
        }
        let holds = rule
            .holds
            .map_or("no number", |holds| if holds { "yes" } else { "no" });
        rows.push(vec![
            number.to_string(),
            rule.when.as_deref().unwrap_or("else").to_owned(),
            holds.to_owned(),
            rule.sets.join(", "),
        ]);
    }
    if !json {
        output::table(&rows);
        output::line("");
    }
}
