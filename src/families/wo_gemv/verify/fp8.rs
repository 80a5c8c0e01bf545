//! FP8 weights verified: chains bit for bit, tensor cores by the rules of [`super::mma`], with
//! one scale for all rows and with one for each.

use std::sync::Arc;

use cudarc::driver::CudaStream;
use half::bf16;

use super::super::WoFormat;
use super::super::device_buffers::WoBuffers;
use super::super::reference::{WoInputs, WoShape, chained, matmul_f64, split_order};
use super::case::{Case, Expected, Tally};
use super::mma::{self, Judged, Sums};
use super::{MODES, SPLITS, Set, spread, tell, variant_of};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::Context;
use crate::measure::MeasureError;
use crate::measure::harness::Sink;
use crate::measure::rng::Rng;

/// hidden, query heads, head dim: the model's shape, small ones whose slots end within 16
/// bytes, and a small one with slots of whole and of broken lines.
const SHAPES: [(usize, usize, usize); 4] = [(5120, 24, 256), (72, 8, 24), (130, 16, 40), (72, 16, 96)];
const SCALES: [f32; 2] = [0.0123, -3.7e-4];

/// What is set beside shape and mode.
type Constants = &'static [(&'static str, &'static str)];

/// Forms of the exact modes.
const FORMS: [(&str, Constants); 4] = [
    ("fp8", &[]),
    ("fp8, row scales", &[("row_scales", "true")]),
    (
        "fp8 40 x 2",
        &[
            ("rows_per_cta", "40"),
            ("tokens_per_pass", "2"),
            ("mma_ring", "3"),
        ],
    ),
    (
        "fp8 12 x 4, row scales",
        &[
            ("row_scales", "true"),
            ("rows_per_cta", "12"),
            ("tokens_per_pass", "4"),
            ("mma_ring", "5"),
            ("num_threads", "96"),
        ],
    ),
];
/// Of the small shapes: one slot, two, and up to 64. The large one has the model's four.
const KV_HEADS: [usize; 3] = [1, 2, 8];
const MAX_TOKENS: usize = 4;

/// Geometries of tensor cores whose bits have to agree.
const GEOMETRIES: [Constants; 4] = [
    &[],
    &[("mma_rows", "24"), ("tokens_per_pass", "4"), ("mma_ring", "3")],
    &[
        ("mma_rows", "8"),
        ("tokens_per_pass", "2"),
        ("dependent", "true"),
        ("mma_warps", "1"),
    ],
    &[("mma_rows", "40"), ("tokens_per_pass", "8"), ("mma_ring", "2")],
];

/// Names of the inputs of tensor cores: the last ones' sums overflow before the scale.
const INPUTS: [&str; 6] = [
    "normal",
    "bytes",
    "cancelling",
    "all equal",
    "extreme codes",
    "beyond f32",
];

/// What a check runs on.
struct Fp8Sweep<'a> {
    jit: &'a Jit,
    context: &'a Context,
    stream: Arc<CudaStream>,
}

/// Chains go to the tally, and what tensor cores did comes back.
pub(super) fn verify(
    jit: &Jit,
    context: &Context,
    (seeds, quick): (u64, bool),
    tally: &mut Tally,
    sink: &mut Sink<'_>,
) -> Result<Judged, MeasureError> {
    let sweep = Fp8Sweep {
        jit,
        context,
        stream: context.cuda().default_stream(),
    };
    for shape in &SHAPES[usize::from(quick)..] {
        sweep.chains(*shape, seeds, (&mut *tally, &mut *sink))?;
    }
    sweep.tensor_cores(seeds, sink)
}

