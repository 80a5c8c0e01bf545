//! A weight's files in one layout, from its files in another.
//!
//! Invariant: nothing that is there is written over, and a file appears whole or not
//! at all.

use std::io;
use std::path::{Path, PathBuf};

use super::packed::{PackError, Packing, Weight};
use super::swizzle;
use crate::engine::atomic_file::write_atomically;
use crate::engine::regular_file::{self, MAX_DATA};

/// Which files, and what becomes of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Conversion {
    /// Rows of the weight.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
    /// The packed layout.
    pub packing: Packing,
    /// From packed to plain, and not the other way.
    pub unpack: bool,
    /// Whether the plain scales lie row by row, `[rows, k / 16]`, and not in swizzled
    /// tiles.
    pub linear_scales: bool,
    /// Codes to read, rows * k / 2 bytes.
    pub codes: PathBuf,
    /// Scales to read.
    pub scales: PathBuf,
    /// Codes to write.
    pub out_codes: PathBuf,
    /// Scales to write.
    pub out_scales: PathBuf,
}

/// Why nothing was converted. A file is named by the field that it stands in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversionError {
    /// A file to write is there.
    #[error("--{file} {path}: it is there already; name another, or remove it")]
    Exists {
        /// The flag's name.
        file: &'static str,
        /// Where it lies.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("--{file}: {reason}")]
    Read {
        /// The flag's name.
        file: &'static str,
        /// Why, with its path.
        reason: io::Error,
    },
    /// A file could not be written.
    #[error("--{file} {path}: {reason}")]
    Write {
        /// The flag's name.
        file: &'static str,
        /// Where it should lie.
        path: PathBuf,
        /// Why it cannot be written.
        reason: io::Error,
    },
    /// Scales row by row of another size.
    #[error("the scales are {found} bytes: expected {expected} row by row, for --rows {rows} --k {k}")]
    LinearScales {
        /// Bytes that there are.
        found: usize,
        /// Bytes that there should be.
        expected: usize,
        /// Rows of the weight.
        rows: usize,
        /// Elements of a row.
        k: usize,
    },
    /// The weight is of another size, or the layout does not take it.
    #[error("{reason}, for --rows {rows} --k {k}")]
    Pack {
        /// Why it cannot be packed.
        reason: PackError,
        /// Rows of the weight.
        rows: usize,
        /// Elements of a row.
        k: usize,
    },
}

/// Reads, converts and writes; returns what was written.
///
/// # Errors
/// Files that are there, or are not, and sizes that are none of a weight's; then nothing
/// is written, but for the codes where the scales alone cannot be.
pub fn convert(asked: &Conversion) -> Result<Weight, ConversionError> {
    let outputs = [("out-codes", &asked.out_codes), ("out-scales", &asked.out_scales)];
    for (file, path) in outputs {
        if path.exists() {
            let path = path.clone();
            return Err(ConversionError::Exists { file, path });
        }
    }
    let weight = Weight {
        codes: read("codes", &asked.codes)?,
        scales: read("scales", &asked.scales)?,
    };
    let done = converted(asked, weight)?;
    for ((file, path), bytes) in outputs.into_iter().zip([&done.codes, &done.scales]) {
        write_atomically(path, 0o666, |file| file.write_all(bytes)).map_err(|reason| {
            let path = path.clone();
            ConversionError::Write { file, path, reason }
        })?;
    }
    Ok(done)
}

fn read(file: &'static str, path: &Path) -> Result<Vec<u8>, ConversionError> {
    regular_file::read(path, MAX_DATA).map_err(|reason| ConversionError::Read { file, reason })
}

fn converted(asked: &Conversion, mut weight: Weight) -> Result<Weight, ConversionError> {
    let (rows, k, linear) = (asked.rows, asked.k, asked.linear_scales);
    let wrong = |reason: PackError| ConversionError::Pack { reason, rows, k };
    if asked.unpack {
        let mut plain = asked.packing.unpack(&weight, rows, k).map_err(wrong)?;
        if linear {
            plain.scales = swizzle::unswizzle(&plain.scales, rows, k / 16);
        }
        return Ok(plain);
    }
    if linear {
        let (found, expected) = (weight.scales.len(), rows * (k / 16));
        if found != expected {
            return Err(ConversionError::LinearScales {
                found,
                expected,
                rows,
                k,
            });
        }
        weight.scales = swizzle::swizzle(&weight.scales, rows, k / 16);
    }
    asked.packing.pack(&weight, rows, k).map_err(wrong)
}
