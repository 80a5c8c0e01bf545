//! Which compiler a facade uses: workers of the program where it is found, else NVRTC in
//! this process.

use super::{Error, Jit};
use crate::engine::build::compile::worker::WorkerSetup;
use crate::engine::build::compile::{Compiler, InProcess, WorkerChoice, Workers, program};
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
        let why = match &self.worker {
            WorkerChoice::Program(path) => {
                let workers = start(path.clone()).map_err(|e| unopenable(toolchain, &e))?;
                return Ok(Box::new(workers));
            }
            WorkerChoice::Found => match program(&self.config).map(start) {
                Some(Ok(workers)) => return Ok(Box::new(workers)),
                Some(Err(error)) => Some(error.to_string()),
                None => Some("the program `jitc` is neither beside this one nor on an absolute PATH".into()),
            },
            WorkerChoice::InProcess => None,
        };
        if let Some(why) = why {
            tracing::warn!(
                "compiling in this process, which a compile can take down: {why}; JITC_PROGRAM names it"
            );
        }
        let nvrtc = InProcess::open(toolchain).map_err(|e| unopenable(toolchain, &e))?;
        Ok(Box::new(nvrtc))
    }
}

fn unopenable(toolchain: &Toolchain, error: &dyn std::error::Error) -> ToolchainError {
    ToolchainError::Unopenable {
        path: toolchain.nvrtc.clone(),
        reason: error.to_string(),
    }
}
