//! `.npy` files, strictly: what a file holds, and elements of the types that kernels take.
//!
//! Invariant: a file is read only if it is of format 1 to 3, little-endian, in C order, and
//! has as many bytes as its shape says. Whatever is not is one clear line, and nothing is
//! guessed.

use std::path::Path;

use crate::engine::atomic_file::write_atomically;
use crate::engine::regular_file::{self, MAX_DATA};
use crate::engine::request::dtype::Dtype;

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
    #[error("{file}: dtype {found}: expected {expected}")]
    Dtype {
        /// The file.
        file: String,
        /// What it holds.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// Columns first.
    #[error("{file}: Fortran order: expected C order (save numpy.ascontiguousarray of it)")]
    FortranOrder {
        /// The file.
        file: String,
    },
    /// Fewer or more bytes than the shape says.
    #[error("{file}: {found} bytes of data: shape {shape} of {dtype} takes {expected}")]
    Length {
        /// The file.
        file: String,
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
        /// The shape, as Python writes it.
        shape: String,
        /// Type of the elements.
        dtype: &'static str,
    },
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw<'b> {
    /// Its dtype, as its header has it, without quotes.
    pub(super) descr: &'b str,
    /// Its lengths, outermost first.
    pub(super) shape: Vec<usize>,
    /// Its elements, the last index fastest.
    pub(super) data: &'b [u8],
}

/// Reads a file's bytes; `file` is its name in messages. `known` gives the name of a dtype
/// and the bytes of its elements, if such a file is wanted; `expected` says which are.
pub(super) fn parse<'b>(
    file: &str,
    bytes: &'b [u8],
    expected: &str,
    known: impl Fn(&str) -> Option<(&'static str, usize)>,
) -> Result<Raw<'b>, NpyError> {
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
    let plain = descr.trim_matches(['\'', '"']);
    let (dtype, element) = known(plain).ok_or_else(|| NpyError::Dtype {
        file: file.to_owned(),
        found: descr.to_owned(),
        expected: expected.to_owned(),
    })?;
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
        .try_fold(element, |n, length| n.checked_mul(*length))
        .unwrap_or(usize::MAX);
    if data.len() != expected {
        return Err(NpyError::Length {
            file: file.to_owned(),
            found: data.len(),
            expected,
            shape: written.to_owned(),
            dtype,
        });
    }
    Ok(Raw {
        descr: plain,
        shape,
        data,
    })
}

/// The bytes of a file of elements of this dtype, the last index fastest.
pub(super) fn encode(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let shape = match lengths.as_slice() {
        [one] => one.clone(),
        many => many.join(" ").trim_end_matches(',').to_owned(),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Data starts at a multiple of 64; the last byte of the header is a newline.
    let before = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(before.next_multiple_of(64) - before));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// An array of elements that kernels take, in C order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elements {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Its lengths, outermost first.
    pub shape: Vec<usize>,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

/// How a type is written: numpy has no name for the short ones, whose bits are whole numbers
/// there.
const fn descr(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        Dtype::I8 => "|i1",
        Dtype::Bf16 | Dtype::U16 => "<u2",
        Dtype::I16 => "<i2",
        Dtype::U32 => "<u4",
        Dtype::I32 => "<i4",
        Dtype::U64 => "<u8",
        Dtype::I64 => "<i8",
        Dtype::Bool => "|b1",
        Dtype::U8 | Dtype::E4m3 | Dtype::E5m2 | Dtype::E8m0 | Dtype::E2m1x2 => "|u1",
    }
}

/// The type of the elements of a file of this dtype, for whoever wants `wanted`: that one
/// where its bits may be meant (whole numbers or plain bytes of its size), else the file's
/// own, where it is of numbers as well.
fn held(found: &str, wanted: Dtype) -> Option<Dtype> {
    // Of one byte there is no order.
    let kind = found.trim_start_matches(['|', '=', '<']);
    let little = found.starts_with('<') || (found.starts_with('|') && kind.ends_with('1'));
    let raw = ["V", "f"].map(|letter| format!("{letter}{}", wanted.bytes()));
    // Types of `ml_dtypes` are saved so.
    let void = (found.starts_with(['|', '<'])) && (kind == raw[0] || wanted.bytes() == 1 && kind == raw[1]);
    if void || found == descr(wanted) || (little && kind == descr(wanted).trim_start_matches(['|', '<'])) {
        return Some(wanted);
    }
    let all = Dtype::ALL.into_iter();
    let mut own = all.filter(|dtype| {
        !matches!(
            dtype,
            Dtype::Bf16 | Dtype::E4m3 | Dtype::E5m2 | Dtype::E8m0 | Dtype::E2m1x2
        )
    });
    own.find(|dtype| little && descr(*dtype).trim_start_matches(['|', '<']) == kind)
}

