//! The compiler in processes of its own.
//!
//! Invariant: whatever a source does to the compiler, this process lives: a compile that
//! crashes, never ends or takes all memory costs its worker, and is a typed error. A
//! worker makes many compiles, one at a time, and ends with the process that started it.

mod process;
mod protocol;
mod serve;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use process::StartError;
use process::{Ended, Process};
use protocol::{Answer, Task};
pub use serve::{ROLE, serve, serve_if_asked};

use super::{Cancel, CompileError, Compiler, Limits};
use crate::engine::build::artifact::Artifact;
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::Toolchain;
use crate::engine::request::header_set::SetUse;

/// Which program is the worker, and what it is told at its start.
#[derive(Debug, Clone)]
pub struct WorkerSetup {
    /// The program.
    pub program: PathBuf,
    /// The compiler that it is to open.
    pub toolchain: Toolchain,
    /// Variables from which the compiler takes options, where they are set.
    pub compiler_env: Vec<(String, String)>,
    /// What a compile may take.
    pub limits: Limits,
}

/// NVRTC in worker processes: as many as compile at once.
#[derive(Debug)]
pub struct Workers {
    setup: WorkerSetup,
    idle: Mutex<Vec<Process>>,
}

impl Workers {
    /// Starts the first worker, which shows whether it is the same program and compiler.
    pub fn start(setup: WorkerSetup) -> Result<Self, StartError> {
        let first = Process::start(&setup)?;
        Ok(Self {
            setup,
            idle: Mutex::new(vec![first]),
        })
    }

    /// The program that is the worker.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.setup.program
    }

    fn ask(
        &self,
        task: &Task<'_>,
        sets: &[SetUse],
        cancel: &Cancel,
    ) -> Result<(Answer, Vec<u8>), CompileError> {
        loop {
            let waiting = self.idle().pop().filter(Process::is_ours);
            let reused = waiting.is_some();
            let mut process = match waiting {
                Some(process) => process,
                None => Process::start(&self.setup).map_err(|e| CompileError::NoWorker(Box::new(e)))?,
            };
            match process.ask(task, sets, self.setup.limits, cancel) {
                Ok(answer) => {
                    self.idle().push(process);
                    return Ok(answer);
                }
                // It had nothing to do for a while and went away as it was asked.
                Err(Ended::Idle) if reused => {}
                Err(Ended::Idle) => {
                    return Err(CompileError::Crashed {
                        how: "its process is gone, and nothing is known of its end".into(),
                    });
                }
                Err(Ended::Failed(error)) => return Err(error),
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compiler for Workers {
    fn compile(&self, rendered: &RenderedSource, cancel: &Cancel) -> Result<Artifact, CompileError> {
        let task = Task::compile(rendered, self.setup.limits);
        match self.ask(&task, &rendered.sets, cancel)? {
            (
                Answer::Built {
                    resources,
                    log,
                    compile_us,
                },
                cubin,
            ) => Ok(Artifact {
                cubin,
                resources,
                compile_log: log,
                compile_us,
            }),
            (other, _) => Err(self.error(other)),
        }
    }

    fn ptx(&self, rendered: &RenderedSource) -> Result<String, CompileError> {
        let task = Task::ptx(rendered, self.setup.limits);
        match self.ask(&task, &rendered.sets, &Cancel::new())? {
            (Answer::Ptx, text) => String::from_utf8(text)
                .map_err(|_| CompileError::Library("the worker's PTX is not UTF-8".into())),
            (other, _) => Err(self.error(other)),
        }
    }
}

impl Workers {
    fn error(&self, answer: Answer) -> CompileError {
        match answer {
            Answer::Refused { first, log } => CompileError::Refused { first, log },
            Answer::OutOfMemory => CompileError::OutOfMemory {
                limit: Some(self.setup.limits.memory),
            },
            Answer::Library(reason) => CompileError::Library(reason),
            Answer::Ready { .. } | Answer::Built { .. } | Answer::Ptx => {
                CompileError::Library("the worker answered something else".into())
            }
        }
    }
}
