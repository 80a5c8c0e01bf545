//! Attention over a paged FP8 cache in float64.
//!
//! Invariant: a position at or past the sequence's length is never read, and a
//! sequence without positions gives zeros.

use super::{LayerInputs, LayerShape};
use crate::engine::threads::{cores, for_each_on};
use crate::families::nvfp4::e4m3;

/// `[num_tokens, K]`: softmax of the scaled scores over V, then the gate if there is one.
#[must_use]
pub fn attention_f64(shape: &LayerShape, inputs: &LayerInputs, gated: bool) -> Vec<f64> {
    let table: Vec<f64> = (0..=255).map(|byte| f64::from(e4m3::decode(byte))).collect();
    let (d, group) = (shape.head_dim, shape.num_q_heads / shape.num_kv_heads);
    let factor = f64::from(inputs.softmax_scale) * f64::from(inputs.k_scale);
    let mut out = vec![0.0; inputs.num_tokens * shape.k()];
    let rows = out.chunks_mut(d).enumerate();
    for_each_on(cores(), rows, |(row, out)| {
        let (token, head) = (row / shape.num_q_heads, row % shape.num_q_heads);
        let query = &inputs.query[row * d..(row + 1) * d];
        let kv = |position, v| inputs.kv_row(shape, token, position, v, head / group);
        let scores: Vec<f64> = (0..inputs.seq_len(token))
            .map(|position| {
                let keys = kv(position, false).iter().map(|byte| table[usize::from(*byte)]);
                keys.zip(query).map(|(k, q)| k * q.to_f64()).sum::<f64>() * factor
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (position, weight) in weights.iter().enumerate() {
            for (o, byte) in out.iter_mut().zip(kv(position, true)) {
                *o += weight * table[usize::from(*byte)];
            }
        }
        for (at, o) in out.iter_mut().enumerate() {
            if sum > 0.0 {
                *o *= f64::from(inputs.v_scale) / sum;
            }
            if gated {
                *o /= 1.0 + (-inputs.gate[row * d + at].to_f64()).exp();
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Kv, Lengths};
    use super::*;

    const SHAPE: LayerShape = LayerShape {
        hidden: 128,
        intermediate: 64,
        num_q_heads: 4,
        num_kv_heads: 2,
        head_dim: 64,
        page_size: 16,
    };

    #[test]
    fn equal_scores_give_the_mean_and_no_position_gives_zeros() {
        let inputs = LayerInputs::random(&SHAPE, &Lengths(vec![0, 1, 33]), Kv::EqualScores, 3);
        let out = attention_f64(&SHAPE, &inputs, false);
        assert!(out[..SHAPE.k()].iter().all(|v| *v == 0.0));
        let mean = |token: usize, head: usize, at: usize| {
            let n = inputs.seq_len(token);
            let v = |p| e4m3::decode(inputs.kv_row(&SHAPE, token, p, true, head / 2)[at]);
            (0..n).map(|p| f64::from(v(p))).sum::<f64>() / f64::from(u32::try_from(n).expect("small"))
        };
        for (token, head, at) in [(1, 0, 0), (1, 3, 63), (2, 1, 7), (2, 2, 40)] {
            let got = out[token * SHAPE.k() + head * 64 + at];
            assert!((got - mean(token, head, at)).abs() < 1e-12);
        }
    }

    #[test]
    fn unused_slots_hold_nan_and_are_never_read() {
        let inputs = LayerInputs::random(&SHAPE, &Lengths(vec![17]), Kv::Random, 4);
        assert!(inputs.kv_cache.contains(&0x7f));
        assert!(attention_f64(&SHAPE, &inputs, true).iter().all(|v| v.is_finite()));
    }
}
