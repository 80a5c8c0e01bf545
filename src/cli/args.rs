//! The command line's shape.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

pub(super) use super::constant_flags::constants;
use super::constant_flags::{self, given};
use super::{Answer, measured, output};
use crate::engine::config::Flags;
use crate::engine::jit::{Error, Jit};
use crate::engine::request::template::Registry;

/// `--templates` decides which flags there are, and `--color` how clap prints an
/// error: both are looked for before clap reads the line.
pub(super) fn early<'a>(words: &'a [OsString], flag: &str) -> Option<&'a OsStr> {
    words
        .iter()
        .enumerate()
        .find_map(|(i, word)| match word.as_bytes().strip_prefix(flag.as_bytes())? {
            [] => words.get(i + 1).map(OsString::as_os_str),
            [b'=', value @ ..] => Some(OsStr::from_bytes(value)),
            _ => None,
        })
}

/// Where the verb stands: the first word that is the name of one.
pub(super) fn verb_at(words: &[OsString]) -> Option<usize> {
    let named = |word: &OsString| super::VERBS.iter().any(|verb| word == verb.name);
    words.iter().position(named)
}

/// The whole command. Help shows the constants of the families that `words` name.
pub(super) fn command(registry: &Registry, words: &[OsString]) -> Command {
    // No family is called what is not text.
    let at = verb_at(words).unwrap_or(words.len());
    let mut words = words[at..].iter().filter_map(|word| word.to_str());
    let verb = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let verbs = super::VERBS.iter().map(|known| {
        let command = (known.command)(registry);
        if known.name != verb {
            return common(command);
        }
        let named = constant_flags::named(&words, registry);
        if !named.is_empty() {
            let command = constant_flags::of_families(command, &named);
            return common(measured::of_families(command, &named));
        }
        let usual = constant_flags::usual(&command, registry);
        common(match usual {
            Some(family) => constant_flags::of_families(command, &[family]),
            None => command,
        })
    });
    Command::new("jitc")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A run-time compiler and verified disk cache for specialized CUDA kernels")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(verbs)
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
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    let switch = |name, help| flag(name, help).action(ArgAction::SetTrue);
    let global = [
        path("cache-dir", "The cache's folder"),
        path(
            "cache-ro",
            "Read-only cache directory (repeatable; searched in order)",
        )
        .action(ArgAction::Append),
        flag(
            "remote",
            "Store that the fleet shares, searched after all folders (repeatable)",
        )
        .value_name("URL")
        .action(ArgAction::Append),
        path("nvrtc", "NVRTC: a file or a folder"),
        path(
            "templates",
            "Directory of kernel families; a family of the same name replaces the built-in one",
        ),
        path(
            "env-file",
            "KEY=VALUE lines for what the environment does not set",
        ),
        path("config", "Config file [default: ./jitc.toml]"),
        flag(
            "color",
            "Colors: where the output is a terminal, always, or never [default: auto]",
        )
        .value_name("WHEN")
        .value_parser(["auto", "always", "never"]),
        switch("offline", "Never fetch anything"),
        switch(
            "profile",
            "Compile with line information, for profilers; keys of their own",
        ),
        switch("json", "Print JSON"),
        switch("quiet", "Only print errors").short('q'),
        flag("verbose", "Log more (-vv, -vvv)")
            .short('v')
            .action(ArgAction::Count),
        flag("help", "Print help").short('h').action(ArgAction::Help),
    ];
    // Its own `--help`, so that this one stands among the others.
    command
        .disable_help_flag(true)
        .args(global.map(|arg| arg.global(true).help_heading("Global options")))
}

/// What the command line said.
pub(super) fn flags(matches: &ArgMatches, registry: &Registry) -> Result<Flags, String> {
    let path = |name: &str| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
    let constants = given(matches, registry)?;
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
        remote: (matches.get_many("remote").into_iter().flatten().cloned()).collect(),
        nvrtc: path("nvrtc"),
        offline: matches.get_flag("offline"),
        profile: matches.get_flag("profile"),
        color: matches.get_one::<String>("color").cloned(),
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
        clap_complete::generate(*shell, &mut command(jit.registry(), &[]), "jitc", &mut script);
        output::text(String::from_utf8_lossy(&script));
    }
    Ok(ExitCode::SUCCESS)
}
