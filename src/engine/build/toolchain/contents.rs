//! What two libraries hold: the SHA-256 of each, read as seldom as can be.
//!
//! Invariant: a digest that is not worked out from the bytes is one that was, of a
//! file with the same path, size, times and inode: remembered by this process, or
//! in a [`super::stamp`]. ctime among them cannot be set back.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::{ToolchainError, stamp};

/// Something of libnvrtc and of its builtins; their SHA-256 in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents<T> {
    pub(super) nvrtc: T,
    pub(super) builtins: T,
}

/// What may not have changed for a known digest to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    pub(super) size: u64,
    /// Modified, and changed in any way: seconds and nanoseconds of each.
    pub(super) mtime: (i64, i64),
    pub(super) ctime: (i64, i64),
    pub(super) inode: u64,
}

impl Facts {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }

    /// Whether a write from now on would show in ctime, which file systems count in
    /// ticks of up to 10 ms. One of the future shows nothing.
    fn settled(&self) -> bool {
        let at = u64::try_from(self.ctime.0).map(Duration::from_secs);
        let nanoseconds = u64::try_from(self.ctime.1).map(Duration::from_nanos);
        let (Ok(at), Ok(nanoseconds)) = (at, nanoseconds) else {
            return false;
        };
        SystemTime::now()
            .duration_since(UNIX_EPOCH + at + nanoseconds)
            .is_ok_and(|age| age > Duration::from_millis(50))
    }
}

/// Whether known digests will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading<'a> {
    /// They do; this file may keep them from one process to the next.
    Seldom(Option<&'a Path>),
    /// Every byte is read. The file is written anew.
    Afresh(Option<&'a Path>),
}

/// The bytes of a libnvrtc that takes longer to read than a stamp does; the smallest
/// there is has 40 MB.
const WORTH_A_STAMP: u64 = 1 << 20;

/// Digests of this process, by path.
static KNOWN: Mutex<Option<HashMap<PathBuf, (Facts, String)>>> = Mutex::new(None);

/// The digests of libnvrtc and its builtins.
pub(super) fn contents(
    nvrtc: &Path,
    builtins: &Path,
    reading: Reading<'_>,
) -> Result<Contents<String>, ToolchainError> {
    let facts = Contents {
        nvrtc: Facts::of(&fs_err::metadata(nvrtc)?),
        builtins: Facts::of(&fs_err::metadata(builtins)?),
    };
    let stamp = match reading {
        Reading::Seldom(stamp) => {
            if let (Some(nvrtc), Some(builtins)) =
                (known(nvrtc, facts.nvrtc), known(builtins, facts.builtins))
            {
                return Ok(Contents { nvrtc, builtins });
            }
            if let Some(held) = stamp.and_then(|at| stamp::read(at, nvrtc, builtins, &facts)) {
                remember(nvrtc, facts.nvrtc, &held.nvrtc);
                remember(builtins, facts.builtins, &held.builtins);
                return Ok(held);
            }
            stamp
        }
        Reading::Afresh(stamp) => stamp,
    };
    let ((nvrtc_facts, nvrtc_sha256), (builtins_facts, builtins_sha256)) = (hash(nvrtc)?, hash(builtins)?);
    let facts = Contents {
        nvrtc: nvrtc_facts,
        builtins: builtins_facts,
    };
    let read = Contents {
        nvrtc: nvrtc_sha256,
        builtins: builtins_sha256,
    };
    if facts.nvrtc.settled() && facts.builtins.settled() {
        remember(nvrtc, facts.nvrtc, &read.nvrtc);
        remember(builtins, facts.builtins, &read.builtins);
        if let Some(at) = stamp
            && facts.nvrtc.size > WORTH_A_STAMP
            && let Err(error) = stamp::write(at, nvrtc, builtins, &facts, &read)
        {
            // Then every process reads the files once.
            tracing::debug!(stamp = %at.display(), %error, "no stamp was left");
        }
    }
    Ok(read)
}

fn known(path: &Path, facts: Facts) -> Option<String> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let (of, sha256) = known.as_ref()?.get(path)?;
    (*of == facts).then(|| sha256.clone())
}

fn remember(path: &Path, facts: Facts, sha256: &str) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .get_or_insert_default()
        .insert(path.to_path_buf(), (facts, sha256.to_owned()));
}

/// Of a file that nobody wrote to meanwhile.
fn hash(path: &Path) -> Result<(Facts, String), ToolchainError> {
    let mut file = fs_err::File::open(path)?;
    let before = Facts::of(&file.metadata()?);
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hash))?;
    if Facts::of(&file.metadata()?) == before {
        Ok((before, hex::encode(hash.finalize())))
    } else {
        Err(ToolchainError::Written {
            path: path.to_path_buf(),
        })
    }
}

/// The SHA-256 of a file, lower-case hex.
pub(super) fn sha256_of(path: &Path) -> Result<String, ToolchainError> {
    Ok(hash(path)?.1)
}

