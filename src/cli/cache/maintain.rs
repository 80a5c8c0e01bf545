//! `jitc cache verify`, `prune` and `clean`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::{key_arg, not_found};
use crate::cli::{Answer, output};
use crate::engine::cache::{Checked, Limits, Receipt, Store, TierName};
use crate::engine::config::{Source, parse_age, parse_bytes};
use crate::engine::jit::{Error, Jit, Rebuilt};
use crate::engine::sign::Place;
use crate::measure::format::NumberFormat;

pub(super) fn verify_command() -> Command {
    Command::new("verify")
        .about("Verify every byte of every entry, or compare the cache with a receipt")
        .arg(
            Arg::new("repair")
                .long("repair")
                .action(ArgAction::SetTrue)
                .help("Move bad entries away, so that the next request builds them anew, and remove strays"),
        )
        .arg(
            Arg::new("against")
                .long("against")
                .value_name("RECEIPT")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("repair")
                .help("List what differs from what this receipt lists"),
        )
        .arg(
            Arg::new("rebuild")
                .long("rebuild")
                .value_name("N|all")
                .value_parser(count)
                .conflicts_with_all(["repair", "against"])
                .help("Compile this many entries again, spread over all, and compare the machine code"),
        )
}

/// How many entries.
#[derive(Debug, Clone, Copy)]
enum Count {
    All,
    Some(usize),
}

fn count(text: &str) -> Result<Count, String> {
    match text.parse() {
        _ if text == "all" => Ok(Count::All),
        Ok(count) if count > 0 => Ok(Count::Some(count)),
        _ => Err("expected a number from 1, or all".to_owned()),
    }
}

/// Compiles entries again and says which differ; those of other compilers are skipped.
fn rebuild(jit: &Jit, count: Count, json: bool) -> Answer {
    let (mut alike, mut differ, mut skipped) = (0, 0, 0);
    let count = match count {
        Count::All => None,
        Count::Some(count) => Some(count),
    };
    jit.rebuild_entries(count, &mut |tier, key, rebuilt| {
        let reason = rebuilt.why_skipped();
        let (word, counter) = match rebuilt {
            Rebuilt::Alike => ("alike", &mut alike),
            Rebuilt::Differs => ("differs", &mut differ),
            _ => ("skipped", &mut skipped),
        };
        *counter += 1;
        if json {
            output::json(
                &json!({"event": "rebuilt", "tier": tier, "key": key, "answer": word, "reason": reason}),
            );
        } else if word == "differs" {
            output::line(format!("differs: {key} ({tier})"));
        } else if let Some(reason) = reason {
            output::note(format!("{key} is skipped: {reason}"));
        }
    })?;
    if json {
        // `left_out` is the former name of `skipped`, for one release.
        output::json(
            &json!({"event": "summary", "alike": alike, "differ": differ, "skipped": skipped, "left_out": skipped}),
        );
    } else {
        output::line(format!(
            "{} compiled again: {alike} alike, {differ} differ; {skipped} skipped",
            alike + differ
        ));
    }
    Ok(ExitCode::from(u8::from(differ + skipped > 0)))
}

