//! A folder held open, and what may be done inside it.
//!
//! Invariant: every step inside a root goes through an open folder, one name at
//! a time, and through no symlink that was not judged (link.rs). A name that somebody swaps between two
//! steps can therefore not lead out of the root.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, Result, retry_on_intr};

use super::link::is_link;
use super::trust::Modes;

/// An open folder.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd, Modes);

/// A file's bytes and what the file system says of it.
pub(super) struct FileBytes {
    pub(super) bytes: Vec<u8>,
    pub(super) stat: Stat,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a root. The way to it may contain symlinks: they are the user's.
    /// What is made in it gets these modes.
    pub(super) fn open_root(path: &Path, modes: Modes) -> Result<Self> {
        retry_on_intr(|| rustix::fs::open(path, FOLDER, Mode::empty())).map(|fd| Self(fd, modes))
    }

    /// Creates a root, and the folders above it as the umask says.
    pub(super) fn create_root(path: &Path, modes: Modes) -> Result<Self> {
        if let Some(parent) = path.parent()
            && !parent.as_os_str().is_empty()
            && !parent.is_dir()
        {
            create_above(parent)?;
        }
        match rustix::fs::mkdir(path, modes.root) {
            Ok(()) | Err(Errno::EXIST) => Self::open_root(path, modes),
            Err(e) => Err(e),
        }
    }

    /// Opens the folder `name`; a symlink or a file there is an error.
    pub(super) fn open(&self, name: &str) -> Result<Self> {
        retry_on_intr(|| rustix::fs::openat(&self.0, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()))
            .map(|fd| Self(fd, self.1))
    }

    /// Opens the folder to which the symlink `name` leads, which the caller has judged.
    pub(super) fn follow(&self, name: &str) -> Result<Self> {
        retry_on_intr(|| rustix::fs::openat(&self.0, name, FOLDER, Mode::empty())).map(|fd| Self(fd, self.1))
    }

    /// Creates the folder `name`; that it exists is an error.
    pub(super) fn create_new(&self, name: &str) -> Result<Self> {
        rustix::fs::mkdirat(&self.0, name, self.1.folder)?;
        self.open(name)
    }

    /// Opens the folder `name`, made if it is missing; says whether it was.
    ///
    /// These names are the cache's own: a file in such a place is put out of the way, so
    /// that no state needs a person to delete it. A symlink stays: it is a person's.
    pub(super) fn ensure(&self, name: &str) -> Result<(Self, bool)> {
        match self.open(name) {
            Ok(dir) => return Ok((dir, false)),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                if is_link(&self.stat_of(name)?) {
                    return Err(Errno::LOOP);
                }
                rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?;
            }
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        match rustix::fs::mkdirat(&self.0, name, self.1.folder) {
            Ok(()) => self.open(name).map(|dir| (dir, true)),
            Err(Errno::EXIST) => self.open(name).map(|dir| (dir, false)),
            Err(e) => Err(e),
        }
    }

