//! The stages of a layer against their references.
//!
//! Invariant: each is judged from what the kernel itself wrote before it, so that one
//! wrong stage does not make those after it look wrong.

use half::bf16;
use serde_json::{Value, json};

use super::super::Written;
use super::super::reference::{
    self, Errors, LayerInputs, LayerShape, attention_f64, middle_f64, norm_f64, output_f64,
};
use crate::families::wo_gemv::WoFormat;
use crate::families::wo_gemv::reference::WoInputs;
use crate::families::wo_gemv::reference::WoShape;
use crate::families::wo_gemv::reference::matmul_f64;
use crate::families::wo_gemv::reference::split_order;
use crate::measure::compare::compare;
use crate::measure::compare::largest;

/// What came of one stage.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) good: bool,
    pub(super) errors: Option<Errors>,
    pub(super) detail: String,
}

impl Stage {
    pub(super) fn json(&self) -> Value {
        let said = !self.good || self.errors.is_some();
        json!({"stage": self.name, "good": self.good, "detail": said.then_some(&self.detail),
            "median": self.errors.map(|e| e.median), "p99": self.errors.map(|e| e.p99),
            "max": self.errors.map(|e| e.max).filter(|m| m.is_finite())})
    }
}

pub(super) fn near(name: &'static str, actual: &[f32], reference: &[f64], rtol: f64, atol: f64) -> Stage {
    let errors = Errors::of(actual.iter().map(|v| f64::from(*v)), reference, rtol, atol);
    Stage {
        name,
        good: errors.is_within(),
        errors: Some(errors),
        detail: format!(
            "at {}: {} instead of {}",
            errors.worst,
            actual.get(errors.worst).copied().unwrap_or(f32::NAN),
            reference.get(errors.worst).copied().unwrap_or(f64::NAN)
        ),
    }
}

fn exact<T: PartialEq + Copy + std::fmt::Debug>(name: &'static str, actual: &[T], expected: &[T]) -> Stage {
    let first = actual.iter().zip(expected).position(|(a, e)| a != e);
    let good = first.is_none() && actual.len() == expected.len();
    Stage {
        name,
        good,
        errors: None,
        detail: first.map_or(String::new(), |at| {
            format!("at {at}: {:?} instead of {:?}", actual[at], expected[at])
        }),
    }
}

pub(super) fn floats(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|b| bf16::from_bits(*b).to_f32()).collect()
}

/// Every stage, each from what the kernel wrote before it.
pub(super) fn check(
    shape: &LayerShape,
    inputs: &LayerInputs,
    w: &Written,
    split: usize,
    mode: &str,
    gated: bool,
) -> Vec<Stage> {
    let rows: Vec<bf16> = w.attn_rows.iter().map(|b| bf16::from_bits(*b)).collect();
    let attention = attention_f64(shape, inputs, gated);
    // With equal scores every weight is one and the sum of V exact: two roundings are left.
    let (rtol, atol) = if inputs.query.iter().all(|q| q.to_f32() == 0.0) {
        (3.95e-3, 1e-7)
    } else {
        (1e-2, 1e-2)
    };
    let mut stages = vec![near("attention", &floats(&w.attn_rows), &attention, rtol, atol)];
    let (num_tokens, hidden) = (inputs.num_tokens, shape.hidden);
    let wo_shape = WoShape {
        hidden,
        k: shape.k(),
        num_kv_heads: shape.num_kv_heads,
        wo_split: split,
    };
    let wo = WoInputs {
        attn: rows,
        format: WoFormat::Nvfp4,
        weight: inputs.wo.codes.clone(),
        scales: inputs.wo.scales.clone(),
        global_scale: inputs.wo_global,
        row_scales: Vec::new(),
        num_tokens,
    };
    let slots = wo_shape.num_slots();
    let output: Vec<f32> = w.wo_output.iter().map(|b| f32::from_bits(*b)).collect();
    let sums: Vec<f32> = (0..num_tokens)
        .flat_map(|token| output[token * slots * hidden..][..hidden].to_vec())
        .collect();
    if mode == "mma" {
        let reference = matmul_f64(&wo_shape, &wo);
        let atol = largest(&reference) * 1e-5 + 1e-30;
        stages.push(near("W_O", &sums, &reference, 1e-5, atol));
    } else {
        let expected = split_order(&wo_shape, &wo, mode == "fma");
        let sum = compare(&expected.output, &sums);
        stages.push(Stage {
            name: "W_O",
            good: sum.is_exact(),
            errors: None,
            detail: format!("{} of {} sums differ", sum.mismatches, sum.elements),
        });
        // Slot 0 holds the sum by now; the others are still partials.
        let mut partials = expected.partials;
        for token in 0..num_tokens {
            let at = token * slots * hidden;
            partials[at..at + hidden].copy_from_slice(&sums[token * hidden..][..hidden]);
        }
        let rest = compare(&partials, &output);
        stages.push(Stage {
            name: "partials",
            good: rest.is_exact(),
            errors: None,
            detail: format!("{} of {} differ", rest.mismatches, rest.elements),
        });
    }
    let summed: Vec<f32> = sums
        .iter()
        .zip(&inputs.residual_in)
        .map(|(s, r)| r.to_f32() + s)
        .collect();
    let bits: Vec<u32> = summed.iter().map(|v| v.to_bits()).collect();
    stages.push(exact("residual", &w.summed, &bits));
    let rounded: Vec<u16> = summed.iter().map(|v| bf16::from_f32(*v).to_bits()).collect();
    stages.push(exact("residual_output", &w.residual_output, &rounded));
    let normed = norm_f64(&summed, &inputs.post_gamma, inputs.rms_eps);
    stages.push(near("norm", &floats(&w.attn_output), &normed, 4.2e-3, 1e-6));
    let x: Vec<bf16> = w.attn_output.iter().map(|b| bf16::from_bits(*b)).collect();
    let middle = middle_f64(inputs, &x);
    let atol = largest(&middle) * 1e-5 + 1e-30;
    stages.push(near("middle", &floats(&w.middle), &middle, 4.5e-3, atol));
    let own: Vec<bf16> = w.middle.iter().map(|b| bf16::from_bits(*b)).collect();
    let blocks = reference::quantize(&own);
    stages.push(exact("block scales", &w.code_scales, &blocks.scales));
    stages.push(exact("codes", &w.codes, &blocks.codes));
    let result = output_f64(inputs, &reference::dequantize(&blocks));
    let atol = largest(&result) * 1e-6 + 1e-30;
    stages.push(near("output", &floats(&w.mlp_output), &result, 4.2e-3, atol));
    stages
}
