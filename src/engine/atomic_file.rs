//! Outputs: files that appear whole or not at all, and what is no file.
//!
//! Invariant: what is written goes to what was named. A regular file is replaced by one
//! that is complete and on disk; a device, a pipe or a descriptor is written to, never
//! replaced; a link stays, and its target is what was named.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// As many links as the kernel itself follows.
const MAX_LINKS: usize = 40;

/// What a path names.
enum Place {
    /// Something that takes bytes as they come.
    Stream(fs_err::File),
    /// A regular file, or nothing yet.
    File {
        path: PathBuf,
        there: Option<std::fs::Metadata>,
    },
}

/// Writes to what the path names. A regular file is written beside its place and renamed:
/// a new one with these permissions less the umask, one that is there with its own.
/// Anything else (a device, a pipe, `/dev/stdout`) is written to as it is; `-` is standard
/// output.
///
/// # Errors
/// The writer's own, and those of the files; then nothing is changed at the path of a
/// regular file.
pub fn write_atomically<T, E: From<io::Error>>(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    match place_of(path)? {
        Place::Stream(mut stream) => {
            let done = write(&mut stream)?;
            stream.flush()?;
            Ok(done)
        }
        Place::File { path, there } => replace(&path, there.as_ref(), mode, write),
    }
}

/// Writes a text, as [`write_atomically`] does.
pub fn write_text(path: &Path, text: &str) -> io::Result<()> {
    write_atomically(path, 0o666, |file| file.write_all(text.as_bytes()))
}

/// Follows links by hand, since a rename would replace the last one.
fn place_of(path: &Path) -> io::Result<Place> {
    let mut path = match path.to_str() {
        Some("-") => PathBuf::from("/proc/self/fd/1"),
        _ => path.to_path_buf(),
    };
    for _ in 0..MAX_LINKS {
        if let Some(stream) = descriptor(&path) {
            return stream.map(Place::Stream);
        }
        let there = match fs_err::symlink_metadata(&path) {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Place::File { path, there: None }),
            Err(e) => return Err(e),
        };
        if there.is_symlink() {
            let target = fs_err::read_link(&path)?;
            path = folder_of(&path).join(target);
        } else if there.is_file() {
            let there = Some(there);
            return Ok(Place::File { path, there });
        } else if there.is_dir() {
            let reason = format!("{} is a folder: expected a file's name", path.display());
            return Err(io::Error::new(io::ErrorKind::IsADirectory, reason));
        } else {
            let stream = fs_err::OpenOptions::new().write(true).open(&path)?;
            return Ok(Place::Stream(stream));
        }
    }
    let reason = format!("{}: its links go round in a circle", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// The open descriptor that `/dev/fd/1`, `/proc/self/fd/1` and the like name. It may be a
/// regular file whose name says nothing: what others write to it goes before or after.
fn descriptor(path: &Path) -> Option<io::Result<fs_err::File>> {
    let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
    let folder = fs_err::canonicalize(folder_of(path)).ok()?;
    let process = folder.strip_prefix("/proc").ok()?.to_str()?.strip_suffix("/fd")?;
    let ours = process == std::process::id().to_string();
    let owned = match number {
        1 if ours => io::stdout()
            .flush()
            .and_then(|()| io::stdout().as_fd().try_clone_to_owned()),
        2 if ours => io::stderr().as_fd().try_clone_to_owned(),
        _ => return Some(fs_err::OpenOptions::new().append(true).open(path)),
    };
    Some(owned.map(|fd| fs_err::File::from_parts(fd.into(), path)))
}

fn replace<T, E: From<io::Error>>(
    path: &Path,
    there: Option<&std::fs::Metadata>,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let mode = there.map_or(mode, |there| there.mode() & 0o777);
    let beside = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(mode))
        .prefix(".jitc-")
        .tempfile_in(folder_of(path));
    let mut file = match beside {
        Ok(file) => file,
        // The file may be written, its folder may not. In no other case is what is there
        // given up before what comes instead is on disk.
        Err(e) if there.is_some() && is_closed(&e) => {
            let target = fs_err::OpenOptions::new().write(true).open(path)?;
            let mut whole = tempfile::tempfile()?;
            let done = write(&mut whole)?;
            copy_into(whole, target)?;
            return Ok(done);
        }
        Err(e) => return Err(e.into()),
    };
    let done = write(file.as_file_mut())?;
    if let Some(there) = there {
        let new = file.as_file().metadata()?;
        if (new.uid(), new.gid()) != (there.uid(), there.gid()) {
            let owner = Some(rustix::fs::Uid::from_raw(there.uid()));
            let group = Some(rustix::fs::Gid::from_raw(there.gid()));
            // Only root may give a file away; for others it becomes the writer's.
            let _ = rustix::fs::fchown(file.as_file(), owner, group);
        }
        // What was there had its mode whatever the umask is now.
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    file.as_file().sync_all()?;
    match file.persist(path) {
        Ok(_) => Ok(done),
        // A file that is mounted by itself, as into a container, cannot be renamed over.
        Err(e) if e.error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            let target = fs_err::OpenOptions::new().write(true).open(path)?;
            copy_into(e.file.reopen()?, target)?;
            Ok(done)
        }
        Err(e) => Err(e.error.into()),
    }
}

/// Whether nothing may be made in a folder.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Overwrites in place: all that is left where nothing can be renamed.
fn copy_into(mut whole: impl io::Seek + io::Read, mut target: fs_err::File) -> io::Result<()> {
    whole.rewind()?;
    target.set_len(0)?;
    io::copy(&mut whole, &mut target)?;
    target.sync_all()
}
