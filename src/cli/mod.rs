//! The command line. Exit codes: 0 yes, 1 a negative answer, 2 failure.

mod args;
mod cache;
mod check;
mod constant_flags;
mod dispatch;
mod doctor;
mod extract;
mod inspect;
mod interrupt;
mod log;
mod measured;
mod new;
mod output;
mod pack;
mod pages;
mod plan;
mod regions;
mod sign;
mod toolchain;
mod warm;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::engine::build::compile::WorkerChoice;
use crate::engine::build::compile::worker::serve_if_asked;
use crate::engine::config::{Config, Environment, Flags};
use crate::engine::jit::{Error, Jit, UsualArchs};
use crate::engine::request::select::Selection;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Family, Registry};
use crate::measure::harness::Verb as Measured;
use crate::measure::{MeasureError, former_flags};

/// How a verb ended: an answer, or a failure that is yet to be printed.
type Answer = Result<ExitCode, MeasureError>;

/// A verb: its arguments, and what it does. Each stands in a file of its own.
struct Verb {
    name: &'static str,
    /// Under which heading `jitc --help` lists it.
    group: Group,
    /// What exit code 1 means; empty where it never ends so.
    no: &'static str,
    /// Commands that its help ends with, after `jitc`.
    examples: &'static [&'static str],
    command: fn(&Registry) -> clap::Command,
    run: fn(&Jit, &clap::ArgMatches, bool) -> Answer,
}

/// The headings of `jitc --help`, in their order.
#[derive(Clone, Copy, PartialEq)]
enum Group {
    Families,
    Gpu,
    Cache,
    Program,
}

const GROUPS: [(Group, &str); 4] = [
    (Group::Families, "Family commands:"),
    (Group::Gpu, "Measuring commands:"),
    (Group::Cache, "Cache commands:"),
    (Group::Program, "Other commands:"),
];

/// Every verb, in the order in which `jitc --help` lists them.
#[rustfmt::skip]
const VERBS: &[Verb] = &[
    Verb { name: "warm", group: Group::Families, no: "with --check: something is missing", examples: &["warm --wo-split 8 --check", "warm stream --arch sm_80,sm_90a"], command: warm::command, run: warm::run },
    Verb { name: "render", group: Group::Families, no: "", examples: &["render axpy --unroll 4 --arch sm_90a"], command: inspect::render_command, run: inspect::render },
    Verb { name: "key", group: Group::Families, no: "", examples: &["key axpy --unroll 1,4 --arch sm_90a"], command: inspect::key_command, run: inspect::key },
    Verb { name: "families", group: Group::Families, no: "", examples: &["families", "families wo_gemv"], command: inspect::families_command, run: inspect::families },
    Verb { name: "new", group: Group::Families, no: "", examples: &["new my_kernel"], command: new::command, run: new::run },
    Verb { name: "check", group: Group::Families, no: "something was found", examples: &["check DIR --arch sm_80,sm_90a"], command: check::command, run: check::run },
    Verb { name: "why", group: Group::Families, no: "a miss, or a bad entry", examples: &["why stream --arch sm_90a"], command: why::command, run: why::run },
    Verb { name: "dispatch", group: Group::Families, no: "no variant is prepared, or its capacity is unknown", examples: &["dispatch --device h200 --explain"], command: dispatch::command, run: dispatch::run },
    Verb { name: "verify", group: Group::Gpu, no: "something differs", examples: &["verify wo_gemv --quick"], command: |r| measured::command(Measured::Verify, r), run: |j, m, json| measured::run(Measured::Verify, j, m, json) },
    Verb { name: "bench", group: Group::Gpu, no: "something differs", examples: &["bench wo_gemv --wo-split 1,8"], command: |r| measured::command(Measured::Bench, r), run: |j, m, json| measured::run(Measured::Bench, j, m, json) },
    Verb { name: "tune", group: Group::Gpu, no: "something differs", examples: &["tune axpy --dry-run"], command: |r| measured::command(Measured::Tune, r), run: |j, m, json| measured::run(Measured::Tune, j, m, json) },
    Verb { name: "regions", group: Group::Gpu, no: "", examples: &["regions --synthetic 1,8 --html page.html"], command: regions::command, run: regions::run },
    Verb { name: "extract", group: Group::Gpu, no: "", examples: &[], command: extract::command, run: extract::run },
    Verb { name: "pack", group: Group::Gpu, no: "", examples: &[], command: pack::command, run: pack::run },
    Verb { name: "cache", group: Group::Cache, no: "no such entry, a bad one, or a difference", examples: &["cache ls --family stream", "cache show KEY --source", "cache prune --older-than 30d --dry-run"], command: cache::command, run: cache::run },
    Verb { name: "sign", group: Group::Cache, no: "something is not signed by a trusted key", examples: &["sign keygen fleet-1 --out FILE"], command: sign::command, run: sign::run },
    Verb { name: "toolchain", group: Group::Program, no: "none was found", examples: &["toolchain list"], command: toolchain::command, run: toolchain::run },
    Verb { name: "doctor", group: Group::Program, no: "something is to be fixed", examples: &["doctor"], command: doctor::command, run: doctor::run },
    Verb { name: "version", group: Group::Program, no: "", examples: &["version --verbose"], command: doctor::version_command, run: doctor::version },
    Verb { name: "completions", group: Group::Program, no: "", examples: &["completions bash"], command: pages::completions_command, run: pages::completions },
    Verb { name: "man", group: Group::Program, no: "", examples: &["man --out DIR"], command: pages::man_command, run: pages::man },
];

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    if let Some(code) = serve_if_asked() {
        return code;
    }
    interrupt::end_as_first_process();
    let env = Environment::capture();
    let words: Vec<OsString> = std::env::args_os().collect();
    let answer = start(&words, &env);
    interrupt::wait_if_ending();
    let code = ended(&words, answer);
    match output::failed() {
        Some(error) => {
            output::error(format!("standard output: {error}"));
            ExitCode::from(2)
        }
        None => code,
    }
}

