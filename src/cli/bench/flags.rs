//! What `jitc bench` takes, and what everything takes that measures.

use std::path::PathBuf;

use clap::{Arg, ArgAction, value_parser};

use crate::cli::args;
use crate::engine::request::template::Registry;

pub(in crate::cli) fn command(registry: &Registry) -> clap::Command {
    let bench = clap::Command::new("bench")
        .about("Hold the W_O kernels, or the decode layer, to the reference on a GPU, then time them")
        .arg(
            Arg::new("family")
                .value_parser(["wo_gemv", "layer"])
                .default_value("wo_gemv")
                .help("wo_gemv, or layer: beta_coop, beta_lite and separate kernels side by side"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Folder for summary.json and plot.svg, and one a variant for config.json, timing.csv, correctness_*.json"),
        )
        .arg(
            Arg::new("ncu")
                .long("ncu")
                .action(ArgAction::SetTrue)
                .help("Run again under ncu, a launch a variant, and add what the counters say"),
        )
        .arg(
            Arg::new("under-ncu")
                .long("under-ncu")
                .action(ArgAction::SetTrue)
                .hide(true),
        );
    args::constants(super::layer::args(measuring(bench)), registry)
}

/// Flags of everything that measures.
pub(in crate::cli) fn measuring(command: clap::Command) -> clap::Command {
    command
        .arg(
            Arg::new("method")
                .long("method")
                .value_parser(["graph", "events"])
                .default_value("graph")
                .help("Time replays of a graph of launches, or each launch between two events"),
        )
        .arg(
            Arg::new("cold")
                .long("cold")
                .action(ArgAction::SetTrue)
                .help("Another set of weights each launch, so that none lies in L2 [the default]"),
        )
        .arg(
            Arg::new("warm")
                .long("warm")
                .action(ArgAction::SetTrue)
                .conflicts_with("cold")
                .help("The same weights each launch"),
        )
        .arg(
            Arg::new("launches")
                .long("launches")
                .value_parser(args::count::<usize>)
                .default_value("50")
                .help("Samples"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_parser(value_parser!(u64))
                .default_value("4242")
                .help("Of the inputs"),
        )
        .arg(
            Arg::new("global-scale")
                .long("global-scale")
                .value_name("LIST")
                .default_value("1")
                .help("Global scales; one of more than 16 significant bits takes the general path"),
        )
}
