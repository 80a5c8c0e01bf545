//! Which entries a verb is about, and in which order.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::Value;

use crate::cli::format::now_unix_ms;
use crate::cli::output;
use crate::engine::cache::{Record, Summary, TierName};
use crate::engine::config::{parse_age, parse_bytes};
use crate::engine::jit::Jit;
use crate::engine::request::constant;
use crate::engine::request::matrix::matches_glob;
use crate::engine::request::template::Registry;
use crate::engine::suggest::did_you_mean;

/// An entry of a tier.
pub(in crate::cli) struct Row {
    pub(in crate::cli) tier: TierName,
    pub(in crate::cli) record: Record,
}

/// What an entry must be to be meant.
pub(in crate::cli) struct Filter {
    families: Vec<String>,
    archs: Vec<String>,
    constants: Vec<(String, String)>,
    tiers: Vec<String>,
    min_size: Option<u64>,
    max_size: Option<u64>,
    older_than: Option<Duration>,
    newer_than: Option<Duration>,
}

/// The flags of a filter.
pub(in crate::cli) fn filter_args(command: Command) -> Command {
    let list = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_delimiter(',')
            .action(ArgAction::Append)
            .help(help)
            .help_heading("Filter")
    };
    let size = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("BYTES")
            .value_parser(|text: &str| parse_bytes(text))
            .help(help)
            .help_heading("Filter")
    };
    let age = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("AGE")
            .value_parser(|text: &str| parse_age(text))
            .help(help)
            .help_heading("Filter")
    };
    command.args([
        list("family", "GLOB", "Of these families"),
        list("arch", "GLOB", "For these architectures"),
        list("set", "NAME=GLOB", "With these constants").value_parser(pair),
        list("tier", "GLOB", "In these tiers"),
        size("min-size", "Of at least this size, all files together"),
        size("max-size", "Of at most this size"),
        age("older-than", "Last used longer ago, such as 30d"),
        age("newer-than", "Last used since, such as 12h"),
    ])
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected NAME=VALUE, such as wo_split=8")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Filter {
    pub(in crate::cli) fn read(matches: &ArgMatches) -> Self {
        let list = |name: &str| {
            let values = matches.get_many::<String>(name);
            values.into_iter().flatten().cloned().collect()
        };
        let pairs = matches.get_many::<(String, String)>("set");
        Self {
            families: list("family"),
            archs: list("arch"),
            constants: pairs.into_iter().flatten().cloned().collect(),
            tiers: list("tier"),
            min_size: matches.get_one("min-size").copied(),
            max_size: matches.get_one("max-size").copied(),
            older_than: matches.get_one("older-than").copied(),
            newer_than: matches.get_one("newer-than").copied(),
        }
    }

    fn admits(&self, row: &Row, now_ms: u64, registry: &Registry) -> bool {
        let any = |globs: &[String], text: &str| {
            globs.is_empty() || globs.iter().any(|glob| matches_glob(glob, text))
        };
        let unused = Duration::from_millis(now_ms.saturating_sub(row.record.used_unix_ms));
        let says = match &row.record.summary {
            Ok(summary) => {
                (any(&self.families, &summary.family) || self.formerly(summary, registry))
                    && any(&self.archs, &summary.arch.to_string())
                    && self.constants.iter().all(|(n, glob)| has(summary, n, glob))
            }
            // Nothing is known of a bad one: it is meant where nothing was asked.
            Err(_) => self.families.is_empty() && self.archs.is_empty() && self.constants.is_empty(),
        };
        says && any(&self.tiers, row.tier.as_str())
            && self.min_size.is_none_or(|least| row.record.bytes >= least)
            && self.max_size.is_none_or(|most| row.record.bytes <= most)
            && self.older_than.is_none_or(|age| unused > age)
            && self.newer_than.is_none_or(|age| unused <= age)
    }
}

impl Filter {
    /// What to say of a constant in the filter that no entry has, with the nearest name.
    pub(in crate::cli) fn unknown_name(&self, rows: &[Row]) -> String {
        let summaries = || rows.iter().filter_map(|row| row.record.summary.as_ref().ok());
        let known: BTreeSet<&str> = summaries()
            .flat_map(|s| s.constants.keys().map(String::as_str))
            .collect();
        let unknown = self
            .constants
            .iter()
            .find(|(name, _)| !known.contains(name.as_str()));
        unknown.map_or_else(String::new, |(name, _)| {
            let hint = did_you_mean(name, known);
            format!(": no entry has a constant `{name}`{hint}")
        })
    }

