//! Norm and MLP in float64.
//!
//! Invariant: products and sums are float64; only what the kernel rounds on
//! purpose (its stages' results) was rounded before it came here.

use half::bf16;

use super::{LayerInputs, Matrix};
use crate::engine::threads::{cores, for_each_on};

/// `RMSNorm` of rows, times 1 + gamma: `[num_tokens, H]`.
#[must_use]
pub fn norm_f64(rows: &[f32], gamma: &[bf16], eps: f32) -> Vec<f64> {
    let hidden = gamma.len();
    rows.chunks(hidden)
        .flat_map(|row| {
            let square: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            #[expect(clippy::cast_precision_loss, reason = "a row has few elements")]
            let inverse = 1.0 / (square / hidden as f64 + f64::from(eps)).sqrt();
            row.iter()
                .zip(gamma)
                .map(move |(v, g)| f64::from(*v) * inverse * (1.0 + g.to_f64()))
        })
        .collect()
}

/// Gate, up and activation: `[num_tokens, I]`, before any rounding. `x` is `[num_tokens, H]`.
#[must_use]
pub fn middle_f64(inputs: &LayerInputs, x: &[bf16]) -> Vec<f64> {
    let x: Vec<f64> = x.iter().map(|v| v.to_f64()).collect();
    let gate = product(&inputs.gate_proj, &x, inputs.num_tokens);
    let up = product(&inputs.up_proj, &x, inputs.num_tokens);
    let global = f64::from(inputs.gate_up_global);
    gate.iter()
        .zip(&up)
        .map(|(g, u)| {
            let g = g * global;
            g / (1.0 + (-g).exp()) * (u * global)
        })
        .collect()
}

/// The MLP's result `[num_tokens, H]` of a requantized middle `[num_tokens, I]`.
#[must_use]
pub fn output_f64(inputs: &LayerInputs, middle: &[f32]) -> Vec<f64> {
    let x: Vec<f64> = middle.iter().map(|v| f64::from(*v)).collect();
    product(&inputs.down_proj, &x, inputs.num_tokens)
        .iter()
        .map(|v| v * f64::from(inputs.down_global))
        .collect()
}

/// `[num_tokens, rows]`. A row is decoded once for all tokens.
fn product(matrix: &Matrix, x: &[f64], num_tokens: usize) -> Vec<f64> {
    let rows = for_each_on(cores(), 0..matrix.rows, |row| {
        let weights = matrix.row(row);
        x.chunks(matrix.k)
            .map(|x| weights.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
            .collect::<Vec<f64>>()
    });
    let by_row: Vec<f64> = rows.into_iter().flatten().collect();
    (0..num_tokens * matrix.rows)
        .map(|at| by_row[at % matrix.rows * num_tokens + at / matrix.rows])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Kv, LayerShape, Lengths, ScaleLayout};
    use super::*;

    const SHAPE: LayerShape = LayerShape {
        hidden: 128,
        intermediate: 64,
        num_q_heads: 2,
        num_kv_heads: 1,
        head_dim: 64,
        page_size: 16,
    };

    #[test]
    fn both_layouts_of_the_scales_are_the_same_matrix() {
        let at = |layout| LayerInputs::with_layout(&SHAPE, &Lengths(vec![1]), Kv::Random, layout, 5);
        let (swizzled, linear) = (at(ScaleLayout::Swizzled), at(ScaleLayout::Linear));
        assert_ne!(swizzled.up_proj.scales, linear.up_proj.scales);
        assert_eq!(swizzled.up_proj.row(63), linear.up_proj.row(63));
        let x = vec![bf16::from_f32(0.5); SHAPE.hidden];
        assert_eq!(middle_f64(&swizzled, &x), middle_f64(&linear, &x));
    }

    #[test]
    fn a_normed_row_has_mean_square_one_where_gamma_is_zero() {
        let rows: Vec<f32> = (0..128)
            .map(|i| f32::from(u8::try_from(i).expect("small")) - 3.0)
            .collect();
        let normed = norm_f64(&rows, &[bf16::ZERO; 128], 0.0);
        let mean: f64 = normed.iter().map(|v| v * v).sum::<f64>() / 128.0;
        assert!((mean - 1.0).abs() < 1e-12);
        let doubled = norm_f64(&rows, &[bf16::ONE; 128], 0.0);
        assert!((doubled[5] - 2.0 * normed[5]).abs() < 1e-12);
    }

    #[test]
    fn the_product_keeps_tokens_and_rows_apart() {
        let inputs = LayerInputs::random(&SHAPE, &Lengths(vec![1, 1]), Kv::Random, 6);
        let mut middle = vec![0.0; 2 * SHAPE.intermediate];
        middle[SHAPE.intermediate + 3] = 1.0;
        let out = output_f64(&inputs, &middle);
        assert!(out[..SHAPE.hidden].iter().all(|v| *v == 0.0));
        let weight = f64::from(inputs.down_proj.row(9)[3]);
        assert!((out[SHAPE.hidden + 9] - weight * f64::from(inputs.down_global)).abs() < 1e-12);
    }
}
