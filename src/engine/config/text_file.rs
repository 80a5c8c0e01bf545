//! A small file of text that says what this program does.
//!
//! Invariant: what comes back is all of the file, or nothing: see
//! [`regular_file`](crate::engine::regular_file). A byte order mark before the first line
//! is no part of that line.

use std::fs::Metadata;
use std::io;
use std::path::Path;

use crate::engine::regular_file::{MAX_TOML, open, read_text_opened};

/// The file's text, and what it was when it was opened.
pub(crate) fn read(path: &Path) -> io::Result<(String, Metadata)> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    let text = read_text_opened(file, MAX_TOML)?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok((text, metadata))
}

/// Line, from 1, of a byte offset.
pub(crate) fn line_of(text: impl AsRef<[u8]>, offset: usize) -> usize {
    let before = text.as_ref().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("f");
        fs_err::write(&file, "\u{feff}A=1\n").expect("written");
        assert_eq!(read(&file).expect("read").0, "A=1\n");
        fs_err::write(&file, b"\xff\xfeA\0=\x001\0").expect("written");
        let error = read(&file).expect_err("UTF-16").to_string();
        assert!(error.ends_with("f is not UTF-8 in line 1"), "{error}");
    }
}
