//! From source to machine code.
//!
//! Invariant: a [`Compiler`] reads nothing but what it is given. The trait is
//! the seam at which tests count or replace compiles.

mod diagnostics;
mod nvrtc;

pub(crate) use diagnostics::{hints, in_files};
pub use nvrtc::Nvrtc;

use crate::engine::build::artifact::Artifact;
use crate::engine::build::render::RenderedSource;

/// Why there is no machine code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The compiler refused the source.
    #[error("{first}")]
    Refused {
        /// The first error: file and line of the template or header, and the
        /// compiler's own words.
        first: String,
        /// The whole log.
        log: String,
    },
    /// The compiler could not be used.
    #[error("NVRTC: {0}")]
    Library(String),
}

impl CompileError {
    /// All that the compiler said, where it refused the source.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        match self {
            Self::Refused { log, .. } => Some(log),
            Self::Library(_) => None,
        }
    }
}

/// What turns rendered sources into artifacts.
pub trait Compiler: Send + Sync {
    /// Compiles one source.
    fn compile(&self, rendered: &RenderedSource) -> Result<Artifact, CompileError>;

    /// The PTX of one source, where the compiler can say it.
    fn ptx(&self, _rendered: &RenderedSource) -> Result<String, CompileError> {
        Err(CompileError::Library("this compiler gives no PTX".to_owned()))
    }
}
