//! The command line's shape. A flag for every constant of every family.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Answer, output};
use crate::engine::config::{FlagConstant, Flags};
use crate::engine::jit::{Error, Jit};
use crate::engine::request::template::Registry;

/// `--templates` decides which flags there are, and `--color` how clap prints an
/// error: both are looked for before clap reads the line.
pub(super) fn early<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    words
        .iter()
        .enumerate()
        .find_map(|(i, word)| match word.strip_prefix(flag)? {
            "" => words.get(i + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
}

/// The whole command.
pub(super) fn command(registry: &Registry) -> Command {
    Command::new("jitc")
        .version(env!("CARGO_PKG_VERSION"))
        .about("CUDA kernels specialised at compile time, made at run time")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(super::VERBS.iter().map(|verb| common((verb.command)(registry))))
}

/// A flag that takes a path.
pub(super) fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help(help)
}

/// A flag for a measured time.
pub(super) fn microseconds(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("US")
        .value_parser(|text: &str| match text.parse::<f64>() {
            Ok(us) if us > 0.0 && us.is_finite() => Ok(us),
            _ => Err("expected microseconds, more than 0"),
        })
        .allow_negative_numbers(true)
        .help(help)
}

/// Reads a whole number of at least one.
pub(super) fn count<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|n| *n >= T::from(1));
    number.ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// Refuses constants on the command line that none of these families has, and those of
/// the config file that no family has.
pub(super) fn constants_of(jit: &Jit, families: &[&str]) -> Result<(), Error> {
    Ok(jit.registry().check_constants(families, jit.config())?)
}

/// Flags that every verb takes.
fn common(command: Command) -> Command {
    let path = |name, help| path(name, help).global(true);
    command.args([
        path("cache-dir", "The cache's folder"),
        path(
            "cache-ro",
            "A folder of entries that is only read from; again for more, asked in order",
        )
        .action(ArgAction::Append),
        path("nvrtc", "NVRTC: a file or a folder"),
        path("templates", "Families over, or beside, the embedded ones"),
        path(
            "env-file",
            "KEY=VALUE lines for what the environment does not set",
        ),
        path("config", "Config file [default: jitc.toml here]"),
        Arg::new("color")
            .long("color")
            .global(true)
            .value_name("WHEN")
            .value_parser(["auto", "always", "never"])
            .default_value("auto")
            .help("Colours: where the output is a terminal, always, or never"),
        Arg::new("offline")
            .long("offline")
            .global(true)
            .action(ArgAction::SetTrue)
            .help("Never fetch anything"),
        Arg::new("json")
            .long("json")
            .global(true)
            .action(ArgAction::SetTrue)
            .help("Print JSON"),
        Arg::new("quiet")
            .long("quiet")
            .global(true)
            .short('q')
            .action(ArgAction::SetTrue)
            .help("Say less"),
        Arg::new("verbose")
            .long("verbose")
            .global(true)
            .short('v')
            .action(ArgAction::Count)
            .help("Say more"),
    ])
}

/// `--arch`, `--set` and a flag for each constant.
pub(super) fn constants(command: Command, registry: &Registry) -> Command {
    let mut command = command
        .arg(
            Arg::new("arch")
                .long("arch")
                .value_name("LIST")
                .help("Architectures, such as sm_90a,sm_100a"),
        )
        .arg(
            Arg::new("preset")
                .long("preset")
                .value_name("NAME")
                .help("A family's named set of constants; `jitc families` lists them"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("NAME=LIST")
                .action(ArgAction::Append)
                .help("Set a constant by name"),
        );
    let mut seen = BTreeMap::new();
    for family in registry.families() {
        for constant in family.constants.values() {
            seen.entry(constant.name.clone())
                .or_insert_with(|| constant.clone());
        }
    }
    for (name, constant) in seen {
        let help = format!(
            "{} ({}) [default: {}]",
            constant.help, constant.legal, constant.default
        );
        let arg = Arg::new(format!("constant:{name}"))
            .long(name.replace('_', "-"))
            .value_name("LIST");
        command = command.arg(arg.help(help).help_heading("Constants"));
    }
    command
}

/// What the command line said.
pub(super) fn flags(matches: &ArgMatches, registry: &Registry) -> Result<Flags, String> {
    let path = |name: &str| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
    let mut constants = Vec::new();
    let names = registry.families().flat_map(|f| f.constants.keys());
    for name in names {
        let id = format!("constant:{name}");
        if let Ok(Some(value)) = matches.try_get_one::<String>(&id) {
            constants.push(FlagConstant {
                name: name.clone(),
                value: value.clone(),
                flag: format!("--{}", name.replace('_', "-")),
            });
        }
    }
    for text in matches
        .try_get_many::<String>("set")
        .ok()
        .flatten()
        .into_iter()
        .flatten()
    {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--set {text}: expected NAME=VALUE, such as wo_split=8"))?;
        constants.push(FlagConstant {
            name: name.to_owned(),
            value: value.to_owned(),
            flag: "--set".into(),
        });
    }
    Ok(Flags {
        cache_dir: path("cache-dir"),
        cache_ro: matches
            .try_get_many::<PathBuf>("cache-ro")
            .ok()
            .flatten()
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        nvrtc: path("nvrtc"),
        offline: matches.get_flag("offline"),
        preset: matches.try_get_one::<String>("preset").ok().flatten().cloned(),
        templates: path("templates"),
        env_file: path("env-file"),
        config: path("config"),
        arch: matches.try_get_one::<String>("arch").ok().flatten().cloned(),
        jobs: matches.try_get_one::<usize>("jobs").ok().flatten().copied(),
        constants,
    })
}

/// Families by name, as an argument.
pub(super) fn family_names() -> Arg {
    Arg::new("family")
        .num_args(0..)
        .help("Families; without one, every family that declares the constants given")
}

/// The families named.
pub(super) fn families(matches: &ArgMatches) -> Vec<String> {
    matches
        .get_many::<String>("family")
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

/// `jitc completions`.
pub(super) fn completions_command(_: &Registry) -> Command {
    Command::new("completions")
        .about("Print a completion script")
        .arg(
            Arg::new("shell")
                .required(true)
                .value_parser(value_parser!(clap_complete::Shell)),
        )
}

/// Prints a completion script.
#[expect(clippy::unnecessary_wraps, reason = "the signature of every verb")]
pub(super) fn completions(jit: &Jit, matches: &ArgMatches, _json: bool) -> Answer {
    if let Some(shell) = matches.get_one::<clap_complete::Shell>("shell") {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut command(jit.registry()), "jitc", &mut script);
        output::text(String::from_utf8_lossy(&script));
    }
    Ok(ExitCode::SUCCESS)
}
