//! `jitc warm`: compiles variants in parallel, keeps going after a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::plan;
use super::{Answer, args, interrupt, output};
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::Provenance;
use crate::engine::jit::{Error, Jit, Jobs, Prepared, Progress, newer_driver, too_large};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::Registry;
use crate::engine::run::device;

/// What is left of a variant when it is done: not its artifact, of which there may be
/// thousands.
pub(super) struct Warmed {
    /// Whose code it is: its own, or that of what stands in.
    pub(super) request: CompileRequest,
    pub(super) provenance: Provenance,
    registers: u32,
    spill_bytes: u32,
    cubin_bytes: usize,
    compile_ms: f64,
    own_us: u64,
}

impl Warmed {
    fn of(prepared: &Prepared) -> Self {
        let artifact = &prepared.fetched.artifact;
        Self {
            request: prepared.request.clone(),
            provenance: prepared.fetched.provenance.clone(),
            registers: artifact.registers(),
            spill_bytes: artifact.spill_bytes(),
            cubin_bytes: artifact.cubin.len(),
            compile_ms: prepared.compile_ms(),
            own_us: prepared.own_us,
        }
    }
}

pub(super) fn command(registry: &Registry) -> Command {
    let warm = Command::new("warm")
        .about("Compile variants into the cache; needs no GPU")
        .arg(args::family_names())
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .short('j')
                .value_parser(value_parser!(usize))
                .help("Compiles at once [default: cores, as far as memory allows]"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .conflicts_with("receipt")
                .help("Compile nothing; list what is missing, and exit 1 if anything is"),
        )
        .arg(
            Arg::new("receipt")
                .long("receipt")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write what was requested, key by key, with sizes and digests, and how it ended"),
        );
    #[cfg(feature = "remote")]
    let warm = warm.arg(
        Arg::new("push")
            .long("push")
            .action(ArgAction::SetTrue)
            .conflicts_with("check")
            .help("Send every entry to the stores that are written to, those that were hits included"),
    );
    args::constants(plan::args(warm), registry)
}

fn progress_bar(variants: usize, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:24} {pos} of {len}, about {eta} left");
    ProgressBar::new(variants as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let started = Instant::now();
    let (plan, skipped) = plan::make(jit, matches)?;
    if skipped > 0 {
        output::note(format!(
            "{skipped} combinations left out, since constraints do not allow them"
        ));
    }
    if matches.get_flag("check") {
        return Ok(plan::check(&plan, jit, json)?);
    }
    let jobs = match jit.config().jobs()? {
        Some(jobs) => NonZeroUsize::new(jobs).map_or(Jobs::Auto, Jobs::Count),
        None => Jobs::Auto,
    };
    interrupt::leave_a_clean_cache();
    let specs: Vec<&KernelSpec> = plan.requests().iter().map(|planned| &planned.spec).collect();
    let bar = progress_bar(specs.len(), matches.get_flag("quiet"));
    // A script reads each object when its variant is done, not when all are.
    let done = |spec: &KernelSpec, result: &Result<Prepared, Error>| {
        if json {
            bar.suspend(|| output::json(&event(spec, result)));
        }
    };
    let results = compile_all(jit, &specs, jobs, &bar, &done);
    bar.finish_and_clear();
    let receipt = matches.get_one::<PathBuf>("receipt");
    let written = receipt.map(|path| (path, plan::write_receipt(&plan, jit, &results, path)));

    let (mut hit, mut built, mut failed) = (0, 0, 0);
    let mut not_kept: Option<(usize, &str)> = None;
    let mut rows = vec![heading()];
    for (spec, result) in specs.iter().zip(&results) {
        match result {
            Ok(warmed) => {
                if warmed.provenance.is_hit() {
                    hit += 1;
                } else {
                    built += 1;
                }
                if let Provenance::BuiltUncached(reason) = &warmed.provenance {
                    not_kept.get_or_insert((0, reason)).0 += 1;
                }
                rows.push(row(spec, warmed));
            }
            Err(_) => failed += 1,
        }
    }
    let elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
    if json {
        output::json(
            &json!({"event": "summary", "hit": hit, "built": built, "failed": failed,
                "not_kept": not_kept.map_or(0, |(count, _)| count), "elapsed_ms": elapsed_ms}),
        );
    } else if !matches.get_flag("quiet") {
        // Where all failed there is only the heading.
        if rows.len() > 1 {
            output::table(&rows);
        }
        let place = jit
            .config()
            .cache_dir()
            .map_or("nowhere: no cache folder".into(), |d| d.display().to_string());
        output::line(format!(
            "\n{hit} hit, {built} built, {failed} failed in {elapsed_ms:.0} ms; entries lie in {place}"
        ));
        if matches.get_count("verbose") > 0 {
            let own: Vec<u64> = results.iter().flatten().map(|p| p.own_us).collect();
            let mean = own.iter().sum::<u64>() / (own.len() as u64).max(1);
            let most = own.iter().max().copied().unwrap_or(0);
            output::line(format!(
                "jitc's own part (all but NVRTC): mean {mean} us, most {most} us a variant"
            ));
        }
    }
    if !matches.get_flag("quiet") {
        for line in too_large(&specs) {
            output::note(line);
        }
    }
    say_failures(&specs, &results);
    #[cfg(feature = "remote")]
    if matches.get_flag("push") {
        let keys: Vec<_> = results
            .iter()
            .flatten()
            .map(|warmed| *warmed.request.key())
            .collect();
        failed += usize::from(!super::cache::fleet::push_keys(jit, &keys, json)?);
    }
    if let Some((count, reason)) = not_kept {
        // The kernels are right, but there is nothing that a later run would find.
        output::error(format!("{count} built and not kept: {reason}"));
    }
    if let Some((path, Err(error))) = &written {
        output::error(format!("the receipt {}: {error}", path.display()));
        return Ok(ExitCode::from(2));
    }
    let elsewhere = matches.contains_id("gpu");
    let done = (elsewhere || loads_here(jit, &specs)?) && failed == 0 && not_kept.is_none();
    Ok(ExitCode::from(if done { 0 } else { 2 }))
}