/// Feeds a hash from anything that copies bytes.
struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::build::toolchain::stamp;

    struct Files {
        dir: tempfile::TempDir,
        nvrtc: PathBuf,
        builtins: PathBuf,
        stamp: PathBuf,
    }

    fn files() -> Files {
        let dir = tempfile::tempdir().expect("tempdir");
        let [nvrtc, builtins, stamp] = ["nvrtc", "builtins", "stamps/one"].map(|n| dir.path().join(n));
        fs_err::write(&nvrtc, "one").expect("write");
        fs_err::write(&builtins, "two").expect("write");
        Files {
            dir,
            nvrtc,
            builtins,
            stamp,
        }
    }

    impl Files {
        fn facts(&self) -> Contents<Facts> {
            Contents {
                nvrtc: Facts::of(&fs_err::metadata(&self.nvrtc).expect("file")),
                builtins: Facts::of(&fs_err::metadata(&self.builtins).expect("file")),
            }
        }

        /// As a process that knows nothing yet would find it.
        fn read(&self) -> Option<Contents<String>> {
            stamp::read(&self.stamp, &self.nvrtc, &self.builtins, &self.facts())
        }

        fn write(&self) {
            let told = Contents {
                nvrtc: "told".to_owned(),
                builtins: "told too".to_owned().replace(' ', "-"),
            };
            stamp::write(&self.stamp, &self.nvrtc, &self.builtins, &self.facts(), &told).expect("stamp");
        }
    }

    #[test]
    fn a_stamp_that_holds_saves_reading_the_files() {
        let files = files();
        // It says what the files do not hold: that the answer is the stamp's shows that
        // they were not read.
        files.write();
        let reading = Reading::Seldom(Some(&files.stamp));
        let held = contents(&files.nvrtc, &files.builtins, reading).expect("read");
        assert_eq!(held.nvrtc, "told");
        let afresh = contents(&files.nvrtc, &files.builtins, Reading::Afresh(None)).expect("read");
        assert_eq!(afresh.nvrtc, hex::encode(Sha256::digest("one")));
    }

    #[test]
    fn a_stamp_of_other_files_places_or_words_says_nothing() {
        let files = files();
        files.write();
        assert!(files.read().is_some());
        let text = fs_err::read_to_string(&files.stamp).expect("stamp");
        // Another digest under the old checksum; and half of it.
        for other in [
            text.replacen("told", "tolt", 1),
            text[..text.len() / 2].to_owned(),
            String::new(),
        ] {
            fs_err::write(&files.stamp, other).expect("write");
            assert_eq!(files.read(), None);
        }
        fs_err::write(&files.stamp, &text).expect("write");
        assert!(files.read().is_some());
        // The same bytes and modification time, written again: ctime tells.
        let modified = fs_err::metadata(&files.nvrtc)
            .expect("file")
            .modified()
            .expect("time");
        std::thread::sleep(Duration::from_millis(50));
        fs_err::write(&files.nvrtc, "ONE").expect("write");
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(&files.nvrtc)
            .expect("file");
        file.file().set_modified(modified).expect("time");
        assert_eq!(files.read(), None);
        files.write();
        assert!(files.read().is_some());
        // A stamp that was taken along to another folder.
        let moved = files.dir.path().join("moved");
        fs_err::rename(&files.builtins, &moved).expect("rename");
        let facts = files_facts(&files.nvrtc, &moved);
        assert_eq!(stamp::read(&files.stamp, &files.nvrtc, &moved, &facts), None);
    }

    fn files_facts(nvrtc: &Path, builtins: &Path) -> Contents<Facts> {
        let of = |path: &Path| Facts::of(&fs_err::metadata(path).expect("file"));
        Contents {
            nvrtc: of(nvrtc),
            builtins: of(builtins),
        }
    }

    #[test]
    fn a_stamp_that_others_may_write_says_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let files = files();
        files.write();
        let folder = files.stamp.parent().expect("folder");
        for (path, open, closed) in [(files.stamp.as_path(), 0o664, 0o644), (folder, 0o777, 0o755)] {
            fs_err::set_permissions(path, PermissionsExt::from_mode(open)).expect("chmod");
            assert_eq!(files.read(), None, "{}", path.display());
            fs_err::set_permissions(path, PermissionsExt::from_mode(closed)).expect("chmod");
            assert!(files.read().is_some());
        }
    }

    #[test]
    fn a_file_that_was_just_written_is_not_remembered() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("time");
        let at = |seconds: u64| {
            let seconds = i64::try_from(seconds).expect("time");
            Facts {
                size: 1,
                mtime: (0, 0),
                ctime: (seconds, 0),
                inode: 1,
            }
        };
        assert!(at(now.as_secs() - 10).settled());
        assert!(!at(now.as_secs() + 10).settled());
    }
}
