//! The command line's shape.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

pub(super) use super::constant_flags::constants;
use super::constant_flags::{self, given};
use super::measured;
use crate::engine::config::Flags;
use crate::engine::config::settings::setting;
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

/// Where the verb stands: the first word that is neither a flag nor a flag's value.
pub(super) fn verb_at(words: &[OsString]) -> Option<usize> {
    let globals = common(Command::new("jitc"));
    let takes_a_value = |word: &str| {
        let of = |arg: &&Arg| {
            arg.get_long()
                .is_some_and(|long| word.strip_prefix("--") == Some(long))
        };
        globals
            .get_arguments()
            .find(of)
            .is_some_and(|arg| arg.get_action().takes_values())
    };
    let mut at = 1;
    while let Some(word) = words.get(at) {
        let word = word.to_str().unwrap_or_default();
        match word.strip_prefix('-') {
            None => return super::VERBS.iter().any(|verb| verb.name == word).then_some(at),
            Some(_) if takes_a_value(word) => at += 2,
            Some(_) => at += 1,
        }
    }
    None
}

/// The line with its verb first: what every verb takes may stand before it.
pub(super) fn verb_first(words: &[OsString]) -> Vec<OsString> {
    let mut line = words.to_vec();
    if let Some(at) = verb_at(words) {
        line[1..=at].rotate_right(1);
    }
    line
}

/// The whole command. Help shows the constants of the families that `words` name.
pub(super) fn command(registry: &Registry, words: &[OsString]) -> Command {
    // No family is called what is not text.
    let at = verb_at(words).unwrap_or(words.len());
    let mut words = words[at..].iter().filter_map(|word| word.to_str());
    let verb = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let verbs = super::VERBS.iter().map(|known| {
        let command = (known.command)(registry).after_help(after_help(known));
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
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}")
        .before_help(grouped(registry))
        .after_help("Flags that every verb takes may stand before it, too; `jitc warm --help` lists them.")
        .subcommands(verbs)
}

/// The verbs by what they are about.
fn grouped(registry: &Registry) -> String {
    let mut text = String::new();
    for (group, heading) in super::GROUPS {
        let _ = writeln!(text, "{heading}");
        for verb in super::VERBS.iter().filter(|verb| verb.group == group) {
            let command = (verb.command)(registry);
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {:<11}  {about}", verb.name);
        }
        text.push('\n');
    }
    text
}

/// What the help of a verb ends with: examples, and what its exit codes mean.
fn after_help(verb: &super::Verb) -> String {
    let mut text = String::new();
    for (n, example) in verb.examples.iter().enumerate() {
        let _ = writeln!(
            text,
            "{}  $ jitc {example}",
            if n == 0 { "Examples:\n" } else { "" }
        );
    }
    let no = match verb.no {
        "" => String::new(),
        no => format!(", 1 {no}"),
    };
    let gap = if text.is_empty() { "" } else { "\n" };
    text + gap + "Exit codes: 0 done" + &no + ", 2 failure"
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
        .args(global.map(|arg| with_variable(arg).global(true).help_heading("Global options")))
}

/// A flag whose help names the variable that says the same.
pub(super) fn with_variable(arg: Arg) -> Arg {
    let known = setting(&arg.get_id().as_str().replace('-', "_"));
    let Some(known) = known.filter(|known| known.variable) else {
        return arg;
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} [env: {}]", known.variable_name()))
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
