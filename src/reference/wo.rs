//! The `W_O` GEMV: split order, and float64 as the yardstick of accuracy.
//!
//! Invariant: a slot's chain starts at +0 and takes k in ascending order; a weight
//! is `(code * scale) * global`, rounded after each product; the output is 0 plus
//! slot 0, plus slot 1, and so on.

use half::bf16;

use super::{Rng, e4m3, fp4, swizzle};

/// Shape of the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WoShape {
    /// Output rows H.
    pub hidden: usize,
    /// K = query heads times elements of a head.
    pub k: usize,
    /// Key/value heads; each owns K / `num_kv_heads` of the reduction.
    pub num_kv_heads: usize,
    /// Slots a head's reduction is cut into.
    pub wo_split: usize,
}

impl WoShape {
    /// Slots of a row.
    #[must_use]
    pub fn num_slots(&self) -> usize {
        self.num_kv_heads * self.wo_split
    }

    /// The k of a slot, absolute.
    #[must_use]
    pub fn slot_range(&self, slot: usize) -> std::ops::Range<usize> {
        let k_head = self.k / self.num_kv_heads;
        let (head, part) = (slot / self.wo_split, slot % self.wo_split);
        let at = |part: usize| head * k_head + k_head * part / self.wo_split;
        at(part)..at(part + 1)
    }
}

/// Inputs of the problem, as the kernel takes them.
#[derive(Debug, Clone)]
pub struct WoInputs {
    /// Activations, `[nat, K]`.
    pub attn: Vec<bf16>,
    /// Codes, `[H, K/2]`: even k in the low nibble.
    pub weight: Vec<u8>,
    /// Scales, swizzled and padded.
    pub scales: Vec<u8>,
    /// Multiplied.
    pub global_scale: f32,
    /// Tokens.
    pub nat: usize,
}

impl WoInputs {
    /// Normal activations, uniform bytes for weights and scales; the two NaN
    /// scale bytes become 0x40 (+2).
    #[must_use]
    pub fn random(shape: &WoShape, nat: usize, global_scale: f32, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let attn = rng.normal_bf16(nat * shape.k);
        let weight = rng.bytes(shape.hidden * shape.k / 2);
        let mut scales = rng.bytes(swizzle::padded_len(shape.hidden, shape.k / 16));
        for scale in &mut scales {
            if *scale & 0x7f == 0x7f {
                *scale = 0x40;
            }
        }
        Self {
            attn,
            weight,
            scales,
            global_scale,
            nat,
        }
    }
}

/// What the kernel writes.
#[derive(Debug, Clone)]
pub struct WoOutput {
    /// `[nat, slots, H]`.
    pub partials: Vec<f32>,
    /// `[nat, H]`.
    pub output: Vec<f32>,
}

/// Dequantises a row: weights times scales, exact in f32.
fn row_of(shape: &WoShape, inputs: &WoInputs, row: usize) -> Vec<f32> {
    let tiles = swizzle::group_tiles(shape.k / 16);
    let codes = &inputs.weight[row * shape.k / 2..];
    (0..shape.k)
        .map(|k| {
            let code = (codes[k / 2] >> (4 * (k % 2))) & 15;
            fp4::decode(code) * e4m3::decode(inputs.scales[swizzle::offset(row, k / 16, tiles)])
        })
        .collect()
}

