//! `jitc cache ls` and `stats`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::filter::{as_they_lie, filter_args, query, say_unreadable, sort, sort_args, split};
use crate::cli::{Answer, output};
use crate::engine::cache::{CacheError, FarCounters, Listed, Query, Store, Tally, Usage};
use crate::engine::jit::{Error, Jit};
use crate::engine::regular_file::{named, open_or_input};
use crate::measure::MeasureError;
use crate::measure::format::NumberFormat;

pub(super) fn ls_command() -> Command {
    let bundle = Arg::new("bundle").long("bundle").value_name("FILE");
    let bundle = bundle.value_parser(value_parser!(PathBuf));
    let ls = Command::new("ls").about("List entries");
    let ls = ls.arg(bundle.help("List those of a bundle, verified, and import nothing; - is standard input"));
    sort_args(filter_args(ls))
}

pub(super) fn stats_command() -> Command {
    Command::new("stats")
        .about("Show counts and sizes per tier, and what was counted: hits, misses, compile time saved")
        .arg(
            Arg::new("zero")
                .long("zero")
                .action(ArgAction::SetTrue)
                .help("Count hits and misses from now on"),
        )
}

pub(super) fn ls(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let style = NumberFormat::of_stdout();
    let heading = [
        "key",
        "family",
        "constants",
        "arch",
        "registers",
        "spills",
        "size",
        "compile ms",
        "created",
        "used",
        "tier",
    ];
    let mut table = output::Table::new();
    if !json {
        table.push(heading.map(str::to_owned).to_vec());
    }
    let mut shown = 0;
    let mut show = |row: &Listed| {
        shown += 1;
        if json {
            output::json(&row.to_json());
            return;
        }
        match &row.record.summary {
            Ok(s) => table.push(vec![
                row.record.key.short(),
                s.family.clone(),
                s.variant(jit.registry()),
                s.arch.to_string(),
                s.registers().to_string(),
                s.spill_bytes().to_string(),
                style.bytes(row.record.bytes),
                NumberFormat::Plain.millis(s.compile_us),
                style.time(s.created_unix_ms),
                style.time(row.record.used_unix_ms),
                row.tier.to_string(),
            ]),
            Err(fault) => output::note(format!("bad: {} ({}): {fault}", row.record.key.short(), row.tier)),
        }
    };
    let query = query(matches);
    let bundle = matches.get_one::<PathBuf>("bundle");
    let (others, kinds) = if bundle.is_none() && as_they_lie(matches) {
        let mut left = matches.get_one::<usize>("limit").copied().unwrap_or(usize::MAX);
        let passed = query.each(jit.cache(), jit.registry(), &mut |row| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            show(&row);
            ControlFlow::Continue(())
        });
        say_unreadable(&passed.unreadable);
        (passed.count, passed.kinds)
    } else {
        let (mut rows, others) = match bundle {
            Some(path) => of_bundle(jit, &query, path)?,
            None => split(jit, &query),
        };
        sort(&mut rows, matches);
        rows.iter().for_each(show);
        let named = others.iter().filter_map(|row| row.record.summary.as_ref().ok());
        let kinds = named.map(|s| format!("{} {}", s.family, s.arch)).collect();
        (others.len() as u64, kinds)
    };
    if shown == 0 {
        output::note(nothing(others, kinds));
    }
    if !json {
        table.end();
    }
    Ok(ExitCode::SUCCESS)
}

/// The entries of a bundle that are meant, and the others.
fn of_bundle(jit: &Jit, query: &Query, path: &Path) -> Result<(Vec<Listed>, Vec<Listed>), MeasureError> {
    let refused = |error: &dyn Display| MeasureError::Request(named(path, error));
    let mut file = open_or_input(path).map_err(|error| refused(&error))?;
    let selected = query.of_bundle(&mut file, jit.registry());
    let selected = selected.map_err(|error| refused(&error))?;
    Ok((selected.meant, selected.others))
}