    /// What the file system says of the folder itself.
    pub(super) fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.0)
    }

    /// What it says of `name`, a symlink not followed.
    pub(super) fn stat_of(&self, name: &str) -> Result<Stat> {
        rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Sets the permissions of a folder that was just made, whatever the umask is.
    pub(super) fn set_mode(&self, mode: Mode) -> Result<()> {
        rustix::fs::fchmod(&self.0, mode)
    }

    /// Opens the regular file `name` for reading. Anything else there (symlink,
    /// pipe, folder) is `ELOOP`: opening a pipe must not hang.
    pub(super) fn open_file(&self, name: &str) -> Result<(OwnedFd, Stat)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.0, name, flags, Mode::empty()))?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::LOOP);
        }
        Ok((fd, stat))
    }

    /// Reads the regular file `name`, whole; `EFBIG` if it is longer than `limit`.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<FileBytes> {
        let (fd, stat) = self.open_file(name)?;
        let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let room = usize::try_from(length).map_err(|_| Errno::FBIG)?;
        if length > limit {
            return Err(Errno::FBIG);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(room).map_err(|_| Errno::NOMEM)?;
        // A file that shrinks meanwhile ends the loop early and one that grows
        // is cut here: both then fail verification.
        while bytes.len() < room {
            match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(room);
        Ok(FileBytes { bytes, stat })
    }

    /// Writes the new file `name` and forces it to disk.
    pub(super) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let fd = self.write(name, bytes, self.1.file)?;
        retry_on_intr(|| rustix::fs::fsync(&fd))
    }

    /// Creates the new file `name` and locks it with other readers: its writer lives.
    pub(super) fn create_file(&self, name: &str) -> Result<OwnedFd> {
        let fd = self.write(name, &[], self.1.file)?;
        // Where there are no locks, age alone tells.
        let _ = super::lock::try_shared(&fd);
        Ok(fd)
    }

    /// Adds to the regular file `name`, made if it is missing; its length afterwards.
    pub(super) fn append(&self, name: &str, bytes: &[u8]) -> Result<u64> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = flags | OFlags::NONBLOCK;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.0, name, flags, self.1.file))?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(Errno::LOOP);
        }
        write_all(&fd, bytes)?;
        Ok(u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(u64::MAX))
    }

    /// Writes the new file `name`, which only this user may read.
    pub(super) fn write_private(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(name, bytes, Mode::RUSR | Mode::WUSR).map(drop)
    }

    fn write(&self, name: &str, bytes: &[u8], mode: Mode) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.0, name, flags, mode))?;
        write_all(&fd, bytes)?;
        Ok(fd)
    }

    /// Opens or creates the lock file `name`.
    pub(super) fn open_lock(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry_on_intr(|| rustix::fs::openat(&self.0, name, flags | OFlags::NONBLOCK, self.1.lock))
    }

    /// Forces the folder's list of names to disk.
    pub(super) fn sync(&self) -> Result<()> {
        match retry_on_intr(|| rustix::fs::fsync(&self.0)) {
            // Some file systems cannot sync a folder; they have nothing to lose.
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
            other => other,
        }
    }

    /// Renames, never over something that exists (`EEXIST`, `ENOTEMPTY`).
    pub(super) fn rename(&self, from: &str, to_dir: &Self, to: &str) -> Result<()> {
        let noreplace = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.0, from, &to_dir.0, to, noreplace) {
            // A file system without the flag: a folder replaces only an empty
            // folder, so nothing that holds an entry is lost.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::renameat(&self.0, from, &to_dir.0, to)
            }
            other => other,
        }
    }

    /// Renames a file, never over something that exists (`EEXIST`).
    pub(super) fn rename_file(&self, from: &str, to_dir: &Self, to: &str) -> Result<()> {
        let noreplace = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.0, from, &to_dir.0, to, noreplace) {
            // A file system without the flag: a second name is never given over another.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(&self.0, from, &to_dir.0, to, AtFlags::empty())?;
                rustix::fs::unlinkat(&self.0, from, AtFlags::empty())
            }
            other => other,
        }
    }

    /// Renames a file over whatever file is there.
    pub(super) fn replace(&self, from: &str, to_dir: &Self, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.0, from, &to_dir.0, to)
    }

    /// Every name in the folder, in no order.
    pub(super) fn names(&self) -> Result<Vec<OsString>> {
        // A fresh descriptor, since reading moves the folder's offset.
        let again = self.open(".")?;
        let mut names = Vec::new();
        for item in rustix::fs::Dir::new(again.0)? {
            let item = item?;
            let name = item.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    }

    /// Removes `name` and, if it is a folder, all that is in it.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(Errno::NOENT) => return Ok(()),
            other => return other,
        }
        let inner = self.open(name)?;
        for item in inner.names()? {
            match item.to_str() {
                Some(item) => inner.remove(item)?,
                None => rustix::fs::unlinkat(&inner.0, item, AtFlags::empty())?,
            }
        }
        self.remove_empty(name)
    }

    /// Removes the folder `name` if it is empty.
    pub(super) fn remove_empty(&self, name: &str) -> Result<()> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)
    }

    /// Sets the modification time of `name` to now.
    pub(super) fn stamp(&self, name: &str) -> Result<()> {
        let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(&self.0, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Writes all of it, or fails.
pub(super) fn write_all(fd: impl AsFd, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = retry_on_intr(|| rustix::io::write(&fd, rest))?;
        if written == 0 {
            return Err(Errno::NOSPC);
        }
        rest = &rest[written..];
    }
    Ok(())
}

fn create_above(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
        && !parent.is_dir()
    {
        create_above(parent)?;
    }
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o777)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
