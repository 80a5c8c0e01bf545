//! What is taken out of a wheel.

use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;

use super::ToolchainError;
use super::pin::{BUILTINS_FILE, NVRTC_FILE};

/// Takes the two libraries and the license out of a wheel, to disk for good.
pub(super) fn unpack(wheel: &Path, into: &Path) -> Result<(), ToolchainError> {
    let bad = |reason: String| ToolchainError::Unpack {
        path: wheel.to_path_buf(),
        reason,
    };
    let mut archive = zip::ZipArchive::new(fs_err::File::open(wheel)?).map_err(|e| bad(e.to_string()))?;
    let mut taken = 0;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(|e| bad(e.to_string()))?;
        let name = PathBuf::from(file.name().map_err(|e| bad(e.to_string()))?.into_owned());
        // Only the bare file name is used, so no path of the archive can escape.
        let Some(base) = name.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
            continue;
        };
        if ![NVRTC_FILE, BUILTINS_FILE, "License.txt"].contains(&base.as_str()) {
            continue;
        }
        let mut out = fs_err::OpenOptions::new()
            .write(true)
            .create_new(true)
            // Whatever the umask: what others may write to is not used.
            .mode(0o644)
            .open(into.join(&base))?;
        std::io::copy(&mut file, &mut out)?;
        out.sync_all()?;
        taken += usize::from(base.starts_with("lib"));
    }
    if taken == 2 {
        Ok(())
    } else {
        Err(bad(format!(
            "{NVRTC_FILE} and {BUILTINS_FILE} are not both in it"
        )))
    }
}
