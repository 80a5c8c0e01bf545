//! FP8 weights: E4M3 codes, `[H, K]` row major, and a scale for all or for each row.
//!
//! Invariant: a weight is `code * scale`, rounded once.

use super::{LANES, WoInputs, WoShape};
use crate::families::nvfp4::e4m3;
use crate::families::wo_gemv::WoFormat;
use crate::measure::rng::Rng;

/// What the scales of a random weight's rows are drawn from.
const ROWS: u64 = 0xf8;

/// As [`super::block_of`]: codes alone.
pub(super) fn block_of(shape: &WoShape, inputs: &WoInputs, first: usize) -> Vec<[f32; LANES]> {
    let mut block = vec![[0.0; LANES]; shape.k];
    for (lane, row) in (first..(first + LANES).min(shape.hidden)).enumerate() {
        let codes = &inputs.weight[row * shape.k..(row + 1) * shape.k];
        for (weights, code) in block.iter_mut().zip(codes) {
            weights[lane] = e4m3::decode(*code);
        }
    }
    block
}

impl WoInputs {
    /// Normal activations and uniform bytes for weights; the two NaN bytes become 0x40 (+2).
    /// `by_row`: each row has a scale of its own, up to 1.5 times `scale` and of all 24 bits.
    #[must_use]
    pub fn random_fp8(shape: &WoShape, num_tokens: usize, scale: f32, by_row: bool, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let attn = rng.normal_bf16(num_tokens * shape.k);
        let mut weight = rng.bytes(shape.hidden * shape.k);
        for code in &mut weight {
            if *code & 0x7f == 0x7f {
                *code = 0x40;
            }
        }
        Self {
            attn,
            format: WoFormat::Fp8,
            weight,
            scales: Vec::new(),
            global_scale: scale,
            row_scales: if by_row {
                random_scales(shape.hidden, scale, seed)
            } else {
                Vec::new()
            },
            num_tokens,
        }
    }

    /// Puts weights `[H, K]` down as checkpoints do: of each row, or of all of them, the scale
    /// that makes the largest 448, and the nearest codes under it.
    pub fn quantize_fp8(&mut self, weights: &[f32], shape: &WoShape, by_row: bool) {
        self.global_scale = scale_of(weights);
        self.row_scales = if by_row {
            weights.chunks(shape.k).map(scale_of).collect()
        } else {
            Vec::new()
        };
        self.weight = weights
            .iter()
            .enumerate()
            .map(|(at, w)| {
                let scale = self.factor(at / shape.k);
                if scale == 0.0 { 0 } else { e4m3::encode(w / scale) }
            })
            .collect();
    }
}

/// The scale that makes the largest of these 448.
fn scale_of(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0_f32, |most, w| most.max(w.abs())) / e4m3::MAX
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
fn random_scales(rows: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = Rng::stream(seed, ROWS);
    let scales = (0..rows).map(|_| f64::from(scale) * (1.0 + rng.symmetric_f64() / 2.0));
    scales.map(|scale| scale as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::wo_gemv::reference::{WoOutput, matmul_f64, split_order};
    use crate::measure::compare::{compare, largest};

    /// The definition, one element after the other.
    fn by_definition(shape: &WoShape, inputs: &WoInputs, fused: bool) -> WoOutput {
        let slots = shape.num_slots();
        let mut out = WoOutput {
            partials: vec![0.0; inputs.num_tokens * slots * shape.hidden],
            output: vec![0.0; inputs.num_tokens * shape.hidden],
        };
        for at in 0..inputs.num_tokens * shape.hidden {
            let (token, row) = (at / shape.hidden, at % shape.hidden);
            for slot in 0..slots {
                let mut a = 0.0_f32;
                for k in shape.slot_range(slot) {
                    let scale = *inputs.row_scales.get(row).unwrap_or(&inputs.global_scale);
                    let w = e4m3::decode(inputs.weight[row * shape.k + k]) * scale;
                    let x = inputs.attn[token * shape.k + k].to_f32();
                    a = if fused { w.mul_add(x, a) } else { a + w * x };
                }
                out.partials[(token * slots + slot) * shape.hidden + row] = a;
                out.output[at] += a;
            }
        }
        out
    }

    #[test]
    fn fp8_chains_are_the_definitions_with_one_scale_and_with_one_a_row() {
        for (hidden, k, num_kv_heads, wo_split) in [(1, 16, 1, 8), (13, 96, 2, 4), (72, 192, 8, 8)] {
            let shape = WoShape {
                hidden,
                k,
                num_kv_heads,
                wo_split,
            };
            for (fused, by_row) in [(true, false), (true, true), (false, true)] {
                let inputs = WoInputs::random_fp8(&shape, 3, 0.0123, by_row, 11);
                let (fast, plain) = (
                    split_order(&shape, &inputs, fused),
                    by_definition(&shape, &inputs, fused),
                );
                assert!(
                    compare(&plain.partials, &fast.partials).is_exact(),
                    "{shape:?} {fused}"
                );
                assert!(
                    compare(&plain.output, &fast.output).is_exact(),
                    "{shape:?} {fused}"
                );
            }
        }
    }

    const SHAPE: WoShape = WoShape {
        hidden: 24,
        k: 64,
        num_kv_heads: 2,
        wo_split: 2,
    };

    #[test]
    fn scales_of_rows_take_the_place_of_the_one_of_all() {
        let by_row = WoInputs::random_fp8(&SHAPE, 1, 0.5, true, 3);
        let mut of_all = WoInputs::random_fp8(&SHAPE, 1, 0.5, false, 3);
        let (rows, exact) = (matmul_f64(&SHAPE, &by_row), matmul_f64(&SHAPE, &of_all));
        for (row, (a, b)) in rows.iter().zip(&exact).enumerate() {
            let ratio = f64::from(by_row.row_scales[row]) / 0.5;
            assert!((a - b * ratio).abs() <= largest(&rows) * 1e-12, "row {row}");
        }
        of_all.row_scales = vec![0.5; SHAPE.hidden];
        assert_eq!(matmul_f64(&SHAPE, &of_all), exact);
    }

    #[test]
    fn a_quantized_weight_has_its_largest_at_448_of_each_row_or_of_all() {
        let weights: Vec<f32> = (0..SHAPE.hidden * SHAPE.k)
            .map(|at| if at < SHAPE.k { 1.0 } else { -7.0 })
            .collect();
        let mut inputs = WoInputs::random_fp8(&SHAPE, 1, 1.0, false, 1);
        inputs.quantize_fp8(&weights, &SHAPE, true);
        assert_eq!((inputs.weight[0], inputs.weight[SHAPE.k]), (0x7e, 0xfe));
        inputs.quantize_fp8(&weights, &SHAPE, false);
        assert_eq!((inputs.weight[0], inputs.weight[SHAPE.k]), (0x68, 0xfe));
        inputs.quantize_fp8(&vec![0.0; weights.len()], &SHAPE, true);
        assert!(inputs.weight.iter().all(|code| *code == 0));
    }
}
