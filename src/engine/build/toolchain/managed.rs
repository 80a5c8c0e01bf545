//! The folder that the pinned NVRTC is installed into, and what is in it.
//!
//! Invariant: what is returned from here are the pinned bytes, in files and folders
//! that only this user and root can write. Anything else in their place is an error
//! that names it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::contents::{Reading, contents};
use super::held::{Held, remove};
use super::pin::{BUILTINS_FILE, NVRTC_FILE, PINNED_VERSION, Pin};
use super::{Toolchain, ToolchainError, trust};

/// How the origin of the managed toolchain is called.
pub(super) const MANAGED: &str = "managed";

/// The stamp beside the two files.
const STAMP: &str = ".stamp";

/// What working folders are called: of a fetch, which holds the lock; of an install
/// from a wheel, which does not wait for it; and of files on their way.
pub(super) const FETCHING: &str = ".tmp-";
pub(super) const UNPACKING: &str = ".wheel-";
const LEFTOVERS: [&str; 3] = [".tmp", UNPACKING, ".jitc-"];

/// How old the working folder of somebody who holds no lock is, if it is a leftover.
const ABANDONED: Duration = Duration::from_hours(1);

/// The pinned NVRTC, if it is installed.
pub(super) fn managed(root: &Path, pin: &Pin<'_>, afresh: bool) -> Result<Option<Toolchain>, ToolchainError> {
    let root = std::path::absolute(root)?;
    let folder = root.join(PINNED_VERSION);
    let (nvrtc, builtins) = (folder.join(NVRTC_FILE), folder.join(BUILTINS_FILE));
    if !nvrtc.is_file() || !builtins.is_file() {
        return Ok(None);
    }
    for path in [&root, &folder, &nvrtc, &builtins] {
        trust::judge_path(path)?;
    }
    let stamp = folder.join(STAMP);
    let reading = if afresh { Reading::Afresh } else { Reading::Seldom };
    let contents = contents(&nvrtc, &builtins, reading(Some(&stamp)))?;
    for (path, actual, expected) in [
        (&nvrtc, contents.nvrtc, pin.contents.nvrtc),
        (&builtins, contents.builtins, pin.contents.builtins),
    ] {
        if actual != expected {
            return Err(ToolchainError::Changed {
                path: path.clone(),
                actual,
                expected: expected.to_owned(),
            });
        }
    }
    Ok(Some(Toolchain {
        nvrtc,
        builtins,
        origin: MANAGED.into(),
        identity: pin.identity(),
    }))
}

/// Makes the folder where need be, so that only this user writes to it.
pub(super) fn make(root: &Path) -> Result<(), ToolchainError> {
    if let Some(parent) = root.parent() {
        fs_err::create_dir_all(parent)?;
    }
    match folder(root) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(std::io::Error::new(error.kind(), format!("{}: {error}", root.display())).into());
        }
        _ => {}
    }
    trust::judge_path(root)
}

/// A new folder that others may look into.
pub(super) fn folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o755).create(path)
}

/// Takes away what others may write of what is installed, where that can be done.
pub(super) fn close_to_others(root: &Path) -> Result<(), ToolchainError> {
    if !root.exists() {
        return Ok(());
    }
    trust::close_to_others(root)?;
    let folder = root.join(PINNED_VERSION);
    for path in [folder.join(NVRTC_FILE), folder.join(BUILTINS_FILE), folder] {
        // What stays open is replaced.
        let _ = trust::close_to_others(&path);
    }
    Ok(())
}

/// A new working folder, which goes when it is dropped.
pub(super) fn work(root: &Path, prefix: &str) -> Result<Held, ToolchainError> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(root)?;
    Held::new(folder.keep()).ok_or(ToolchainError::Ending)
}

/// Everything in the folder that processes which are gone have left there; `alone`:
/// whether this one holds the lock.
pub(super) fn leftovers(root: &Path, alone: bool) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let locked = alone && !name.starts_with(UNPACKING);
            let old = || {
                let modified = entry.metadata().and_then(|meta| meta.modified());
                let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
                age.is_ok_and(|age| age > ABANDONED)
            };
            LEFTOVERS.iter().any(|start| name.starts_with(start)) && (locked || old())
        })
        .map(|entry| entry.path())
        .collect()
}

/// Removes them.
pub(super) fn collect(root: &Path, alone: bool) {
    for path in leftovers(root, alone) {
        if let Err(error) = remove(&path) {
            tracing::debug!(path = %path.display(), %error, "a leftover stays");
        }
    }
}
