//! One cache folder: load, claim, publish, quarantine.
//!
//! Invariant: an entry appears under its name whole or not at all. It is staged
//! elsewhere, forced to disk, then renamed; nothing is ever written into a
//! published entry. docs/CACHE.md has the protocol step by step.

mod age;
pub(super) mod check;
#[cfg(test)]
mod crash;
mod crash_points;
mod dir;
pub(super) mod entry;
pub(super) mod error;
mod failed;
pub(super) mod inspect;
mod link;
pub(super) mod lock;
pub(super) mod prune;
pub(super) mod read;
mod root;
pub(super) mod shutdown;
#[cfg(test)]
mod test_fixtures;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::engine::build::key::CacheKey;
use crate::engine::config::CacheTrust;
use crash_points::{Step, reach};
use dir::Dir;
use entry::{Entry, MANIFEST, PAYLOAD, now_unix_ms};
use error::CacheError;
use lock::{Claim, KeyLock, Wait};
use read::Load;
use shutdown::Permit;
use trust::{Modes, judge};

/// Everything of this format lies under this folder of the root.
const VERSION: &str = "v1";
/// Entries that are being written.
const STAGING: &str = ".staging";
/// Entries that were found bad.
const QUARANTINE: &str = ".quarantine";
/// Lock files.
const LOCKS: &str = ".locks";

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    writable: bool,
    trust: CacheTrust,
}

/// How a publish ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The entry is there, by this caller.
    Ours,
    /// A good entry was there already, by somebody else.
    Theirs,
}

