//! What `jitc warm` is asked for, from flags, a matrix or a trace, and which
//! part of it is this machine's.
//!
//! Invariant: shards of one request are disjoint and together complete, whatever
//! the order in which it was written: they are dealt out in the order of keys.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;

use super::output;
use super::warm::Warmed;
use crate::engine::atomic_file::write_atomically;
use crate::engine::build::key::CacheKey;
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::{Judged, Receipt, passed_over};
use crate::engine::config::{Config, Setting, Source};
use crate::engine::jit::{Error, Jit, TraceLine, read_trace};
use crate::engine::request::matrix::Matrix;
use crate::engine::request::select::SelectError;
use crate::engine::request::spec::{KernelSpec, count_variants};
use crate::measure::MeasureError;

/// One variant to warm.
pub(super) struct Request {
    pub(super) spec: KernelSpec,
    pub(super) request: CompileRequest,
}

/// All of them.
pub(super) struct Plan {
    pub(super) requests: Vec<Request>,
    pub(super) skipped: usize,
}

/// `--matrix`, `--from-trace`, `--shard`.
pub(super) fn args(command: Command) -> Command {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .conflicts_with("family")
            .help(help)
    };
    command.args([
        file(
            "matrix",
            "Warm what this file lists: families, constants, archs; globs and products. Flags hold where it says nothing",
        ),
        file("from-trace", "Warm what JITC_TRACE recorded in this file").conflicts_with("matrix"),
        Arg::new("shard")
            .long("shard")
            .value_name("I/N")
            .value_parser(shard)
            .help("Only part I of N: disjoint, and together complete"),
    ])
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/');
    let numbers = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match numbers {
        Some((i, n)) if (1..=n).contains(&i) => Ok((i, n)),
        _ => Err("expected I/N with I from 1 to N, such as 2/8".to_owned()),
    }
}

impl Plan {
    pub(super) fn make(jit: &Jit, matches: &ArgMatches) -> Result<Self, MeasureError> {
        let (specs, skipped) = if let Some(path) = matches.get_one::<PathBuf>("matrix") {
            matrix(jit, path)?
        } else if let Some(path) = matches.get_one::<PathBuf>("from-trace") {
            if let Some(flag) = beside_a_trace(jit.config()) {
                return Err(MeasureError::Request(format!(
                    "{flag} beside --from-trace: each line of a trace says its constants and its arch; leave it out"
                )));
            }
            (traced(jit, path)?, 0)
        } else {
            (super::specs_to_warm(jit, &super::args::families(matches))?, 0)
        };
        let mut seen = BTreeSet::new();
        let mut requests = Vec::new();
        for spec in specs {
            let (request, _) = jit.describe(&spec)?;
            if seen.insert(*request.key()) {
                requests.push(Request { spec, request });
            }
        }
        if let Some((i, n)) = matches.get_one::<(usize, usize)>("shard") {
            let ours: BTreeSet<CacheKey> = seen.into_iter().skip(i - 1).step_by(*n).collect();
            requests.retain(|request| ours.contains(request.request.key()));
        }
        Ok(Self { requests, skipped })
    }

    /// Lists what a load would not find, and why; 1 if there is any.
    pub(super) fn check(&self, jit: &Jit, json: bool) -> Result<ExitCode, Error> {
        let (mut gaps, mut why_passed_over) = (0, BTreeSet::new());
        for Request { spec, .. } in &self.requests {
            let (request, judged) = jit.judge(spec)?;
            let (word, reason) = match judged {
                Judged::Hit { .. } => continue,
                _ if jit.stand_in(spec)?.is_some() => continue,
                Judged::Bad { tier, fault } => ("bad", Some(format!("{tier}: {fault}"))),
                Judged::Refused(drift) => ("refused", Some(format!("as a receipt is required: {drift}"))),
                _ => ("missing", None),
            };
            gaps += 1;
            why_passed_over.extend(passed_over(jit.cache().tiers(), request.key()));
            if json {
                output::json(
                    &json!({"event": "gap", "family": request.family(), "constants": request.constants(),
                    "arch": request.arch(), "key": request.key(), "answer": word, "reason": reason}),
                );
            } else {
                let (family, variant) = (request.family(), spec.variant());
                output::line(format!(
                    "{word}: {family} {variant} {}: {}{}",
                    request.arch(),
                    request.key(),
                    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
                ));
            }
        }
        why_passed_over.iter().for_each(output::note);
        let requested = self.requests.len();
        if json {
            output::json(&json!({"event": "summary", "requested": requested,
                // Its former name, for one release.
                "asked": requested, "missing": gaps}));
        } else {
            output::line(format!("{requested} requested, {gaps} missing"));
        }
        Ok(ExitCode::from(u8::from(gaps > 0)))
    }

    /// Writes the receipt beside its place and renames it.
    pub(super) fn write_receipt(
        &self,
        jit: &Jit,
        results: &[Result<Warmed, Error>],
        path: &Path,
    ) -> std::io::Result<()> {
        let words = std::env::args_os().skip(1);
        let mut receipt = Receipt::new(words.map(|w| w.to_string_lossy().into_owned()).collect());
        for (request, result) in self.requests.iter().zip(results) {
            match result {
                Ok(warmed) => receipt.add(jit.cache(), &warmed.request, &warmed.provenance),
                Err(error) => receipt.add_failure(&request.request, &error.to_string()),
            }
        }
        write_atomically(path, 0o600, |file| file.write_all(&receipt.to_bytes()))
    }
}

fn matrix(jit: &Jit, path: &Path) -> Result<(Vec<KernelSpec>, usize), Error> {
    let families = || jit.registry().families().map(|family| &**family);
    let mut archs = super::usual_archs(jit, families())?;
    archs.retain(|arch| families().any(|f| f.does(*arch)));
    let expanded = Matrix::read(path).and_then(|m| m.expand(jit.registry(), jit.config(), || archs));
    let expansion = expanded.map_err(|source| Error::Matrix {
        path: path.to_path_buf(),
        source,
    })?;
    Ok((expansion.specs, expansion.skipped))
}

/// What each line of a trace asks for: it has every constant and the arch.
fn traced(jit: &Jit, path: &Path) -> Result<Vec<KernelSpec>, Error> {
    let spec = |line: &TraceLine| -> Result<KernelSpec, SelectError> {
        let family = jit.registry().named(&line.family)?;
        let texts = line.texts();
        let set = texts.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(KernelSpec::written(
            &family,
            set,
            line.arch,
            &Source::Line(line.line),
        )?)
    };
    let mut specs = Vec::new();
    // Every process of a fleet records what it compiled.
    let mut seen = HashSet::new();
    for line in read_trace(path).map_err(Error::Trace)? {
        let spec = spec(&line).map_err(|source| Error::TraceLine {
            path: path.to_path_buf(),
            line: line.line,
            source: Box::new(source),
        })?;
        if seen.insert(spec.id()) {
            count_variants("the trace", [1], specs.len())?;
            specs.push(spec);
        }
    }
    Ok(specs)
}

/// The flag that says what every line of a trace says, too, if one does.
fn beside_a_trace(config: &Config) -> Option<String> {
    let flag = |setting: Option<Setting>| match setting?.source {
        Source::Flag(flag) => Some(flag),
        _ => None,
    };
    let constant = config
        .flag_constants()
        .first()
        .map(|constant| constant.flag.clone());
    constant
        .or_else(|| flag(config.arch()))
        .or_else(|| flag(config.preset(&[])))
}