/// The authoritative reference. `fused`: one rounding a step, else two.
#[must_use]
pub fn split_order(shape: &WoShape, inputs: &WoInputs, fused: bool) -> WoOutput {
    let (slots, hidden) = (shape.num_slots(), shape.hidden);
    let mut out = WoOutput {
        partials: vec![0.0; inputs.nat * slots * hidden],
        output: vec![0.0; inputs.nat * hidden],
    };
    let attn: Vec<f32> = inputs.attn.iter().map(|x| x.to_f32()).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let per_thread = hidden.div_ceil(threads).max(1);
    // A row is worked out by one thread; rows do not meet, so threads change no bit.
    let rows: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..hidden)
            .step_by(per_thread)
            .map(|first| {
                let attn = &attn;
                scope.spawn(move || {
                    let last = (first + per_thread).min(hidden);
                    (first..last)
                        .map(|row| chains(shape, inputs, attn, row, fused))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|w| w.join().unwrap_or_default())
            .collect()
    });
    for (row, partials) in rows.iter().enumerate() {
        for token in 0..inputs.nat {
            let mut sum = 0.0_f32;
            for slot in 0..slots {
                let partial = partials[token * slots + slot];
                out.partials[(token * slots + slot) * hidden + row] = partial;
                sum += partial;
            }
            out.output[token * hidden + row] = sum;
        }
    }
    out
}

/// The chains of one row, `[nat, slots]`.
fn chains(shape: &WoShape, inputs: &WoInputs, attn: &[f32], row: usize, fused: bool) -> Vec<f32> {
    let weights: Vec<f32> = row_of(shape, inputs, row)
        .iter()
        .map(|w| w * inputs.global_scale)
        .collect();
    let mut out = Vec::with_capacity(inputs.nat * shape.num_slots());
    for token in 0..inputs.nat {
        let x = &attn[token * shape.k..(token + 1) * shape.k];
        for slot in 0..shape.num_slots() {
            let mut a = 0.0_f32;
            for k in shape.slot_range(slot) {
                a = if fused {
                    weights[k].mul_add(x[k], a)
                } else {
                    a + weights[k] * x[k]
                };
            }
            out.push(a);
        }
    }
    out
}

/// The same product in float64, `[nat, H]`: a yardstick, with no order to keep.
#[must_use]
pub fn matmul_f64(shape: &WoShape, inputs: &WoInputs) -> Vec<f64> {
    let mut out = vec![0.0; inputs.nat * shape.hidden];
    for row in 0..shape.hidden {
        let weights = row_of(shape, inputs, row);
        for token in 0..inputs.nat {
            let x = &inputs.attn[token * shape.k..(token + 1) * shape.k];
            out[token * shape.hidden + row] = weights
                .iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * f64::from(inputs.global_scale) * x.to_f64())
                .sum();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: WoShape = WoShape {
        hidden: 40,
        k: 48,
        num_kv_heads: 2,
        wo_split: 1,
    };

    #[test]
    fn slots_cover_k_without_gap_even_where_it_does_not_divide() {
        let shape = WoShape {
            k: 6 * 24 / 2 * 2,
            wo_split: 8,
            ..SHAPE
        };
        let mut next = 0;
        for slot in 0..shape.num_slots() {
            assert_eq!(shape.slot_range(slot).start, next);
            next = shape.slot_range(slot).end;
        }
        assert_eq!(next, shape.k);
    }

    #[test]
    fn the_two_modes_agree_at_a_power_of_two_and_differ_elsewhere() {
        let at = |gs: f32, fused| split_order(&SHAPE, &WoInputs::random(&SHAPE, 2, gs, 7), fused);
        assert!(compare_bits(&at(1.0, true), &at(1.0, false)));
        assert!(!compare_bits(&at(0.0123, true), &at(0.0123, false)));
    }

    #[test]
    fn the_reference_is_near_float64() {
        let inputs = WoInputs::random(&SHAPE, 1, 0.0123, 9);
        let out = split_order(&SHAPE, &inputs, true).output;
        let exact = matmul_f64(&SHAPE, &inputs);
        let scale = exact.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        for (a, b) in out.iter().zip(&exact) {
            assert!((f64::from(*a) - b).abs() <= scale * 1e-5, "{a} {b}");
        }
    }

    fn compare_bits(a: &WoOutput, b: &WoOutput) -> bool {
        super::super::compare(&a.partials, &b.partials).is_exact()
    }
}
