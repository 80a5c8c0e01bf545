//! From source to machine code.
//!
//! Invariant: a [`Compiler`] reads nothing but what it is given. The trait is
//! the seam at which tests count or replace compiles.
//!
//! NVRTC runs in a process of its own ([`Workers`]), or, where the program that is that
//! process cannot be found, on a thread of its own ([`InProcess`]). Either way its file
//! system is closed (`sandbox`) and its clock stands still.

mod cancel;
mod clock;
mod diagnostics;
mod find;
mod hints;
mod in_process;
mod nvrtc;
mod sandbox;
mod stay_inside;
pub mod worker;

use std::time::Duration;

pub use cancel::Cancel;
pub(crate) use diagnostics::in_files;
pub(crate) use find::program;
pub use find::{PROGRAM, WorkerChoice};
pub(crate) use hints::hints;
pub use in_process::InProcess;
pub use nvrtc::Nvrtc;
use worker::StartError;
pub use worker::Workers;

use crate::engine::build::artifact::Artifact;
use crate::engine::build::render::RenderedSource;

/// Stack of the thread that NVRTC runs on, bytes: its parser and its optimizer recurse,
/// and 2 MiB end at 2,000 `else if`s.
const STACK: usize = 64 << 20;

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
    /// The compiler's process ended.
    #[error("the compiler crashed: {how}")]
    Crashed {
        /// The signal or exit code, and its last words.
        how: String,
    },
    /// It took too long, and was ended.
    #[error(
        "the compile was ended after {} s: the most that compile_timeout (JITC_COMPILE_TIMEOUT) allows",
        after.as_secs_f64()
    )]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// It took too much memory, and was ended.
    #[error("the compile ran out of memory{}", match limit {
        Some(bytes) => format!(": compile_memory (JITC_COMPILE_MEMORY) allows {} MiB", bytes >> 20),
        None => String::new(),
    })]
    OutOfMemory {
        /// The limit in force, bytes.
        limit: Option<u64>,
    },
    /// No worker could be started for it.
    #[error("{0}")]
    NoWorker(Box<StartError>),
    /// Whoever requested it gave up.
    #[error("the compile was canceled")]
    Canceled,
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
            _ => None,
        }
    }
}

/// What a compile may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest that one compile may take.
    pub timeout: Duration,
    /// Address space of the compiler's process, bytes.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(5),
            memory: 8 << 30,
        }
    }
}

/// What turns rendered sources into artifacts.
pub trait Compiler: Send + Sync {
    /// Compiles one source; ends early, where it can, once it is canceled.
    fn compile(&self, rendered: &RenderedSource, cancel: &Cancel) -> Result<Artifact, CompileError>;

    /// The PTX of one source, where the compiler can say it.
    fn ptx(&self, _rendered: &RenderedSource) -> Result<String, CompileError> {
        Err(CompileError::Library("this compiler gives no PTX".to_owned()))
    }
}
