//! Why a build script could not embed its kernels.

use std::fmt;
use std::path::PathBuf;

use super::Build;
use crate::engine::cache::bundle::BundleError;
use crate::engine::jit::{Error, ErrorKind};
use crate::engine::request::target::ArchError;
use crate::engine::request::template::TemplateError;

/// Why kernels could not be embedded. `{:?}` is the same line as `{}`, and below it the
/// compiler's log if there is one: a build script's `main` shows an error so.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// Cargo does not run it as a build script.
    #[error("{0} is not set: expected to be called by a build script, which cargo tells where to write")]
    NoBuildScript(&'static str),
    /// What cannot be the folder of families.
    #[error("`{folder}`: {reason}")]
    Folder {
        /// As the build script names it.
        folder: String,
        /// What was wrong, or would be right.
        reason: &'static str,
    },
    /// Nothing says which GPUs the program is for.
    #[error(
        "no arch: expected those of the GPUs that the program is for, .archs([\"sm_80\", \"sm_90a\"]) say"
    )]
    NoArch,
    /// What is no arch.
    #[error(transparent)]
    Arch(ArchError),
    /// A family of the folder.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Asking for a kernel, or making one.
    #[error(transparent)]
    Jit(#[from] Error),
    /// The build machine lacks a compiler for a program that is built for another.
    #[error("{source}; it is this machine ({host}) that compiles the kernels of a program for {target}")]
    Cross {
        /// What it lacks.
        source: Box<Error>,
        /// What builds.
        host: String,
        /// What is built for.
        target: String,
    },
    /// An entry is not in the cache of the build.
    #[error("the kernel {key} could not be kept below {out}: is there room, and the right to write?")]
    NotKept {
        /// Beginning of its key.
        key: String,
        /// Where it should be.
        out: PathBuf,
    },
    /// A record of what was measured that is none.
    #[error("{}: {reason}: expected what `jitc tune` keeps, tuned.json of a cache", file.display())]
    Tuned {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Writing the bundle.
    #[error("writing the bundle: {0}")]
    Bundle(#[from] BundleError),
    /// Writing files, or to cargo.
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

impl EmbedError {
    /// Of what a kernel was not compiled for.
    pub(super) fn of_compile(error: Error, build: &Build) -> Self {
        match (&build.cross, error.kind()) {
            (Some((target, host)), ErrorKind::Toolchain) => Self::Cross {
                source: Box::new(error),
                host: host.clone(),
                target: target.clone(),
            },
            _ => Self::Jit(error),
        }
    }
}

impl fmt::Debug for EmbedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if let Self::Jit(error) = self
            && let Some(log) = error.log()
        {
            write!(f, "\n\n{log}")?;
        }
        Ok(())
    }
}
