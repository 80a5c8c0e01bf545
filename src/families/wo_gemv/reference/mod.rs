//! The `W_O` GEMV: split order, and float64 as the yardstick of accuracy.
//!
//! Invariant: a slot's chain starts at +0 and takes k in ascending order; a weight
//! is `(code * scale) * global`, rounded after each product, of FP8 `code * scale`; the
//! output is 0 plus slot 0, plus slot 1, and so on.

use half::bf16;

use super::config::WoFormat;
use crate::engine::threads::{cores, for_each_on};
use crate::families::nvfp4::packed::{PACKED, PackError, Weight};
use crate::families::nvfp4::{e4m3, fp4, swizzle};
use crate::measure::rng::Rng;

pub mod fp8;
pub mod mma;

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
#[non_exhaustive]
pub struct WoInputs {
    /// Activations, `[num_tokens, K]`.
    pub attn: Vec<bf16>,
    /// How a weight is written down.
    pub format: WoFormat,
    /// Codes, `[H, K/2]`: even k in the low nibble. FP8: `[H, K]`.
    pub weight: Vec<u8>,
    /// Scales, swizzled and padded; FP8 has none.
    pub scales: Vec<u8>,
    /// Global scale of the weights, multiplied.
    pub global_scale: f32,
    /// FP8: a scale for each row in the place of the global one; empty without.
    pub row_scales: Vec<f32>,
    /// Tokens of the launch.
    pub num_tokens: usize,
}

impl WoInputs {
    /// Normal activations, uniform bytes for weights and scales; the two NaN
    /// scale bytes become 0x40 (+2).
    #[must_use]
    pub fn random(shape: &WoShape, num_tokens: usize, global_scale: f32, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let attn = rng.normal_bf16(num_tokens * shape.k);
        let weight = rng.bytes(shape.hidden * shape.k / 2);
        let mut scales = rng.bytes(swizzle::padded_len(shape.hidden, shape.k / 16));
        for scale in &mut scales {
            if *scale & 0x7f == 0x7f {
                *scale = 0x40;
            }
        }
        Self {
            attn,
            format: WoFormat::Nvfp4,
            weight,
            scales,
            global_scale,
            row_scales: Vec::new(),
            num_tokens,
        }
    }

    /// What the weights of a row are multiplied with last.
    #[must_use]
    pub fn factor(&self, row: usize) -> f32 {
        self.row_scales.get(row).copied().unwrap_or(self.global_scale)
    }

    /// The global scale, or the rows': what a kernel takes by the name of the former.
    #[must_use]
    pub fn factors(&self) -> Vec<f32> {
        if self.row_scales.is_empty() {
            vec![self.global_scale]
        } else {
            self.row_scales.clone()
        }
    }

    /// Its weight, `[H, K]`.
    #[must_use]
    pub fn plain(&self) -> Weight {
        Weight {
            codes: self.weight.clone(),
            scales: self.scales.clone(),
        }
    }

    /// The same inputs with packed weights, if the shape is whole blocks.
    pub fn packed(&self, shape: &WoShape) -> Result<Self, PackError> {
        let weight = PACKED.pack(&self.plain(), shape.hidden, shape.k)?;
        Ok(Self {
            weight: weight.codes,
            scales: weight.scales,
            ..self.clone()
        })
    }
}

/// What the kernel writes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WoOutput {
    /// `[num_tokens, slots, H]`.
    pub partials: Vec<f32>,
    /// `[num_tokens, H]`.
    pub output: Vec<f32>,
}

/// Rows that are worked out side by side: as many as an AVX2 register holds.
const LANES: usize = 8;

/// Weights of `LANES` rows from `first` but for their [factors](WoInputs::factor), exact in
/// f32, `[K][LANES]`. Rows past the end are zero.
fn block_of(shape: &WoShape, inputs: &WoInputs, first: usize) -> Vec<[f32; LANES]> {
    if inputs.format == WoFormat::Fp8 {
        return fp8::block_of(shape, inputs, first);
    }
    let tiles = swizzle::group_tiles(shape.k / 16);
    let mut block = vec![[0.0; LANES]; shape.k];
    for (lane, row) in (first..(first + LANES).min(shape.hidden)).enumerate() {
        let codes = &inputs.weight[row * shape.k / 2..(row + 1) * shape.k / 2];
        for (group, codes) in codes.chunks(8).enumerate() {
            let scale = e4m3::decode(inputs.scales[swizzle::offset(row, group, tiles)]);
            let mut values = [0.0; 16];
            for code in 0..16_u8 {
                values[usize::from(code)] = fp4::decode(code) * scale;
            }
            for (at, byte) in codes.iter().enumerate() {
                let k = group * 16 + at * 2;
                block[k][lane] = values[usize::from(byte & 15)];
                block[k + 1][lane] = values[usize::from(byte >> 4)];
            }
        }
    }
    block
}