    /// Whether it is meant by a former name, which stands for some of its constants.
    fn formerly(&self, summary: &Summary, registry: &Registry) -> bool {
        let Ok(family) = registry.get(&summary.family) else {
            return false;
        };
        family.former_names.iter().any(|former| {
            let stands = |(name, value): (&String, &constant::Value)| {
                summary.constants.get(name) == Some(&value.to_json())
            };
            self.families.iter().any(|glob| matches_glob(glob, &former.name))
                && former.constants.iter().all(stands)
        })
    }
}

fn has(summary: &Summary, name: &str, glob: &str) -> bool {
    let value = summary.constants.get(name);
    value.is_some_and(|value| matches_glob(glob, &plain(value)))
}

/// A constant as a flag would give it.
pub(in crate::cli) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The entries that are meant, and the others; a folder that cannot be read is said to
/// be so, and passed over.
pub(in crate::cli) fn split(jit: &Jit, filter: &Filter) -> (Vec<Row>, Vec<Row>) {
    let now = now_unix_ms();
    let mut rows = Vec::new();
    for tier in jit.cache().tiers() {
        let Some(store) = tier.store() else { continue };
        match store.records() {
            Ok(records) => {
                rows.extend(records.into_iter().map(|record| Row {
                    tier: tier.name().clone(),
                    record,
                }));
            }
            Err(error) => output::note(format!("{}: {error}", tier.name())),
        }
    }
    rows.into_iter()
        .partition(|row| filter.admits(row, now, jit.registry()))
}

/// The flags of an order.
pub(in crate::cli) fn sort_args(command: Command) -> Command {
    command.args([
        Arg::new("sort")
            .long("sort")
            .value_name("BY")
            .value_parser([
                "key",
                "family",
                "arch",
                "size",
                "created",
                "used",
                "registers",
                "spills",
                "compile",
                "tier",
            ])
            .default_value("key")
            .help("What to sort by; the greatest comes last"),
        Arg::new("reverse")
            .long("reverse")
            .short('r')
            .action(ArgAction::SetTrue)
            .help("The greatest first"),
        Arg::new("limit")
            .long("limit")
            .value_name("N")
            .value_parser(value_parser!(usize))
            .help("Only the first N"),
    ])
}

/// Sorts, turns round and cuts off as the flags say; bad entries come first.
pub(in crate::cli) fn sort(rows: &mut Vec<Row>, matches: &ArgMatches) {
    let by = matches.get_one::<String>("sort").map_or("key", String::as_str);
    let number = |row: &Row, of: fn(&Summary) -> u64| row.record.summary.as_ref().map_or(0, of);
    let text = |row: &Row, of: fn(&Summary) -> String| row.record.summary.as_ref().map_or(String::new(), of);
    let compare = |a: &Row, b: &Row| -> Ordering {
        let numbers = |of: fn(&Summary) -> u64| number(a, of).cmp(&number(b, of));
        let texts = |of: fn(&Summary) -> String| text(a, of).cmp(&text(b, of));
        match by {
            "family" => texts(|s| s.family.clone()),
            "arch" => numbers(|s| u64::from(s.arch.number())),
            "size" => a.record.bytes.cmp(&b.record.bytes),
            "created" => numbers(|s| s.created_unix_ms),
            "used" => a.record.used_unix_ms.cmp(&b.record.used_unix_ms),
            "registers" => numbers(registers),
            "spills" => numbers(spills),
            "compile" => numbers(|s| s.compile_us),
            "tier" => a.tier.cmp(&b.tier),
            _ => Ordering::Equal,
        }
    };
    rows.sort_by(|a, b| compare(a, b).then(a.record.key.cmp(&b.record.key)));
    if matches.get_flag("reverse") {
        rows.reverse();
    }
    if let Some(limit) = matches.get_one::<usize>("limit") {
        rows.truncate(*limit);
    }
}

/// The most registers that an entry point uses.
pub(in crate::cli) fn registers(summary: &Summary) -> u64 {
    let all = summary.resources.iter().map(|r| u64::from(r.registers));
    all.max().unwrap_or(0)
}

/// Spilled bytes of all entry points.
pub(in crate::cli) fn spills(summary: &Summary) -> u64 {
    summary.resources.iter().map(|r| u64::from(r.spill_bytes)).sum()
}
