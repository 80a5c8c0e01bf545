//! `jitc check`: what is wrong with the families of a folder, or probably not meant.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;

use super::{Answer, itself, output};
use crate::engine::jit::{CheckError, Finding, Jit, check_folder};
use crate::engine::request::target::Arch;
use crate::engine::request::template::Registry;
use crate::measure::MeasureError;

pub(super) fn command(_: &Registry) -> Command {
    Command::new("check")
        .about("Check a folder of families: declarations, variants, and one compile of each")
        .arg(
            Arg::new("folder")
                .value_name("FOLDER")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The folder, as --templates has it"),
        )
        .arg(
            Arg::new("arch")
                .long("arch")
                .value_name("LIST")
                .value_delimiter(',')
                .default_value("sm_90a")
                .value_parser(|text: &str| text.parse::<Arch>().map_err(|e| e.to_string()))
                .help("Architectures to compile for"),
        )
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let folder = matches
        .get_one::<PathBuf>("folder")
        .map_or(Path::new(""), PathBuf::as_path);
    let archs: Vec<Arch> = matches.get_many("arch").into_iter().flatten().copied().collect();
    let mut count = 0;
    let mut found = |Finding { place, text, .. }: Finding| {
        count += 1;
        if json {
            output::json(&json!({"event": "finding", "family": place, "finding": text}));
        } else {
            output::line(format!("{place}: {text}"));
        }
    };
    let families =
        check_folder(jit.config(), itself(), folder, &archs, &mut found).map_err(|error| match error {
            CheckError::Jit(error) => error.into(),
            other => MeasureError::Request(other.to_string()),
        })?;
    if json {
        output::json(&json!({"event": "summary", "families": families, "findings": count}));
    } else {
        output::line(format!("families checked: {families}, findings: {count}"));
    }
    Ok(ExitCode::from(u8::from(count > 0)))
}