/// Does `work` for each block of `LANES` rows, on all cores, and returns the
/// results in the order of the rows. A row is worked out by one thread and rows
/// do not meet, so that threads change no bit.
fn for_blocks<T: Send>(hidden: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let blocks = hidden.div_ceil(LANES);
    for_each_on(cores(), 0..blocks, |block| work(block * LANES))
}

/// The authoritative reference. `fused`: one rounding a step, else two.
#[must_use]
pub fn split_order(shape: &WoShape, inputs: &WoInputs, fused: bool) -> WoOutput {
    let (slots, hidden) = (shape.num_slots(), shape.hidden);
    let attn: Vec<f32> = inputs.attn.iter().map(|x| x.to_f32()).collect();
    let blocks = for_blocks(hidden, |first| {
        let mut weights = block_of(shape, inputs, first);
        let factors: [f32; LANES] = std::array::from_fn(|lane| inputs.factor(first + lane));
        for weights in &mut weights {
            for (weight, factor) in weights.iter_mut().zip(factors) {
                *weight *= factor;
            }
        }
        let mut chains = vec![[0.0; LANES]; inputs.num_tokens * slots];
        for (token, chains) in chains.chunks_mut(slots.max(1)).enumerate() {
            let x = &attn[token * shape.k..(token + 1) * shape.k];
            for (slot, chain) in chains.iter_mut().enumerate() {
                let range = shape.slot_range(slot);
                run_chain(&weights[range.clone()], &x[range], fused, chain);
            }
        }
        chains
    });
    let mut out = WoOutput {
        partials: vec![0.0; inputs.num_tokens * slots * hidden],
        output: vec![0.0; inputs.num_tokens * hidden],
    };
    for (block, chains) in blocks.iter().enumerate() {
        let first = block * LANES;
        for (at, chain) in chains.iter().enumerate() {
            let (token, rows) = (at / slots, first..(first + LANES).min(hidden));
            for (row, partial) in rows.zip(chain) {
                out.partials[at * hidden + row] = *partial;
                // Slots come in ascending order.
                out.output[token * hidden + row] += partial;
            }
        }
    }
    out
}

/// The order of one chain a kv head, then the heads in order, `[num_tokens, H]`: what
/// `wo_split` 1 gives. How far another split lies from it is drift, and no error.
#[must_use]
pub fn chained(shape: &WoShape, inputs: &WoInputs, fused: bool) -> Vec<f32> {
    let shape = WoShape {
        wo_split: 1,
        ..*shape
    };
    split_order(&shape, inputs, fused).output
}

/// One chain of `LANES` rows, from what is in `chain`.
fn run_chain(weights: &[[f32; LANES]], x: &[f32], fused: bool, chain: &mut [f32; LANES]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the machine has just said that it has both.
        return unsafe { run_chain_avx2(weights, x, fused, chain) };
    }
    run_chain_plain(weights, x, fused, chain);
}

/// The same code, compiled for a machine whose fused multiply-add is an
/// instruction rather than a call.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_chain_avx2(weights: &[[f32; LANES]], x: &[f32], fused: bool, chain: &mut [f32; LANES]) {
    run_chain_plain(weights, x, fused, chain);
}

#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled once for each set of instructions, inside the caller"
)]
fn run_chain_plain(weights: &[[f32; LANES]], x: &[f32], fused: bool, chain: &mut [f32; LANES]) {
    let mut a = *chain;
    if fused {
        for (w, x) in weights.iter().zip(x) {
            for lane in 0..LANES {
                a[lane] = w[lane].mul_add(*x, a[lane]);
            }
        }
    } else {
        for (w, x) in weights.iter().zip(x) {
            for lane in 0..LANES {
                a[lane] += w[lane] * *x;
            }
        }
    }
    *chain = a;
}

/// The same product in float64, `[num_tokens, H]`: a yardstick, with no order to keep.
#[must_use]
pub fn matmul_f64(shape: &WoShape, inputs: &WoInputs) -> Vec<f64> {
    let whole = WoShape {
        num_kv_heads: 1,
        wo_split: 1,
        ..*shape
    };
    partials_f64(&whole, inputs)
}