impl Store {
    /// A folder that is read from and written to. Touches no disk.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            writable: true,
            trust: CacheTrust::Own,
        }
    }

    /// A folder that is only read from. Touches no disk.
    #[must_use]
    pub fn read_only(root: impl Into<PathBuf>) -> Self {
        Self {
            writable: false,
            ..Self::new(root)
        }
    }

    /// Whose files to load, beside this user's and root's.
    #[must_use]
    pub fn with_trust(self, trust: impl Into<CacheTrust>) -> Self {
        let trust = trust.into();
        Self { trust, ..self }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether entries are written here.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Where the entry of this key lies, or would.
    #[must_use]
    pub fn entry_path(&self, key: &CacheKey) -> PathBuf {
        let hex = key.hex();
        self.root.join(VERSION).join(&hex[..2]).join(&hex)
    }

    /// Waits for the right to build and publish this key.
    #[must_use]
    pub fn claim(&self, key: &CacheKey, wait: &Wait) -> Claim {
        let locks = self
            .create_version()
            .and_then(|version| self.ensure(&version, LOCKS));
        match locks {
            Ok(locks) => {
                let claim = KeyLock::acquire(&Arc::new(locks), &key.hex(), wait);
                reach(Step::Claimed);
                claim
            }
            Err(e) => Claim::Unsupported(e.to_string()),
        }
    }

    /// Writes an entry: staged, forced to disk, renamed, forced to disk.
    ///
    /// Better done under a [`Claim`], but right without: of two writers one wins
    /// the rename, and the other finds a good entry there.
    pub fn publish(&self, entry: &Entry) -> Result<Published, CacheError> {
        if !self.writable {
            return Err(CacheError::ReadOnly(self.root.display().to_string()));
        }
        let _permit = Permit::take().ok_or(CacheError::Quiesced)?;
        let key = &entry.manifest().key;
        let hex = key.hex();
        let version = self.create_version()?;
        let staging = self.ensure(&version, STAGING)?;
        let shard = self.ensure(&version, &hex[..2])?;
        let staged = self.stage(&staging, entry)?;
        for _ in 0..3 {
            match staging.rename(&staged.name, &shard, &hex) {
                Ok(()) => {
                    reach(Step::Renamed);
                    staged.keep();
                    shard.sync().map_err(|e| self.io("sync", key, e))?;
                    reach(Step::Published);
                    return Ok(Published::Ours);
                }
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => match self.load(key) {
                    Load::Found(_) => return Ok(Published::Theirs),
                    Load::Unavailable(e) => return Err(e),
                    Load::Absent => {}
                    Load::Bad(_) => self.move_away(&version, &shard, &hex)?,
                },
                Err(e) => return Err(self.io("publish", key, e)),
            }
        }
        Err(self.io("publish", key, Errno::EXIST))
    }

    /// Moves a bad entry out of the way; says whether it did.
    ///
    /// Looks again first, under the key's lock (taken here unless the caller
    /// holds it): another process may have repaired it.
    pub fn quarantine(&self, key: &CacheKey, held: Option<&Claim>) -> Result<bool, CacheError> {
        if !self.writable {
            return Ok(false);
        }
        let own;
        let claim = if let Some(claim) = held {
            claim
        } else {
            own = self.claim(key, &Wait::none());
            &own
        };
        if matches!(claim, Claim::TimedOut) || !matches!(self.load(key), Load::Bad(_)) {
            return Ok(false);
        }
        self.expel(key).map(|()| true)
    }

    /// Moves an entry out of the way whatever its bytes say: the driver rejected
    /// what verifies.
    pub fn expel(&self, key: &CacheKey) -> Result<(), CacheError> {
        let hex = key.hex();
        let version = self.create_version()?;
        let shard = self.ensure(&version, &hex[..2])?;
        self.move_away(&version, &shard, &hex)
    }

    fn move_away(&self, version: &Dir, shard: &Dir, hex: &str) -> Result<(), CacheError> {
        let quarantine = self.ensure(version, QUARANTINE)?;
        let name = format!("{hex}.{}.{}", now_unix_ms(), unique());
        match shard.rename(hex, &quarantine, &name) {
            Ok(()) | Err(Errno::NOENT) => {
                reach(Step::Quarantined);
                Ok(())
            }
            Err(errno) => Err(CacheError::Io {
                action: "quarantine",
                path: self.root.join(VERSION).join(&hex[..2]).join(hex),
                errno,
            }),
        }
    }

    /// Writes an entry's files into a staging folder, all forced to disk.
    fn stage<'a>(&self, staging: &'a Dir, entry: &Entry) -> Result<Staged<'a>, CacheError> {
        let name = format!("{}.{}", entry.manifest().key.short(), unique());
        let fail = |errno| CacheError::Io {
            action: "write",
            path: self.root.join(VERSION).join(STAGING).join(&name),
            errno,
        };
        let dir = staging.create_new(&name).map_err(fail)?;
        let staged = Staged {
            staging,
            name: name.clone(),
            armed: true,
        };
        // Tells collectors that the writer lives; shared, so that readers are
        // not shut out once the folder has its final name.
        let _ = lock::try_shared(&dir);
        let _held = lock::Release::later(&dir);
        reach(Step::Staged);
        let files = entry.files();
        let payload = PAYLOAD.into_iter().zip(files.payload.iter());
        let all = payload.chain([(MANIFEST, &files.manifest)]);
        for (n, (name, bytes)) in all.enumerate() {
            dir.write_new(name, bytes).map_err(fail)?;
            reach(Step::Written(n + 1));
        }
        dir.sync().map_err(fail)?;
        reach(Step::Synced);
        Ok(staged)
    }

    /// Opens `v1`, made if it is missing, and the root with it.
    fn create_version(&self) -> Result<Dir, CacheError> {
        self.ensure(&self.open_root()?, VERSION)
    }

    /// Opens an inner folder, made if it is missing.
    fn ensure(&self, parent: &Dir, name: &str) -> Result<Dir, CacheError> {
        let path = || self.root.join(VERSION).join(name);
        let io = |errno| io_error("create", path(), errno);
        if let Some(dir) = self.open_linked(parent, name, path)? {
            return Ok(dir);
        }
        let (dir, made) = parent.ensure(name).map_err(io)?;
        if made {
            parent.sync().map_err(io)?;
        }
        self.admit(&dir, path)?;
        Ok(dir)
    }

    /// The root as it is; the caller judges it.
    fn root_dir(&self) -> rustix::io::Result<Dir> {
        Dir::open_root(&self.root, Modes::of(self.trust))
    }

    fn admit(&self, dir: &Dir, path: impl Fn() -> PathBuf) -> Result<(), CacheError> {
        match dir.stat() {
            Ok(stat) => judge(&stat, self.trust).map_err(|why| CacheError::Untrusted { path: path(), why }),
            Err(errno) => Err(io_error("stat", path(), errno)),
        }
    }

    fn io(&self, action: &'static str, key: &CacheKey, errno: Errno) -> CacheError {
        io_error(action, self.entry_path(key), errno)
    }
}

/// A staging folder; removed again unless it was published.
struct Staged<'a> {
    staging: &'a Dir,
    name: String,
    armed: bool,
}

impl Staged<'_> {
    /// It has another name now.
    fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed is collected by a later prune.
            let _ = self.staging.remove(&self.name);
        }
    }
}

fn io_error(action: &'static str, path: PathBuf, errno: Errno) -> CacheError {
    CacheError::Io { action, path, errno }
}

/// A name that no other writer takes: process and a count within it.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{count}", std::process::id())
}
