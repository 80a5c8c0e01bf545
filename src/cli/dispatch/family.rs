//! `jitc dispatch FAMILY`: which variant a family's own rules choose, and whether the cache
//! has it. Writes nothing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::json;

use crate::cli::{Answer, args, output};
use crate::engine::cache::Judged;
use crate::engine::config::Config;
use crate::engine::jit::{Error, Jit};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Constant, Dispatch, Family};
use crate::engine::run::device::Device;
use crate::engine::run::dispatch::{Chosen, Dispatcher, Selected};
use crate::measure::MeasureError;

/// Flags that are about the decode layer alone.
const OF_LAYER: [&str; 6] = ["tokens", "path", "layers", "layer", "max-tokens", "compile"];

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool, name: &str, device: &Device) -> Answer {
    let named = jit.registry().named(name).map_err(Error::from)?;
    let family = named.family();
    args::constants_of(jit, &[family.name.as_str()])?;
    let refused = |reason: String| MeasureError::Request(reason);
    let given = |flag: &&&str| matches.value_source(flag) == Some(ValueSource::CommandLine);
    if let Some(flag) = OF_LAYER.iter().find(given) {
        return Err(refused(format!(
            "--{flag} is about the decode layer: expected --size NAME=COUNT for `{}`",
            family.name
        )));
    }
    let rules = family.dispatch.as_ref().ok_or_else(|| {
        let all = jit.registry().families();
        let with: Vec<&str> = all
            .filter(|f| f.dispatch.is_some())
            .map(|f| f.name.as_str())
            .collect();
        refused(format!(
            "`{}` has no [dispatch] in its TOML: families that have rules: {}",
            family.name,
            if with.is_empty() {
                "none".to_owned()
            } else {
                with.join(", ")
            }
        ))
    })?;
    let sizes = rules.in_order(&sizes_of(matches)?).map_err(refused)?;
    let arch = Arch::of_device(device.major, device.minor);
    let asked = KernelSpec::expand(named.clone(), jit.config(), &[arch]).map_err(Error::from)?;
    let [asked] = &asked[..] else {
        return Err(refused(format!(
            "{} variants are requested: expected one value for each constant",
            asked.len()
        )));
    };
    let forced = forced(jit.config(), family);
    let dispatcher = Dispatcher::new(asked, device, &forced).map_err(|e| refused(e.to_string()))?;
    let selected = dispatcher.select(&sizes).map_err(|e| refused(e.to_string()))?;
    let spec = &dispatcher.variants()[selected.variant];
    let (request, judged) = jit.judge(spec)?;
    let tier = match &judged {
        Judged::Hit { tier, .. } => Some(tier.to_string()),
        _ => None,
    };
    let problem: Vec<String> = (rules.sizes.iter().zip(&sizes))
        .map(|(name, size)| format!("{name} = {size}"))
        .collect();
    let rule = selected.rule.map(|number| (number, &rules.rules[number - 1]));
    if json {
        let named: BTreeMap<&str, u32> = names(rules).zip(sizes.iter().copied()).collect();
        output::json(&json!({"event": "choice", "device": device.name, "sizes": named,
            "family": family.name, "variant": spec.variant(), "arch": spec.arch().to_string(),
            "origin": selected.chosen, "rule": selected.rule, "key": request.key().to_string(),
            "cached": tier.is_some(), "tier": tier}));
    }
    if matches.get_flag("explain") {
        print_rules(rules, &dispatcher, &sizes, &selected, json);
    }
    if !json {
        let by = rule.map_or(String::new(), |(number, rule)| {
            let when = rule
                .when
                .as_ref()
                .map_or("all other problems", |when| when.text.as_str());
            let because = rule
                .because
                .as_ref()
                .map_or(String::new(), |why| format!(": {why}"));
            format!(" {number}: {when}{because}")
        });
        output::line(format!(
            "{}, {}: {} {}: {}{by}",
            device.name,
            problem.join(", "),
            family.name,
            spec.variant(),
            if selected.chosen == Chosen::Forced {
                "set, and by rule"
            } else {
                "by rule"
            },
        ));
        match &tier {
            Some(tier) => output::line(format!("hit in {tier}: {}", request.key().short())),
            None => output::line(format!("miss: {}", request.key().short())),
        }
    }
    if let Judged::Refused(drift) = &judged {
        output::note(format!("refused, as a receipt is required: {drift}"));
    } else if tier.is_none() {
        output::note(format!("`{}` would warm it", jit.warm_command(spec)));
    }
    Ok(ExitCode::from(u8::from(tier.is_none())))
}

fn names(rules: &Dispatch) -> impl Iterator<Item = &str> {
    rules.sizes.iter().map(String::as_str)
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

/// Constants that a flag, a variable, a file or a preset sets.
fn forced<'f>(config: &Config, family: &'f Family) -> Vec<&'f str> {
    let preset = config.preset(&family.preset_variables);
    let preset = preset.and_then(|name| family.preset(&name.value));
    let is_set = |(name, constant): &(&'f String, &'f Constant)| {
        config.constant(name, &constant.variables).is_some()
            || preset.is_some_and(|preset| preset.constants.contains_key(*name))
    };
    let set = family.constants.iter().filter(is_set);
    set.map(|(name, _)| name.as_str()).collect()
}

fn print_rules(rules: &Dispatch, dispatcher: &Dispatcher, sizes: &[u32], selected: &Selected, json: bool) {
    let mut rows = vec![["rule", "when", "holds", "sets"].map(str::to_owned).to_vec()];
    for (index, (rule, holds)) in rules.rules.iter().zip(dispatcher.conditions(sizes)).enumerate() {
        let (number, when) = (index + 1, rule.when.as_ref().map(|when| when.text.as_str()));
        let set: Vec<String> = rule
            .set
            .iter()
            .map(|(name, by)| format!("{name} = {by}"))
            .collect();
        if json {
            output::json(
                &json!({"event": "rule", "rule": number, "when": when, "holds": holds,
                "sets": set, "because": rule.because, "selected": selected.rule == Some(number)}),
            );
        }
        rows.push(vec![
            number.to_string(),
            when.unwrap_or("else").to_owned(),
            holds
                .map_or("no number", |holds| if holds { "yes" } else { "no" })
                .to_owned(),
            set.join(", "),
        ]);
    }
    if !json {
        output::table(&rows);
        output::line("");
    }
}
