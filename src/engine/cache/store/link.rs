//! Symlinks in the place of the cache's own folders.
//!
//! Invariant: one leads somewhere only if whoever made it is trusted, and its target is
//! judged as any folder is; none is ever replaced or deleted.

use std::path::PathBuf;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::dir::Dir;
use super::error::CacheError;
use super::inspect::is_shard;
use super::trust::judge_link;
use super::{Store, VERSION, io_error};

impl Store {
    /// Opens an inner folder that may be a symlink; `None` if there is no folder.
    pub(super) fn open_linked(
        &self,
        parent: &Dir,
        name: &str,
        path: impl Fn() -> PathBuf,
    ) -> Result<Option<Dir>, CacheError> {
        match parent.open(name) {
            Ok(dir) => {
                self.admit(&dir, path)?;
                return Ok(Some(dir));
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(io_error("open", path(), errno)),
        }
        let stat = match parent.stat_of(name) {
            Ok(stat) if is_link(&stat) => stat,
            // What is no folder holds no entries; the next publish replaces it.
            Ok(_) | Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io_error("open", path(), errno)),
        };
        let refused = |why: String| CacheError::Link { path: path(), why };
        // Staging, locks and quarantine live by renames on one file system.
        if name != VERSION && !is_shard(name) {
            return Err(refused("this folder cannot be one".to_owned()));
        }
        judge_link(&stat, self.trust).map_err(|why| refused(why.to_string()))?;
        let dir = parent.follow(name).map_err(|errno| {
            refused(format!(
                "its target cannot be opened: {}",
                std::io::Error::from(errno)
            ))
        })?;
        self.admit(&dir, path)?;
        Ok(Some(dir))
    }
}

pub(super) fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}