/// Says of each failure its line, all of the compiler's log, and what to do about it.
fn say_failures(specs: &[&KernelSpec], results: &[Result<Warmed, Error>]) {
    let mut said: BTreeSet<Option<&str>> = BTreeSet::new();
    let mut unknown: BTreeMap<Arch, (usize, &Error)> = BTreeMap::new();
    for (spec, error) in specs
        .iter()
        .zip(results)
        .filter_map(|(s, r)| Some((s, r.as_ref().err()?)))
    {
        if matches!(error, Error::UnknownArch { .. }) {
            unknown.entry(spec.arch()).or_insert((0, error)).0 += 1;
            continue;
        }
        output::note(format!(
            "failed: {} {} {}: {error}",
            spec.family().name,
            spec.variant(),
            spec.arch()
        ));
        // Variants of one source mostly fail alike.
        let log = error.log();
        if log.is_none() || said.insert(log) {
            super::details(error);
        } else {
            output::indented("the compiler says the same as above");
        }
    }
    // Of each arch one line: no variant of it can be compiled.
    for (count, error) in unknown.values() {
        output::error(format!("{count} failed: {error}"));
        super::details(error);
    }
}

/// Whether this machine's driver takes what was compiled for its GPUs; if not, says why.
/// Where archs were named, the code may be for other machines.
fn loads_here(jit: &Jit, specs: &[&KernelSpec]) -> Result<bool, Error> {
    if jit.config().arch().is_some() {
        return Ok(true);
    }
    let devices = device::here().map_err(Error::Device)?;
    let for_one = |spec: &&KernelSpec| devices.iter().any(|d| spec.arch().runs_on(d.major, d.minor));
    if !specs.iter().any(for_one) {
        return Ok(true);
    }
    let Some((driver, text)) = jit.driver_too_old()? else {
        return Ok(true);
    };
    output::error(format!(
        "this machine's driver is too old for what was compiled: {text}"
    ));
    output::hints(&[newer_driver(driver)]);
    Ok(false)
}

/// Prepares all of them, and keeps of each what the report wants.
fn compile_all(
    jit: &Jit,
    specs: &[&KernelSpec],
    jobs: Jobs,
    bar: &ProgressBar,
    done: &dyn Fn(&KernelSpec, &Result<Prepared, Error>),
) -> Vec<Result<Warmed, Error>> {
    let mut results: Vec<Option<Result<Warmed, Error>>> = specs.iter().map(|_| None).collect();
    jit.prepare_all(specs, jobs, &mut |progress| match progress {
        Progress::Done { index, result } => {
            done(specs[index], &result);
            results[index] = Some(result.map(|prepared| Warmed::of(&prepared)));
            bar.inc(1);
        }
        Progress::Running { index, elapsed } => {
            let spec = specs[index];
            bar.suspend(|| {
                output::note(format!(
                    "still at {} {} {} ({} s)",
                    spec.family().name,
                    spec.variant(),
                    spec.arch(),
                    elapsed.as_secs()
                ));
            });
        }
    });
    results.into_iter().flatten().collect()
}

fn heading() -> Vec<String> {
    [
        "family",
        "variant",
        "arch",
        "key",
        "how",
        "NVRTC ms",
        "registers",
        "spills",
        "cubin bytes",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn row(spec: &KernelSpec, warmed: &Warmed) -> Vec<String> {
    let how = match &warmed.provenance {
        Provenance::BuiltUncached(reason) => format!("built, not kept: {reason}"),
        Provenance::Compatible { arch, .. } => format!("hit, code for {arch}"),
        other => other.label().to_owned(),
    };
    vec![
        spec.family().name.clone(),
        spec.variant(),
        spec.arch().to_string(),
        warmed.request.key().short(),
        how,
        format!("{:.1}", warmed.compile_ms),
        warmed.registers.to_string(),
        warmed.spill_bytes.to_string(),
        warmed.cubin_bytes.to_string(),
    ]
}

fn event(spec: &KernelSpec, result: &Result<Prepared, Error>) -> serde_json::Value {
    match result {
        Ok(prepared) => prepared.to_json(spec),
        Err(error) => {
            let mut event = super::failure(error);
            event["family"] = json!(spec.family().name);
            event["variant"] = json!(spec.variant());
            event["arch"] = json!(spec.arch());
            event
        }
    }
}
