//! `jitc cache push` and `pull`.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::filter::{filter_args, query, split};
use crate::cli::{Answer, output};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::{Release, Store};
use crate::engine::jit::{Error, Jit};

pub(super) fn push_command() -> Command {
    let push = Command::new("push")
        .about("Send entries to the stores that are written to")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .value_parser(|text: &str| match text.parse()? {
                    Release::Name(name) => Ok(name),
                    Release::Digest(_) => Err("a digest is what comes out: expected a name".to_owned()),
                })
                .help("As one bundle under this name, for `pull` [default: one by one, for whoever misses them]"),
        );
    filter_args(push)
}

pub(super) fn pull_command() -> Command {
    Command::new("pull")
        .about("Take what was pushed under a name, verified")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .value_parser(|text: &str| text.parse::<Release>())
                .help("The name, or sha256: and the digest that `push` printed"),
        )
}

pub(super) fn push(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let (meant, _) = split(jit, &query(matches));
    let mut keys: Vec<CacheKey> = meant.iter().map(|row| row.record.key).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        output::error("nothing is sent: no entry fits");
        return Ok(ExitCode::from(1));
    }
    let Some(name) = matches.get_one::<String>("name") else {
        let all = push_keys(jit, &keys, json)?;
        return Ok(ExitCode::from(if all { 0 } else { 2 }));
    };
    let (digest, entries) = jit.push_release(name, &keys).map_err(Error::from)?;
    if json {
        output::json(&json!({"name": name, "digest": format!("sha256:{digest}"), "entries": entries}));
    } else {
        output::line(format!("{entries} entries under {name}: sha256:{digest}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends these, one by one; says whether all are there.
pub(in crate::cli) fn push_keys(jit: &Jit, keys: &[CacheKey], json: bool) -> Result<bool, Error> {
    let pushed = jit.push(keys)?;
    for key in &pushed.skipped {
        output::note(format!("left out, since it is missing or bad: {key}"));
    }
    for (key, store, reason) in &pushed.failed {
        output::error(format!("{} was not sent to {store}: {reason}", key.short()));
    }
    if json {
        output::json(&json!({"event": "pushed", "pushed": pushed}));
    } else {
        let (sent, present) = (pushed.sent, pushed.present);
        output::line(format!("{sent} entries sent, {present} were there already"));
    }
    Ok(pushed.failed.is_empty() && pushed.skipped.is_empty())
}

pub(super) fn pull(jit: &Jit, store: &Store, matches: &ArgMatches, json: bool) -> Answer {
    let Some(release) = matches.get_one::<Release>("name") else {
        return Ok(ExitCode::from(2));
    };
    let imported = jit.pull_release(release, store).map_err(Error::from)?;
    if json {
        output::json(&json!(imported));
    } else {
        output::line(format!(
            "{} entries added, {} were there already: {}",
            imported.added,
            imported.present,
            store.root().display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
