//! A flag for every constant of every family, and which of them a help shows.
//!
//! Invariant: a flag that help leaves out is still understood, so that a constant of
//! another family is refused by its name and not as an unknown word.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::args::with_variable;
use crate::engine::config::FlagConstant;
use crate::engine::request::template::{Constant, Family, Registry};
use crate::families::harness;

/// Before the id of a constant's flag, whose long name may be that of another argument's id.
const ID: &str = "constant:";

/// The id of a constant's flag.
fn id(name: &str) -> String {
    format!("{ID}{name}")
}

/// `--arch`, `--preset`, `--set` and a flag for each constant. A constant whose flag this
/// command has already for something else is set by `--set` alone.
pub(super) fn constants(command: Command, registry: &Registry) -> Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name(value).help(help);
        with_variable(arg)
    };
    let mut command = command
        .arg(flag("arch", "LIST", "Architectures, such as sm_90a,sm_100a"))
        .arg(flag(
            "preset",
            "NAME",
            "A family's named set of constants; `jitc families` lists them",
        ))
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("NAME=LIST")
                .action(ArgAction::Append)
                .help("Set a constant by name"),
        );
    let families: Vec<&Arc<Family>> = registry.families().collect();
    for (name, declared) in declarations(&families) {
        let long = name.replace('_', "-");
        if command
            .get_arguments()
            .any(|a| a.get_long() == Some(long.as_str()))
        {
            continue;
        }
        let arg = Arg::new(id(name)).long(long).value_name("LIST");
        command = command.arg(arg.help(help(&declared)).help_heading("Constants"));
    }
    command
}

/// The values that families list for the constant of this flag; none where it is not one, or
/// has a range.
pub(super) fn listed(id: &str, registry: &Registry) -> Vec<String> {
    let constants = registry
        .families()
        .filter_map(|family| family.constants.get(id.strip_prefix(ID)?));
    let values = constants.filter_map(|constant| constant.legal.listed());
    values.flatten().collect()
}

/// The same command, with the constants of these families alone in its help.
pub(super) fn of_families(command: Command, families: &[&Arc<Family>]) -> Command {
    let declared = declarations(families);
    let names: Vec<&str> = families.iter().map(|f| f.name.as_str()).collect();
    let heading = format!("Constants of {}", names.join(", "));
    command.mut_args(|arg| {
        let Some(name) = arg.get_id().as_str().strip_prefix(ID) else {
            return arg;
        };
        match declared.get(name) {
            Some(declared) => arg.help(help(declared)).help_heading(heading.clone()),
            None => arg.hide(true),
        }
    })
}

/// The family of a name as people write it: its own, one that it had, or another one under
/// which it is measured.
fn family_of<'r>(word: &str, registry: &'r Registry) -> Option<&'r Arc<Family>> {
    let formerly = || registry.formerly(word).map(|(family, _)| family);
    let measured = || {
        let name = harness(word)?.names().first()?;
        registry.get(name).ok()
    };
    registry.get(word).ok().or_else(formerly).or_else(measured)
}

/// The families that a command line names.
pub(super) fn named<'r>(words: &[&str], registry: &'r Registry) -> Vec<&'r Arc<Family>> {
    let mut found: Vec<&Arc<Family>> = Vec::new();
    for word in words {
        let value = match word.strip_prefix("--") {
            Some(flag) => flag.split_once('=').map_or("", |(_, value)| value),
            None => word,
        };
        let family = family_of(value, registry);
        found.extend(family.filter(|family| !found.iter().any(|f| f.name == family.name)));
    }
    found
}

/// The family that a verb is about where none is named; none where it may be about any.
pub(super) fn usual<'r>(verb: &Command, registry: &'r Registry) -> Option<&'r Arc<Family>> {
    let family = verb.get_arguments().find(|arg| arg.get_id() == "family")?;
    family_of(family.get_default_values().first()?.to_str()?, registry)
}

/// Constants by name, with the families that declare them.
type Declared<'f> = Vec<(&'f str, &'f Constant)>;

fn declarations<'f>(families: &[&'f Arc<Family>]) -> BTreeMap<&'f str, Declared<'f>> {
    let mut all: BTreeMap<&str, Declared<'f>> = BTreeMap::new();
    for family in families {
        for (name, constant) in &family.constants {
            all.entry(name).or_default().push((&family.name, constant));
        }
    }
    all
}

/// What help says of a constant: once where all families declare it alike, else a line
/// for those that do.
fn help(declared: &[(&str, &Constant)]) -> String {
    let mut texts: Vec<(String, Vec<&str>)> = Vec::new();
    for (family, constant) in declared {
        let text = format!(
            "{} ({}) [default: {}]",
            constant.help, constant.legal, constant.default
        );
        match texts.iter_mut().find(|(known, _)| *known == text) {
            Some((_, families)) => families.push(family),
            None => texts.push((text, vec![family])),
        }
    }
    if let [(text, _)] = texts.as_slice() {
        return text.clone();
    }
    let lines = texts
        .iter()
        .map(|(text, families)| format!("{}: {text}", families.join(", ")));
    lines.collect::<Vec<_>>().join("\n")
}

/// Constants that the command line sets, in the order of flags, then of `--set`.
pub(super) fn given(matches: &ArgMatches, registry: &Registry) -> Result<Vec<FlagConstant>, String> {
    let mut constants = Vec::new();
    let names = registry.families().flat_map(|f| f.constants.keys());
    for name in names {
        if let Ok(Some(value)) = matches.try_get_one::<String>(&id(name)) {
            constants.push(FlagConstant {
                name: name.clone(),
                value: value.clone(),
                flag: format!("--{}", name.replace('_', "-")),
            });
        }
    }
    let set = matches.try_get_many::<String>("set").ok().flatten();
    for text in set.into_iter().flatten() {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--set {text}: expected NAME=VALUE, such as wo_split=8"))?;
        constants.push(FlagConstant {
            name: name.to_owned(),
            value: value.to_owned(),
            flag: "--set".into(),
        });
    }
    Ok(constants)
}
