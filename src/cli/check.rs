//! `jitc check`: what is wrong with the families of a folder, or probably not meant.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;

use super::{Answer, itself, output};
use crate::engine::jit::{Error, ErrorKind, Jit};
use crate::engine::request::spec::{KernelSpec, SpecError};
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Family, Registry, TemplateError};
use crate::measure::MeasureError;

pub(super) fn command(_: &Registry) -> Command {
    Command::new("check")
        .about("Check a folder of families: declarations, variants, and one compile of each")
        .arg(
            Arg::new("folder")
                .value_name("FOLDER")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The folder, as --templates has it"),
        )
        .arg(
            Arg::new("arch")
                .long("arch")
                .value_name("LIST")
                .value_delimiter(',')
                .default_value("sm_90a")
                .value_parser(|text: &str| text.parse::<Arch>().map_err(|e| e.to_string()))
                .help("Architectures to compile for"),
        )
}

/// What was found, printed as it comes.
struct Findings {
    json: bool,
    count: usize,
}

impl Findings {
    fn add(&mut self, place: &str, finding: impl std::fmt::Display) {
        self.count += 1;
        let line = finding.to_string();
        // An error of a family names it already.
        let text = line.strip_prefix(&format!("{place}: ")).unwrap_or(&line);
        if self.json {
            output::json(&json!({"event": "finding", "family": place, "finding": text}));
        } else {
            output::line(format!("{place}: {text}"));
        }
    }
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let folder = matches
        .get_one::<PathBuf>("folder")
        .map_or(Path::new(""), PathBuf::as_path);
    let archs: Vec<Arch> = matches.get_many("arch").into_iter().flatten().copied().collect();
    let mut findings = Findings { json, count: 0 };
    if !folder.is_dir() {
        let reason = format!("{}: is not a folder", folder.display());
        return Err(MeasureError::Request(reason));
    }
    let registry = match Registry::load(Some(folder)) {
        Ok(registry) => registry,
        Err(TemplateError::Declaration { file, reason }) => {
            findings.add(&file, reason);
            return Ok(ended(&findings, 0));
        }
        Err(error) => return Err(Error::from(error).into()),
    };
    let own = |family: &&Arc<Family>| registry.place_of(&family.source_name()).starts_with(folder);
    let families: Vec<Arc<Family>> = registry.families().filter(own).cloned().collect();
    if families.is_empty() {
        let reason = format!(
            "{}: no family is in it: expected NAME.toml with NAME.cu.tera",
            folder.display()
        );
        return Err(MeasureError::Request(reason));
    }
    let jit = Jit::builder(jit.config().clone())
        .worker(itself())
        .registry(registry)
        .build()?;
    for family in &families {
        for finding in family.findings() {
            findings.add(&family.name, finding);
        }
        variants(family, archs.first().copied(), &mut findings);
        for arch in archs.iter().filter(|arch| family.does(**arch)) {
            compile(&jit, family, *arch, &mut findings)?;
        }
    }
    Ok(ended(&findings, families.len()))
}

/// Every listed value of a constant, the others at their defaults.
fn variants(family: &Arc<Family>, arch: Option<Arch>, findings: &mut Findings) {
    let Some(arch) = arch.filter(|arch| family.does(*arch)).or(family.oldest_arch) else {
        return;
    };
    let one = |(name, constant): (&String, &crate::engine::request::template::Constant)| {
        let values = constant.legal.listed().unwrap_or_default();
        values
            .into_iter()
            .map(|value| (name.clone(), value))
            .collect::<Vec<_>>()
    };
    let mut said: Vec<String> = Vec::new();
    for (name, value) in family.constants.iter().flat_map(one) {
        match KernelSpec::new(family, [(name.as_str(), value.as_str())], arch) {
            // Values that do not go with the defaults are what constraints are for.
            Ok(_) | Err(SpecError::Constraint { .. }) => {}
            Err(error) if said.contains(&error.to_string()) => {}
            Err(error) => {
                findings.add(
                    &family.name,
                    format!("{name} = {value}: {}", without(&error, &family.name)),
                );
                said.push(error.to_string());
            }
        }
    }
}

/// The variant of all defaults, compiled.
fn compile(jit: &Jit, family: &Arc<Family>, arch: Arch, findings: &mut Findings) -> Result<(), Error> {
    let spec = match KernelSpec::new(family, [], arch) {
        Ok(spec) => spec,
        Err(error) => {
            findings.add(
                &family.name,
                format!("with its defaults: {}", without(&error, &family.name)),
            );
            return Ok(());
        }
    };
    match jit.prepare(&spec) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::Toolchain) => Err(error),
        Err(error) => {
            findings.add(&family.name, error);
            Ok(())
        }
    }
}

/// An error's line without the family that it begins with.
fn without(error: &SpecError, family: &str) -> String {
    let line = error.to_string();
    line.strip_prefix(&format!("{family}: "))
        .unwrap_or(&line)
        .to_owned()
}

fn ended(findings: &Findings, families: usize) -> ExitCode {
    let Findings { json, count } = findings;
    if *json {
        output::json(&json!({"event": "summary", "families": families, "findings": count}));
    } else {
        output::line(format!("families checked: {families}, findings: {count}"));
    }
    ExitCode::from(u8::from(*count > 0))
}
