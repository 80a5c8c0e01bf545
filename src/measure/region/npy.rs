//! `.npy` files of int64, strictly.
//!
//! Invariant: a file is read only if it is what a buffer of ticks is: format 1 to
//! 3, little-endian int64, C order, as many bytes as its shape says. Whatever is
//! not is one clear line, and nothing is guessed.

use std::path::Path;

use crate::engine::atomic_file::write_atomically;
use crate::engine::regular_file::{self, MAX_DATA};

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The file system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another kind of file.
    #[error("{file}: not a .npy file: its first bytes are not \\x93NUMPY")]
    Magic {
        /// The file.
        file: String,
    },
    /// A format that does not exist yet.
    #[error("{file}: .npy format {major}.{minor}: expected 1.0, 2.0 or 3.0")]
    Version {
        /// The file.
        file: String,
        /// Before the point.
        major: u8,
        /// After the point.
        minor: u8,
    },
    /// A header that cannot be read.
    #[error("{file}: its header has no {what}")]
    Header {
        /// The file.
        file: String,
        /// What is missing.
        what: &'static str,
    },
    /// Numbers of another type.
    #[error("{file}: dtype {found}: expected int64, little-endian ('<i8')")]
    Dtype {
        /// The file.
        file: String,
        /// What it holds.
        found: String,
    },
    /// Columns first.
    #[error("{file}: Fortran order: expected C order (save numpy.ascontiguousarray of it)")]
    FortranOrder {
        /// The file.
        file: String,
    },
    /// Fewer or more bytes than the shape says.
    #[error("{file}: {found} bytes of data: shape {shape} of int64 takes {expected}")]
    Length {
        /// The file.
        file: String,
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
        /// The shape, as Python writes it.
        shape: String,
    },
}

/// An array of int64 in C order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Its lengths, outermost first.
    pub shape: Vec<usize>,
    /// Its numbers, the last index fastest.
    pub data: Vec<i64>,
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a file.
pub fn read(path: &Path) -> Result<Array, NpyError> {
    parse(&path.display().to_string(), &regular_file::read(path, MAX_DATA)?)
}

/// Reads a file's bytes; `file` is its name in messages.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Array, NpyError> {
    let missing = |what| NpyError::Header {
        file: file.to_owned(),
        what,
    };
    let Some([major, minor, rest @ ..]) = bytes.strip_prefix(MAGIC) else {
        return Err(NpyError::Magic {
            file: file.to_owned(),
        });
    };
    let (length, rest) = match (major, minor) {
        (1, 0) => rest.split_at_checked(2),
        (2 | 3, 0) => rest.split_at_checked(4),
        _ => {
            return Err(NpyError::Version {
                file: file.to_owned(),
                major: *major,
                minor: *minor,
            });
        }
    }
    .ok_or_else(|| missing("length"))?;
    let length = length.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| missing("end"))?;
    let header = std::str::from_utf8(header).map_err(|_| missing("text"))?;

    let descr = value(header, "descr").ok_or_else(|| missing("'descr'"))?;
    if descr.trim_matches(['\'', '"']) != "<i8" {
        return Err(NpyError::Dtype {
            file: file.to_owned(),
            found: descr.to_owned(),
        });
    }
    match value(header, "fortran_order").ok_or_else(|| missing("'fortran_order'"))? {
        "False" => {}
        "True" => {
            return Err(NpyError::FortranOrder {
                file: file.to_owned(),
            });
        }
        _ => return Err(missing("'fortran_order' that is True or False")),
    }
    let written = value(header, "shape").ok_or_else(|| missing("'shape'"))?;
    let shape = shape(written).ok_or_else(|| missing("'shape' of whole numbers"))?;
    let expected = shape
        .iter()
        .try_fold(8_usize, |n, length| n.checked_mul(*length))
        .unwrap_or(usize::MAX);
    if data.len() != expected {
        return Err(NpyError::Length {
            file: file.to_owned(),
            found: data.len(),
            expected,
            shape: written.to_owned(),
        });
    }
    let (numbers, _) = data.as_chunks::<8>();
    Ok(Array {
        shape,
        data: numbers.iter().map(|n| i64::from_le_bytes(*n)).collect(),
    })
}

