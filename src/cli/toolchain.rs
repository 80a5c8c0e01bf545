//! `jitc toolchain`: finds, installs or removes NVRTC.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, value_parser};
use serde_json::json;

use super::format::NumberFormat;
use super::{Answer, interrupt, output};
use crate::engine::build::toolchain::{self, Found, candidates, find, install, install_wheel};
use crate::engine::config::Config;
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;

pub(super) fn command(_: &Registry) -> clap::Command {
    clap::Command::new("toolchain")
        .about("Find, install or remove NVRTC")
        .arg(
            Arg::new("action")
                .required(true)
                .value_parser(["install", "list", "path", "remove"]),
        )
        .arg(
            Arg::new("wheel")
                .long("wheel")
                .value_parser(value_parser!(PathBuf))
                .help("Install from this wheel; needs neither Python nor a network"),
        )
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let config = jit.config();
    let toolchain = match matches.get_one::<String>("action").map(String::as_str) {
        Some("list") => {
            for place in candidates(config) {
                let (nvrtc, words) = match &place.found {
                    Found::Nvrtc(nvrtc, _) => (Some(nvrtc), nvrtc.display().to_string()),
                    Found::TooOld(version) => (None, format!("{version}, too old")),
                    Found::Nothing => (None, "none".into()),
                };
                if json {
                    output::json(
                        &json!({"origin": place.origin, "place": place.place.to_string_lossy(),
                        "nvrtc": nvrtc.map(|nvrtc| nvrtc.to_string_lossy()), "words": words}),
                    );
                } else {
                    output::line(format!("{:<20} {}: {words}", place.origin, place.place.display()));
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        Some("install") => {
            interrupt::leave_a_clean_cache();
            Some(match matches.get_one::<PathBuf>("wheel") {
                Some(wheel) => install_wheel(config, wheel)?,
                None => install(config)?,
            })
        }
        Some("remove") => return remove(config, json),
        _ => find(config)?,
    };
    let Some(toolchain) = toolchain else {
        output::note("no NVRTC is here yet: the first compile fetches it, or run `jitc toolchain install`");
        return Ok(ExitCode::from(1));
    };
    if json {
        output::json(&json!({"nvrtc": toolchain.nvrtc.to_string_lossy(),
            "builtins": toolchain.builtins.to_string_lossy(), "origin": toolchain.origin, "identity": toolchain.identity}));
    } else {
        output::path(&toolchain.nvrtc);
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(config: &Config, json: bool) -> Answer {
    let removed = toolchain::remove(config)?;
    if json {
        let paths: Vec<_> = removed.paths.iter().map(|p| p.display().to_string()).collect();
        output::json(&json!({"removed": paths, "bytes": removed.bytes}));
    } else if removed.paths.is_empty() {
        output::line("no managed toolchain is installed: nothing is removed");
    } else {
        for path in &removed.paths {
            output::line(format!("removed {}", path.display()));
        }
        let freed = NumberFormat::of_stdout().size(removed.bytes);
        output::line(format!("{freed} freed"));
    }
    Ok(ExitCode::SUCCESS)
}
