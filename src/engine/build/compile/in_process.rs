//! NVRTC in this process: for hosts where the program that would be its own process is
//! not found.
//!
//! Invariant: the host's signal handlers, limits and working folder are as they were,
//! during a compile too: it runs on a thread that can change none of them, and that has
//! stack enough. A compile cannot be ended from outside, and one that crashes takes the
//! host with it: that is what [`super::Workers`] are for.

use super::nvrtc::Nvrtc;
use super::{Cancel, CompileError, Compiler, STACK, sandbox, stay_inside};
use crate::engine::build::artifact::Artifact;
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::Toolchain;

/// NVRTC on threads of this process.
#[derive(Debug)]
pub struct InProcess(Nvrtc);

impl InProcess {
    /// Opens the toolchain's libraries in this process.
    pub fn open(toolchain: &Toolchain) -> Result<Self, CompileError> {
        Nvrtc::open(toolchain).map(Self)
    }

    fn apart<T: Send>(
        &self,
        rendered: &RenderedSource,
        job: impl FnOnce(&Nvrtc) -> Result<T, CompileError> + Send,
    ) -> Result<T, CompileError> {
        let nvrtc = &self.0;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("jitc-compile".into())
                .stack_size(STACK);
            let started = thread.spawn_scoped(scope, move || {
                if !sandbox::close().closed() {
                    stay_inside::check(rendered).map_err(|log| CompileError::Refused {
                        first: log.clone(),
                        log,
                    })?;
                }
                job(nvrtc)
            });
            let thread =
                started.map_err(|e| CompileError::Library(format!("no thread could be made: {e}")))?;
            thread.join().unwrap_or_else(|_| {
                Err(CompileError::Crashed {
                    how: "its thread panicked".into(),
                })
            })
        })
    }
}

impl Compiler for InProcess {
    fn compile(&self, rendered: &RenderedSource, cancel: &Cancel) -> Result<Artifact, CompileError> {
        if cancel.is_canceled() {
            return Err(CompileError::Canceled);
        }
        self.apart(rendered, |nvrtc| nvrtc.compile(rendered))
    }

    fn ptx(&self, rendered: &RenderedSource) -> Result<String, CompileError> {
        self.apart(rendered, |nvrtc| nvrtc.ptx(rendered))
    }
}
