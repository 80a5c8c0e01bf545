//! Reading one entry of a folder: open, take a reader's lock, read, verify.
//!
//! Invariant: what cannot be read for want of rights, descriptors or memory is no
//! evidence against an entry; only its bytes, its kind and its owner are.

use std::time::Duration;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::dir::Dir;
use super::entry::{Entry, EntryFiles, FILE_LIMIT, MANIFEST, MANIFEST_LIMIT, PAYLOAD, now_unix_ms};
use super::error::{CacheError, Distrust, Fault};
use super::lock;
use super::trust::judge;
use super::{Store, VERSION, io_error};
use crate::engine::build::key::CacheKey;

/// A hit stamps its entry as used if the last stamp is older than this.
const STAMP_INTERVAL: Duration = Duration::from_hours(1);

/// What a look under a key found.
#[derive(Debug)]
pub enum Load {
    /// A verified entry.
    Found(Box<Entry>),
    /// No entry for this key.
    Absent,
    /// Something that is no entry for this key.
    Bad(Fault),
    /// The tier could not be read.
    Unavailable(CacheError),
}

enum ReadError {
    Fault(Fault),
    /// No evidence against the entry: no rights, no descriptors, no memory.
    Errno(Errno),
}

/// How often an entry that somebody holds for itself is looked at, and the pause
/// between: no prune takes as long, and a reader must not wait for a stuck one.
const BUSY_LOOKS: u32 = 25;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

impl Store {
    /// Reads and verifies the entry of a key, and marks it as used.
    #[must_use]
    pub fn load(&self, key: &CacheKey) -> Load {
        self.look(key, true)
    }

    /// As [`Store::load`], without a mark.
    #[must_use]
    pub fn peek(&self, key: &CacheKey) -> Load {
        self.look(key, false)
    }

    fn look(&self, key: &CacheKey, stamp: bool) -> Load {
        let hex = key.hex();
        let shard = match self.open_shard(&hex[..2]) {
            Ok(Some(shard)) => shard,
            Ok(None) => return Load::Absent,
            Err(e) => return Load::Unavailable(e),
        };
        for look in 0..=BUSY_LOOKS {
            let entry = match shard.open(&hex) {
                Ok(entry) => entry,
                Err(Errno::NOENT) => return Load::Absent,
                Err(Errno::NOTDIR | Errno::LOOP) => return Load::Bad(Fault::NotAFolder),
                Err(e) => return Load::Unavailable(self.io("open", key, e)),
            };
            // Whoever may read a folder can hold its lock for ever. What verifies is read
            // without it: at once where nothing is ever removed by this process.
            let wants_lock = self.writable && look < BUSY_LOOKS;
            if let Some(load) = self.examine(key, &shard, &entry, stamp, wants_lock) {
                return load;
            }
            // Somebody has it for itself: a prune, so that it is gone in a moment.
            std::thread::sleep(BUSY_PAUSE);
        }
        Load::Absent
    }

    /// Reads and verifies an entry's opened folder, which may meanwhile have been
    /// pruned. `None`: somebody holds it for itself alone.
    fn examine(
        &self,
        key: &CacheKey,
        shard: &Dir,
        entry: &Dir,
        stamp: bool,
        wants_lock: bool,
    ) -> Option<Load> {
        // Held until the end: a prune leaves an entry alone that is
        // being read. Where there are no locks, a vanishing file is a miss.
        if matches!(lock::try_shared(entry), Ok(false)) && wants_lock {
            return None;
        }
        let _held = lock::Release::later(entry);
        let fault = match self.read_entry(entry) {
            Ok((files, stat)) => match Entry::verify(key, files) {
                Ok(found) => {
                    if stamp {
                        self.stamp(entry, &stat);
                    }
                    return Some(Load::Found(Box::new(found)));
                }
                Err(fault) => fault,
            },
            Err(ReadError::Fault(fault)) => fault,
            Err(ReadError::Errno(e)) => return Some(Load::Unavailable(self.io("read", key, e))),
        };
        // A prune may have taken the entry out of its name, and its files, between
        // the opening and the lock: then it is gone, not bad.
        Some(match (entry.stat(), shard.stat_of(&key.hex())) {
            (Ok(opened), Ok(named)) if (opened.st_ino, opened.st_dev) != (named.st_ino, named.st_dev) => {
                Load::Absent
            }
            (_, Err(Errno::NOENT)) => Load::Absent,
            _ => Load::Bad(fault),
        })
    }

