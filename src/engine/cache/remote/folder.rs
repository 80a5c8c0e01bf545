//! A folder that several machines mount, as a store.
//!
//! Invariant: a name appears whole or not at all, and a thread of its own does the work, so
//! that a file server which hangs costs the deadline. No link is followed out of the folder.

use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::blobs::{Blobs, Done, Put, Trouble};

/// A folder as a store.
#[derive(Debug)]
pub(super) struct SharedFolder {
    root: PathBuf,
}

impl SharedFolder {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn within<T: Send + 'static>(
        &self,
        path: &str,
        deadline: Duration,
        work: impl FnOnce(&Path, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (root, file) = (self.root.clone(), self.root.join(path));
        let (send, receive) = sync_channel(1);
        let work = move || {
            // Nobody listens any more where it took too long.
            let _ = send.send(work(&root, &file));
        };
        let name = "jitc shared folder".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(work);
        thread.map_err(|e| Trouble::Failed(e.to_string()))?;
        match receive.recv_timeout(deadline) {
            Ok(done) => done.map_err(|error| trouble(&error)),
            Err(RecvTimeoutError::Timeout) => Err(Trouble::Deadline(deadline)),
            Err(RecvTimeoutError::Disconnected) => Err(Trouble::Failed("the request panicked".to_owned())),
        }
    }
}

fn trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Trouble::Denied,
        // Without the path, so that the same trouble is said once for all keys.
        kind => Trouble::Failed(kind.to_string()),
    }
}

/// Whether the folders of a file below the root are there, and are folders: who may write
/// to the share leads nobody out of it by a link. Made, where that is said.
fn folders(root: &Path, file: &Path, may_make: bool) -> io::Result<bool> {
    let below = file.parent().and_then(|folder| folder.strip_prefix(root).ok());
    let mut folder = root.to_owned();
    for name in below.into_iter().flat_map(Path::components) {
        folder.push(name);
        let found = match fs_err::symlink_metadata(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !may_make => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Another machine may do so meanwhile.
                let made = fs_err::create_dir(&folder);
                made.or_else(|e| {
                    if e.kind() == io::ErrorKind::AlreadyExists {
                        Ok(())
                    } else {
                        Err(e)
                    }
                })?;
                fs_err::symlink_metadata(&folder)?
            }
            found => found?,
        };
        if !found.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
    }
    Ok(true)
}

/// Opens a regular file; `None`: there is none.
fn open(file: &Path) -> io::Result<Option<fs_err::File>> {
    let mut options = fs_err::OpenOptions::new();
    options.read(true);
    // Not waited for where a pipe stands.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    options.options_mut().custom_flags(flags.bits().cast_signed());
    let opened = match options.open(file) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if opened.metadata()?.is_file() {
        Ok(Some(opened))
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidData))
    }
}

impl Blobs for SharedFolder {
    fn get(&self, path: &str, limit: u64, deadline: Duration) -> Result<Option<Vec<u8>>, Trouble> {
        let read = self.within(path, deadline, move |root, file| {
            // A share that is not mounted is no empty store.
            fs_err::metadata(root)?;
            if !folders(root, file, false)? {
                return Ok(None);
            }
            let Some(opened) = open(file)? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            opened.take(limit + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        })?;
        match read {
            Some(bytes) if bytes.len() as u64 > limit => Err(Trouble::TooLong(limit)),
            read => Ok(read),
        }
    }

    fn put(&self, path: &str, bytes: Vec<u8>, how: Put, deadline: Duration) -> Result<Done, Trouble> {
        self.within(path, deadline, move |root, file| {
            // The folder itself is whoever mounts it's to make.
            fs_err::metadata(root)?;
            let folder = file.parent().unwrap_or(root);
            folders(root, file, true)?;
            let mut staged = tempfile::NamedTempFile::new_in(folder)?;
            staged.write_all(&bytes)?;
            let readable = std::fs::Permissions::from_mode(0o644);
            staged.as_file().set_permissions(readable)?;
            staged.as_file().sync_all()?;
            let put = match how {
                Put::Replace => staged.persist(file).map(drop),
                // By a link, which fails where the name is taken.
                Put::IfAbsent => staged.persist_noclobber(file).map(drop),
            };
            match put {
                Ok(()) => Ok(Done::Put),
                Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(Done::WasThere),
                Err(e) => Err(e.error),
            }
        })
    }

    fn delete(&self, path: &str, deadline: Duration) -> Result<(), Trouble> {
        self.within(path, deadline, |root, file| {
            if !folders(root, file, false)? {
                return Ok(());
            }
            match fs_err::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            }
        })
    }

    fn creates_alone(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_mins(1);

    #[test]
    fn bytes_come_back_and_a_taken_name_is_told() {
        let root = tempfile::tempdir().expect("a folder");
        let store = SharedFolder::new(root.path());
        assert_eq!(store.get("v2/ab/x", 9, DEADLINE), Ok(None));
        let put = |bytes: &[u8], how| store.put("v2/ab/x", bytes.to_vec(), how, DEADLINE);
        assert_eq!(put(b"one", Put::IfAbsent), Ok(Done::Put));
        assert_eq!(put(b"two", Put::IfAbsent), Ok(Done::WasThere));
        assert_eq!(store.get("v2/ab/x", 9, DEADLINE), Ok(Some(b"one".to_vec())));
        assert_eq!(put(b"three", Put::Replace), Ok(Done::Put));
        assert_eq!(store.get("v2/ab/x", 5, DEADLINE), Ok(Some(b"three".to_vec())));
        assert_eq!(store.get("v2/ab/x", 4, DEADLINE), Err(Trouble::TooLong(4)));
        assert_eq!(store.delete("v2/ab/x", DEADLINE), Ok(()));
        assert_eq!(store.delete("v2/ab/x", DEADLINE), Ok(()));
        let left = fs_err::read_dir(root.path().join("v2/ab"))
            .expect("a folder")
            .count();
        assert_eq!(left, 0, "nothing staged is left");
    }

    #[test]
    fn what_is_no_file_is_neither_read_nor_waited_for_and_an_absent_share_is_trouble() {
        let root = tempfile::tempdir().expect("a folder");
        let store = SharedFolder::new(root.path());
        fs_err::create_dir(root.path().join("folder")).expect("made");
        fs_err::os::unix::fs::symlink("/etc/hostname", root.path().join("link")).expect("made");
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        for name in ["folder", "link", "pipe"] {
            assert!(
                matches!(store.get(name, 9, DEADLINE), Err(Trouble::Failed(_))),
                "{name}"
            );
        }
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs_err::write(elsewhere.path().join("x"), "theirs").expect("written");
        fs_err::os::unix::fs::symlink(elsewhere.path(), root.path().join("v2")).expect("made");
        assert!(matches!(store.get("v2/x", 9, DEADLINE), Err(Trouble::Failed(_))));
        assert!(matches!(
            store.put("v2/y", vec![1], Put::Replace, DEADLINE),
            Err(Trouble::Failed(_))
        ));
        assert!(matches!(store.delete("v2/x", DEADLINE), Err(Trouble::Failed(_))));
        assert_eq!(fs_err::read_dir(elsewhere.path()).expect("a folder").count(), 1);
        let gone = SharedFolder::new(&root.path().join("gone"));
        assert!(matches!(gone.get("x", 9, DEADLINE), Err(Trouble::Failed(_))));
        assert!(matches!(
            gone.put("x", vec![1], Put::IfAbsent, DEADLINE),
            Err(Trouble::Failed(_))
        ));
        assert!(!root.path().join("gone").exists());
    }
}
