//! Locks that the kernel releases when their holder dies.
//!
//! Invariant: a lock is a `flock` on an open file; that a lock file exists means
//! nothing. A holder removes its file before it lets go, and a taker checks that
//! the file which it locked is still the one under the name, so lock files do
//! not pile up and two holders never hold different files of one name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use super::dir::Dir;
use super::shutdown;

/// The longest pause between two tries of a waiter.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A held lock on a name; let go when dropped.
#[derive(Debug)]
pub struct KeyLock {
    folder: Arc<Dir>,
    name: String,
    noted: u64,
    file: OwnedFd,
}

/// How a wait for a lock ended.
#[derive(Debug)]
pub enum Claim {
    /// This caller alone holds it.
    Held(KeyLock),
    /// Somebody else still held it when the time was up.
    TimedOut,
    /// There is no lock to be had here; duplicate work is all that can follow.
    Unsupported(String),
}

impl KeyLock {
    /// Waits at most `timeout` for the lock `name` in `folder`.
    pub(super) fn acquire(folder: &Arc<Dir>, name: &str, timeout: Duration) -> Claim {
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if shutdown::is_ending() {
                return Claim::Unsupported("the process is ending".to_owned());
            }
            match Self::attempt(folder, name) {
                Ok(Some(lock)) => return Claim::Held(lock),
                Ok(None) => {}
                Err(e) => return Claim::Unsupported(e.to_string()),
            }
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Claim::TimedOut;
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One try: `None` if another holds it or has just let go.
    fn attempt(folder: &Arc<Dir>, name: &str) -> rustix::io::Result<Option<Self>> {
        let file = folder.open_lock(name)?;
        if !try_exclusive(&file)? {
            return Ok(None);
        }
        let ours = rustix::fs::fstat(&file)?;
        match folder.stat_of(name) {
            Ok(named) if (named.st_ino, named.st_dev) == (ours.st_ino, ours.st_dev) => Ok(Some(Self {
                folder: Arc::clone(folder),
                name: name.to_owned(),
                noted: shutdown::note_lock(folder, name),
                file,
            })),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        shutdown::forget_lock(self.noted);
        // A file that cannot be removed stays behind and means nothing.
        let _ = self.folder.remove(&self.name);
        unlock(&self.file);
    }
}

/// Lets go of a lock on an open file or folder when dropped.
pub(super) struct Release<'a>(BorrowedFd<'a>);

impl<'a> Release<'a> {
    pub(super) fn later(fd: &'a impl AsFd) -> Self {
        Self(fd.as_fd())
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

/// Unlocks aloud: closing alone would leave the lock with a child that the
/// program forked meanwhile, for as long as that child lives.
fn unlock(fd: &impl AsFd) {
    // Where it fails there was no lock.
    let _ = retry_on_intr(|| rustix::fs::flock(fd, FlockOperation::Unlock));
}

/// Locks an open file or folder for itself alone, without waiting.
pub(super) fn try_exclusive(fd: impl AsFd) -> rustix::io::Result<bool> {
    try_flock(&fd, FlockOperation::NonBlockingLockExclusive)
}

/// Locks it together with other readers, without waiting.
pub(super) fn try_shared(fd: impl AsFd) -> rustix::io::Result<bool> {
    try_flock(&fd, FlockOperation::NonBlockingLockShared)
}

fn try_flock(fd: &impl AsFd, operation: FlockOperation) -> rustix::io::Result<bool> {
    match retry_on_intr(|| rustix::fs::flock(fd, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes lock files that nobody holds.
pub(super) fn sweep(folder: &Arc<Dir>) -> rustix::io::Result<()> {
    for name in folder.names()? {
        if let Some(name) = name.to_str() {
            // Letting go removes the file.
            drop(KeyLock::attempt(folder, name));
        }
    }
    Ok(())
}
