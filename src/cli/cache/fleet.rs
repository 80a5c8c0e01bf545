//! `jitc cache push` and `pull`.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::filter::{filter_args, query, split};
use super::transfer::say_imported;
use crate::cli::{Answer, output};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::{Release, Store};
use crate::engine::jit::{Error, Jit};

pub(super) fn push_command() -> Command {
    let name = Arg::new("name")
        .value_parser(Release::name)
        .help("As one bundle under this name, for `pull` [default: one by one, for whoever misses them]");
    filter_args(
        Command::new("push")
            .about("Send entries to the stores that are written to")
            .arg(name),
    )
}

pub(super) fn pull_command() -> Command {
    let name = Arg::new("name")
        .required(true)
        .value_parser(|text: &str| text.parse::<Release>())
        .help("The name, or sha256: and the digest that `push` printed");
    Command::new("pull")
        .about("Take what was pushed under a name, verified")
        .arg(name)
}

pub(super) fn push(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let (meant, _) = split(jit, &query(matches));
    let keys: Vec<CacheKey> = meant.iter().map(|row| row.record.key).collect();
    if keys.is_empty() {
        output::error("nothing is sent: no entry fits");
        return Ok(ExitCode::from(1));
    }
    let Some(name) = matches.get_one::<String>("name") else {
        return Ok(ExitCode::from(if push_keys(jit, &keys, json)? { 0 } else { 2 }));
    };
    let pushed = jit.push_release(name, &keys).map_err(Error::from)?;
    if json {
        output::json(&json!(pushed));
    } else {
        output::line(pushed.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends these, one by one; says whether all are there.
pub(in crate::cli) fn push_keys(jit: &Jit, keys: &[CacheKey], json: bool) -> Result<bool, Error> {
    let pushed = jit.push(keys)?;
    pushed.complaints().for_each(output::error);
    if json {
        output::json(&json!({"event": "pushed", "pushed": pushed}));
    } else {
        output::line(pushed.to_string());
    }
    Ok(pushed.is_whole())
}

pub(super) fn pull(jit: &Jit, store: &Store, matches: &ArgMatches, json: bool) -> Answer {
    if let Some(release) = matches.get_one::<Release>("name") {
        let pulled = jit.pull_release(release, store).map_err(Error::from)?;
        say_imported(&pulled, store, json);
    }
    Ok(ExitCode::SUCCESS)
}
