//! NVFP4 weights packed for tensor cores: the same bytes, reordered.
//!
//! Eight rows by 128 k ([`PACKED`], of `wo_gemv` and `gemv`) or by 64 k ([`PACKED64`],
//! of the decode layer) are one block, blocks of a row of blocks side by side. Lane
//! `4 (row mod 8) + t` of a warp owns a quarter of its row of the block: words of eight
//! k each, and a scale for every 16. A word holds four pairs of k, one of a pair in
//! the low half and one in the high half, their bits where a kernel's masks find them:
//! as bf16 in the first packing, as f16 in the second.
//!
//! Invariant: packing is a bijection between codes and scales of whole blocks and
//! their packed bytes, and [`Packing::unpack`] its inverse; scale padding is dropped.

use super::swizzle;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 8;

/// How weights are packed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Packing {
    /// k of a block.
    pub block_len: usize,
    /// Which of a word's eight k are a pair, the low half's first.
    pairs: [[usize; 2]; 4],
    /// What a set bit of a code changes in the word: of each pair the low half's four
    /// bits, lowest first, then the high half's.
    words: [[u32; 8]; 4],
    /// The kernel's pairs: of each the sign in bit 15 of a half word.
    decode: fn(u32) -> [u32; 4],
    /// Lowest bit of a magnitude in such a half word.
    magnitude: u32,
}

/// `weight_layout = packed` of `wo_gemv` and `gemv`: pairs of bf16.
pub const PACKED: Packing = Packing {
    block_len: 128,
    pairs: [[0, 4], [1, 5], [2, 6], [3, 7]],
    words: [
        plain_words(6, 15),
        plain_words(0, 9),
        plain_words(3, 13),
        plain_words(10, 14),
    ],
    decode: |word| {
        [
            word & 0x81c0_81c0,
            (word << 6) & 0x81c0_81c0,
            (word << 3) & 0x01c0_01c0 | (word << 2) & 0x8000_8000,
            (word >> 4) & 0x01c0_01c0 | (word << 1) & 0x8000_8000,
        ]
    },
    magnitude: 6,
};

/// `weight_layout = packed64` of the decode layer: a slot of `W_O` and a warp's share
/// of a row are whole runs of 64, and pairs, of f16, are those that a plain word's
/// nibbles give. No four shifts put all bits of a word under one mask, since a sign lies
/// apart from its magnitude; so two of the pairs are differences of two shifts, and a
/// code's bit is one of the word's or the difference of some.
pub const PACKED64: Packing = Packing {
    block_len: 64,
    pairs: [[0, 2], [1, 3], [4, 6], [5, 7]],
    words: [
        alike([0x0008, 0x0010, 0x0020, 0x5a80]),
        [
            0x0001, 0x0002, 0x0004, 0x0040, 0x1_0000, 0x2_0000, 0x4_a500, 0x40_0000,
        ],
        alike([0x0080, 0x0100, 0x4800, 0x2500]),
        alike([0x1000, 0x0500, 0x4000, 0xa500]),
    ],
    decode: |word| {
        let mask = 0x8e00_8e00;
        [
            (word << 6) & mask,
            (word << 9) & mask,
            (word ^ word << 2) & mask,
            (word ^ word >> 3) & mask,
        ]
    },
    magnitude: 9,
};

/// Both halves of a pair.
const fn alike(half: [u32; 4]) -> [u32; 8] {
    let [a, b, c, d] = half;
    [a, b, c, d, a << 16, b << 16, c << 16, d << 16]
}

/// A code's bits as they are.
const fn plain_words(magnitude: u32, sign: u32) -> [u32; 8] {
    let m = 1 << magnitude;
    alike([m, m << 1, m << 2, 1 << sign])
}

/// Codes and scales of a weight `[rows, K]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// Plain: `[rows, K/2]`, even k in the low nibble. Packed: blocks, four bits a code.
    pub codes: Vec<u8>,
    /// Plain: swizzled and padded. Packed: blocks, a byte for 16 codes.
    pub scales: Vec<u8>,
}

