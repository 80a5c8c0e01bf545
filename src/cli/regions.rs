//! `jitc regions`: an account of a launch from the ticks that its blocks wrote.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::regions_live::{self, Cost};
use super::{Answer, args, output};
use crate::jit::{Error, Jit};
use crate::region::{self, Bare, Diff, Geometry, Reduced, TickSource, Ticks, reduce, synthetic, thousands};
use crate::template::Registry;

/// A launch's ticks and their account.
pub(super) struct Run {
    pub(super) ticks: Ticks,
    pub(super) reduced: Reduced,
    pub(super) cost: Option<Cost>,
}

impl Run {
    pub(super) fn new(ticks: Ticks) -> Self {
        let reduced = reduce(&ticks);
        Self {
            ticks,
            reduced,
            cost: None,
        }
    }
}

pub(super) fn command(registry: &Registry) -> Command {
    let path = args::path;
    let command =
        Command::new("regions")
            .about("Reduce region timings, compare them, draw them")
            .arg(
                Arg::new("files")
                    .num_args(0..)
                    .value_name("FILE.npy")
                    .help("Buffers; or `diff BEFORE AFTER`"),
            )
            .arg(Arg::new("live").long("live").value_name("FAMILY").help(
                "Run a family on a GPU and read its buffers: constants as for `warm`, --num-seqs tokens",
            ))
            .arg(
                Arg::new("synthetic")
                    .long("synthetic")
                    .value_name("SPLITS")
                    .value_delimiter(',')
                    .value_parser(value_parser!(u32))
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
                "Write the original's columns [with several buffers: a folder]",
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
    ("num_seqs", "num-seqs", "Blocks in z: sequences [default: 1]"),
    ("wo_split", "wo-split", "Slots of a kv head [default: 1]"),
    ("num_kv_heads", "num-kv-heads", "Key/value heads [default: 4]"),
    (
        "tick_source",
        "tick-source",
        "globaltimer or clock64 [default: globaltimer]",
    ),
];

pub(super) fn run(jit: &Jit, matches: &ArgMatches, as_json: bool) -> Answer {
    let words: Vec<&String> = matches.get_many("files").into_iter().flatten().collect();
    let diffing = words.first().is_some_and(|w| *w == "diff");
    let mut runs = match runs(jit, matches, &words[usize::from(diffing)..])? {
        Ok(runs) => runs,
        Err(reason) => return Ok(refused(&reason)),
    };
    if let Some(us) = matches.get_one::<f64>("launch-us") {
        for run in &mut runs {
            run.ticks.launch_us = Some(*us);
            run.reduced = reduce(&run.ticks);
        }
    }
    if let Some(folder) = matches.get_one::<PathBuf>("save") {
        fs_err::create_dir_all(folder).map_err(region::RegionError::from)?;
        for run in &runs {
            run.ticks
                .save(&folder.join(format!("{}.npy", file_name(&run.ticks.label))))?;
        }
    }
    write_reports(matches, &runs)?;
    if diffing {
        let [before, after] = runs.as_slice() else {
            return Ok(refused("`jitc regions diff` takes two buffers"));
        };
        let diff = region::diff((&before.ticks, &before.reduced), (&after.ticks, &after.reduced))?;
        print_diff(before, after, &diff, as_json);
        return Ok(ExitCode::SUCCESS);
    }
    for run in &runs {
        if as_json {
            output::json(&region::to_json(&run.ticks, &run.reduced));
            if let Some(cost) = &run.cost {
                output::json(
                    &json!({"schema": "jitc.regions-cost.v1", "label": run.ticks.label,
                    "device": cost.device, "off_us": cost.off_us, "on_us": cost.on_us,
                    "more_us": cost.more_us, "events_us": cost.events_us}),
                );
            }
        } else {
            print_run(run);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The launches asked for; or one line on why there are none.
fn runs(jit: &Jit, matches: &ArgMatches, files: &[&String]) -> Result<Result<Vec<Run>, String>, Error> {
    if let Some(family) = matches.get_one::<String>("live") {
        let nat = flag(matches, "num_seqs").map_or(Ok(1), |text| text.parse());
        let Ok(nat @ 1..=64) = nat else {
            return Ok(Err("--num-seqs: expected a whole number from 1 to 64".into()));
        };
        return regions_live::runs(jit, family, nat);
    }
    let bare = match bare(matches) {
        Ok(bare) => bare,
        Err(reason) => return Ok(Err(reason)),
    };
    if let Some(splits) = matches.get_many::<u32>("synthetic") {
        let mut runs = Vec::new();
        for &wo_split in splits {
            let geometry = Geometry {
                wo_split,
                ..bare.geometry
            };
            runs.push(Run::new(synthetic(geometry, 20)?));
        }
        return Ok(Ok(runs));
    }
    if files.is_empty() {
        return Ok(Err(
            "nothing to read: name a FILE.npy, or --live FAMILY, or --synthetic 1,8".into(),
        ));
    }
    let mut runs = Vec::new();
    for file in files {
        let path = Path::new(file);
        let beside = region::sidecar(path);
        let ticks = if matches.get_flag("no-sidecar") {
            Ticks::open_bare(path, &bare)?
        } else if beside.exists() && bare_flags(matches) {
            return Ok(Err(format!(
                "{} says what {file} is: leave the geometry's flags out, or say --no-sidecar",
                beside.display()
            )));
        } else {
            Ticks::open(path, &bare)?
        };
        runs.push(Run::new(ticks));
    }
    Ok(Ok(runs))
}

/// What a flag of the geometry says, be it a constant of some family or not.
fn flag<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a String> {
    [format!("constant:{name}"), name.to_owned()]
        .iter()
        .find_map(|id| matches.try_get_one::<String>(id).ok().flatten())
}

fn bare_flags(matches: &ArgMatches) -> bool {
    let family = matches.get_one::<String>("family").is_some();
    family || GEOMETRY.iter().any(|(name, ..)| flag(matches, name).is_some())
}

fn bare(matches: &ArgMatches) -> Result<Bare, String> {
    let number = |name: &str, default: u32| match flag(matches, name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|n| (1..=65_536).contains(n))
            .ok_or_else(|| format!("{name} = {text}: expected a whole number from 1 to 65536")),
    };
    let source = match flag(matches, "tick_source") {
        None => TickSource::default(),
        Some(text) => TickSource::of(text)
            .ok_or_else(|| format!("tick_source = {text}: expected globaltimer or clock64"))?,
    };
    let usual = Geometry::default();
    Ok(Bare {
        family: matches.get_one::<String>("family").cloned(),
        geometry: Geometry {
            slice_ctas: number("slice_ctas", usual.slice_ctas)?,
            num_k_tiles: number("num_k_tiles", usual.num_k_tiles)?,
            num_seqs: number("num_seqs", usual.num_seqs)?,
            wo_split: number("wo_split", usual.wo_split)?,
            num_kv_heads: number("num_kv_heads", usual.num_kv_heads)?,
            layout: usual.layout,
        },
        source,
    })
}

pub(super) fn refused(reason: &str) -> ExitCode {
    output::note(format!("error: {reason}"));
    ExitCode::from(2)
}

fn write_reports(matches: &ArgMatches, runs: &[Run]) -> Result<(), region::RegionError> {
    let wall_us = matches.get_one::<f64>("wall-us").copied();
    let csv = |run: &Run| region::csv(&run.ticks, &run.reduced, wall_us);
    let trace = |run: &Run| region::trace(&run.ticks).to_string();
    write_each(matches.get_one("csv"), "csv", runs, csv)?;
    write_each(matches.get_one("trace"), "trace.json", runs, trace)?;
    if let Some(path) = matches.get_one::<PathBuf>("html") {
        let all: Vec<_> = runs.iter().map(|run| (&run.ticks, &run.reduced)).collect();
        fs_err::write(path, region::page(&all))?;
    }
    Ok(())
}

/// One file, or a folder with a file a buffer.
fn write_each(
    path: Option<&PathBuf>,
    ending: &str,
    runs: &[Run],
    text: impl Fn(&Run) -> String,
) -> Result<(), region::RegionError> {
    let Some(path) = path else {
        return Ok(());
    };
    if let [run] = runs {
        return Ok(fs_err::write(path, text(run))?);
    }
    fs_err::create_dir_all(path)?;
    for run in runs {
        let name = format!("{}.{ending}", file_name(&run.ticks.label));
        fs_err::write(path.join(name), text(run))?;
    }
    Ok(())
}

/// A label as a file's name: `wo_gemv-wo_split_8`.
fn file_name(label: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let words: Vec<&str> = label.split(|c| !plain(c)).filter(|w| !w.is_empty()).collect();
    words.join("-")
}

pub(super) fn print_run(run: &Run) {
    let (ticks, reduced) = (&run.ticks, &run.reduced);
    let g = &ticks.geometry;
    let launch = ticks
        .launch_us
        .map_or("not measured".to_owned(), |us| format!("{} us", thousands(us)));
    output::line(format!(
        "{}: {} with {} regions, grid {} x {} x {}, {}, launch {launch}",
        ticks.label,
        ticks.table.family,
        ticks.table.count(),
        g.slice_ctas,
        g.num_k_tiles,
        g.num_seqs,
        ticks.source.name(),
    ));
    let globaltimer = ticks.source == TickSource::GlobalTimer;
    let (unit, scale) = if globaltimer {
        ("us", 1000.0)
    } else {
        ("cycles", 1.0)
    };
    let time = |ticks: f64| format!("{:.3}", ticks / scale);
    let mut rows = vec![
        [
            "id",
            "region",
            "class",
            "CTAs",
            &format!("median {unit}"),
            "mean",
            "p99",
            "of launch",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in &reduced.rows {
        rows.push(vec![
            row.region.id.to_string(),
            row.region.name.to_owned(),
            row.region.class.to_string(),
            row.n_active.to_string(),
            time(row.median),
            time(row.mean),
            time(row.p99),
            if row.frac_of_kernel.is_finite() {
                format!("{:.1} %", 100.0 * row.frac_of_kernel)
            } else {
                "-".to_owned()
            },
        ]);
    }
    output::table(&rows);
    let busiest = &reduced.busiest;
    let (bx, by, bz) = g.block(busiest.cta);
    #[expect(clippy::cast_precision_loss, reason = "ticks of a launch are far below 2^53")]
    let shown = |t: i64| format!("{} {unit}", thousands(t as f64 / scale));
    let explained = reduced.explained(ticks).map_or(String::new(), |share| {
        let of = if globaltimer && ticks.launch_us.is_some() {
            "of the launch"
        } else {
            "from first tick to last"
        };
        format!(": {:.1} % {of}", 100.0 * share)
    });
    output::line(format!(
        "busiest CTA {} ({bx}, {by}, {bz}): {} of work and {} of waiting{explained}",
        busiest.cta,
        shown(busiest.work),
        shown(busiest.wait),
    ));
    print_rest(run, &shown);
    if globaltimer {
        output::line(format!("the clock moves in steps of {} ns", reduced.step));
    }
    if let Some(cost) = &run.cost {
        output::line(format!(
            "{}: {:.2} us without regions, {:.2} us with them; {:+.2} us ({:+.2} %) from one launch to the next; medians, \
             nothing in L2; {}",
            cost.device,
            cost.off_us,
            cost.on_us,
            cost.more_us,
            100.0 * cost.more_us / cost.off_us,
            cost.held_to
        ));
        output::line(format!(
            "the events around a launch are {:.2} us apart without one",
            cost.events_us
        ));
    }
    for warning in region::warnings(reduced) {
        output::note(format!("warning: {}: {warning}", ticks.label));
    }
    output::line("");
}

/// What no region of the busiest block holds, by place.
fn print_rest(run: &Run, shown: &dyn Fn(i64) -> String) {
    let rest = &run.reduced.rest;
    let parts = [
        (
            rest.outside,
            "before the first tick of any block and after the last one",
        ),
        (rest.before, "before its own first tick"),
        (rest.after, "after its own last one"),
        (Some(rest.between), "between its regions"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter_map(|(ticks, place)| Some(format!("{} {place}", shown((*ticks)?))))
        .collect();
    output::line(format!("not in its regions: {}", parts.join("; ")));
}

fn print_diff(before: &Run, after: &Run, diff: &Diff, as_json: bool) {
    if as_json {
        let mut value = diff.to_json();
        value["before"] = json!(before.ticks.label);
        value["after"] = json!(after.ticks.label);
        output::json(&value);
        return;
    }
    output::line(format!(
        "{} -> {}, medians in {}",
        before.ticks.label, after.ticks.label, diff.unit
    ));
    let mut rows = vec![
        ["region", "CTAs", "before", "after", "delta", "ratio"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let more = diff.launch.iter();
    for row in diff.rows.iter().chain([&diff.cluster]).chain(more) {
        rows.push(vec![
            row.name.clone(),
            format!("{} -> {}", row.n_before, row.n_after),
            format!("{:.3}", row.before),
            format!("{:.3}", row.after),
            format!("{:+.3}", row.delta()),
            row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}x")),
        ]);
    }
    output::table(&rows);
    output::line(format!("\n{}", diff.reading()));
}
