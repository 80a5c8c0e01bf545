//! `.npy` files of int64, strictly.
//!
//! Invariant: a file is read only if it is what a buffer of ticks is: little-endian int64,
//! C order. Whatever is not is one clear line, and nothing is guessed.

use std::path::Path;

use crate::engine::atomic_file::write_atomically;
use crate::engine::regular_file::{self, MAX_DATA};
use crate::measure::npy::{self, Raw};

pub use crate::measure::npy::NpyError;

/// An array of int64 in C order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Its lengths, outermost first.
    pub shape: Vec<usize>,
    /// Its numbers, the last index fastest.
    pub data: Vec<i64>,
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Array, NpyError> {
    parse(&path.display().to_string(), &regular_file::read(path, MAX_DATA)?)
}

/// Reads a file's bytes; `file` is its name in messages.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Array, NpyError> {
    let int64 = |descr: &str| (descr == "<i8").then_some(("int64", 8));
    let expected = "int64, little-endian ('<i8')";
    let Raw { shape, data, .. } = npy::parse(file, bytes, expected, int64)?;
    let (numbers, _) = data.as_chunks::<8>();
    Ok(Array {
        shape,
        data: numbers.iter().map(|n| i64::from_le_bytes(*n)).collect(),
    })
}

/// The bytes of a file.
#[must_use]
pub fn encode(array: &Array) -> Vec<u8> {
    let data: Vec<u8> = array.data.iter().flat_map(|n| n.to_le_bytes()).collect();
    npy::encode("<i8", &array.shape, &data)
}

/// Writes a file.
pub fn write(path: &Path, array: &Array) -> Result<(), NpyError> {
    Ok(write_atomically(path, 0o666, |file| {
        file.write_all(&encode(array))
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, order: &str, shape: &str, data: usize) -> Vec<u8> {
        let header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
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
