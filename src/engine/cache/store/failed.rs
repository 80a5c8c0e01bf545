//! Sources that would not compile, with what the compiler said: for a person to look at.
//!
//! Invariant: private to this user, since a source may be a secret; and bounded, since a
//! server may fail for ever. Nothing here is ever read by jitc.

use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::Mode;

use super::age;
use super::dir::Dir;
use super::error::CacheError;
use super::inspect::names;
use super::{Store, io_error, unique};
use crate::engine::config::CacheTrust;

/// The folder, beside that of the entries.
pub(super) const FAILED: &str = "failed";
/// The source as it was rendered.
const SOURCE: &str = "source.cu";
/// All that the compiler said.
const LOG: &str = "log.txt";
/// No more failures than this are kept.
const MAX_COUNT: usize = 64;
/// And no more bytes than this, all together.
const MAX_BYTES: u64 = 16 << 20;

impl Store {
    /// Keeps a source that would not compile and the compiler's log, in a folder of this
    /// name below `failed/`; what is too much goes, oldest first. Returns the folder.
    pub fn keep_failure(&self, name: &str, source: &str, log: &str) -> Result<PathBuf, CacheError> {
        let path = self.root().join(FAILED).join(name);
        let fail = |errno| io_error("write", path.clone(), errno);
        let root = self.open_root()?;
        let failed = self.ensure(&root, FAILED)?;
        // A group's cache holds the failures of all, each private to its user.
        if self.trust != CacheTrust::Group {
            failed.set_mode(Mode::RWXU).map_err(fail)?;
        }
        let staged = format!(".{name}.{}", unique());
        let keep = || {
            let dir = failed.create_new(&staged)?;
            dir.set_mode(Mode::RWXU)?;
            dir.write_private(SOURCE, source.as_bytes())?;
            dir.write_private(LOG, log.as_bytes())?;
            failed.remove(name)?;
            failed.rename(&staged, &failed, name)
        };
        if let Err(errno) = keep() {
            let _ = failed.remove(&staged);
            return Err(fail(errno));
        }
        sweep(&failed, name, MAX_COUNT, MAX_BYTES);
        Ok(path)
    }

    /// Removes every failure; says how many there were.
    pub(super) fn remove_failures(&self) -> u64 {
        let Ok(root) = self.root_dir() else {
            return 0;
        };
        let Ok(failed) = root.open(FAILED) else {
            return 0;
        };
        let removed = sweep(&failed, "", 0, 0);
        let _ = root.remove_empty(FAILED);
        removed
    }

    /// Removes what is over the bounds or older than this; says how many.
    pub(super) fn prune_failures(&self, longest: Duration) -> u64 {
        let failed = self.root_dir().and_then(|root| root.open(FAILED));
        let Ok(failed) = failed else { return 0 };
        let is_old = |name: &String| failed.stat_of(name).is_ok_and(|stat| age::of(&stat) > longest);
        let old = names(&failed).into_iter().filter(is_old);
        let old = old.filter(|name| failed.remove(name).is_ok()).count() as u64;
        old + sweep(&failed, "", MAX_COUNT, MAX_BYTES)
    }
}

/// Removes the oldest until the bounds hold, but not the one of this name.
fn sweep(failed: &Dir, newest: &str, max_count: usize, max_bytes: u64) -> u64 {
    let size = |path: &str| {
        let stat = failed.stat_of(path);
        stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
    };
    let mut all: Vec<(bool, i64, u64, String, u64)> = names(failed)
        .into_iter()
        .map(|name| {
            let files = [SOURCE, LOG].map(|file| size(&format!("{name}/{file}")));
            let bytes = size(&name) + files.iter().sum::<u64>();
            let (seconds, nanoseconds) = failed
                .stat_of(&name)
                .map_or((0, 0), |stat| (stat.st_mtime, stat.st_mtime_nsec));
            (name == newest, seconds, nanoseconds, name, bytes)
        })
        .collect();
    all.sort_unstable();
    let (mut count, mut bytes) = (all.len(), all.iter().map(|(.., bytes)| bytes).sum::<u64>());
    let mut removed = 0;
    for (is_newest, _, _, name, size) in all {
        if is_newest || (count <= max_count && bytes <= max_bytes) {
            break;
        }
        if failed.remove(&name).is_ok() {
            removed += 1;
            count -= 1;
            bytes -= size;
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs_err::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_failed_source_is_private_and_replaced_by_a_later_one_of_its_key() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::new(dir.path().join("cache"));
        for log in ["first", "second"] {
            let path = store.keep_failure("k-12", "int x;", log).expect("kept");
            assert_eq!(fs_err::read_to_string(path.join(LOG)).expect("log"), log);
            assert_eq!(
                fs_err::read_to_string(path.join(SOURCE)).expect("source"),
                "int x;"
            );
            assert_eq!(mode(&path), 0o700);
            assert_eq!(mode(path.parent().expect("failed/")), 0o700);
            assert_eq!((mode(&path.join(LOG)), mode(&path.join(SOURCE))), (0o600, 0o600));
        }
        let failed = fs_err::read_dir(dir.path().join("cache/failed")).expect("folder");
        assert_eq!(failed.count(), 1);
    }

    #[test]
    fn failed_sources_are_bounded_in_number_and_bytes_and_the_newest_stays() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::new(dir.path());
        for n in 0..MAX_COUNT + 5 {
            store
                .keep_failure(&format!("k-{n}"), "int x;", "log")
                .expect("kept");
        }
        let count = || fs_err::read_dir(dir.path().join(FAILED)).expect("folder").count();
        assert_eq!(count(), MAX_COUNT);
        let large = "x".repeat(usize::try_from(MAX_BYTES).expect("fits") + 1);
        let path = store.keep_failure("large", &large, "log").expect("kept");
        assert_eq!(count(), 1);
        assert!(
            path.join(LOG).is_file(),
            "what was just kept is what the user is told of"
        );
    }

    #[test]
    fn prune_removes_old_failed_sources_and_clean_removes_all() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::new(dir.path());
        let old = store.keep_failure("old", "int x;", "log").expect("kept");
        let new = store.keep_failure("new", "int x;", "log").expect("kept");
        let long_ago = std::time::SystemTime::now() - Duration::from_hours(24 * 30);
        let file = fs_err::File::open(&old).expect("folder").into_parts().0;
        file.set_modified(long_ago).expect("stamped");
        let pruned = store
            .prune(&super::super::prune::Limits::NONE, false)
            .expect("pruned");
        assert_eq!((pruned.failed, old.exists(), new.exists()), (1, false, true));
        assert_eq!(store.clean().expect("cleaned").failed, 1);
        assert!(!dir.path().join(FAILED).exists());
    }

    #[test]
    fn a_link_in_the_place_of_the_folder_leads_nowhere() {
        let dir = tempfile::tempdir().expect("tempdir");
        let elsewhere = tempfile::tempdir().expect("tempdir");
        fs_err::os::unix::fs::symlink(elsewhere.path(), dir.path().join(FAILED)).expect("link");
        let store = Store::new(dir.path());
        let refused = store.keep_failure("k", "int x;", "log");
        assert!(matches!(refused, Err(CacheError::Link { .. })), "{refused:?}");
        assert_eq!(fs_err::read_dir(elsewhere.path()).expect("folder").count(), 0);
        assert!(dir.path().join(FAILED).is_symlink(), "it is its owner's");
    }
}