/// Why a weight cannot be packed or unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The shape is not whole blocks.
    #[error(
        "a weight of {rows} rows by {k} is not whole blocks: packing takes rows by {BLOCK_ROWS} and k by {block_len}"
    )]
    Shape {
        /// Rows.
        rows: usize,
        /// Columns.
        k: usize,
        /// k of a block.
        block_len: usize,
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

fn check(weight: &Weight, rows: usize, k: usize, block_len: usize, scales: usize) -> Result<(), PackError> {
    if !rows.is_multiple_of(BLOCK_ROWS) || !k.is_multiple_of(block_len) {
        return Err(PackError::Shape { rows, k, block_len });
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

impl Packing {
    /// Bytes of a lane's codes in a block.
    fn lane_bytes(self) -> usize {
        self.block_len / 8
    }

    /// Byte of the word that holds eight k from `k8 * 8` of a row.
    fn word_at(self, row: usize, k8: usize, k: usize) -> usize {
        let (words, row_bytes) = (self.block_len / 8, 4 * self.lane_bytes());
        let block = row / BLOCK_ROWS * (k / self.block_len) + k8 / words;
        (block * BLOCK_ROWS + row % BLOCK_ROWS) * row_bytes + k8 % words * 4
    }

    /// Byte of the scale of (row, group).
    fn scale_at(self, row: usize, group: usize, k: usize) -> usize {
        let groups = self.block_len / 16;
        let block = row / BLOCK_ROWS * (k / self.block_len) + group / groups;
        (block * BLOCK_ROWS + row % BLOCK_ROWS) * groups + group % groups
    }

    /// Eight codes, k ascending from the lowest nibble.
    fn pack_word(self, nibbles: u32) -> u32 {
        let mut word = 0;
        for (halves, words) in self.pairs.iter().zip(self.words) {
            for (at, words) in halves.iter().zip(words.chunks_exact(4)) {
                let code = nibbles >> (4 * at);
                for (bit, set) in words.iter().enumerate() {
                    word ^= if code >> bit & 1 == 1 { *set } else { 0 };
                }
            }
        }
        word
    }

    /// The codes of a packed word.
    fn unpack_word(self, word: u32) -> u32 {
        let mut nibbles = 0;
        for (pair, halves) in (self.decode)(word).into_iter().zip(self.pairs) {
            for (half, at) in halves.into_iter().enumerate() {
                let bits = pair >> (16 * half);
                nibbles |= (bits >> self.magnitude & 7 | (bits >> 15 & 1) << 3) << (4 * at);
            }
        }
        nibbles
    }

    /// A plain weight, packed.
    pub fn pack(self, plain: &Weight, rows: usize, k: usize) -> Result<Weight, PackError> {
        check(plain, rows, k, self.block_len, swizzle::padded_len(rows, k / 16))?;
        let tiles = swizzle::group_tiles(k / 16);
        let mut packed = Weight {
            codes: vec![0; rows * k / 2],
            scales: vec![0; rows * k / 16],
        };
        for row in 0..rows {
            for (k8, codes) in plain.codes[row * k / 2..][..k / 2].chunks_exact(4).enumerate() {
                let nibbles = u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]]);
                let word = self.pack_word(nibbles);
                packed.codes[self.word_at(row, k8, k)..][..4].copy_from_slice(&word.to_le_bytes());
            }
            for group in 0..k / 16 {
                packed.scales[self.scale_at(row, group, k)] =
                    plain.scales[swizzle::offset(row, group, tiles)];
            }
        }
        Ok(packed)
    }

    /// The plain weight behind a packed one; scale padding is 0.
    pub fn unpack(self, packed: &Weight, rows: usize, k: usize) -> Result<Weight, PackError> {
        check(packed, rows, k, self.block_len, rows * k / 16)?;
        let tiles = swizzle::group_tiles(k / 16);
        let mut plain = Weight {
            codes: vec![0; rows * k / 2],
            scales: vec![0; swizzle::padded_len(rows, k / 16)],
        };
        for row in 0..rows {
            for k8 in 0..k / 8 {
                let bytes = &packed.codes[self.word_at(row, k8, k)..][..4];
                let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let nibbles = self.unpack_word(word);
                plain.codes[row * k / 2 + k8 * 4..][..4].copy_from_slice(&nibbles.to_le_bytes());
            }
            for group in 0..k / 16 {
                plain.scales[swizzle::offset(row, group, tiles)] =
                    packed.scales[self.scale_at(row, group, k)];
            }
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fp4;
    use super::*;
    use crate::measure::rng::Rng;

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
        for packing in [PACKED, PACKED64] {
            for (rows, k) in [(8, 128), (136, 384), (256, 640)] {
                let plain = random(rows, k);
                let packed = packing.pack(&plain, rows, k).expect("packs");
                assert_ne!(packed.codes, plain.codes);
                assert_eq!(packing.unpack(&packed, rows, k), Ok(plain));
            }
        }
    }

    /// Every pair of a packing, held to the plain codes: `value` of a half word is exact.
    fn decodes(packing: Packing, value: impl Fn(u16) -> f32) {
        let (rows, k) = (16, 256);
        let plain = random(rows, k);
        let packed = packing.pack(&plain, rows, k).expect("packs");
        for (row, k8) in (0..rows).flat_map(|row| (0..k / 8).map(move |k8| (row, k8))) {
            let bytes = &packed.codes[packing.word_at(row, k8, k)..][..4];
            let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            for (pair, halves) in (packing.decode)(word).into_iter().zip(packing.pairs) {
                for (half, k_in_word) in halves.into_iter().enumerate() {
                    let bits = u16::try_from(pair >> (16 * half) & 0xffff).expect("16 bits");
                    let byte = plain.codes[row * k / 2 + k8 * 4 + k_in_word / 2];
                    let expected = fp4::decode(byte >> (4 * (k_in_word % 2)) & 15);
                    assert_eq!(value(bits).to_bits(), expected.to_bits());
                }
            }
        }
    }

    #[test]
    fn a_words_pairs_are_its_codes_as_numbers() {
        let two_to_126 = f32::from_bits(253 << 23);
        decodes(PACKED, |bits| half::bf16::from_bits(bits).to_f32() * two_to_126);
        decodes(PACKED64, |bits| half::f16::from_bits(bits).to_f32() * 16384.0);
    }

    #[test]
    fn a_block_lies_in_the_order_of_the_lanes() {
        // Lane 4 r + t of a block of 64 k: 8 bytes and a scale each; the next eight rows follow all runs.
        assert_eq!(PACKED64.word_at(3, 8 * 2 + 2, 256), 2 * 256 + 8 * (4 * 3 + 1));
        assert_eq!(PACKED64.word_at(8, 0, 256), 4 * 256);
        assert_eq!(PACKED64.scale_at(3, 4 * 2 + 1, 256), 2 * 32 + 4 * 3 + 1);
        // Of a block of 128 k: 16 bytes and two scales each.
        assert_eq!(PACKED.word_at(3, 16 + 4 * 2 + 1, 256), 512 + 16 * (4 * 3 + 2) + 4);
        assert_eq!(PACKED.scale_at(3, 8 + 2 * 2 + 1, 256), 64 + 2 * (4 * 3 + 2) + 1);
    }

    #[test]
    fn a_shape_or_a_length_that_does_not_fit_is_refused() {
        let plain = random(8, 128);
        assert_eq!(
            PACKED.pack(&plain, 9, 128).expect_err("rows").to_string(),
            "a weight of 9 rows by 128 is not whole blocks: packing takes rows by 8 and k by 128"
        );
        let short = Weight {
            scales: vec![0; 3],
            ..plain
        };
        assert_eq!(
            PACKED.pack(&short, 8, 128).expect_err("scales").to_string(),
            "the scales are 3 bytes: expected 1024"
        );
    }
}