/// Says what went wrong, if anything did.
fn ended(words: &[OsString], answer: Answer) -> ExitCode {
    match answer {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            if let Some(engine) = error.engine() {
                if words.iter().any(|word| word == "--json") && engine.log().is_some() {
                    output::json(&failure(engine));
                }
                details(engine);
            } else if let Some(hint) = error.hint() {
                output::hints(&[hint.to_owned()]);
            }
            ExitCode::from(2)
        }
    }
}

/// What an error says besides its line: all of the compiler's log, and what to do.
fn details(error: &Error) {
    if let Some(log) = error.log() {
        output::indented(log);
    }
    output::hints(&error.hints());
}

/// A failed compile as an object.
fn failure(error: &Error) -> serde_json::Value {
    serde_json::json!({"event": "failure", "error": error.to_string(), "log": error.log(),
        "hints": error.hints()})
}

fn start(words: &[OsString], env: &Environment) -> Answer {
    let here = std::env::current_dir().unwrap_or_default();
    // Flags are made from the families' constants, so the families come first.
    let color = args::early(words, "--color").map(|when| when.to_string_lossy().into_owned());
    output::color(color.as_deref());
    let early = Flags {
        templates: args::early(words, "--templates").map(PathBuf::from),
        env_file: args::early(words, "--env-file").map(PathBuf::from),
        config: args::early(words, "--config").map(PathBuf::from),
        ..Flags::default()
    };
    // A folder with somebody else's file has help, too.
    let early = Config::load_to_report(early, env.clone(), &here)?;
    if color.is_none() {
        output::color(early.color()?.as_deref());
    }
    early.check_templates()?;
    let registry = Registry::load(early.templates().as_deref())?;
    let words = args::verb_first(words);
    let (words, notes) = former_flags::respelt(&words, args::verb_at(&words));
    notes.iter().for_each(output::note);
    let mut command = args::command(&registry, &words).color(output::clap_color());
    let matches = match command.try_get_matches_from_mut(words) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    let Some((verb, sub)) = matches.subcommand() else {
        return Ok(ExitCode::from(2));
    };
    let flags = args::flags(sub, &registry);
    let flags = match flags {
        Ok(flags) => flags,
        Err(reason) => {
            output::error(reason);
            return Ok(ExitCode::from(2));
        }
    };
    // Whoever reports says what is passed over, and is not refused for it.
    let config = if verb == "doctor" {
        Config::load_to_report(flags, env.clone(), &here)?
    } else {
        Config::load_in(flags, env.clone(), &here)?
    };
    logging(&config, sub.get_count("verbose"), sub.get_flag("quiet"));
    let json = sub.get_flag("json");
    // One reading of the folder is what flags were made from and what is compiled.
    let same = early.templates() == config.templates();
    let jit = Jit::builder(config).worker(itself());
    let jit = if same { jit.registry(registry) } else { jit }.build()?;
    match VERBS.iter().find(|v| v.name == verb) {
        Some(found) => (found.run)(&jit, sub, json),
        None => Ok(ExitCode::from(2)),
    }
}

/// This program is its own compile worker, also where its file was replaced meanwhile.
fn itself() -> WorkerChoice {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() {
        return WorkerChoice::Program(running);
    }
    // Without /proc the word that it was started by has to do, if that is a path.
    let word = std::env::args_os().next().map(PathBuf::from);
    match word.filter(|word| word.components().count() > 1) {
        Some(path) => WorkerChoice::Program(path),
        None => WorkerChoice::Found,
    }
}

fn logging(config: &Config, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = config.log_filter().unwrap_or_else(|| format!("jitc={level}"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(output::stderr_is_colored())
        .event_format(log::Lines)
        .try_init();
}

/// The specs that a verb's families and constants ask for; families, values and GPUs that
/// a selection leaves out are said on standard error.
fn specs(jit: &Jit, named: &[String]) -> Result<Vec<KernelSpec>, Error> {
    let (selection, archs) = select(jit, named)?;
    Ok(selection.specs(jit.config(), || archs)?)
}

/// As [`specs`], with what a program may choose among when it loads them.
fn specs_to_warm(jit: &Jit, named: &[String]) -> Result<Vec<KernelSpec>, Error> {
    let (selection, archs) = select(jit, named)?;
    Ok(selection.specs_to_warm(jit.config(), || archs)?)
}

fn select(jit: &Jit, named: &[String]) -> Result<(Selection, Vec<Arch>), Error> {
    let selection = jit.registry().select(named, jit.config())?;
    selection.notes().for_each(output::note);
    let families = selection.families.iter();
    let archs = usual_archs(jit, families.map(|selected| &**selected.named.family()))?;
    Ok((selection, archs))
}

/// The archs of this machine's GPUs, where the settings name none; which of the GPUs these
/// families leave out is said.
fn usual_archs<'f>(jit: &Jit, families: impl Iterator<Item = &'f Family>) -> Result<Vec<Arch>, Error> {
    let Some(usual) = UsualArchs::of(jit.config())? else {
        return Ok(Vec::new());
    };
    usual.note().iter().for_each(output::note);
    usual.skipped(families)?.iter().for_each(output::note);
    Ok(usual.archs())
}