pub(super) fn prune_command() -> Command {
    Command::new("prune")
        .about("Remove the longest unused entries until the limits hold")
        .arg(
            Arg::new("max-size")
                .long("max-size")
                .value_name("BYTES")
                .value_parser(|text: &str| parse_bytes(text))
                .help("The most bytes to keep, such as 4GiB [default: the settings']"),
        )
        .arg(
            Arg::new("max-entries")
                .long("max-entries")
                .value_name("N")
                .value_parser(value_parser!(u64))
                .help("The most entries to keep [default: the settings']"),
        )
        .arg(
            Arg::new("older-than")
                .long("older-than")
                .value_name("AGE")
                .value_parser(|text: &str| parse_age(text))
                .help("Remove what was last used longer ago, such as 30d"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .short('n')
                .action(ArgAction::SetTrue)
                .help("Say what would be removed, and remove nothing"),
        )
}

pub(super) fn verify(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    if let Some(receipt) = matches.get_one::<PathBuf>("against") {
        return against(jit, receipt, json);
    }
    if let Some(count) = matches.get_one::<Count>("rebuild") {
        return rebuild(jit, *count, json);
    }
    let repair = matches.get_flag("repair");
    let mut clean = true;
    for tier in jit.cache().tiers() {
        let Some(store) = tier.store() else { continue };
        let checked = match store.check(repair && tier.is_writable()) {
            Ok(checked) => checked,
            Err(error) if tier.is_writable() => return Err(Error::Cache(error).into()),
            Err(error) => {
                output::note(format!("{}: {error}", tier.name()));
                continue;
            }
        };
        let repaired = repair && tier.is_writable();
        clean &= report(tier.name(), &checked, repaired, json);
    }
    if json {
        output::json(&json!({"event": "summary", "clean": clean}));
    } else {
        output::line(if clean {
            "every entry is good"
        } else {
            "not every entry is good: `jitc cache verify --repair` puts the folder that is written to right"
        });
    }
    Ok(ExitCode::from(u8::from(!clean)))
}

/// Says what a check found; whether nothing bad is left.
fn report(tier: &TierName, checked: &Checked, repaired: bool, json: bool) -> bool {
    let totals = checked.totals();
    let left = totals.bad - totals.repaired + totals.unreadable + if repaired { 0 } else { totals.strays };
    if json {
        for bad in &checked.bad {
            output::json(&json!({"event": "bad", "tier": tier, "key": bad.key,
                "fault": bad.fault.to_string(), "repaired": bad.repaired}));
        }
        for (key, error) in &checked.unreadable {
            output::json(
                &json!({"event": "unreadable", "tier": tier, "key": key, "reason": error.to_string()}),
            );
        }
        for stray in &checked.strays {
            output::json(&json!({"event": "stray", "tier": tier, "path": stray, "removed": repaired}));
        }
        output::json(&json!({"event": "tier", "tier": tier, "totals": totals, "clean": left == 0}));
        return left == 0;
    }
    for bad in &checked.bad {
        let moved = if bad.repaired { ", moved away" } else { "" };
        output::line(format!("bad: {} ({tier}): {}{moved}", bad.key, bad.fault));
    }
    for (key, error) in &checked.unreadable {
        output::line(format!("unreadable: {key} ({tier}): {error}"));
    }
    for stray in &checked.strays {
        let removed = if repaired { ", removed" } else { "" };
        output::line(format!("stray: {stray} ({tier}){removed}"));
    }
    left == 0
}

fn against(jit: &Jit, path: &Path, json: bool) -> Answer {
    let unreadable = |source| Error::Receipt {
        path: path.to_path_buf(),
        origin: Source::Flag("--against".into()),
        source,
    };
    let receipt = Receipt::read(path, &jit.signing().of(Place::Receipt)).map_err(unreadable)?;
    let drifts = receipt.drifts(jit.cache());
    for drift in &drifts {
        if json {
            output::json(
                &json!({"event": "drift", "key": drift.key(), "file": drift.file(),
                "drift": drift.to_string()}),
            );
        } else {
            output::line(format!("drift: {drift}"));
        }
    }
    let entries = receipt.entries.len();
    if json {
        output::json(&json!({"event": "summary", "listed": entries, "drifts": drifts.len()}));
    } else {
        output::line(format!("{entries} listed, {} drifted", drifts.len()));
    }
    Ok(ExitCode::from(u8::from(!drifts.is_empty())))
}

pub(super) fn prune(jit: &Jit, store: &Store, matches: &ArgMatches, json: bool) -> Answer {
    let mut limits = Limits::default();
    let config = jit.config();
    let size = matches.get_one::<u64>("max-size").copied();
    let entries = matches.get_one::<u64>("max-entries").copied();
    if let Some(bytes) = size.or(config.cache_max_size()?) {
        limits.max_bytes = bytes;
    }
    if let Some(count) = entries.or(config.cache_max_entries()?) {
        limits.max_entries = count;
    }
    limits.max_age = matches.get_one("older-than").copied();
    let dry_run = matches.get_flag("dry-run");
    let pruned = store.prune(&limits, dry_run).map_err(Error::Cache)?;
    if json {
        output::json(&json!({"dry_run": dry_run, "pruned": pruned}));
        return Ok(ExitCode::SUCCESS);
    }
    let style = NumberFormat::of_stdout();
    if dry_run {
        for key in &pruned.keys {
            output::line(format!("would remove {key}"));
        }
    }
    let would = if dry_run { "would be " } else { "" };
    output::line(format!(
        "{} entries ({}) {would}removed, {} in use left alone; {} entries ({}) stay",
        pruned.keys.len(),
        style.size(pruned.bytes),
        pruned.in_use,
        pruned.kept_entries,
        style.size(pruned.kept_bytes)
    ));
    say_stuck(pruned.stuck, pruned.stuck_reason.as_deref());
    if !dry_run {
        output::line(format!(
            "{} files of dead writers, {} quarantined entries and {} failed sources removed",
            pruned.staging, pruned.quarantined, pruned.failed
        ));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn rm_command() -> Command {
    Command::new("rm")
        .about("Remove entries of the folder that is written to")
        .arg(key_arg("key").num_args(1..))
}

/// Removes the entries named; one that is in use stays, and is a negative answer.
pub(super) fn rm(store: &Store, matches: &ArgMatches, json: bool) -> Answer {
    let mut all = true;
    for prefix in matches.get_many::<String>("key").into_iter().flatten() {
        let key = match store.find(prefix) {
            Ok(key) => key,
            Err(error) => return Ok(not_found(&error)),
        };
        let removed = store.remove(&key).map_err(Error::Cache)?;
        all &= removed;
        if json {
            output::json(&json!({"key": key, "removed": removed}));
        } else if removed {
            output::line(format!("{key} removed"));
        } else {
            output::note(format!("{key} is in use, and stays"));
        }
    }
    Ok(ExitCode::from(u8::from(!all)))
}

pub(super) fn clean_command() -> Command {
    Command::new("clean")
        .about("Remove every entry of the folder that is written to")
        .arg(
            Arg::new("old")
                .long("old")
                .action(ArgAction::SetTrue)
                .help("Remove the entries of older formats alone, which are never read"),
        )
}

pub(super) fn clean(store: &Store, matches: &ArgMatches, json: bool) -> Answer {
    if matches.get_flag("old") {
        let entries = store.clean_old().map_err(Error::Cache)?;
        if json {
            output::json(&json!({"old_entries": entries}));
        } else {
            output::line(format!("{entries} entries of an older format removed"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let cleaned = store.clean().map_err(Error::Cache)?;
    if json {
        output::json(&json!(cleaned));
    } else {
        output::line(format!(
            "{} entries removed, {} in use left alone; {} failed sources removed",
            cleaned.entries, cleaned.in_use, cleaned.failed
        ));
        say_stuck(cleaned.stuck, cleaned.stuck_reason.as_deref());
    }
    Ok(ExitCode::SUCCESS)
}

/// Says how many entries could not be moved, and why the first of them could not.
fn say_stuck(count: u64, reason: Option<&str>) {
    if let Some(reason) = reason {
        output::note(format!("{count} entries could not be moved and stay: {reason}"));
    }
}
