//! Files that people name, read whole.
//!
//! Invariant: what is read is a regular file of a bounded size. A pipe would be waited for,
//! a device may never end, and a file of ten gigabytes is no family: each is refused in one
//! line that names it.

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
/// One that names the file: it is of another kind, or cannot be opened.
pub fn open(path: &Path) -> io::Result<fs_err::File> {
    // Before it is opened, since that alone may do something to a device.
    check_kind(path, &fs_err::metadata(path)?)?;
    let nonblocking = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
    let mut options = fs_err::OpenOptions::new();
    let file = options.read(true).custom_flags(nonblocking).open(path)?;
    check_kind(path, &file.metadata()?)?;
    Ok(file)
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

fn refused(path: &Path, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} is {what}", path.display()),
    )
}
