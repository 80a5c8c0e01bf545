//! What is wrong with the families of a folder, or probably not meant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, ErrorKind, Jit};
use crate::engine::build::compile::WorkerChoice;
use crate::engine::config::Config;
use crate::engine::request::spec::{KernelSpec, SpecError};
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Constant, Family, Registry, TemplateError};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The family, or the file of a declaration that cannot be read.
    pub place: String,
    /// What is wrong, in one line.
    pub text: String,
}

impl Finding {
    fn new(place: &str, finding: impl std::fmt::Display) -> Self {
        let line = finding.to_string();
        // An error of a family names it already.
        let text = line.strip_prefix(&format!("{place}: ")).unwrap_or(&line);
        Self {
            place: place.to_owned(),
            text: text.to_owned(),
        }
    }
}

/// Why a folder could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// It is none.
    #[error("{}: is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// There is nothing to check.
    #[error("{}: no family is in it: expected NAME.toml with NAME.cu.tera", .0.display())]
    NoFamily(PathBuf),
    /// There is no compiler, or the settings are not legal.
    #[error(transparent)]
    Jit(#[from] Error),
}

/// Checks the families of a folder: their declarations, every listed value of a constant,
/// and one compile of each family with its defaults for each arch that it does. Each finding
/// is told at once; the answer is the number of families.
///
/// # Errors
/// As of [`CheckError`]: what is wrong with a family is a finding, and none of these.
pub fn check_folder(
    config: &Config,
    worker: WorkerChoice,
    folder: &Path,
    archs: &[Arch],
    found: &mut dyn FnMut(Finding),
) -> Result<usize, CheckError> {
    if !folder.is_dir() {
        return Err(CheckError::NotAFolder(folder.to_path_buf()));
    }
    let registry = match Registry::load(Some(folder)) {
        Ok(registry) => registry,
        Err(TemplateError::Declaration { file, reason }) => {
            found(Finding::new(&file, reason));
            return Ok(0);
        }
        Err(error) => return Err(Error::from(error).into()),
    };
    let own = |family: &&Arc<Family>| registry.place_of(&family.source_name()).starts_with(folder);
    let families: Vec<Arc<Family>> = registry.families().filter(own).cloned().collect();
    if families.is_empty() {
        return Err(CheckError::NoFamily(folder.to_path_buf()));
    }
    let builder = Jit::builder(config.clone()).worker(worker);
    let jit = builder.registry(registry).build()?;
    for family in &families {
        for finding in family.findings() {
            found(Finding::new(&family.name, finding));
        }
        variants(family, archs.first().copied(), found);
        for arch in archs.iter().filter(|arch| family.does(**arch)) {
            compile(&jit, family, *arch, found)?;
        }
    }
    Ok(families.len())
}

/// Every listed value of a constant, the others at their defaults.
fn variants(family: &Arc<Family>, arch: Option<Arch>, found: &mut dyn FnMut(Finding)) {
    let Some(arch) = arch.filter(|arch| family.does(*arch)).or(family.oldest_arch) else {
        return;
    };
    let each = |(name, constant): (&String, &Constant)| {
        let values = constant.legal.listed().unwrap_or_default();
        let named = values.into_iter().map(|value| (name.clone(), value));
        named.collect::<Vec<_>>()
    };
    let mut said: Vec<String> = Vec::new();
    for (name, value) in family.constants.iter().flat_map(each) {
        match KernelSpec::new(family, [(name.as_str(), value.as_str())], arch) {
            // Values that do not go with the defaults are what constraints are for.
            Ok(_) | Err(SpecError::Constraint { .. }) => {}
            Err(error) if said.contains(&error.to_string()) => {}
            Err(error) => {
                let text = format!("{name} = {value}: {}", without(&error, &family.name));
                found(Finding::new(&family.name, text));
                said.push(error.to_string());
            }
        }
    }
}

/// The variant of all defaults, compiled.
fn compile(jit: &Jit, family: &Arc<Family>, arch: Arch, found: &mut dyn FnMut(Finding)) -> Result<(), Error> {
    let spec = match KernelSpec::new(family, [], arch) {
        Ok(spec) => spec,
        Err(error) => {
            let text = format!("with its defaults: {}", without(&error, &family.name));
            found(Finding::new(&family.name, text));
            return Ok(());
        }
    };
    match jit.prepare(&spec) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::Toolchain) => Err(error),
        Err(error) => {
            found(Finding::new(&family.name, error));
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
