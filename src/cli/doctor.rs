//! `jitc doctor` and `jitc toolchain`: what is here, what is missing, and how to
//! mend it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Arg, ArgMatches, value_parser};
use serde_json::json;

use super::{Answer, output};
use crate::device;
use crate::jit::Jit;
use crate::template::Registry;
use crate::toolchain::{candidates, find, install, install_wheel};

pub(super) fn toolchain_command(_: &Registry) -> clap::Command {
    clap::Command::new("toolchain")
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
        )
}

pub(super) fn doctor_command(_: &Registry) -> clap::Command {
    clap::Command::new("doctor").about("Say what is here, what is missing, and how to mend it")
}

pub(super) fn toolchain(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let config = jit.config();
    let toolchain = match matches.get_one::<String>("action").map(String::as_str) {
        Some("list") => {
            for place in candidates(config) {
                let found = place.found.map(|(nvrtc, _)| nvrtc.display().to_string());
                if json {
                    output::json(&json!({"origin": place.origin, "folder": place.folder, "nvrtc": found}));
                } else {
                    let found = found.unwrap_or_else(|| "none".into());
                    output::line(format!(
                        "{:<20} {}: {found}",
                        place.origin,
                        place.folder.display()
                    ));
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        Some("install") => match matches.get_one::<PathBuf>("wheel") {
            Some(wheel) => Some(install_wheel(config, wheel)?),
            None => Some(install(config)?),
        },
        _ => find(config)?,
    };
    let Some(toolchain) = toolchain else {
        output::note("no NVRTC is here yet: the first compile fetches it, or run `jitc toolchain install`");
        return Ok(ExitCode::from(1));
    };
    if json {
        output::json(&json!({"nvrtc": toolchain.nvrtc, "builtins": toolchain.builtins,
            "origin": toolchain.origin, "identity": toolchain.identity}));
    } else {
        output::line(toolchain.nvrtc.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn doctor(jit: &Jit, _: &ArgMatches, json: bool) -> Answer {
    let config = jit.config();
    let mut facts: Vec<(&str, bool, String)> = Vec::new();
    let python = Command::new("python3").args(["-m", "pip", "--version"]).output();
    let python = python
        .ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    let can_fetch = python.is_some() && !config.offline()?;
    match find(config)? {
        Some(t) => facts.push(("nvrtc", true, format!("{} at {} ({})", t.identity, t.nvrtc.display(), t.origin))),
        None if can_fetch => {
            facts.push(("nvrtc", true, "none yet: the first compile fetches the pinned one with pip".into()));
        }
        None => facts.push((
            "nvrtc",
            false,
            "none, and it cannot be fetched: set JITC_NVRTC or CUDA_HOME, or allow python3 with pip and no JITC_OFFLINE".into(),
        )),
    }
    let missing = || "python3 with pip is missing: needed only to fetch NVRTC".to_owned();
    facts.push(("python", true, python.unwrap_or_else(missing)));
    match device::list() {
        Ok(devices) => {
            for d in &devices {
                let text = format!(
                    "{}: compute capability {}.{}, {} SMs",
                    d.name, d.major, d.minor, d.sm_count
                );
                facts.push(("gpu", true, text));
            }
        }
        Err(reason) => facts.push(("gpu", true, format!("none ({reason}); not needed to compile"))),
    }
    match config.cache_dir() {
        Some(dir) => {
            let probe = fs_err::create_dir_all(&dir).and_then(|()| tempfile::tempfile_in(&dir));
            let state = probe
                .as_ref()
                .map_or_else(|e| format!("cannot be written: {e}"), |_| "writable".into());
            facts.push((
                "cache",
                probe.is_ok(),
                format!("{} ({state}{})", dir.display(), free_space(&dir)),
            ));
        }
        None => facts.push((
            "cache",
            false,
            "no folder: set HOME, JITC_CACHE_DIR or --cache-dir".into(),
        )),
    }
    let good = facts.iter().all(|(_, good, _)| *good);
    if json {
        let facts: Vec<_> = facts
            .iter()
            .map(|(what, good, text)| json!({"what": what, "good": good, "text": text}))
            .collect();
        output::json(&json!({"good": good, "facts": facts}));
    } else {
        for (what, good, text) in &facts {
            output::line(format!(
                "{} {what:<7} {text}",
                if *good { "ok     " } else { "missing" }
            ));
        }
    }
    Ok(ExitCode::from(u8::from(!good)))
}

fn free_space(dir: &std::path::Path) -> String {
    rustix::fs::statvfs(dir).map_or_else(
        |_| String::new(),
        |s| format!(", {} GiB free", s.f_bavail.saturating_mul(s.f_frsize) >> 30),
    )
}