/// The slots' sums in float64, `[num_tokens, slots, H]`.
#[must_use]
pub fn partials_f64(shape: &WoShape, inputs: &WoInputs) -> Vec<f64> {
    let slots = shape.num_slots();
    let attn: Vec<f64> = inputs.attn.iter().map(|x| x.to_f64()).collect();
    let blocks = for_blocks(shape.hidden, |first| {
        let weights = block_of(shape, inputs, first);
        let mut sums = vec![[0.0_f64; LANES]; inputs.num_tokens * slots];
        for (at, sum) in sums.iter_mut().enumerate() {
            let (token, range) = (at / slots, shape.slot_range(at % slots));
            let x = &attn[token * shape.k..(token + 1) * shape.k];
            for (w, x) in weights[range.clone()].iter().zip(&x[range]) {
                for (sum, w) in sum.iter_mut().zip(w) {
                    *sum += f64::from(*w) * x;
                }
            }
        }
        sums
    });
    let mut out = vec![0.0; inputs.num_tokens * slots * shape.hidden];
    for (block, sums) in blocks.iter().enumerate() {
        for (at, sum) in sums.iter().enumerate() {
            let rows = block * LANES..(block * LANES + LANES).min(shape.hidden);
            for (row, sum) in rows.zip(sum) {
                out[at * shape.hidden + row] = sum * f64::from(inputs.factor(row));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::compare::largest;

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
        let scale = largest(&exact);
        for (a, b) in out.iter().zip(&exact) {
            assert!((f64::from(*a) - b).abs() <= scale * 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn the_slots_sums_in_float64_add_up_to_the_product() {
        let shape = WoShape { wo_split: 8, ..SHAPE };
        let inputs = WoInputs::random(&shape, 2, 0.0123, 3);
        let (slots, exact) = (partials_f64(&shape, &inputs), matmul_f64(&shape, &inputs));
        for (at, exact) in exact.iter().enumerate() {
            let (token, row) = (at / shape.hidden, at % shape.hidden);
            let of = |slot: usize| slots[(token * shape.num_slots() + slot) * shape.hidden + row];
            let sum: f64 = (0..shape.num_slots()).map(of).sum();
            assert!((sum - exact).abs() <= largest(&slots) * 1e-12, "{sum} {exact}");
        }
    }

    /// The definition, one element after the other, with nothing done for speed.
    fn by_definition(shape: &WoShape, inputs: &WoInputs, fused: bool) -> WoOutput {
        let (slots, tiles) = (shape.num_slots(), swizzle::group_tiles(shape.k / 16));
        let mut out = WoOutput {
            partials: vec![0.0; inputs.num_tokens * slots * shape.hidden],
            output: vec![0.0; inputs.num_tokens * shape.hidden],
        };
        for token in 0..inputs.num_tokens {
            for row in 0..shape.hidden {
                let mut sum = 0.0_f32;
                for slot in 0..slots {
                    let mut a = 0.0_f32;
                    for k in shape.slot_range(slot) {
                        let byte = inputs.weight[row * shape.k / 2 + k / 2];
                        let code = (byte >> (4 * (k % 2))) & 15;
                        let scale = e4m3::decode(inputs.scales[swizzle::offset(row, k / 16, tiles)]);
                        let w = (fp4::decode(code) * scale) * inputs.global_scale;
                        let x = inputs.attn[token * shape.k + k].to_f32();
                        a = if fused { w.mul_add(x, a) } else { a + w * x };
                    }
                    out.partials[(token * slots + slot) * shape.hidden + row] = a;
                    sum += a;
                }
                out.output[token * shape.hidden + row] = sum;
            }
        }
        out
    }

    #[test]
    fn lanes_and_threads_change_no_bit() {
        for (hidden, k, num_kv_heads, wo_split) in
            [(1, 16, 1, 8), (13, 96, 2, 4), (72, 192, 8, 8), (8, 48, 1, 1)]
        {
            let shape = WoShape {
                hidden,
                k,
                num_kv_heads,
                wo_split,
            };
            for fused in [true, false] {
                let inputs = WoInputs::random(&shape, 3, 0.0123, 11);
                let (fast, plain) = (
                    split_order(&shape, &inputs, fused),
                    by_definition(&shape, &inputs, fused),
                );
                assert!(compare_bits(&fast, &plain), "{shape:?} {fused}");
                assert!(crate::measure::compare::compare(&fast.output, &plain.output).is_exact());
            }
        }
    }

    #[test]
    fn the_chained_order_is_that_of_one_slot_a_head() {
        let inputs = WoInputs::random(&SHAPE, 2, 0.0123, 7);
        let split = WoShape { wo_split: 4, ..SHAPE };
        let chained = chained(&split, &inputs, true);
        assert_eq!(chained, split_order(&SHAPE, &inputs, true).output);
        assert_ne!(chained, split_order(&split, &inputs, true).output);
    }

    fn compare_bits(a: &WoOutput, b: &WoOutput) -> bool {
        crate::measure::compare::compare(&a.partials, &b.partials).is_exact()
    }
}
