//! Which compiler a facade uses: workers of the program where it is found, else NVRTC in
//! this process.

use std::sync::OnceLock;

use super::{Error, Jit};
use crate::engine::build::artifact::Artifact;
use crate::engine::build::compile::worker::WorkerSetup;
use crate::engine::build::compile::{
    Cancel, CompileError, Compiler, InProcess, WorkerChoice, Workers, program,
};
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::{Toolchain, ToolchainError};

impl Jit {
    /// Opens the compiler: starts its first worker, or opens NVRTC here.
    pub(super) fn open(&self, toolchain: &Toolchain) -> Result<Box<dyn Compiler>, Error> {
        let start = |path| {
            Workers::start(WorkerSetup {
                program: path,
                toolchain: toolchain.clone(),
                compiler_env: self.config.compiler_env(),
                limits: self.limits,
            })
        };
        let found = match &self.worker {
            WorkerChoice::Program(path) => {
                let workers = start(path.clone()).map_err(|e| unopenable(toolchain, &e))?;
                return Ok(Box::new(workers));
            }
            WorkerChoice::Found => program(&self.config).map(start),
            WorkerChoice::InProcess => return Ok(Box::new(in_process(toolchain)?)),
        };
        let why = match found {
            Some(Ok(workers)) => {
                let here = OnceLock::new();
                let toolchain = toolchain.clone();
                return Ok(Box::new(WhileFound {
                    workers,
                    here,
                    toolchain,
                }));
            }
            Some(Err(error)) => error.to_string(),
            None => "the program `jitc` is neither beside this one nor on an absolute PATH".to_owned(),
        };
        say(&why);
        Ok(Box::new(in_process(toolchain)?))
    }
}

/// Workers of a program that was found; and NVRTC in this process from when that program
/// can no more be started, as when it was replaced by another version meanwhile.
struct WhileFound {
    workers: Workers,
    here: OnceLock<InProcess>,
    toolchain: Toolchain,
}

impl WhileFound {
    fn or_here<T>(
        &self,
        worked: Result<T, CompileError>,
        compile: impl FnOnce(&InProcess) -> Result<T, CompileError>,
    ) -> Result<T, CompileError> {
        let Err(CompileError::NoWorker(why)) = worked else {
            return worked;
        };
        if self.here.get().is_none() {
            say(&why.to_string());
            let _ = self.here.set(InProcess::open(&self.toolchain)?);
        }
        match self.here.get() {
            Some(here) => compile(here),
            None => Err(CompileError::NoWorker(why)),
        }
    }
}

impl Compiler for WhileFound {
    fn compile(&self, rendered: &RenderedSource, cancel: &Cancel) -> Result<Artifact, CompileError> {
        self.or_here(self.workers.compile(rendered, cancel), |here| {
            here.compile(rendered, cancel)
        })
    }

    fn ptx(&self, rendered: &RenderedSource) -> Result<String, CompileError> {
        self.or_here(self.workers.ptx(rendered), |here| here.ptx(rendered))
    }
}

fn say(why: &str) {
    tracing::warn!(
        target: "jitc::notice",
        "compiling in this process, which a compile can take down: {why}; JITC_PROGRAM names the program"
    );
}

fn in_process(toolchain: &Toolchain) -> Result<InProcess, Error> {
    Ok(InProcess::open(toolchain).map_err(|e| unopenable(toolchain, &e))?)
}

fn unopenable(toolchain: &Toolchain, error: &dyn std::error::Error) -> ToolchainError {
    ToolchainError::Unopenable {
        path: toolchain.nvrtc.clone(),
        reason: error.to_string(),
    }
}
