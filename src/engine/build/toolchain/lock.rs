//! One install at a time in a folder, whatever number of processes want one.
//!
//! Invariant: the lock is a `flock`, which the kernel lets go of when its holder
//! dies; that the file exists means nothing. A holder removes the file before it lets
//! go, and a taker checks that what it locked is still what stands under the name.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use super::ToolchainError;
use super::held::{Held, is_ending};

/// The name of the lock file.
pub(super) const LOCK: &str = ".lock";

/// A held lock; let go when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Its file, removed before the lock is let go: fields are dropped in this order.
    _name: Held,
    _file: Locked,
}

#[derive(Debug)]
struct Locked(fs_err::File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Aloud: closing alone would leave the lock with a child that was forked
        // meanwhile. Where it fails there was no lock.
        let _ = retry_on_intr(|| rustix::fs::flock(&self.0, FlockOperation::Unlock));
    }
}

/// What came of asking for the lock.
#[derive(Debug)]
pub(super) enum Claim {
    Held(Lock),
    /// Another still holds it.
    Taken,
    /// The file system has no locks; duplicate work is all that can follow.
    Unsupported,
}

/// Waits at most `limit` for the lock of a folder.
pub(super) fn claim(root: &Path, limit: Duration) -> Result<Claim, ToolchainError> {
    let started = Instant::now();
    loop {
        match attempt(root)? {
            Claim::Taken if started.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return Ok(other),
        }
    }
}

fn attempt(root: &Path) -> Result<Claim, ToolchainError> {
    if is_ending() {
        return Err(ToolchainError::Ending);
    }
    let path = root.join(LOCK);
    let file = fs_err::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)?;
    match retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Claim::Taken),
        Err(_) => {
            let _ = fs_err::remove_file(&path);
            return Ok(Claim::Unsupported);
        }
    }
    let file = Locked(file);
    let ours = file.0.metadata()?;
    match fs_err::metadata(&path) {
        Ok(named) if (named.ino(), named.dev()) == (ours.ino(), ours.dev()) => {
            let name = Held::new(path).ok_or(ToolchainError::Ending)?;
            Ok(Claim::Held(Lock {
                _name: name,
                _file: file,
            }))
        }
        Ok(_) => Ok(Claim::Taken),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Claim::Taken),
        Err(error) => Err(error.into()),
    }
}