/// Why a list is empty: what there is instead.
fn nothing(others: u64, kinds: BTreeSet<String>) -> String {
    if others == 0 {
        return "no entries; `jitc cache dir` says where they would be".to_owned();
    }
    let kinds: Vec<String> = kinds.into_iter().collect();
    format!(
        "none of {others} entries is meant; there are: {}",
        kinds.join(", ")
    )
}

pub(super) fn stats(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    if matches.get_flag("zero") {
        return zero(jit);
    }
    let style = NumberFormat::of_stdout();
    let mut tiers = vec![
        [
            "tier",
            "entries",
            "at most",
            "size",
            "at most",
            "bad",
            "quarantined",
            "staging",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut all = Tally::default();
    for tier in jit.cache().tiers() {
        let Some(store) = tier.store() else { continue };
        let tally = match store.tally() {
            Ok(tally) => tally,
            Err(error) if tier.is_writable() => return Err(Error::Cache(error).into()),
            Err(error) => {
                output::note(format!("{}: {error}", tier.name()));
                continue;
            }
        };
        let totals = tally.totals;
        // Only what is written to is kept within limits.
        let of_tier = tier.is_writable().then(|| jit.cache().limits());
        if json {
            output::json(
                &json!({"event": "tier", "tier": tier.name(), "folder": store.root().to_string_lossy(),
                "writable": tier.is_writable(), "totals": totals, "limits": of_tier.map(|limits| json!({
                    "entries": limits.max_entries, "bytes": limits.max_bytes}))}),
            );
        }
        tiers.push(vec![
            tier.name().to_string(),
            totals.entries.to_string(),
            of_tier.map_or_else(String::new, |limits| limits.max_entries.to_string()),
            style.bytes(totals.bytes),
            of_tier.map_or_else(String::new, |limits| style.bytes(limits.max_bytes)),
            totals.bad.to_string(),
            totals.quarantined.to_string(),
            totals.staging.to_string(),
        ]);
        all.add(&tally);
    }
    let usage = usage(jit)?;
    if json {
        if let Some(usage) = &usage {
            output::json(&json!({"event": "usage", "usage": usage}));
        }
        for ((family, arch), group) in &all.groups {
            output::json(
                &json!({"event": "group", "family": family, "arch": arch, "entries": group.entries,
                "bytes": group.bytes, "compile_us": group.compile_us}),
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    output::table(&tiers);
    output::line("");
    let mut rows = vec![
        ["family", "arch", "entries", "size", "compile ms"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for ((family, arch), group) in &all.groups {
        let millis = NumberFormat::Plain.millis(group.compile_us);
        rows.push(vec![
            family.clone(),
            arch.clone(),
            group.entries.to_string(),
            style.bytes(group.bytes),
            millis,
        ]);
    }
    output::table(&rows);
    if let Some(usage) = usage {
        counted(&usage, style);
    }
    Ok(ExitCode::SUCCESS)
}

/// What was counted in the folder that is written to.
fn usage(jit: &Jit) -> Result<Option<Usage>, Error> {
    let store = jit.cache().written_store();
    store.map(Store::usage).transpose().map_err(Error::Cache)
}

fn counted(usage: &Usage, style: NumberFormat) {
    output::line("");
    let since = match usage.since_unix_ms {
        0 => "nothing was counted yet".to_owned(),
        ms => format!("since {}", style.time(ms)),
    };
    let seconds = |us: u64| format!("{}.{} s", us / 1_000_000, us / 100_000 % 10);
    output::line(format!(
        "{since}: {} hits ({} more in memory), {} misses, {} compiles of {}; hits saved {} of compiling",
        usage.hits,
        usage.memory_hits,
        usage.misses,
        usage.built,
        seconds(usage.compile_us),
        seconds(usage.saved_us),
    ));
    if usage.stores != FarCounters::default() {
        output::line(format!("stores: {}", usage.stores));
    }
}

fn zero(jit: &Jit) -> Answer {
    match jit.cache().written_store() {
        Some(store) => {
            store.zero_usage().map_err(Error::Cache)?;
            output::note("counted from now on");
            Ok(ExitCode::SUCCESS)
        }
        None => Err(Error::Cache(CacheError::NoWritableTier).into()),
    }
}