/// The bytes of a file.
#[must_use]
pub fn encode(array: &Array) -> Vec<u8> {
    let lengths: Vec<String> = array.shape.iter().map(|n| format!("{n},")).collect();
    let shape = match lengths.as_slice() {
        [one] => one.clone(),
        many => many.join(" ").trim_end_matches(',').to_owned(),
    };
    let mut header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({shape}), }}");
    // Data starts at a multiple of 64; the last byte of the header is a newline.
    let before = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(before.next_multiple_of(64) - before));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(array.data.iter().flat_map(|n| n.to_le_bytes()));
    bytes
}

/// Writes a file.
pub fn write(path: &Path, array: &Array) -> Result<(), NpyError> {
    Ok(write_atomically(path, 0o666, |file| {
        file.write_all(&encode(array))
    })?)
}

/// The text of a value of the header's one-level Python dictionary.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = ["'", "\""]
        .iter()
        .find_map(|q| Some(header.find(&format!("{q}{key}{q}"))? + key.len() + 2))?;
    let rest = header[at..].trim_start().strip_prefix(':')?.trim_start();
    let mut depth = 0;
    let end = rest.find(|c| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' | '}' if depth == 0 => return true,
            _ => {}
        }
        false
    })?;
    Some(rest[..end].trim_end())
}

fn shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| part.trim_end_matches('L').parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, order: &str, shape: &str, data: usize) -> Vec<u8> {
        let header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend(u16::try_from(header.len()).expect("short").to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        parse("t.npy", bytes).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_written_is_read_back_and_aligned() {
        for shape in [vec![2, 3, 2], vec![12], vec![0, 13, 2]] {
            let count = shape.iter().product::<usize>();
            let data: Vec<i64> = (0..count).map(|i| i64::try_from(i).expect("small") - 5).collect();
            let array = Array { shape, data };
            let bytes = encode(&array);
            assert_eq!((bytes.len() - 8 * count) % 64, 0);
            assert_eq!(parse("t.npy", &bytes).expect("read"), array);
        }
    }

    #[test]
    fn every_other_file_is_one_clear_line() {
        assert_eq!(
            refusal(b"PK\x03\x04"),
            "t.npy: not a .npy file: its first bytes are not \\x93NUMPY"
        );
        assert_eq!(
            refusal(&file("'<i4'", "False", "(1, 13, 2)", 104)),
            "t.npy: dtype '<i4': expected int64, little-endian ('<i8')"
        );
        assert_eq!(
            refusal(&file("[('a', '<i8')]", "False", "(1,)", 8)),
            "t.npy: dtype [('a', '<i8')]: expected int64, little-endian ('<i8')"
        );
        assert_eq!(
            refusal(&file("'<i8'", "True", "(1, 13, 2)", 208)),
            "t.npy: Fortran order: expected C order (save numpy.ascontiguousarray of it)"
        );
        for data in [207, 209] {
            assert_eq!(
                refusal(&file("'<i8'", "False", "(1, 13, 2)", data)),
                format!("t.npy: {data} bytes of data: shape (1, 13, 2) of int64 takes 208")
            );
        }
        let mut newer = file("'<i8'", "False", "(1,)", 8);
        newer[6] = 4;
        assert_eq!(
            refusal(&newer),
            "t.npy: .npy format 4.0: expected 1.0, 2.0 or 3.0"
        );
        let whole = file("'<i8'", "False", "(1,)", 8);
        assert_eq!(refusal(&whole[..20]), "t.npy: its header has no end");
        assert_eq!(refusal(&whole[..9]), "t.npy: its header has no length");
        assert_eq!(
            refusal(&file("'<i8'", "False", "(1, x)", 8)),
            "t.npy: its header has no 'shape' of whole numbers"
        );
    }

    #[test]
    fn a_shape_too_large_for_memory_is_refused_and_not_multiplied() {
        let huge = "(4294967296, 4294967296, 2)";
        assert!(refusal(&file("'<i8'", "False", huge, 8)).contains("8 bytes of data"));
    }
}
