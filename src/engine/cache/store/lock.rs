//! Locks that the kernel releases when their holder dies.
//!
//! Invariant: a lock is a `flock` on an open file; that a lock file exists means
//! nothing. A holder removes its file before it lets go, and a taker checks that
//! the file which it locked is still the one under the name, so lock files do
//! not pile up and two holders never hold different files of one name.
//!
//! A holder writes into its file for how long it may hold it. Who has waited that long
//! and a margin takes the file away, under a lock of its own, and the next to claim the
//! name, one of those who wait, holds a new file: the others see a new holder, and go on
//! waiting. So a holder that hangs is one compile more, and no stampede.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use super::dir::Dir;
use super::shutdown;
use crate::engine::build::compile::Cancel;

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

/// How to wait for a lock.
#[derive(Debug, Clone, Default)]
pub struct Wait {
    /// The longest that one holder is waited for; without one as long as it says that it
    /// may hold the lock, and a margin.
    pub patience: Option<Duration>,
    /// How long the one who waits may hold the lock then: written into it.
    pub promise: Duration,
    /// Ends the wait.
    pub cancel: Cancel,
}

impl Wait {
    /// One try.
    #[must_use]
    pub fn none() -> Self {
        Self {
            patience: Some(Duration::ZERO),
            ..Self::default()
        }
    }

    /// The longest wait for a holder that says this, or nothing.
    fn for_holder(&self, says: Option<Duration>) -> Duration {
        self.patience
            .unwrap_or_else(|| says.unwrap_or(self.promise).saturating_add(MARGIN))
    }
}

/// What a holder needs beside the compile, and what clocks may be apart.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);

/// How a wait for a lock ended.
#[derive(Debug)]
pub enum Claim {
    /// This caller alone holds it.
    Held(KeyLock),
    /// The same, after the holder before took longer than it said: that one may still be
    /// at work.
    TakenOver(KeyLock),
    /// Somebody else still held it when the time was up.
    TimedOut,
    /// There is no lock to be had here; duplicate work is all that can follow.
    Unsupported(String),
}

impl KeyLock {
    /// Waits for the lock `name` in `folder`.
    pub(super) fn acquire(folder: &Arc<Dir>, name: &str, wait: &Wait) -> Claim {
        let mut pause = Duration::from_millis(1);
        // Which holder is waited for, and since when.
        let mut holder: Option<(u64, Instant)> = None;
        let mut taken_over = false;
        loop {
            if shutdown::is_ending() {
                return Claim::Unsupported("the process is ending".to_owned());
            }
            match Self::attempt(folder, name) {
                Ok(Some(lock)) => {
                    lock.promise(wait.promise);
                    return if taken_over {
                        Claim::TakenOver(lock)
                    } else {
                        Claim::Held(lock)
                    };
                }
                Ok(None) => {}
                Err(e) => return Claim::Unsupported(e.to_string()),
            }
            if wait.cancel.is_canceled() || wait.patience == Some(Duration::ZERO) {
                return Claim::TimedOut;
            }
            let mut left = LONGEST_PAUSE;
            if let Some((inode, says)) = said(folder, name) {
                let since = match holder {
                    Some((same, since)) if same == inode => since,
                    _ => Instant::now(),
                };
                holder = Some((inode, since));
                left = wait.for_holder(says).saturating_sub(since.elapsed());
                if left.is_zero() {
                    taken_over |= take_away(folder, name, inode);
                    left = LONGEST_PAUSE;
                }
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says for how long it may be held. Where that cannot be written, those who wait
    /// take their own limit for it.
    fn promise(&self, longest: Duration) {
        let text = format!("{}\n", longest.as_millis());
        let _ = rustix::io::pwrite(&self.file, text.as_bytes(), 0);
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
        // A file that cannot be removed stays behind and means nothing; one that was
        // taken over is another's.
        if inode_of(&self.folder, &self.name) == rustix::fs::fstat(&self.file).ok().map(|stat| stat.st_ino) {
            let _ = self.folder.remove(&self.name);
        }
        unlock(&self.file);
    }
}

/// Which file is held under a name, and how long its holder says that it may hold it.
fn said(folder: &Dir, name: &str) -> Option<(u64, Option<Duration>)> {
    let file = folder.open_lock(name).ok()?;
    let inode = rustix::fs::fstat(&file).ok()?.st_ino;
    let mut text = [0; 32];
    let length = rustix::io::pread(&file, &mut text, 0).unwrap_or(0);
    let text = std::str::from_utf8(&text[..length]).ok();
    let millis = text.and_then(|text| text.strip_suffix('\n')?.parse().ok());
    Some((inode, millis.map(Duration::from_millis)))
}

/// Takes the file away from a holder that took too long; says whether it did. Only one
/// does at a time, and only the file that it judged.
fn take_away(folder: &Arc<Dir>, name: &str, judged: u64) -> bool {
    let Ok(Some(_alone)) = KeyLock::attempt(folder, &format!("{name}.next")) else {
        return false;
    };
    inode_of(folder, name) == Some(judged) && folder.remove(name).is_ok()
}

fn inode_of(folder: &Dir, name: &str) -> Option<u64> {
    folder.stat_of(name).ok().map(|stat| stat.st_ino)
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
