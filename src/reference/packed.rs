//! NVFP4 weights packed for tensor cores: the same bytes, reordered.
//!
//! Eight rows by 128 k are one block: 512 bytes of codes and 64 of scales, blocks of
//! a row of blocks side by side. Lane `4 (row mod 8) + t` of a warp owns k `32 t` to
//! `32 t + 31` of its row: 16 bytes of codes, four words of eight k, and two scales.
//! In a word, even k lie in the low half and odd k in the high half; pair p (k 2p and
//! 2p + 1) has its magnitude bits at `9 - 3 p` and its sign at 15, 12, 13, 14.
//!
//! Invariant: packing is a bijection between codes and scales of whole blocks and
//! their packed bytes, and [`unpack`] its inverse; scale padding is dropped.

use super::swizzle;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 8;

/// k of a block.
pub const BLOCK_LEN: usize = 128;

/// Codes and scales of a weight `[rows, K]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// Plain: `[rows, K/2]`, even k in the low nibble. Packed: blocks of 512 bytes.
    pub codes: Vec<u8>,
    /// Plain: swizzled and padded. Packed: blocks of 64 bytes.
    pub scales: Vec<u8>,
}

/// Why a weight cannot be packed or unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The shape is not whole blocks.
    #[error(
        "a weight of {rows} rows by {k} is not whole blocks: packing takes rows by {BLOCK_ROWS} and k by {BLOCK_LEN}"
    )]
    Shape {
        /// Rows.
        rows: usize,
        /// Columns.
        k: usize,
    },
    /// A buffer has another length than the shape asks for.
    #[error("the {what} are {found} bytes: expected {expected}")]
    Length {
        /// Codes or scales.
        what: &'static str,
        /// Bytes given.
        found: usize,
        /// Bytes of that shape.
        expected: usize,
    },
}

/// Bit of a pair's sign within its half word.
const SIGNS: [u32; 4] = [15, 12, 13, 14];

