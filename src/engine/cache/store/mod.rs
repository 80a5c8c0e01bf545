//! One cache folder: load, claim, publish, quarantine.
//!
//! Invariant: an entry appears under its name whole or not at all. It is staged
//! elsewhere, forced to disk, then renamed; nothing is ever written into a
//! published entry. docs/CACHE.md has the protocol step by step.

mod admit;
mod age;
pub(super) mod check;
#[cfg(test)]
mod crash;
mod crash_points;
mod dir;
pub(super) mod entry;
pub(super) mod error;
mod failed;
pub(super) mod foreign;
pub(super) mod inspect;
pub(super) mod layout;
mod link;
pub(super) mod lock;
pub(super) mod manifest;
pub(super) mod prune;
pub(super) mod read;
mod root;
pub(super) mod shutdown;
mod sign;
pub(super) mod tally;
#[cfg(test)]
mod test_fixtures;
mod texts;
mod trust;
pub(super) mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::engine::build::key::CacheKey;
use crate::engine::config::CacheTrust;
use crate::engine::sign::Admission;
use crash_points::{Step, reach};
use dir::Dir;
use entry::{Whole, now_unix_ms};
use error::{CacheError, Fault};
use lock::{Claim, KeyLock, Wait};
use read::Load;
use shutdown::Permit;
use trust::{Modes, judge};