    /// Opens `v1`; `None` if there is none.
    pub(super) fn open_version(&self) -> Result<Option<Dir>, CacheError> {
        let root = match self.root_dir() {
            Ok(root) => root,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io_error("open", self.root.clone(), errno)),
        };
        self.admit(&root, || self.root.clone())?;
        self.open_linked(&root, VERSION, || self.root.join(VERSION))
    }

    /// Opens a shard; `None` if there is none.
    pub(super) fn open_shard(&self, shard: &str) -> Result<Option<Dir>, CacheError> {
        match self.open_version()? {
            Some(version) => self.open_linked(&version, shard, || self.root.join(VERSION).join(shard)),
            None => Ok(None),
        }
    }

    /// Reads the files of an opened entry; the manifest's stat is its stamp.
    fn read_entry(&self, entry: &Dir) -> Result<(EntryFiles, Stat), ReadError> {
        let stat = entry.stat().map_err(ReadError::Errno)?;
        judge(&stat, self.trust).map_err(|why| untrusted(".", why))?;
        for name in entry.names().map_err(ReadError::Errno)? {
            let known = |n: &&str| name.as_encoded_bytes() == n.as_bytes();
            if !known(&MANIFEST) && !PAYLOAD.iter().any(known) {
                let name = name.to_string_lossy().into_owned();
                return Err(ReadError::Fault(Fault::Foreign(name)));
            }
        }
        let (manifest, stat) = self.read_file(entry, MANIFEST, MANIFEST_LIMIT)?;
        let read = |name| Ok::<_, ReadError>(self.read_file(entry, name, FILE_LIMIT)?.0);
        let [cubin, source, headers, log] = PAYLOAD;
        let payload = [read(cubin)?, read(source)?, read(headers)?, read(log)?];
        Ok((EntryFiles { manifest, payload }, stat))
    }

    fn read_file(&self, entry: &Dir, name: &str, limit: u64) -> Result<(Vec<u8>, Stat), ReadError> {
        let fault = |f: fn(String) -> Fault| ReadError::Fault(f(name.to_owned()));
        let file = entry.read(name, limit).map_err(|e| match e {
            Errno::NOENT => fault(Fault::Missing),
            Errno::LOOP | Errno::NXIO | Errno::ISDIR => fault(Fault::NotRegular),
            Errno::FBIG => fault(Fault::TooLong),
            Errno::IO => fault(Fault::Unreadable),
            other => ReadError::Errno(other),
        })?;
        judge(&file.stat, self.trust).map_err(|why| untrusted(name, why))?;
        Ok((file.bytes, file.stat))
    }

    /// Marks an entry as used, at most once an hour; a mark from the future is renewed.
    fn stamp(&self, entry: &Dir, manifest: &Stat) {
        let now = now_unix_ms() / 1000;
        let last = u64::try_from(manifest.st_mtime).unwrap_or(0);
        if self.writable && (last > now || now - last >= STAMP_INTERVAL.as_secs()) {
            // Recency is a hint: without it the entry is pruned sooner.
            let _ = entry.stamp(MANIFEST);
        }
    }
}

fn untrusted(file: &str, why: Distrust) -> ReadError {
    ReadError::Fault(Fault::Untrusted {
        file: file.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::super::prune::Limits;
    use super::super::test_fixtures;
    use super::*;

    #[test]
    fn an_entry_that_is_pruned_between_opening_and_reading_is_absent_and_not_bad() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path().join("cache"));
        let request = test_fixtures::subject_of(0);
        let kept = Entry::new(&request, &test_fixtures::artifact());
        let hex = request.key().hex();
        for published_again in [false, true] {
            store.publish(&kept).expect("published");
            let shard = store.open_shard(&hex[..2]).expect("opened").expect("a shard");
            let entry = shard.open(&hex).expect("an entry");
            assert!(matches!(
                store.examine(request.key(), &shard, &entry, false, true),
                Some(Load::Found(_))
            ));
            let none = Limits {
                max_entries: 0,
                ..Limits::NONE
            };
            assert_eq!(store.prune(&none, false).expect("pruned").keys.len(), 1);
            if published_again {
                store.publish(&kept).expect("published");
            }
            let found = store.examine(request.key(), &shard, &entry, false, true);
            assert!(matches!(found, Some(Load::Absent)), "{found:?}");
        }
    }
}