impl Fp8Sweep<'_> {
    /// A variant, with whatever it sets.
    fn spec(
        &self,
        shape: &WoShape,
        q_heads: usize,
        mode: &str,
        set: Constants,
    ) -> Result<KernelSpec, MeasureError> {
        let own = [("accumulate", mode), ("wo_format", WoFormat::Fp8.name())];
        variant_of(self.jit, self.context, shape, q_heads, &[&own, set].concat())
    }

    /// Every mode, number of slots, form and number of tokens of one shape.
    fn chains(
        &self,
        (hidden, q_heads, head_dim): (usize, usize, usize),
        seeds: u64,
        (tally, sink): (&mut Tally, &mut Sink<'_>),
    ) -> Result<(), MeasureError> {
        let kv_heads: &[usize] = if hidden > 1000 { &[4] } else { &KV_HEADS };
        let shapes: Vec<WoShape> = (kv_heads.iter())
            .flat_map(|kv| SPLITS.map(|split| (*kv, split)))
            .map(|(num_kv_heads, wo_split)| WoShape {
                hidden,
                k: q_heads * head_dim,
                num_kv_heads,
                wo_split,
            })
            .collect();
        let mut specs = Vec::new();
        for shape in &shapes {
            for mode in MODES {
                for (_, set) in FORMS {
                    specs.push(self.spec(shape, q_heads, mode, set)?);
                }
            }
        }
        self.jit.prepare_each(specs.iter())?;
        for seed in 0..seeds {
            for (by_row, scale) in [(false, SCALES[0]), (true, SCALES[1])] {
                let mut inputs = WoInputs::random_fp8(&shapes[0], MAX_TOKENS, scale, by_row, 4242 + seed);
                if seed > 0 && seed + 1 == seeds {
                    spread(&mut inputs.attn, seed);
                }
                let most_slots = shapes.iter().map(WoShape::num_slots).max().unwrap_or(1);
                let mut problem = WoBuffers::new(&self.stream, &shapes[0], most_slots, &inputs)?;
                let set = Set {
                    seed,
                    float64: matmul_f64(&shapes[0], &inputs),
                    inputs: &inputs,
                };
                for shape in &shapes {
                    for mode in MODES {
                        let fused = mode == "fma";
                        let expected = Expected {
                            wo: split_order(shape, &inputs, fused),
                            chained: &chained(shape, &inputs, fused),
                            float64: &set.float64,
                        };
                        for (form, set_by) in FORMS {
                            if set_by.contains(&("row_scales", "true")) != by_row {
                                continue;
                            }
                            let spec = self.spec(shape, q_heads, mode, set_by)?;
                            let kernel = self.jit.load(&spec, self.context)?;
                            for num_tokens in 1..=MAX_TOKENS {
                                let actual = problem.run(&kernel, num_tokens, shape.num_slots())?;
                                let case = Case::new(shape, num_tokens, &expected, &actual);
                                tell(&spec, &set, &case, sink);
                                tally.add(shape, mode, form, &case);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Tensor cores over every shape, split and kind of inputs.
    fn tensor_cores(&self, seeds: u64, sink: &mut Sink<'_>) -> Result<Judged, MeasureError> {
        let shapes = mma::SHAPES
            .into_iter()
            .flat_map(|shape| SPLITS.map(|split| (shape, split)));
        let shapes: Vec<(usize, WoShape)> = shapes
            .map(|((hidden, q_heads, head_dim, num_kv_heads), wo_split)| {
                let shape = WoShape {
                    hidden,
                    k: q_heads * head_dim,
                    num_kv_heads,
                    wo_split,
                };
                (q_heads, shape)
            })
            .collect();
        let of = |q_heads, shape: &WoShape, geometry: Constants| {
            let mut spec = self.spec(shape, q_heads, "mma", geometry)?;
            if by_row(shape) {
                let rows = ("row_scales", "true");
                spec = spec.with([rows])?;
            }
            Ok::<_, MeasureError>(spec)
        };
        let mut specs = Vec::new();
        for (q_heads, shape) in &shapes {
            for geometry in GEOMETRIES {
                specs.push(of(*q_heads, shape, geometry)?);
            }
        }
        self.jit.prepare_each(specs.iter())?;
        let mut judged = Judged::default();
        for ((_, shape), specs) in shapes.iter().zip(specs.chunks(GEOMETRIES.len())) {
            for (seed, name) in (0..seeds).flat_map(|seed| INPUTS.map(|name| (seed, name))) {
                let inputs = inputs(shape, name, 977 + seed);
                let mut sums = Sums::new(shape, &inputs);
                let mut problem = WoBuffers::new(&self.stream, shape, shape.num_slots(), &inputs)?;
                for spec in specs {
                    let kernel = self.jit.load(spec, self.context)?;
                    sums.launch(
                        spec,
                        &kernel,
                        &mut problem,
                        (name, seed, &[mma::TOKENS]),
                        (&mut judged, &mut *sink),
                    )?;
                }
            }
        }
        Ok(judged)
    }
}

/// Whether tensor cores are checked with a scale for each row: at every second split.
fn by_row(shape: &WoShape) -> bool {
    matches!(shape.wo_split, 2 | 8)
}

/// Inputs of a kind.
fn inputs(shape: &WoShape, name: &str, seed: u64) -> WoInputs {
    let by_row = by_row(shape);
    let mut inputs = WoInputs::random_fp8(shape, mma::TOKENS, 0.0123, by_row, seed);
    match name {
        // As a checkpoint has them: normal weights under the scale of the largest.
        "normal" => {
            let normal = Rng::new(seed ^ 0x5eed).normal_bf16(shape.hidden * shape.k);
            let weights: Vec<f32> = normal.iter().map(|w| w.to_f32()).collect();
            inputs.quantize_fp8(&weights, shape, by_row);
        }
        // The second half of K takes most of the first half back.
        "cancelling" => {
            let half = shape.k / 2;
            for row in inputs.weight.chunks_mut(shape.k) {
                let (first, second) = row.split_at_mut(half);
                second.copy_from_slice(first);
            }
            for token in inputs.attn.chunks_mut(shape.k) {
                for k in 0..half {
                    token[half + k] = bf16::from_f32(-token[k].to_f32() * 1.01);
                }
            }
        }
        "all equal" => {
            inputs.weight.fill(0x7e);
            inputs.attn.fill(bf16::ONE);
        }
        "extreme codes" => {
            let ends = [0x7e, 0xfe, 0x01, 0x81, 0x00, 0x80];
            for code in &mut inputs.weight {
                *code = ends[usize::from(*code) % ends.len()];
            }
        }
        "beyond f32" => {
            for x in &mut inputs.attn {
                *x = bf16::from_f32(x.to_f32() * 2.0_f32.powi(118));
            }
        }
        _ => {}
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_fp8_input_has_a_finite_result_of_its_own() {
        let shape = WoShape {
            hidden: 8,
            k: 256,
            num_kv_heads: 2,
            wo_split: 2,
        };
        let mut seen: Vec<Vec<u64>> = Vec::new();
        for name in INPUTS {
            let inputs = inputs(&shape, name, 5);
            assert_eq!(inputs.row_scales.len(), 8, "{name}");
            let result = matmul_f64(&shape, &inputs);
            let exact = split_order(&shape, &inputs, true).output;
            assert!(exact.iter().all(|v| v.is_finite()), "{name}");
            seen.push(result.iter().map(|v| v.to_bits()).collect());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), INPUTS.len());
        let unscaled = WoInputs {
            row_scales: vec![1.0; 8],
            ..inputs(&shape, "beyond f32", 5)
        };
        let beyond = split_order(&shape, &unscaled, true).output;
        assert!(beyond.iter().any(|v| !v.is_finite()));
    }
}
