//! Files that people name, read whole.
//!
//! Invariant: what is read is a regular file of a bounded size. A pipe would be waited for,
//! a device may never end, and a file of ten gigabytes is no family: each is refused in one
//! line that names it.

use std::fmt::Display;
use std::io::{self, Read};
use std::path::Path;

use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::{FileType, OFlags};

/// The most bytes of a source or a header.
pub const MAX_SOURCE: u64 = 16 << 20;
/// The most bytes of declarations, settings or a matrix.
pub const MAX_TOML: u64 = 1 << 20;
/// The most bytes of a trace, a receipt or another record with a line a kernel.
pub const MAX_RECORDS: u64 = 256 << 20;
/// The most bytes of measured ticks or of a weight.
pub const MAX_DATA: u64 = 16 << 30;

/// Opens a regular file for reading, without waiting for anybody.
///
/// # Errors
/// `PATH: no such file`, or the system's reason in its place; `PATH is a folder` where it is
/// of another kind.
pub fn open(path: &Path) -> io::Result<fs_err::File> {
    // Before it is opened, since that alone may do something to a device.
    let metadata = fs_err::metadata(path).map_err(|e| unreadable(path, &e))?;
    check_kind(path, &metadata)?;
    let nonblocking = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
    let mut options = fs_err::OpenOptions::new();
    let opened = options.read(true).custom_flags(nonblocking).open(path);
    let file = opened.map_err(|e| unreadable(path, &e))?;
    check_kind(path, &file.metadata()?)?;
    Ok(file)
}

/// As [`open`]; `-` is standard input, read to its end first, and then as a file is: from
/// its beginning, as often as it takes.
///
/// # Errors
/// As [`open`]'s, and where the input has more than [`MAX_RECORDS`] bytes.
pub fn open_or_input(path: &Path) -> io::Result<fs_err::File> {
    use std::io::{Seek, Write};
    if path.as_os_str() != "-" {
        return open(path);
    }
    let mut file = fs_err::File::from_parts(tempfile::tempfile()?, "standard input");
    let length = io::copy(&mut io::stdin().lock().take(MAX_RECORDS + 1), &mut file)?;
    if length > MAX_RECORDS {
        let what = format!("longer than {MAX_RECORDS} bytes, which is the most that is read");
        return Err(refused(file.path(), &what));
    }
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// The text of a regular file of at most this many bytes, or of standard input for `-`.
///
/// # Errors
/// As [`open_or_input`]'s and [`read_text`]'s.
pub fn read_text_or_input(path: &Path, limit: u64) -> io::Result<String> {
    read_text_opened(open_or_input(path)?, limit)
}

/// All of a regular file of at most this many bytes.
///
/// # Errors
/// As [`open`]'s, and where it is longer.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path)?, limit)
}

/// The same of a file that is open.
pub(crate) fn read_opened(file: fs_err::File, limit: u64) -> io::Result<Vec<u8>> {
    let path = file.path().to_path_buf();
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= limit {
        bytes.reserve_exact(usize::try_from(length).unwrap_or(0));
        // It may grow meanwhile.
        file.take(limit + 1).read_to_end(&mut bytes)?;
    }
    let length = length.max(bytes.len() as u64);
    if length > limit {
        return Err(refused(
            &path,
            &format!("of {length} bytes: at most {limit} are read"),
        ));
    }
    Ok(bytes)
}

/// The same of a text.
///
/// # Errors
/// As [`read`]'s, and where it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    read_text_opened(open(path)?, limit)
}

/// The same of a file that is open.
pub(crate) fn read_text_opened(file: fs_err::File, limit: u64) -> io::Result<String> {
    let path = file.path().to_path_buf();
    String::from_utf8(read_opened(file, limit)?).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        refused(&path, &format!("not UTF-8 in line {line}"))
    })
}

fn check_kind(path: &Path, metadata: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let kind = match FileType::from_raw_mode(metadata.mode()) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a folder",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    };
    Err(refused(path, &format!("{kind}: expected a regular file")))
}

/// A reason with the file's name in front, unless it begins with that.
#[must_use]
pub fn named(path: &Path, reason: impl Display) -> String {
    let (path, reason) = (path.display().to_string(), reason.to_string());
    if reason.starts_with(&path) {
        return reason;
    }
    format!("{path}: {reason}")
}

fn unreadable(path: &Path, error: &io::Error) -> io::Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        kind @ (io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory) => kind.to_string(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), named(path, reason))
}

fn refused(path: &Path, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} is {what}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_named_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let missing = dir.path().join("missing");
        let error = open(&missing).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("{}: no such file", missing.display()));
        assert_eq!(named(&missing, &error), error.to_string());

        let file = dir.path().join("file");
        fs_err::write(&file, "").expect("written");
        let below = file.join("x");
        let error = open(&below).expect_err("no folder");
        assert!(
            error
                .to_string()
                .starts_with(&format!("{}: not a directory", below.display())),
            "{error}"
        );
        assert_eq!(
            named(&file, "line 1: bad"),
            format!("{}: line 1: bad", file.display())
        );
    }
}
