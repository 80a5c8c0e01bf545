//! Which entries a verb is about, and in which order: flags of both.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::cli::output;
use crate::engine::cache::{CacheError, Listed, Order, Query, TierName};
use crate::engine::config::{parse_age, parse_bytes};
use crate::engine::jit::Jit;

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

/// What the flags of a filter say.
pub(in crate::cli) fn query(matches: &ArgMatches) -> Query {
    let list = |name: &str| {
        let values = matches.get_many::<String>(name);
        values.into_iter().flatten().cloned().collect()
    };
    let pairs = matches.get_many::<(String, String)>("set");
    Query {
        families: list("family"),
        archs: list("arch"),
        constants: pairs.into_iter().flatten().cloned().collect(),
        tiers: list("tier"),
        min_bytes: matches.get_one("min-size").copied(),
        max_bytes: matches.get_one("max-size").copied(),
        older_than: matches.get_one("older-than").copied(),
        newer_than: matches.get_one("newer-than").copied(),
    }
}

/// The entries that are meant, and the others; a folder that cannot be read is said to
/// be so, and passed over.
pub(in crate::cli) fn split(jit: &Jit, query: &Query) -> (Vec<Listed>, Vec<Listed>) {
    let selected = query.select(jit.cache(), jit.registry());
    say_unreadable(&selected.unreadable);
    (selected.meant, selected.others)
}

/// Says which folders could not be read.
pub(in crate::cli) fn say_unreadable(unreadable: &[(TierName, CacheError)]) {
    for (tier, error) in unreadable {
        output::note(format!("{tier}: {error}"));
    }
}

/// Whether entries come in the order in which they lie, so that none needs the others.
pub(in crate::cli) fn as_they_lie(matches: &ArgMatches) -> bool {
    let by = matches.get_one::<String>("sort").map(String::as_str);
    by == Some("key") && !matches.get_flag("reverse")
}

/// The flags of an order.
pub(in crate::cli) fn sort_args(command: Command) -> Command {
    command.args([
        Arg::new("sort")
            .long("sort")
            .value_name("BY")
            .value_parser(Order::NAMES.map(|(name, _)| name))
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
pub(in crate::cli) fn sort(rows: &mut Vec<Listed>, matches: &ArgMatches) {
    let by = matches.get_one::<String>("sort").map_or("key", String::as_str);
    let order = Order::NAMES.iter().find(|(name, _)| *name == by);
    order.map_or(Order::default(), |(_, order)| *order).sort(rows);
    if matches.get_flag("reverse") {
        rows.reverse();
    }
    if let Some(limit) = matches.get_one::<usize>("limit") {
        rows.truncate(*limit);
    }
}
