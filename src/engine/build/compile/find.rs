//! Where the program is that compiles in a process of its own.
//!
//! Invariant: what is found by itself belongs to this user or root, and nobody else can
//! write to it: it is about to be run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::config::Config;

/// The program's file name.
pub const PROGRAM: &str = "jitc";

/// Where a facade compiles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WorkerChoice {
    /// In workers of the program, where it is found and is of the same build; else in this
    /// process, and a warning says once why. `JITC_PROGRAM` names the program.
    #[default]
    Found,
    /// In workers of this program, or not at all.
    Program(PathBuf),
    /// In this process.
    InProcess,
}

/// The program by itself: beside the running one, or in a folder of `PATH` that is
/// absolute.
pub(crate) fn program(config: &Config) -> Option<PathBuf> {
    let running = std::env::current_exe().ok();
    let beside = running
        .as_deref()
        .and_then(Path::parent)
        .map(|dir| dir.join(PROGRAM));
    let on_path = config.program_path().into_iter().map(|dir| dir.join(PROGRAM));
    beside.into_iter().chain(on_path).find(|path| runnable(path))
}

fn runnable(path: &Path) -> bool {
    let Ok(meta) = fs_err::metadata(path) else {
        return false;
    };
    let owner = meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw();
    meta.is_file() && meta.mode() & 0o111 != 0 && meta.mode() & 0o022 == 0 && owner
}
