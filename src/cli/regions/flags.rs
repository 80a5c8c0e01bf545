//! What `jitc regions` takes, and what it says of a buffer that says nothing itself.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::cli::args;
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;
use crate::measure::region::own::Given;
use crate::measure::region::{Bare, masked_constants};

pub(in crate::cli) fn command(registry: &Registry) -> Command {
    let path = args::path;
    let command = Command::new("regions")
        .about("Reduce region timings, compare them, draw them")
        .arg(
            Arg::new("files")
                .num_args(0..)
                .value_name("FILE.npy")
                .help("Buffers; or `diff BEFORE AFTER`"),
        )
        .arg(
            Arg::new("live")
                .long("live")
                .value_name("FAMILY")
                .help("Run a family on a GPU and read its buffers: constants as for `warm`, --tokens N"),
        )
        .arg(
            Arg::new("with")
                .long("with")
                .value_name("NAME=N")
                .action(ArgAction::Append)
                .requires("live")
                .help("Family of your own: a launch size [default: 4096] or another number that it takes [default: 1]"),
        )
        .arg(
            Arg::new("synthetic")
                .long("synthetic")
                .value_name("SPLITS")
                .value_delimiter(',')
                .value_parser(value_parser!(u32))
                .conflicts_with("live")
                .help("Made-up launches in the shape of the published ones, for a look without a GPU"),
        )
        .arg(
            Arg::new("save")
                .long("save")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .help("Write the buffers read or made up: .npy, and .json beside it"),
        )
        .arg(path(
            "csv",
            "Write nvllm's columns [with several buffers: a folder]",
        ))
        .arg(path(
            "trace",
            "Write a trace for Perfetto [with several buffers: a folder]",
        ))
        .arg(path(
            "html",
            "Write a page that needs nothing else, all buffers in it",
        ))
        .arg(args::microseconds(
            "launch-us",
            "The launch's measured time, for shares and microseconds",
        ))
        .arg(args::microseconds(
            "wall-us",
            "A wall time, for the CSV's wall_minus_regions_us",
        ))
        .arg(
            Arg::new("family")
                .long("family")
                .value_name("NAME")
                .help("Whose regions a file has that says nothing itself [default: by their number]"),
        )
        .arg(
            Arg::new("no-sidecar")
                .long("no-sidecar")
                .action(ArgAction::SetTrue)
                .help("Leave the .json beside a file unread, and take the geometry from the flags"),
        );
    let declared = |name: &str| registry.families().any(|f| f.constants.contains_key(name));
    let mut command = args::constants(command, registry);
    for (name, flag, help) in GEOMETRY {
        if !declared(name) {
            command = command.arg(Arg::new(name).long(flag).value_name("N").help(help));
        }
    }
    command
}

/// Parts of the geometry; those that some family declares as constants are flags already.
const GEOMETRY: [(&str, &str, &str); 6] = [
    ("slice_ctas", "slice-ctas", "Blocks in x [default: 8]"),
    ("num_k_tiles", "num-k-tiles", "Blocks in y [default: 8]"),
    (
        "num_tokens",
        "tokens",
        "Tokens of a launch: sequences, blocks in z [default: 1]",
    ),
    ("wo_split", "wo-split", "Slots of a kv head [default: 1]"),
    ("num_kv_heads", "num-kv-heads", "Key/value heads [default: 4]"),
    (
        "tick_source",
        "tick-source",
        "globaltimer or clock64 [default: globaltimer]",
    ),
];

/// A constant on the command line that is no part of the geometry, and of no use but
/// with `--live`.
pub(super) fn unused(jit: &Jit) -> Option<String> {
    let read = masked_constants(jit.registry());
    let part = |name: &str| GEOMETRY.iter().any(|(own, ..)| *own == name) || read.contains(name);
    let mut flags = jit.config().flag_constants().iter();
    let other = flags.find(|set| !part(&set.name))?;
    Some(if other.flag == "--set" {
        format!("--set {}", other.name)
    } else {
        other.flag.clone()
    })
}

/// The launch sizes and numbers of `--with`.
pub(super) fn given(matches: &ArgMatches) -> Result<Given, String> {
    let texts = matches.get_many::<String>("with").into_iter().flatten();
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--with {text}: expected NAME=N"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    texts.map(pair).collect()
}

/// What a flag of the geometry says, be it a constant of some family or not.
pub(super) fn flag<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a String> {
    [format!("constant:{name}"), name.to_owned()]
        .iter()
        .find_map(|id| matches.try_get_one::<String>(id).ok().flatten())
}

pub(super) fn bare_flags(matches: &ArgMatches) -> bool {
    let family = matches.get_one::<String>("family").is_some();
    family || GEOMETRY.iter().any(|(name, ..)| flag(matches, name).is_some())
}

pub(super) fn bare(registry: &Registry, matches: &ArgMatches) -> Result<Bare, String> {
    let said = |name: &str| flag(matches, name).map(String::as_str);
    Ok(Bare::said(registry, matches.get_one("family").cloned(), &said)?)
}
