//! `jitc completions` and `jitc man`: what is made from the command line's own description.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::{Answer, args, constant_flags, output};
use crate::engine::jit::Jit;
use crate::engine::request::target::Arch;
use crate::engine::request::template::Registry;
use crate::engine::run::occupancy::KNOWN_DEVICES;
use crate::measure::MeasureError;

pub(super) fn completions_command(_: &Registry) -> Command {
    let shell = Arg::new("shell")
        .required(true)
        .value_parser(value_parser!(Shell));
    Command::new("completions")
        .about("Print a completion script, with families, presets, constants' values and GPUs")
        .arg(shell)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of every verb")]
pub(super) fn completions(jit: &Jit, matches: &ArgMatches, _json: bool) -> Answer {
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        let mut script = Vec::new();
        let registry = jit.registry();
        let command = args::command(registry, &[]);
        let mut command = command.mut_subcommands(|verb| verb.mut_args(|arg| with_values(arg, registry)));
        clap_complete::generate(*shell, &mut command, "jitc", &mut script);
        output::text(String::from_utf8_lossy(&script));
    }
    Ok(ExitCode::SUCCESS)
}

/// The argument with the values that a shell may complete. They are for its script alone: what
/// is legal is said by who reads the value, in one line that names it.
fn with_values(arg: Arg, registry: &Registry) -> Arg {
    let values: Vec<String> = match arg.get_id().as_str() {
        "family" => registry.families().map(|family| family.name.clone()).collect(),
        "preset" => {
            let presets = registry.families().flat_map(|family| &family.presets);
            presets.map(|preset| preset.name.clone()).collect()
        }
        "arch" => Arch::TESTED.iter().map(ToString::to_string).collect(),
        "gpu" | "device" => KNOWN_DEVICES.map(str::to_owned).to_vec(),
        id => constant_flags::listed(id, registry),
    };
    if values.is_empty() {
        return arg;
    }
    let mut values = values;
    values.sort();
    values.dedup();
    arg.value_parser(PossibleValuesParser::new(values))
}

pub(super) fn man_command(_: &Registry) -> Command {
    let out = Arg::new("out")
        .long("out")
        .short('o')
        .value_name("DIR")
        .required(true);
    Command::new("man")
        .about("Write manual pages, one for each command")
        .arg(
            out.value_parser(value_parser!(PathBuf))
                .help("Folder to write them into"),
        )
}

pub(super) fn man(jit: &Jit, matches: &ArgMatches, _json: bool) -> Answer {
    let folder = matches.get_one::<PathBuf>("out").cloned().unwrap_or_default();
    let command = args::command(jit.registry(), &[]);
    let written = fs_err::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(command, &folder));
    written.map_err(|error| MeasureError::Request(format!("man {}: {error}", folder.display())))?;
    output::note(format!("next: man -l {}", folder.join("jitc.1").display()));
    Ok(ExitCode::SUCCESS)
}
