//! `jitc extract`: nvllm's tool of that name, option by option.
//!
//! It keeps nvllm's headline: the share of the launch in the regions whose
//! reduction could be cut along k, and what follows from it. Where nvllm
//! loses region 9 under its later name, this one finds it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;

use super::regions::refused;
use super::{Answer, args, output};
use crate::engine::atomic_file::write_text;
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;
use crate::measure::region::{self, AlongK, Bare, Geometry, Run, TickSource, Ticks, profiled_kernel};

pub(super) fn command(_: &Registry) -> Command {
    let path = args::path;
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(value_parser!(u32).range(1..=65_536))
            .default_value(default)
            .help(help)
    };
    Command::new("extract")
        .about("Reduce a buffer against a measured launch, with the options of nvllm's tool")
        .arg(path("buf", "The buffer, .npy").required(true))
        .arg(path("out", "The CSV to write").required(true))
        .arg(path(
            "kernels",
            "A profile: CSV with kernel_symbol, mean_us, total_ms",
        ))
        .arg(args::microseconds(
            "kernel-mean-us",
            "The launch's mean time; goes before --kernels",
        ))
        .arg(
            Arg::new("kernel-symbol-regex")
                .long("kernel-symbol-regex")
                .value_name("REGEX")
                .default_value("PhaseE_Beta_Kernel")
                .help("Which kernel of the profile; of several, the one with the largest total_ms"),
        )
        .arg(number("slice-ctas", "8", "Blocks in x"))
        .arg(number("num-k-tiles", "8", "Blocks in y"))
        .arg(number("num-seqs", "1", "Sequences"))
        .arg(number("wo-split", "1", "Slots of a kv head"))
        .arg(number("num-kv-heads", "4", "Key/value heads"))
        .arg(
            Arg::new("tick-source")
                .long("tick-source")
                .value_parser(["globaltimer", "clock64"])
                .default_value("globaltimer")
                .help("The clock"),
        )
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, as_json: bool) -> Answer {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or(1);
    let source = matches.get_one::<String>("tick-source");
    let launch_us = match (
        matches.get_one::<f64>("kernel-mean-us"),
        matches.get_one::<PathBuf>("kernels"),
    ) {
        (Some(us), _) => Ok((*us, None)),
        (None, Some(profile)) => {
            let wanted = matches.get_one::<String>("kernel-symbol-regex");
            profiled_kernel(profile, wanted.map_or("", String::as_str))
                .map(|(us, symbol)| (us, Some(symbol)))
                .map_err(|e| e.to_string())
        }
        (None, None) => Err("the launch's time is missing: --kernels or --kernel-mean-us".to_owned()),
    };
    let (launch_us, symbol) = match launch_us {
        Ok(found) => found,
        Err(reason) => return Ok(refused(&reason)),
    };
    let bare = Bare {
        family: None,
        geometry: Geometry {
            slice_ctas: number("slice-ctas"),
            num_k_tiles: number("num-k-tiles"),
            num_seqs: number("num-seqs"),
            ..Geometry::default()
        }
        .with("wo_split", number("wo-split"))
        .with("num_kv_heads", number("num-kv-heads")),
        source: source.and_then(|s| TickSource::of(s)).unwrap_or_default(),
    };
    let mut ticks = Ticks::open_bare(&path("buf"), &bare, jit.registry())?;
    ticks.launch_us = Some(launch_us);
    let run = Run::new(ticks);
    write_text(&path("out"), &region::csv(&run.ticks, &run.reduced, None))
        .map_err(region::RegionError::from)?;
    let headline = AlongK::of(&run.ticks.table, &run.reduced.rows);
    if as_json {
        output::json(
            &json!({"schema": "jitc.extract.v1", "kernel_symbol": symbol, "launch_us": launch_us,
            "share_along_k": headline.share, "of_launch": headline.of_launch,
            "verdict": headline.verdict(), "site": headline.site,
            "account": region::to_json(&run.ticks, &run.reduced)}),
        );
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(symbol) = symbol {
        output::line(format!("kernel: {symbol}"));
    }
    super::regions::print(region::account(&run));
    if !headline.of_launch {
        output::note(
            "warning: no shares of the launch with this clock: shares of the ticks that do not wait instead",
        );
    }
    output::line(format!(
        "regions that reduce along k ({}): {:.1} %, largest {}",
        headline.regions,
        100.0 * headline.share,
        headline.site
    ));
    output::line(format!("verdict: {}", headline.verdict()));
    Ok(ExitCode::SUCCESS)
}
