//! `jitc extract`: nvllm's tool of that name, option by option.
//!
//! It keeps nvllm's headline: the share of the launch in the regions whose
//! reduction could be cut along k, and what follows from it. Where nvllm
//! loses region 9 under its later name, this one finds it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use regex::RegexBuilder;
use serde_json::json;

use super::regions::refused;
use super::{Answer, args, output};
use crate::engine::atomic_file::write_text;
use crate::engine::jit::Jit;
use crate::engine::regular_file::{MAX_RECORDS, read_text};
use crate::engine::request::template::Registry;
use crate::measure::region::{self, Bare, Geometry, RegionRow, Run, TickSource, Ticks};

/// Regions whose reduction runs along k, and what a person calls them.
const ALONG_K: [(&str, &str); 4] = [
    ("phase1_wo_gemv", "W_O GEMV"),
    ("phase3_3a_fc1_silu", "FC1 + SiLU"),
    ("phase3_3c_fc2_atomic", "FC2"),
    ("phase3_3c_fc2_last_iter", "FC2"),
];

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
            of_profile(profile, wanted.map_or("", String::as_str))
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
    let headline = Headline::of(&run.reduced.rows);
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
    super::regions::print_run(&run);
    if !headline.of_launch {
        output::note(
            "warning: no shares of the launch with this clock: shares of the ticks that do not wait instead",
        );
    }
    output::line(format!(
        "regions that reduce along k (R2 + R7 + R9): {:.1} %, largest {}",
        100.0 * headline.share,
        headline.site
    ));
    output::line(format!("verdict: {}", headline.verdict()));
    Ok(ExitCode::SUCCESS)
}

/// The share along k and what it says.
struct Headline {
    share: f64,
    /// Whether it is a share of the launch, or of the ticks that do not wait.
    of_launch: bool,
    /// The largest of the regions.
    site: &'static str,
}

impl Headline {
    fn of(rows: &[RegionRow]) -> Self {
        let along_k: Vec<(&RegionRow, &'static str)> = rows
            .iter()
            .filter_map(|row| {
                let found = ALONG_K.iter().find(|(name, _)| *name == &*row.region.name)?;
                Some((row, found.1))
            })
            .collect();
        let site = along_k
            .iter()
            .max_by(|a, b| a.0.median.total_cmp(&b.0.median))
            .map_or("none", |found| found.1);
        let of_launch = along_k.iter().all(|(row, _)| row.frac_of_kernel.is_finite());
        let share = if of_launch {
            along_k.iter().map(|(row, _)| row.frac_of_kernel).sum()
        } else {
            let working = rows.iter().filter(|row| !row.region.is_wait());
            let all: f64 = working.map(|row| row.median).sum();
            let some: f64 = along_k.iter().map(|(row, _)| row.median).sum();
            if all > 0.0 { some / all } else { 0.0 }
        };
        Self {
            share,
            of_launch,
            site,
        }
    }

    fn verdict(&self) -> String {
        let site = self.site;
        if self.share >= 0.50 {
            format!("strong go: cut {site} along k first")
        } else if self.share >= 0.40 {
            format!("proceed: cut {site} along k first")
        } else if self.share >= 0.25 {
            format!("conditional: cut {site} along k only if a profile shows it bound by memory")
        } else {
            "no-go: cutting along k is not enough by itself".to_owned()
        }
    }
}

/// Mean time and symbol of the kernel that a profile's CSV has.
fn of_profile(path: &std::path::Path, wanted: &str) -> Result<(f64, Option<String>), String> {
    let file = path.display();
    let regex = RegexBuilder::new(wanted)
        .case_insensitive(true)
        .build()
        .map_err(|_| format!("--kernel-symbol-regex {wanted}: not a regular expression"))?;
    let text = read_text(path, MAX_RECORDS).map_err(|e| e.to_string())?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let heading = reader.headers().map_err(|e| format!("{file}: {e}"))?.clone();
    let column = |name: &str| {
        heading.iter().position(|h| h == name).ok_or_else(|| {
            let found: Vec<&str> = heading.iter().collect();
            format!("{file} has no column {name}: it has {}", found.join(", "))
        })
    };
    let (symbol, mean, total) = (column("kernel_symbol")?, column("mean_us")?, column("total_ms")?);
    let mut kernels = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| format!("{file}: {e}"))?;
        let number = |column: usize| {
            let text = record.get(column).unwrap_or_default();
            text.parse::<f64>().map_err(|_| {
                format!(
                    "{file}: `{text}` is not a number, in the column {}",
                    &heading[column]
                )
            })
        };
        kernels.push((record[symbol].to_owned(), number(mean)?, number(total)?));
    }
    kernels.sort_by(|a, b| b.2.total_cmp(&a.2));
    if let Some((name, mean, _)) = kernels.iter().find(|(name, ..)| regex.is_match(name)) {
        if !(*mean > 0.0 && mean.is_finite()) {
            return Err(format!(
                "{file}: a mean_us of {mean} for {name}: expected more than 0"
            ));
        }
        return Ok((*mean, Some(name.clone())));
    }
    let largest: Vec<&str> = kernels.iter().take(5).map(|(name, ..)| name.as_str()).collect();
    Err(format!(
        "{file}: no kernel_symbol matches {wanted}; the largest are {}",
        largest.join(", ")
    ))
}