/// Reads a file for elements of the type `wanted`: of that type, or of another type of
/// numbers.
///
/// # Errors
/// A file that cannot be read, and one that holds none of these, in one line.
pub fn read(path: &Path, wanted: Dtype) -> Result<Elements, NpyError> {
    let file = path.display().to_string();
    parse_elements(&file, &regular_file::read(path, MAX_DATA)?, wanted)
}

/// Reads a file's bytes, as [`read`] does; `file` is its name in messages.
pub fn parse_elements(file: &str, bytes: &[u8], wanted: Dtype) -> Result<Elements, NpyError> {
    let known = |descr: &str| held(descr, wanted).map(|dtype| (dtype.name(), dtype.bytes()));
    let expected = format!("{wanted} ('{}'), or other numbers, little-endian", descr(wanted));
    let raw = parse(file, bytes, &expected, known)?;
    Ok(Elements {
        dtype: held(raw.descr, wanted).unwrap_or(wanted),
        shape: raw.shape,
        bytes: raw.data.to_vec(),
    })
}

/// Writes a file.
pub fn write(path: &Path, elements: &Elements) -> Result<(), NpyError> {
    let bytes = encode(descr(elements.dtype), &elements.shape, &elements.bytes);
    Ok(write_atomically(path, 0o666, |file| file.write_all(&bytes))?)
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

    fn file(descr: &str, shape: &[usize], data: usize) -> Vec<u8> {
        encode(descr, shape, &vec![7; data])
    }

    #[test]
    fn elements_of_every_type_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        for dtype in Dtype::ALL {
            for shape in [vec![2, 3], vec![6], vec![]] {
                let count = shape.iter().product::<usize>() * dtype.bytes();
                let bytes = (0..count).map(|i| u8::try_from(i).expect("small")).collect();
                let elements = Elements { dtype, shape, bytes };
                let path = dir.path().join("t.npy");
                write(&path, &elements).expect("written");
                assert_eq!(read(&path, dtype).expect("read"), elements);
            }
        }
    }

    #[test]
    fn other_numbers_are_read_as_what_they_are_and_bits_as_what_is_wanted() {
        for (descr, wanted, held) in [
            ("<f4", Dtype::Bf16, Some(Dtype::F32)),
            ("<f8", Dtype::F16, Some(Dtype::F64)),
            ("<u2", Dtype::Bf16, Some(Dtype::Bf16)),
            ("<V2", Dtype::Bf16, Some(Dtype::Bf16)),
            ("|V2", Dtype::Bf16, Some(Dtype::Bf16)),
            ("|V1", Dtype::E4m3, Some(Dtype::E4m3)),
            ("<f1", Dtype::E5m2, Some(Dtype::E5m2)),
            ("|u1", Dtype::E2m1x2, Some(Dtype::E2m1x2)),
            ("<u1", Dtype::U8, Some(Dtype::U8)),
            ("<f2", Dtype::Bf16, Some(Dtype::F16)),
            ("<i8", Dtype::I32, Some(Dtype::I64)),
            ("|b1", Dtype::Bool, Some(Dtype::Bool)),
            (">f4", Dtype::F32, None),
            ("=f4", Dtype::F32, None),
            ("<c8", Dtype::F32, None),
            ("|V8", Dtype::Bf16, None),
            ("<U4", Dtype::F32, None),
            ("|O", Dtype::F32, None),
        ] {
            assert_eq!(super::held(descr, wanted), held, "{descr} for {wanted}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_one_clear_line() {
        let refused = |bytes: &[u8]| {
            let line = parse_elements("t.npy", bytes, Dtype::F32)
                .expect_err("refused")
                .to_string();
            assert_eq!(line.lines().count(), 1, "{line}");
            line
        };
        assert_eq!(
            refused(&file(">f4", &[2], 8)),
            "t.npy: dtype '>f4': expected f32 ('<f4'), or other numbers, little-endian"
        );
        assert_eq!(
            refused(&file("<f4", &[2, 3], 8)),
            "t.npy: 8 bytes of data: shape (2, 3) of f32 takes 24"
        );
        let fortran = String::from_utf8_lossy(&file("<f4", &[2], 8)[10..]).replace("False", "True ");
        let mut bytes = file("<f4", &[2], 8);
        bytes.truncate(10);
        bytes.extend(fortran.as_bytes());
        assert!(refused(&bytes).starts_with("t.npy: Fortran order: expected C order"));
    }
}
