//! What two libraries are to a key: the pinned ones, or the SHA-256 of their bytes.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ToolchainError;
use super::contents::{Reading, contents};
use super::pin::pin;
use crate::engine::request::target::ToolchainIdentity;

/// The identity of the compiler in these two files: the pinned one where they hold
/// just the pinned bytes, wherever they lie; else their content. Remembered in the
/// process.
pub fn identify(nvrtc: &Path, builtins: &Path) -> Result<ToolchainIdentity, ToolchainError> {
    identity_of(nvrtc, builtins, Reading::Seldom(None))
}

pub(super) fn identity_of(
    nvrtc: &Path,
    builtins: &Path,
    reading: Reading<'_>,
) -> Result<ToolchainIdentity, ToolchainError> {
    let contents = contents(nvrtc, builtins, reading)?;
    if let Ok(pin) = pin()
        && pin.is(&contents)
    {
        return Ok(pin.identity());
    }
    Ok(ToolchainIdentity {
        version: version_of(nvrtc, builtins),
        nvrtc: format!("sha256:{}", contents.nvrtc),
        builtins: format!("sha256:{}", contents.builtins),
    })
}

/// Where the stamp of two files that are not the managed ones is kept: the user's
/// own folder, as theirs may be anybody's.
pub(super) fn stamp_of(root: &Path, nvrtc: &Path, builtins: &Path) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(nvrtc.as_os_str().as_bytes());
    hash.update([0]);
    hash.update(builtins.as_os_str().as_bytes());
    let name = hex::encode(hash.finalize());
    root.join(STAMPS).join(&name[..32])
}

/// The folder of these stamps, below that of the managed toolchains.
pub(super) const STAMPS: &str = ".stamps";

/// The managed folder is named by the full version; elsewhere the builtins' file
/// name says the first two numbers.
fn version_of(nvrtc: &Path, builtins: &Path) -> String {
    let folder = nvrtc.parent().and_then(Path::file_name).and_then(|n| n.to_str());
    if let Some(name) = folder.filter(|n| is_version(n)) {
        return name.to_owned();
    }
    builtins
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.strip_prefix("libnvrtc-builtins.so."))
        .unwrap_or("unknown")
        .to_owned()
}

/// Whether a folder's name is that of a managed version, `13.0.88`.
pub(super) fn is_version(name: &str) -> bool {
    name.split('.').count() == 3 && name.split('.').all(|part| part.parse::<u32>().is_ok())
}
