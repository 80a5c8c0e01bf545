//! The command line's shape. A flag for every constant of every family.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::output;
use crate::config::{FlagConstant, Flags};
use crate::template::Registry;

/// `--templates` decides which flags there are, so it is looked for before clap.
pub(super) fn early_templates(words: &[String]) -> Option<PathBuf> {
    words
        .iter()
        .enumerate()
        .find_map(|(i, word)| match word.strip_prefix("--templates") {
            Some("") => words.get(i + 1).map(PathBuf::from),
            Some(rest) => rest.strip_prefix('=').map(PathBuf::from),
            None => None,
        })
}

/// The whole command.
pub(super) fn command(registry: &Registry) -> Command {
    let families = || {
        Arg::new("family")
            .num_args(0..)
            .help("Families; without one, every family that declares the constants given")
    };
    let warm = Command::new("warm")
        .about("Compile variants into the cache; needs no GPU")
        .arg(families())
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .short('j')
                .value_parser(value_parser!(usize))
                .help("Compiles at once [default: cores]"),
        );
    let verbs = [
        constants(warm, registry),
        constants(
            Command::new("render")
                .about("Print the rendered source")
                .arg(families()),
            registry,
        ),
        constants(
            Command::new("key")
                .about("Print keys and what they cover")
                .arg(families()),
            registry,
        ),
        Command::new("families").about("List families, constants, legal values and defaults"),
        Command::new("cache")
            .about("Look into the cache, or empty it")
            .arg(
                Arg::new("action")
                    .required(true)
                    .value_parser(["dir", "ls", "show", "verify", "clean"]),
            )
            .arg(Arg::new("key").help("A key, or enough of its first digits")),
        Command::new("toolchain")
            .about("Find or install NVRTC")
            .arg(
                Arg::new("action")
                    .required(true)
                    .value_parser(["install", "list", "path"]),
            )
            .arg(
                Arg::new("wheel")
                    .long("wheel")
                    .value_parser(value_parser!(PathBuf))
                    .help("Install from this wheel"),
            ),
        Command::new("doctor").about("Say what is here, what is missing, and how to mend it"),
        Command::new("verify")
            .about("Run the W_O kernels on a GPU and hold them to the reference, bit for bit")
            .arg(
                Arg::new("family")
                    .value_parser(["wo_gemv"])
                    .default_value("wo_gemv"),
            ),
        Command::new("completions")
            .about("Print a completion script")
            .arg(
                Arg::new("shell")
                    .required(true)
                    .value_parser(value_parser!(clap_complete::Shell)),
            ),
    ];
    Command::new("jitc")
        .version(env!("CARGO_PKG_VERSION"))
        .about("CUDA kernels specialised at compile time, made at run time")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(verbs.map(common))
}

/// Flags that every verb takes.
fn common(command: Command) -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("PATH")
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    command.args([
        path("cache-dir", "The cache's folder"),
        path("nvrtc", "NVRTC: a file or a folder"),
        path("templates", "Families over, or beside, the embedded ones"),
        path(
            "env-file",
            "KEY=VALUE lines for what the environment does not set",
        ),
        path("config", "Config file [default: jitc.toml here]"),
        Arg::new("offline")
            .long("offline")
            .action(ArgAction::SetTrue)
            .help("Never fetch anything"),
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print JSON"),
        Arg::new("quiet")
            .long("quiet")
            .short('q')
            .action(ArgAction::SetTrue)
            .help("Say less"),
        Arg::new("verbose")
            .long("verbose")
            .short('v')
            .action(ArgAction::Count)
            .help("Say more"),
    ])
}

/// `--arch`, `--set` and a flag for each constant.
fn constants(command: Command, registry: &Registry) -> Command {
    let mut command = command
        .arg(
            Arg::new("arch")
                .long("arch")
                .value_name("LIST")
                .help("Architectures, such as sm_90a,sm_100a"),
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
        nvrtc: path("nvrtc"),
        offline: matches.get_flag("offline"),
        templates: path("templates"),
        env_file: path("env-file"),
        config: path("config"),
        arch: matches.try_get_one::<String>("arch").ok().flatten().cloned(),
        jobs: matches.try_get_one::<usize>("jobs").ok().flatten().copied(),
        constants,
    })
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

/// Prints a completion script.
pub(super) fn completions(matches: &ArgMatches, registry: &Registry) {
    let Some(shell) = matches.get_one::<clap_complete::Shell>("shell") else {
        return;
    };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut command(registry), "jitc", &mut script);
    output::text(String::from_utf8_lossy(&script));
}