/// Everything of this format lies under this folder of the root.
const VERSION: &str = "v2";
/// The folder of the format before, whose entries are ignored.
const OLD_VERSION: &str = "v1";
/// Entries that are being written.
const STAGING: &str = ".staging";
/// Entries that were found bad.
const QUARANTINE: &str = ".quarantine";
/// Texts of headers, by digest.
const TEXTS: &str = ".texts";
/// How the file of an entry is called after its key.
const EXTENSION: &str = ".jitc";
/// Lock files.
const LOCKS: &str = ".locks";

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    writable: bool,
    trust: CacheTrust,
    admission: Admission,
    /// Whether this is the view in which nobody's files are loaded unsigned.
    must_be_signed: bool,
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
            admission: Admission::default(),
            must_be_signed: false,
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
        self.root.join(VERSION).join(&hex[..2]).join(file_name(key))
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
    /// the rename, and the other finds a good entry there. Something bad there is moved
    /// away, or replaced where it cannot be moved.
    pub fn publish(&self, whole: &Whole) -> Result<Published, CacheError> {
        self.check_writable()?;
        let _permit = Permit::take().ok_or(CacheError::Quiesced)?;
        whole.check_size().map_err(CacheError::Refused)?;
        self.check_signed(whole)?;
        let manifest = whole.entry().manifest();
        let key = &manifest.key;
        let name = file_name(key);
        let version = self.create_version()?;
        let texts = self.keep_texts(&version, manifest, whole.texts())?;
        let _named = lock::Release::later(&texts);
        reach(Step::Texts);
        let staging = self.ensure(&version, STAGING)?;
        let shard = self.ensure(&version, &key.hex()[..2])?;
        let staged = self.stage(&staging, key, &whole.to_bytes())?;
        for _ in 0..3 {
            match staging.rename_file(&staged.name, &shard, &name) {
                Ok(()) => {
                    reach(Step::Renamed);
                    staged.keep();
                    shard.sync().map_err(|e| self.io("sync", key, e))?;
                    reach(Step::Published);
                    return Ok(Published::Ours);
                }
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => match self.load(key) {
                    Load::Found(_) => return Ok(Published::Theirs),
                    Load::Unavailable(e) => return Err(e),
                    Load::Absent => {}
                    // In a shared folder it is another's good work, who has not signed it.
                    Load::Bad(fault @ Fault::Signature(_)) if self.trust != CacheTrust::Own => {
                        return Err(CacheError::Refused(fault));
                    }
                    Load::Bad(_) => self.move_away(&version, &shard, key)?,
                },
                Err(e) => return Err(self.io("publish", key, e)),
            }
        }
        Err(self.io("publish", key, Errno::EXIST))
    }

    /// Puts a file in the place of a key's: staged, forced to disk, renamed over what is there.
    fn replace_file(&self, key: &CacheKey, bytes: &[u8], action: &'static str) -> Result<(), CacheError> {
        let version = self.create_version()?;
        let staging = self.ensure(&version, STAGING)?;
        let shard = self.ensure(&version, &key.hex()[..2])?;
        let staged = self.stage(&staging, key, bytes)?;
        let replaced = staging.replace(&staged.name, &shard, &file_name(key));
        replaced.map_err(|errno| self.io(action, key, errno))?;
        reach(Step::Renamed);
        staged.keep();
        shard.sync().map_err(|errno| self.io("sync", key, errno))
    }

    /// Refuses what would be written where nothing is.
    fn check_writable(&self) -> Result<(), CacheError> {
        if self.writable {
            return Ok(());
        }
        Err(CacheError::ReadOnly(self.root.display().to_string()))
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
        if matches!(claim, Claim::TimedOut) || !is_broken(&self.load(key)) {
            return Ok(false);
        }
        self.expel(key).map(|()| true)
    }

    /// As [`Store::quarantine`], of an entry of which no part may be bad.
    pub(super) fn quarantine_whole(&self, key: &CacheKey) -> Result<bool, CacheError> {
        let claim = self.claim(key, &Wait::none());
        if matches!(claim, Claim::TimedOut) || !is_broken(&self.whole(key)) {
            return Ok(false);
        }
        self.expel(key).map(|()| true)
    }

    /// Moves an entry out of the way whatever its bytes say: the driver rejected
    /// what verifies.
    pub fn expel(&self, key: &CacheKey) -> Result<(), CacheError> {
        let version = self.create_version()?;
        let shard = self.ensure(&version, &key.hex()[..2])?;
        self.move_away(&version, &shard, key)
    }

    fn move_away(&self, version: &Dir, shard: &Dir, key: &CacheKey) -> Result<(), CacheError> {
        let quarantine = self.ensure(version, QUARANTINE)?;
        let name = format!("{}.{}.{}", key.hex(), now_unix_ms(), unique());
        let file = file_name(key);
        let moved = match shard.rename(&file, &quarantine, &name) {
            // A folder of an overlay's lower layer, or a mount point in between: what can be
            // copied is, and what is in the way goes.
            Err(Errno::XDEV) => {
                if let Ok(found) = shard.read(&file, layout::ENTRY_LIMIT) {
                    let _ = quarantine.write_new(&name, &found.bytes);
                }
                shard.remove(&file)
            }
            other => other,
        };
        match moved {
            Ok(()) | Err(Errno::NOENT) => {
                reach(Step::Quarantined);
                Ok(())
            }
            Err(errno) => Err(self.io("quarantine", key, errno)),
        }
    }

    /// Writes an entry's file into the staging folder, forced to disk.
    fn stage<'a>(&self, staging: &'a Dir, key: &CacheKey, bytes: &[u8]) -> Result<Staged<'a>, CacheError> {
        let name = format!("{}.{}", key.short(), unique());
        let fail = |errno| CacheError::Io {
            action: "write",
            path: self.root.join(VERSION).join(STAGING).join(&name),
            errno,
        };
        // Locked while it is written, which tells collectors that its writer lives.
        let file = staging.create_file(&name).map_err(fail)?;
        let staged = Staged {
            staging,
            name: name.clone(),
            armed: true,
        };
        let _held = lock::Release::later(&file);
        reach(Step::Staged);
        dir::write_all(&file, bytes).map_err(fail)?;
        reach(Step::Written);
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&file)).map_err(fail)?;
        reach(Step::Synced);
        Ok(staged)
    }

    /// Removes what the format before left in this root; says how many entries.
    pub fn clean_old(&self) -> Result<u64, CacheError> {
        self.check_writable()?;
        let root = match self.root_dir() {
            Ok(root) => root,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(io_error("open", self.root.clone(), errno)),
        };
        self.admit(&root, || self.root.clone())?;
        let entries = self.old_entries();
        let removed = root.remove(OLD_VERSION);
        removed.map_err(|errno| io_error("remove", self.root.join(OLD_VERSION), errno))?;
        Ok(entries)
    }

    /// Entries of the format before in this root: they are never read.
    #[must_use]
    pub fn old_entries(&self) -> u64 {
        let old = self.root_dir().and_then(|root| root.open(OLD_VERSION));
        let Ok(old) = old else { return 0 };
        let shards = inspect::names(&old).into_iter().filter(|n| inspect::is_shard(n));
        let count = |shard: String| {
            old.open(&shard)
                .map_or(0, |dir| inspect::names(&dir).len() as u64)
        };
        shards.map(count).sum()
    }

    /// Opens `v2`, made if it is missing, and the root with it.
    fn create_version(&self) -> Result<Dir, CacheError> {
        self.ensure(&self.open_root()?, VERSION)
    }

    /// Opens an inner folder, made if it is missing.
    fn ensure(&self, parent: &Dir, name: &str) -> Result<Dir, CacheError> {
        let of_root = [VERSION, failed::FAILED].contains(&name);
        let folder = if of_root { "" } else { VERSION };
        let path = || self.root.join(folder).join(name);
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

/// A staged file; removed again unless it was published.
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

/// Whether what was found is to be moved away. What is only not signed may be good under
/// another policy: it stays.
fn is_broken<T>(found: &Load<T>) -> bool {
    matches!(found, Load::Bad(fault) if !matches!(fault, Fault::Signature(_)))
}

/// The file of an entry, in its shard.
fn file_name(key: &CacheKey) -> String {
    key.hex() + EXTENSION
}

/// The key of an entry's file, if it is called as one.
fn key_of(name: &str) -> Option<CacheKey> {
    name.strip_suffix(EXTENSION)?.parse().ok()
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
