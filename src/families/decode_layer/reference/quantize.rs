//! Requantization of the MLP's middle to NVFP4.
//!
//! Invariant: a block's scale is `E4M3(max(peak / 6, 1e-12))` and a code is
//! `E2M1(value / decoded scale)`, both divisions IEEE, both roundings to nearest
//! even. A scale that underflows to zero leaves codes that mean nothing but
//! decode to zero: the code of infinity, or of NaN for a zero.

use half::bf16;

use crate::families::nvfp4::{e4m3, fp4};

/// Elements under one scale.
const BLOCK: usize = 16;

/// Codes, two a byte, and scales of rows of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blocks {
    /// Codes: the even element in the low nibble.
    pub codes: Vec<u8>,
    /// E4M3 bytes, one a block, in order.
    pub scales: Vec<u8>,
}

/// Codes of one block and the byte of its scale.
#[must_use]
pub fn quantize_block(values: &[f32; BLOCK]) -> ([u8; BLOCK], u8) {
    let peak = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let byte = e4m3::encode((peak / 6.0).max(1e-12));
    let scale = e4m3::decode(byte);
    (values.map(|v| fp4::encode(v / scale)), byte)
}

/// Quantizes rows whose length is a multiple of 16.
#[must_use]
pub fn quantize(values: &[bf16]) -> Blocks {
    let (blocks, _) = values.as_chunks::<BLOCK>();
    let mut out = Blocks {
        codes: Vec::with_capacity(values.len() / 2),
        scales: Vec::with_capacity(blocks.len()),
    };
    for block in blocks {
        let (codes, scale) = quantize_block(&block.map(bf16::to_f32));
        out.codes.extend(
            codes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|[even, odd]| fp4::pack(*even, *odd)),
        );
        out.scales.push(scale);
    }
    out
}

/// The numbers that codes and scales stand for; exact.
#[must_use]
pub fn dequantize(blocks: &Blocks) -> Vec<f32> {
    blocks
        .codes
        .iter()
        .enumerate()
        .flat_map(|(at, byte)| {
            let scale = e4m3::decode(blocks.scales[at / (BLOCK / 2)]);
            fp4::unpack(*byte).map(|code| fp4::decode(code) * scale)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with this peak, so that the scale is known, and these values first.
    fn block(peak: f32, values: &[f32]) -> [f32; BLOCK] {
        let mut all = [0.0; BLOCK];
        all[..values.len()].copy_from_slice(values);
        all[BLOCK - 1] = peak;
        all
    }

    #[test]
    fn ties_go_to_the_even_code() {
        // Peak 6: the scale is exactly 1, so values are their own quotients.
        let ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
        let (codes, scale) = quantize_block(&block(6.0, &ties));
        assert_eq!(scale, 0x38);
        assert_eq!(codes[..7], [0, 2, 2, 4, 4, 6, 6]);
        let (codes, _) = quantize_block(&block(6.0, &ties.map(|v| -v)));
        assert_eq!(codes[..7], [8, 10, 10, 12, 12, 14, 14]);
        let above = ties.map(|v: f32| v.next_up());
        let (codes, _) = quantize_block(&block(6.0, &above));
        assert_eq!(codes[..7], [1, 2, 3, 4, 5, 6, 7]);
        let below = ties.map(|v: f32| v.next_down());
        let (codes, _) = quantize_block(&block(6.0, &below));
        assert_eq!(codes[..7], [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn division_is_ieee_where_a_reciprocal_would_differ() {
        // Scale 1.375 * 2^k: 1 / 1.375 is inexact. 0.75 * 1.375 is a tie exactly.
        let scale = e4m3::decode(0x3b);
        assert_eq!(scale.to_bits(), 1.375_f32.to_bits());
        let (codes, byte) = quantize_block(&block(6.0 * scale, &[0.25 * scale, 0.75 * scale, 2.5 * scale]));
        assert_eq!(byte, 0x3b);
        assert_eq!(codes[..3], [0, 2, 4]);
    }

    #[test]
    fn small_peaks_have_subnormal_scales_and_smaller_ones_none() {
        // 6 * 2^-9 is the smallest scale there is; its half rounds to even, to 0.
        let (codes, scale) = quantize_block(&block(6.0 / 512.0, &[1.0 / 512.0, -3.0 / 512.0]));
        assert_eq!((scale, codes[0], codes[1], codes[15]), (1, 2, 13, 7));
        let (codes, scale) = quantize_block(&block(3.0 / 512.0, &[-1.0 / 512.0]));
        assert_eq!(scale, 0);
        assert_eq!((codes[0], codes[1], codes[15]), (15, 7, 7));
        let blocks = quantize(&block(3.0 / 512.0, &[]).map(bf16::from_f32));
        assert!(dequantize(&blocks).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn large_peaks_saturate_scale_and_codes() {
        let (codes, scale) = quantize_block(&block(1e6, &[-1e6, 448.0, 224.0]));
        assert_eq!(scale, 0x7e);
        assert_eq!(codes[..3], [15, 2, 1]);
        assert_eq!(codes[15], 7);
        let (codes, scale) = quantize_block(&block(f32::INFINITY, &[1.0]));
        assert_eq!((scale, codes[0], codes[15]), (0x7e, 0, 7));
    }

    #[test]
    fn zeros_keep_their_sign_beside_other_values() {
        let (codes, _) = quantize_block(&block(6.0, &[0.0, -0.0, 0.1, -0.1]));
        assert_eq!(codes[..4], [0, 8, 0, 8]);
    }

    #[test]
    fn a_block_of_zeros_decodes_to_zeros() {
        let (codes, scale) = quantize_block(&[0.0; BLOCK]);
        assert_eq!(scale, 0);
        assert_eq!(codes, [7; BLOCK]);
        let zeros = quantize(&[bf16::ZERO; BLOCK]);
        assert!(dequantize(&zeros).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn codes_are_packed_even_element_low() {
        let blocks = quantize(&block(6.0, &[1.0, 2.0]).map(bf16::from_f32));
        assert_eq!(blocks.codes[0], 0x42);
        assert_eq!(blocks.codes.len(), BLOCK / 2);
        let values = dequantize(&blocks);
        assert_eq!((values[0], values[1], values[15]), (1.0, 2.0, 6.0));
    }
}
