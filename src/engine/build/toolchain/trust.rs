//! Whose compiler is run: this user's and root's, which nobody else can write.
//!
//! Invariant: the rule is the cache's own. A stamp that lies beside the files says
//! nothing about who wrote both; owner and mode do.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::ToolchainError;

const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whether only this user and root can have written a file or folder.
pub(super) fn judge(path: &Path, meta: &Metadata) -> Result<(), ToolchainError> {
    let (reason, remedy) = if !is_ours_or_roots(meta) {
        let reason = format!("it belongs to user {}", meta.uid());
        (reason, "remove it, or set XDG_DATA_HOME to a folder of your own")
    } else if meta.mode() & WRITABLE_BY_OTHERS != 0 {
        let reason = format!("others may write to it (mode {:03o})", meta.mode() & 0o777);
        (reason, "run chmod go-w on it, then `jitc toolchain install`")
    } else {
        return Ok(());
    };
    Err(ToolchainError::Untrusted {
        path: path.to_path_buf(),
        reason,
        remedy,
    })
}

/// Judges what stands at a path.
pub(super) fn judge_path(path: &Path) -> Result<(), ToolchainError> {
    judge(path, &fs_err::metadata(path)?)
}

/// Takes the write permission of others away where that is this user's to do.
/// What they wrote before is for the hashes to find.
pub(super) fn close_to_others(path: &Path) -> Result<(), ToolchainError> {
    let meta = fs_err::metadata(path)?;
    let mode = meta.mode() & 0o7777;
    if meta.uid() == rustix::process::geteuid().as_raw() && mode & WRITABLE_BY_OTHERS != 0 {
        fs_err::set_permissions(path, PermissionsExt::from_mode(mode & !WRITABLE_BY_OTHERS))?;
    }
    judge_path(path)
}

fn is_ours_or_roots(meta: &Metadata) -> bool {
    let owner = meta.uid();
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}
