//! Verbs that families offer: flags from their declarations, events to the printer.
//!
//! Invariant: everything that is measured lies in the families; here flags become
//! options, and events lines.

use std::process::ExitCode;
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Answer, args, output};
use crate::engine::config::{Config, Source};
use crate::engine::jit::Jit;
use crate::engine::request::template::{Family, Registry};
use crate::families::{harness, harness_of, harnesses, usual_harness};
use crate::measure::harness::{Event, Flag, Harness, Options, Session, Verb, Verdict};
use crate::measure::{MeasureError, declared};

/// What a verb is for.
fn about(verb: Verb) -> &'static str {
    match verb {
        Verb::Verify => "Check kernels on a GPU against CPU references",
        Verb::Bench => "Verify, then benchmark, on a GPU",
        Verb::Tune => "Auto-tune launch geometry on this GPU and save the fastest",
        Verb::Regions => "Reduce region timings, compare them, draw them",
    }
}

/// The command of a verb: the families that offer it, and all of their flags.
pub(super) fn command(verb: Verb, registry: &Registry) -> Command {
    let mut names: Vec<String> = Vec::new();
    for name in offering(verb).flat_map(|h| h.names().iter().copied()) {
        names.push(name.to_owned());
        // Former names are accepted, too.
        let family = registry.get(name).ok().into_iter();
        names.extend(family.flat_map(|f| f.former_names.iter().map(|f| f.name.clone())));
    }
    for family in registry.families() {
        let formerly = family.former_names.iter().map(|former| &former.name);
        let others = formerly
            .chain([&family.name])
            .filter(|name| !names.contains(name));
        let others: Vec<String> = others.cloned().collect();
        names.extend(others);
    }
    let line = |h: &dyn Harness| match h.names() {
        [] => h.about().to_owned(),
        names => format!("{}: {}", names.join(" or "), h.about()),
    };
    let lines: Vec<String> = offering(verb).map(line).collect();
    let family = Arg::new("family").value_parser(names).help(lines.join("; "));
    let family = match usual_harness(verb).and_then(|harness| harness.names().first()) {
        Some(usual) => family.default_value(usual),
        None => family.required(true),
    };
    let mut command = Command::new(verb.name()).about(about(verb)).arg(family);
    for flag in flags(verb) {
        command = command.arg(argument(&flag));
    }
    args::constants(command, registry)
}

/// The same command, with the flags that these families take alone in its help. A flag
/// that is left out is still understood, and refused by its name.
pub(super) fn of_families(mut command: Command, families: &[&Arc<Family>]) -> Command {
    let verbs = [Verb::Verify, Verb::Bench, Verb::Tune];
    let Some(verb) = verbs.into_iter().find(|verb| verb.name() == command.get_name()) else {
        return command;
    };
    let own = |family: &&Arc<Family>| harness(&family.name).unwrap_or(declared::HARNESS);
    let harnesses = families.iter().map(own);
    let own: Vec<&Flag> = harnesses.filter_map(|h| h.flags(verb)).flatten().collect();
    for flag in flags(verb) {
        command = command.mut_arg(flag.name, |arg| {
            match own.iter().find(|own| own.name == flag.name) {
                Some(own) => arg.help(help(own)),
                None => arg.hide(true),
            }
        });
    }
    command
}

/// Runs a verb of the family that was named.
pub(super) fn run(verb: Verb, jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let name = matches.get_one::<String>("family").map_or("", String::as_str);
    let compared = matches.try_contains_id("against").unwrap_or(false);
    let own = harness_of(jit.registry(), name).filter(|_| !compared);
    let harness = own.unwrap_or(declared::HARNESS);
    // A reference compares every variant that it knows; constants would change nothing.
    if verb == Verb::Verify
        && !harness.names().is_empty()
        && let Some(set) = set_by_flag(jit.config())
    {
        return Err(MeasureError::Request(format!(
            "{set}: every variant of {name} that its reference knows is verified: expected --against with it"
        )));
    }
    let options = options(harness, name, verb, matches)?;
    let session = Session {
        jit,
        name,
        options: &options,
    };
    let mut sink = |event: Event| print(event, json);
    let verdict = match verb {
        Verb::Verify => harness.verify(session, &mut sink),
        Verb::Bench => harness.bench(session, &mut sink),
        Verb::Tune => harness.tune(session, &mut sink),
        Verb::Regions => Err(harness.not_offered(session, verb)),
    }?;
    Ok(ExitCode::from(u8::from(verdict == Verdict::Wrong)))
}

/// A flag that chooses variants, if one was given.
fn set_by_flag(config: &Config) -> Option<String> {
    let constant = config.flag_constants().first().map(|set| set.flag.clone());
    constant.or_else(|| match config.flag_preset().or(config.arch())?.source {
        Source::Flag(flag) => Some(flag),
        _ => None,
    })
}

/// Prints an event: objects for programs, lines and tables for people.
pub(super) fn print(event: Event, json: bool) {
    match event {
        Event::Object(object) if json => output::json(&object),
        Event::Line(line) if !json => output::line(line),
        Event::Table(rows) if !json => output::table(&rows),
        Event::Object(_) | Event::Line(_) | Event::Table(_) => {}
        Event::Note(text) => output::note(text),
        Event::Failure(text) => output::error(text),
    }
}

fn offering(verb: Verb) -> impl Iterator<Item = &'static dyn Harness> {
    harnesses().filter(move |h| h.flags(verb).is_some())
}

/// Every flag of any family, once.
fn flags(verb: Verb) -> Vec<Flag> {
    let mut all: Vec<Flag> = Vec::new();
    for flag in offering(verb).filter_map(|h| h.flags(verb)).flatten() {
        if !all.iter().any(|known| known.name == flag.name) {
            all.push(*flag);
        }
    }
    all
}

fn help(flag: &Flag) -> String {
    match flag.default {
        Some(default) => format!("{} [default: {default}]", flag.help),
        None => flag.help.to_owned(),
    }
}

fn argument(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(help(flag))
        .hide(flag.help.is_empty());
    match flag.value {
        Some(value) if flag.repeated => arg.value_name(value).action(ArgAction::Append),
        Some(value) => arg.value_name(value).allow_hyphen_values(true),
        None => arg.action(ArgAction::SetTrue),
    }
}

/// What was given, of what the family takes; anything else is refused by name.
fn options(
    harness: &dyn Harness,
    name: &str,
    verb: Verb,
    matches: &ArgMatches,
) -> Result<Options, MeasureError> {
    let own = harness.flags(verb).unwrap_or_default();
    let foreign = flags(verb).into_iter().find(|flag| {
        let given = matches.value_source(flag.name) == Some(ValueSource::CommandLine);
        given && !own.iter().any(|of| of.name == flag.name)
    });
    match foreign {
        Some(flag) => Err(MeasureError::Request(format!(
            "--{}: {name} does not take it",
            flag.name
        ))),
        None => Ok(given(own, matches)),
    }
}

/// What was given of these flags.
pub(super) fn given(flags: &[Flag], matches: &ArgMatches) -> Options {
    let mut options = Options::of(flags);
    for flag in flags {
        if matches.value_source(flag.name) != Some(ValueSource::CommandLine) {
            continue;
        }
        if flag.value.is_none() {
            options = options.set(flag.name, "");
            continue;
        }
        for value in matches.get_raw(flag.name).into_iter().flatten() {
            options = options.add(flag.name, value.to_string_lossy());
        }
    }
    options
}
