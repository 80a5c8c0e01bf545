//! `jitc doctor` and `jitc toolchain`: what is here, what is missing, and how to
//! fix it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Arg, ArgMatches, value_parser};
use serde_json::json;

use super::{Answer, output};
use crate::engine::build::compile::Nvrtc;
use crate::engine::build::toolchain::{
    Found, OLDEST, ToolchainError, candidates, find, install, install_wheel,
};
use crate::engine::config::{Config, ConfigError};
use crate::engine::jit::{Error, Jit};
use crate::engine::request::template::Registry;
use crate::engine::run::device;

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
    clap::Command::new("doctor").about("Check the installation and suggest fixes")
}

pub(super) fn toolchain(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
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
                        &json!({"origin": place.origin, "place": place.place, "nvrtc": nvrtc,
                        "words": words}),
                    );
                } else {
                    output::line(format!("{:<20} {}: {words}", place.origin, place.place.display()));
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

/// One thing that was looked at.
struct Fact {
    what: &'static str,
    /// Whether the main job, `jitc warm`, could run for all of this.
    good: bool,
    text: String,
    /// How to fix it, where there is something to fix.
    fix: Option<String>,
}

impl Fact {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            what,
            good: true,
            text: text.into(),
            fix: None,
        }
    }

    fn missing(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what,
            good: false,
            text: text.into(),
            fix: Some(fix.into()),
        }
    }
}

pub(super) fn doctor(jit: &Jit, _: &ArgMatches, json: bool) -> Answer {
    let config = jit.config();
    let python = pip_version();
    let mut facts = vec![
        nvrtc_fact(config, python.is_some())?,
        match python {
            Some(version) => Fact::good("python", version),
            None => Fact::good("python", "no python3 with pip; only fetching NVRTC needs it"),
        },
    ];
    facts.extend(device_facts());
    facts.push(cache_fact(config));
    facts.extend(config_fact(config));
    let good = facts.iter().all(|fact| fact.good);
    if json {
        let facts: Vec<_> = facts
            .iter()
            .map(|f| json!({"what": f.what, "good": f.good, "text": f.text, "fix": f.fix}))
            .collect();
        output::json(&json!({"good": good, "facts": facts}));
    } else {
        for fact in &facts {
            let sign = if fact.good { "ok     " } else { "missing" };
            output::line(format!("{sign} {:<7} {}", fact.what, fact.text));
            if let Some(fix) = &fact.fix {
                output::line(format!("{:<15} fix: {fix}", ""));
            }
        }
    }
    Ok(ExitCode::from(u8::from(!good)))
}

/// Of a config file that no other verb passes over.
fn config_fact(config: &Config) -> Option<Fact> {
    let ConfigError::Foreign { path, owner } = config.refused_file()? else {
        return None;
    };
    let path = path.display();
    Some(Fact::missing(
        "config",
        format!("{path} belongs to user {owner} and is not obeyed"),
        format!("name it to obey it (--config {path}, or JITC_CONFIG), or run in another folder"),
    ))
}

fn pip_version() -> Option<String> {
    let output = Command::new("python3")
        .args(["-I", "-m", "pip", "--version"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

fn nvrtc_fact(config: &Config, pip: bool) -> Result<Fact, Error> {
    let found = match find(config) {
        // What was named and is not there is a fact, and no failure of this verb.
        Err(error @ (ToolchainError::NotThere { .. } | ToolchainError::TooOld { .. })) => {
            let fix = "name another, or none: the pinned one is then fetched";
            return Ok(Fact::missing("nvrtc", error.to_string(), fix));
        }
        other => other?,
    };
    if let Some(toolchain) = found {
        let text = format!(
            "{} at {} ({})",
            toolchain.identity,
            toolchain.nvrtc.display(),
            toolchain.origin
        );
        return Ok(match Nvrtc::open(&toolchain) {
            Ok(_) => Fact::good("nvrtc", text),
            Err(error) => Fact::missing(
                "nvrtc",
                format!("{text} cannot be opened: {error}"),
                "install what it misses, or run `jitc toolchain install`",
            ),
        });
    }
    let old = candidates(config).find_map(|c| match c.found {
        Found::TooOld(version) => Some(format!(
            "; {version} in {} is older than {}.{}",
            c.place.display(),
            OLDEST.0,
            OLDEST.1
        )),
        _ => None,
    });
    let old = old.unwrap_or_default();
    Ok(if config.offline()? {
        Fact::missing(
            "nvrtc",
            format!("none{old}, and JITC_OFFLINE forbids fetching it"),
            "set JITC_NVRTC or CUDA_HOME, or run `jitc toolchain install` with a network",
        )
    } else if pip {
        Fact::good(
            "nvrtc",
            format!("none yet{old}: the first compile fetches the pinned one with pip"),
        )
    } else {
        Fact::missing(
            "nvrtc",
            format!("none{old}, and without python3 with pip it cannot be fetched"),
            "install python3 with pip, or set JITC_NVRTC or CUDA_HOME",
        )
    })
}

fn device_facts() -> Vec<Fact> {
    let mut facts = Vec::new();
    facts.push(match device::driver_version() {
        Ok((major, minor)) => Fact::good("driver", format!("knows CUDA up to {major}.{minor}")),
        Err(reason) => Fact::good("driver", format!("none ({reason}); not needed to compile")),
    });
    match device::list() {
        Ok(devices) => facts.extend(devices.iter().map(|d| {
            Fact::good(
                "gpu",
                format!(
                    "{} {}: compute capability {}.{}, {} SMs",
                    d.ordinal, d.name, d.major, d.minor, d.sm_count
                ),
            )
        })),
        Err(reason) => facts.push(Fact::good(
            "gpu",
            format!("none ({reason}); not needed to compile"),
        )),
    }
    facts
}

/// Looks, and makes nothing: the folder appears with the first entry.
fn cache_fact(config: &Config) -> Fact {
    let Some(dir) = config.cache_dir() else {
        return Fact::missing(
            "cache",
            "no folder",
            "set HOME, JITC_CACHE_DIR or --cache-dir; without one every start compiles",
        );
    };
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok();
    let state = match fs_err::metadata(&dir) {
        Ok(meta) => {
            let own = meta.uid() == rustix::process::geteuid().as_raw();
            let owner = if own {
                "yours".into()
            } else {
                format!("of user {}", meta.uid())
            };
            format!("mode {:04o}, {owner}", meta.mode() & 0o7777)
        }
        Err(_) => "not there yet".into(),
    };
    let free = rustix::fs::statvfs(existing).map_or_else(
        |_| String::new(),
        |s| format!(", {} GiB free", s.f_bavail.saturating_mul(s.f_frsize) >> 30),
    );
    let text = format!("{} ({state}{free})", dir.display());
    if writable {
        Fact::good("cache", text)
    } else {
        Fact::missing(
            "cache",
            format!("{text}: {} cannot be written", existing.display()),
            "make it writable, or set JITC_CACHE_DIR or --cache-dir",
        )
    }
}