fn check(weight: &Weight, rows: usize, k: usize, scales: usize) -> Result<(), PackError> {
    if !rows.is_multiple_of(BLOCK_ROWS) || !k.is_multiple_of(BLOCK_LEN) {
        return Err(PackError::Shape { rows, k });
    }
    let parts = [
        ("codes", weight.codes.len(), rows * k / 2),
        ("scales", weight.scales.len(), scales),
    ];
    for (what, found, expected) in parts {
        if found != expected {
            return Err(PackError::Length {
                what,
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// Byte of the word that holds eight k from `k8 * 8` of a row.
fn word_at(row: usize, k8: usize, k: usize) -> usize {
    let block = row / BLOCK_ROWS * (k / BLOCK_LEN) + k8 / 16;
    block * 512 + (row % BLOCK_ROWS * 4 + k8 % 16 / 4) * 16 + k8 % 4 * 4
}

/// Byte of the scale of (row, group).
fn scale_at(row: usize, group: usize, k: usize) -> usize {
    let block = row / BLOCK_ROWS * (k / BLOCK_LEN) + group / 8;
    block * 64 + (row % BLOCK_ROWS * 4 + group % 8 / 2) * 2 + group % 2
}

/// A plain weight, packed.
pub fn pack(plain: &Weight, rows: usize, k: usize) -> Result<Weight, PackError> {
    check(plain, rows, k, swizzle::padded_len(rows, k / 16))?;
    let tiles = swizzle::group_tiles(k / 16);
    let mut packed = Weight {
        codes: vec![0; rows * k / 2],
        scales: vec![0; rows * k / 16],
    };
    for row in 0..rows {
        for k8 in 0..k / 8 {
            let codes = &plain.codes[row * k / 2 + k8 * 4..][..4];
            let mut word = 0_u32;
            for (pair, byte) in codes.iter().enumerate() {
                for (half, code) in [byte & 15, byte >> 4].into_iter().enumerate() {
                    let code = u32::from(code);
                    let bits = (code & 7) << (9 - 3 * pair) | (code >> 3) << SIGNS[pair];
                    word |= bits << (16 * half);
                }
            }
            packed.codes[word_at(row, k8, k)..][..4].copy_from_slice(&word.to_le_bytes());
        }
        for group in 0..k / 16 {
            packed.scales[scale_at(row, group, k)] = plain.scales[swizzle::offset(row, group, tiles)];
        }
    }
    Ok(packed)
}

/// The plain weight behind a packed one; scale padding is 0.
pub fn unpack(packed: &Weight, rows: usize, k: usize) -> Result<Weight, PackError> {
    check(packed, rows, k, rows * k / 16)?;
    let tiles = swizzle::group_tiles(k / 16);
    let mut plain = Weight {
        codes: vec![0; rows * k / 2],
        scales: vec![0; swizzle::padded_len(rows, k / 16)],
    };
    for row in 0..rows {
        for k8 in 0..k / 8 {
            let bytes = &packed.codes[word_at(row, k8, k)..][..4];
            let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            for (pair, sign) in SIGNS.into_iter().enumerate() {
                let code = |half: u32| {
                    let bits = word >> (16 * half);
                    let code = (bits >> (9 - 3 * pair)) & 7 | ((bits >> sign) & 1) << 3;
                    code.to_le_bytes()[0]
                };
                plain.codes[row * k / 2 + k8 * 4 + pair] = code(0) | code(1) << 4;
            }
        }
        for group in 0..k / 16 {
            plain.scales[swizzle::offset(row, group, tiles)] = packed.scales[scale_at(row, group, k)];
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::super::{Rng, fp4};
    use super::*;

    fn random(rows: usize, k: usize) -> Weight {
        let mut rng = Rng::new(11);
        let linear = rng.bytes(rows * k / 16);
        Weight {
            codes: rng.bytes(rows * k / 2),
            scales: swizzle::swizzle(&linear, rows, k / 16),
        }
    }

    #[test]
    fn unpacking_gives_the_plain_weight_back() {
        for (rows, k) in [(8, 128), (136, 384), (256, 640)] {
            let plain = random(rows, k);
            let packed = pack(&plain, rows, k).expect("packs");
            assert_ne!(packed.codes, plain.codes);
            assert_eq!(unpack(&packed, rows, k), Ok(plain));
        }
    }

    #[test]
    fn a_word_decodes_by_the_masks_and_shifts_of_the_kernel() {
        let (rows, k) = (8, 128);
        let plain = random(rows, k);
        let packed = pack(&plain, rows, k).expect("packs");
        for row in 0..rows {
            for k8 in 0..k / 8 {
                let bytes = &packed.codes[word_at(row, k8, k)..][..4];
                let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let pairs = [
                    word & 0x8e00_8e00,
                    (word << 3) & 0x8e00_8e00,
                    (word << 6) & 0x0e00_0e00 | (word << 2) & 0x8000_8000,
                    (word << 9) & 0x0e00_0e00 | (word << 1) & 0x8000_8000,
                ];
                for at in 0..8 {
                    let half = pairs[at / 2] >> (16 * (at % 2));
                    let value = half::f16::from_bits(u16::try_from(half & 0xffff).expect("16 bits"));
                    let byte = plain.codes[row * k / 2 + k8 * 4 + at / 2];
                    let expected = fp4::decode(byte >> (4 * (at % 2)) & 15);
                    assert_eq!((value.to_f32() * 16384.0).to_bits(), expected.to_bits());
                }
            }
        }
    }

    #[test]
    fn a_shape_or_a_length_that_does_not_fit_is_refused() {
        let plain = random(8, 128);
        assert_eq!(
            pack(&plain, 9, 128).expect_err("rows").to_string(),
            "a weight of 9 rows by 128 is not whole blocks: packing takes rows by 8 and k by 128"
        );
        let short = Weight {
            scales: vec![0; 3],
            ..plain
        };
        assert_eq!(
            pack(&short, 8, 128).expect_err("scales").to_string(),
            "the scales are 3 bytes: expected 1024"
        );
    }
}
