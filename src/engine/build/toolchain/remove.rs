//! The managed toolchains, removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::failure::FAILED;
use super::header_sets::HEADERS;
use super::identity::{STAMPS, is_version};
use super::lock::{Claim, claim};
use super::managed::{FETCHING, leftovers, work};
use super::{ToolchainError, held};
use crate::engine::config::Config;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The folders and files.
    pub paths: Vec<PathBuf>,
    /// The bytes that they held.
    pub bytes: u64,
}

/// Removes every managed version, the header sets, the stamps, and what installs have left there.
/// Nothing else in the folder is touched; it goes if nothing is left in it.
pub fn remove(config: &Config) -> Result<Removed, ToolchainError> {
    let root = config.toolchain_dir().ok_or(ToolchainError::NoFolder)?;
    remove_from(&root)
}

fn remove_from(root: &Path) -> Result<Removed, ToolchainError> {
    let mut removed = Removed::default();
    if !root.is_dir() {
        return Ok(removed);
    }
    let lock = match claim(root, Duration::ZERO)? {
        Claim::Held(lock) => Some(lock),
        Claim::Unsupported => None,
        Claim::Taken => return Err(ToolchainError::Busy { path: root.into() }),
    };
    let mut paths = leftovers(root, lock.is_some());
    for entry in fs_err::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_version(&name) || name == STAMPS || name == FAILED || name == HEADERS {
            paths.push(entry.path());
        }
    }
    let work = work(root, FETCHING)?;
    for (number, path) in paths.into_iter().enumerate() {
        let bytes = size(&path);
        // At once: nobody finds half of it.
        let aside = work.path().join(number.to_string());
        fs_err::rename(&path, &aside)?;
        held::remove(&aside)?;
        removed.bytes += bytes;
        removed.paths.push(path);
    }
    drop(work);
    drop(lock);
    // Something else of the user's may be in it.
    let _ = fs_err::remove_dir(root);
    Ok(removed)
}

/// The bytes of a file, or of all in a folder.
fn size(path: &Path) -> u64 {
    match fs_err::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let entries = fs_err::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| size(&entry.path())).sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_versions_and_leftovers_go_and_what_is_the_users_stays() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("toolchain");
        assert_eq!(remove_from(&root).expect("nothing there"), Removed::default());
        for folder in ["13.0.88", "12.9.86", ".tmpAbc", STAMPS, HEADERS] {
            fs_err::create_dir_all(root.join(folder)).expect("folder");
            fs_err::write(root.join(folder).join("file"), [0; 100]).expect("write");
        }
        fs_err::write(root.join(FAILED), "1\nwhy\n").expect("write");
        fs_err::write(root.join("notes.txt"), "mine").expect("write");
        let removed = remove_from(&root).expect("removed");
        assert_eq!(removed.bytes, 506);
        assert_eq!(removed.paths.len(), 6, "{removed:?}");
        let left: Vec<_> = fs_err::read_dir(&root)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(left, ["notes.txt"]);
        fs_err::remove_file(root.join("notes.txt")).expect("removed");
        assert_eq!(remove_from(&root).expect("nothing left"), Removed::default());
        assert!(!root.exists());
    }

    #[test]
    fn while_another_installs_nothing_is_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs_err::create_dir(dir.path().join("13.0.88")).expect("folder");
        let lock = claim(dir.path(), Duration::ZERO).expect("lock");
        assert!(matches!(lock, Claim::Held(_)), "{lock:?}");
        let busy = remove_from(dir.path()).expect_err("busy");
        assert!(matches!(busy, ToolchainError::Busy { .. }), "{busy}");
        drop(lock);
        assert_eq!(remove_from(dir.path()).expect("removed").paths.len(), 1);
    }
}
