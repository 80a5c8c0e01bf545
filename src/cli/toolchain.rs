//! `jitc toolchain`: finds, installs or removes NVRTC and header sets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use serde_json::json;

use super::{Answer, interrupt, output};
use crate::engine::build::toolchain::{
    self, Found, candidates, find, header_set_file, install, install_header_set, install_header_wheels,
    install_wheel, is_header_wheel,
};
use crate::engine::config::Config;
use crate::engine::jit::Jit;
use crate::engine::request::header_set::{PINNED_SETS, PinnedSet};
use crate::engine::request::template::Registry;
use crate::measure::format::NumberFormat;

pub(super) fn command(_: &Registry) -> clap::Command {
    clap::Command::new("toolchain")
        .about("Find, install or remove NVRTC and header sets")
        .arg(
            Arg::new("action")
                .required(true)
                .value_parser(["install", "list", "path", "remove"]),
        )
        .arg(
            Arg::new("wheel")
                .long("wheel")
                .value_parser(value_parser!(PathBuf))
                .action(ArgAction::Append)
                .help("Install from this wheel; needs neither Python nor a network; those of one header set together"),
        )
        .arg(
            Arg::new("headers")
                .long("headers")
                .value_delimiter(',')
                .value_parser(PINNED_SETS.map(|set| set.name))
                .help("Install these header sets, and not NVRTC"),
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
            list_header_sets(config, json);
            return Ok(ExitCode::SUCCESS);
        }
        Some("install") => {
            interrupt::leave_a_clean_cache();
            if let Some(sets) = matches.get_many::<String>("headers") {
                for set in sets.filter_map(|name| PinnedSet::named(name)) {
                    say_installed(&install_header_set(config, set)?, json);
                }
                return Ok(ExitCode::SUCCESS);
            }
            let wheels = matches.get_many::<PathBuf>("wheel").unwrap_or_default();
            let (headers, nvrtc): (Vec<_>, Vec<_>) = wheels.cloned().partition(|path| is_header_wheel(path));
            for file in install_header_wheels(config, &headers)? {
                say_installed(&file, json);
            }
            match nvrtc.first() {
                Some(wheel) => Some(install_wheel(config, wheel)?),
                None if !headers.is_empty() => return Ok(ExitCode::SUCCESS),
                None => {
                    let toolchain = install(config)?;
                    let sets = PINNED_SETS.map(|set| set.name).join(", ");
                    output::note(format!(
                        "header sets ({sets}) are fetched by the first compile that uses one; now by \
                         `jitc toolchain install --headers {sets}`"
                    ));
                    Some(toolchain)
                }
            }
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

fn list_header_sets(config: &Config, json: bool) {
    for set in &PINNED_SETS {
        let Some((file, there)) = header_set_file(config, set) else {
            continue;
        };
        if json {
            output::json(
                &json!({"header_set": set.name, "version": set.version, "digest": set.digest,
                "file": file.to_string_lossy(), "installed": there}),
            );
        } else {
            let words = if there {
                set.version
            } else {
                "none: the first compile that uses it fetches it"
            };
            let origin = format!("header set {}", set.name);
            output::line(format!("{origin:<20} {}: {words}", file.display()));
        }
    }
}

fn say_installed(file: &Path, json: bool) {
    if json {
        output::json(&json!({"file": file.to_string_lossy()}));
    } else {
        output::path(file);
    }
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
