//! `jitc cache`: looks into the cache's folder, or empties it.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::{Answer, output};
use crate::cache::{FindError, Store};
use crate::jit::{Error, Jit};
use crate::template::Registry;

pub(super) fn command(_: &Registry) -> Command {
    Command::new("cache")
        .about("Look into the cache, or empty it")
        .arg(
            Arg::new("action")
                .required(true)
                .value_parser(["dir", "ls", "show", "verify", "clean"]),
        )
        .arg(Arg::new("key").help("A key, or enough of its first digits"))
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let Some(dir) = jit.config().cache_dir() else {
        output::note("there is no cache folder: set HOME, JITC_CACHE_DIR or --cache-dir");
        return Ok(ExitCode::from(2));
    };
    let store = Store::new(&dir);
    let key = matches.get_one::<String>("key");
    match (matches.get_one::<String>("action").map(String::as_str), key) {
        (Some("dir"), _) => output::line(dir.display().to_string()),
        (Some("ls"), _) => ls(&store, json)?,
        (Some("show"), Some(key)) => return Ok(show(&store, key, json)),
        (Some("show"), None) => {
            output::note(
                "error: `jitc cache show` takes a key, or enough of its first digits: see `jitc cache ls`",
            );
            return Ok(ExitCode::from(2));
        }
        (Some("verify"), _) => {
            let checked = store.check(false).map_err(Error::Cache)?;
            let totals = checked.totals();
            if json {
                output::json(&json!({"clean": checked.is_clean(), "totals": totals}));
            } else {
                for bad in &checked.bad {
                    output::line(format!("bad: {} {}", bad.key, bad.fault));
                }
                output::line(if checked.is_clean() {
                    "every entry is good"
                } else {
                    "there are bad entries"
                });
            }
            return Ok(ExitCode::from(u8::from(!checked.is_clean())));
        }
        _ => {
            let cleaned = store.clean().map_err(Error::Cache)?;
            if json {
                output::json(&json!(cleaned));
            } else {
                output::line(format!(
                    "{} entries removed, {} in use left alone",
                    cleaned.entries, cleaned.in_use
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ls(store: &Store, json: bool) -> Result<(), Error> {
    let mut rows = vec![
        ["key", "family", "arch", "registers", "spills", "cubin bytes"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for record in store.records().map_err(Error::Cache)? {
        match record.summary {
            Ok(s) if json => output::json(&json!({"key": record.key, "family": s.family, "arch": s.arch,
                "constants": s.constants, "cubin_bytes": s.cubin_bytes(), "bytes": record.bytes,
                "created_unix_ms": s.created_unix_ms, "used_unix_ms": record.used_unix_ms})),
            Ok(s) => rows.push(vec![
                record.key.short(),
                s.family.clone(),
                s.arch.to_string(),
                s.resources
                    .iter()
                    .map(|r| r.registers)
                    .max()
                    .unwrap_or(0)
                    .to_string(),
                s.resources.iter().map(|r| r.spill_bytes).sum::<u32>().to_string(),
                s.cubin_bytes().to_string(),
            ]),
            Err(fault) if json => output::json(&json!({"key": record.key, "bad": fault.to_string()})),
            Err(fault) => output::note(format!("bad: {} {fault}", record.key.short())),
        }
    }
    if !json {
        output::table(&rows);
    }
    Ok(())
}

fn show(store: &Store, prefix: &str, json: bool) -> ExitCode {
    let entry = match store.find(prefix).and_then(|key| store.read(&key)) {
        Ok(entry) => entry,
        Err(error @ FindError::None(_)) => {
            output::note(format!("{error}"));
            return ExitCode::from(1);
        }
        Err(error) => {
            output::error(format!("{error}"));
            return ExitCode::from(2);
        }
    };
    let manifest = entry.manifest();
    if json {
        output::json(&json!(manifest));
        return ExitCode::SUCCESS;
    }
    output::line(format!("key        {}", manifest.key));
    output::line(format!(
        "folder     {}",
        store.entry_path(&manifest.key).display()
    ));
    output::line(format!("family     {} {}", manifest.family, manifest.arch));
    output::line(format!("toolchain  {}", manifest.toolchain));
    output::line(format!("options    {}", manifest.options.join(" ")));
    for (name, value) in &manifest.constants {
        output::line(format!("constant   {name} = {value}"));
    }
    for r in &manifest.resources {
        output::line(format!(
            "entry      {}: {} registers, {} bytes spilled, {} bytes static shared memory",
            r.entry, r.registers, r.spill_bytes, r.shared_bytes
        ));
    }
    for file in &manifest.files {
        output::line(format!(
            "file       {} {} bytes sha256 {}",
            file.name, file.length, file.sha256
        ));
    }
    ExitCode::SUCCESS
}
