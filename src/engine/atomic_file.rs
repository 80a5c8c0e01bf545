//! Files that appear whole or not at all.
//!
//! Invariant: nothing of a file is seen at its path before all of it is on disk.

use std::io::{self, Write};
use std::path::Path;

/// Writes beside the path, with these permissions less the umask, and renames.
///
/// # Errors
/// The writer's own, and those of the files; then nothing is changed at the path.
pub fn write_atomically<T, E: From<io::Error>>(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    let mut file = builder
        .prefix(".jitc-")
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    let done = write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(done)
}
