//! Tensor cores verified: bits that do not depend on geometry, layout or
//! launch, and a distance from float64 within twice the exact mode's.

use std::sync::Arc;

use cudarc::driver::CudaStream;
use half::bf16;
use serde_json::json;

use super::super::config::WoConfig;
use super::super::device_buffers::WoBuffers;
use super::super::reference::mma::{Accuracy, quantize};
use super::super::reference::{WoInputs, WoOutput, WoShape, matmul_f64, partials_f64, split_order};
use super::{fits, variant_of};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::measure::MeasureError;
use crate::measure::compare::{largest, same_bits};
use crate::measure::harness::{Event, Sink};
use crate::measure::rng::Rng;

/// hidden, query heads, head dim, kv heads: small, with slots of whole 64 weights at every
/// split, and with slots of 80 and 160, 96, 32, 144 and 288 weights at some.
pub(super) const SHAPES: [(usize, usize, usize, usize); 6] = [
    (200, 24, 256, 4),
    (72, 16, 128, 4),
    (136, 20, 128, 4),
    (72, 12, 128, 2),
    (40, 8, 64, 2),
    (72, 9, 128, 1),
];
const SPLITS: [usize; 4] = [1, 2, 4, 8];
pub(super) const TOKENS: usize = 8;
/// Tokens of launches that share a decode among more than eight, the most first.
const MANY_TOKENS: [usize; 7] = [32, 31, 24, 17, 16, 12, 9];
pub(crate) const LAYOUTS: [&str; 2] = ["nvfp4", "packed"];

/// Constants that set a geometry.
type Form = &'static [(&'static str, &'static str)];

/// Geometries whose bits have to agree, those of one order each.
const GEOMETRIES: [Form; 4] = [
    &[],
    &[("mma_rows", "24"), ("tokens_per_pass", "4")],
    &[("mma_rows", "8"), ("tokens_per_pass", "2"), ("dependent", "true")],
    &[("mma_rows", "40"), ("tokens_per_pass", "8")],
];

/// The same of more than eight tokens a pass.
const WIDE_GEOMETRIES: [Form; 4] = [
    &[("tokens_per_pass", "32")],
    &[("tokens_per_pass", "16")],
    &[
        ("tokens_per_pass", "16"),
        ("mma_rows", "24"),
        ("mma_x_stages", "1"),
        ("dependent", "true"),
    ],
    &[("tokens_per_pass", "24"), ("mma_rows", "8")],
];

/// Names of the inputs: normal weights and activations, and hard ones.
pub(crate) const INPUTS: [&str; 5] = ["normal", "bytes", "cancelling", "all equal", "extreme scales"];

/// Cases, and how many of them were refused.
#[derive(Default)]
pub(super) struct Judged {
    pub cases: usize,
    pub wrong: usize,
}

pub(super) fn verify(
    jit: &Jit,
    context: &Context,
    seeds: u64,
    sink: &mut Sink<'_>,
) -> Result<Judged, MeasureError> {
    let stream = context.cuda().default_stream();
    let specs = every_spec(jit, context)?;
    jit.prepare_each(specs.iter())?;
    let mut judged = Judged::default();
    for (hidden, q_heads, head_dim, num_kv_heads) in SHAPES {
        for wo_split in SPLITS {
            let shape = WoShape {
                hidden,
                k: q_heads * head_dim,
                num_kv_heads,
                wo_split,
            };
            let sweep = Sweep {
                jit,
                context,
                stream: &stream,
                q_heads,
                shape: &shape,
            };
            for (seed, name) in (0..seeds).flat_map(|seed| INPUTS.map(|name| (seed, name))) {
                let inputs = inputs(&shape, name, 977 + seed, TOKENS);
                let of = (&GEOMETRIES[..], &[TOKENS][..]);
                sweep.case(name, seed, &inputs, of, (&mut judged, &mut *sink))?;
            }
            let shape = few_rows(shape);
            let sweep = Sweep {
                shape: &shape,
                ..sweep
            };
            for name in INPUTS {
                let inputs = inputs(&shape, name, 977, MANY_TOKENS[0]);
                let of = (&WIDE_GEOMETRIES[..], &MANY_TOKENS[..]);
                sweep.case(name, 0, &inputs, of, (&mut judged, &mut *sink))?;
            }
        }
    }
    Ok(judged)
}

/// What many tokens are verified with: rows of one whole block and of a part of another.
fn few_rows(shape: WoShape) -> WoShape {
    WoShape {
        hidden: shape.hidden.min(72),
        ..shape
    }
}

struct Sweep<'a> {
    jit: &'a Jit,
    context: &'a Context,
    stream: &'a Arc<CudaStream>,
    q_heads: usize,
    shape: &'a WoShape,
}

impl Sweep<'_> {
    /// Every layout and geometry, launched for each of these numbers of tokens, of which the
    /// first is the inputs'.
    fn case(
        &self,
        name: &str,
        seed: u64,
        inputs: &WoInputs,
        (geometries, counts): (&[Form], &[usize]),
        (judged, sink): (&mut Judged, &mut Sink<'_>),
    ) -> Result<(), MeasureError> {
        let shape = self.shape;
        let mut sums = Sums::new(shape, inputs);
        for layout in LAYOUTS {
            // The shapes above are whole blocks.
            let packed = (layout == "packed").then(|| inputs.packed(shape).ok()).flatten();
            let held = packed.as_ref().unwrap_or(inputs);
            let mut problem = WoBuffers::new(self.stream, shape, shape.num_slots(), held)?;
            for geometry in geometries {
                let spec = spec(self.jit, self.context, self.shape, self.q_heads, layout, geometry)?;
                let Some(spec) = spec else { continue };
                let kernel = self.jit.load(&spec, self.context)?;
                sums.launch(
                    &spec,
                    &kernel,
                    &mut problem,
                    (name, seed, counts),
                    (&mut *judged, &mut *sink),
                )?;
            }
        }
        Ok(())
    }
}

/// What launches over one set of inputs are held to.
pub(super) struct Sums<'a> {
    shape: &'a WoShape,
    exact: WoOutput,
    outputs: Vec<f64>,
    partials: Vec<f64>,
    largest: (f64, f64),
    /// The first launch's of each order.
    first: [Option<WoOutput>; 3],
}

impl<'a> Sums<'a> {
    pub(super) fn new(shape: &'a WoShape, inputs: &WoInputs) -> Self {
        let (outputs, partials) = (matmul_f64(shape, inputs), partials_f64(shape, inputs));
        Self {
            shape,
            exact: split_order(shape, inputs, true),
            largest: (largest(&outputs), largest(&partials)),
            outputs,
            partials,
            first: [None, None, None],
        }
    }

    /// Launches twice over each of these numbers of tokens, of which the first is the inputs',
    /// and judges. `name` and `seed`: of the inputs.
    pub(super) fn launch(
        &mut self,
        spec: &KernelSpec,
        kernel: &Arc<LoadedKernel>,
        problem: &mut WoBuffers,
        (name, seed, counts): (&str, u64, &[usize]),
        (judged, sink): (&mut Judged, &mut Sink<'_>),
    ) -> Result<(), MeasureError> {
        let order = WoConfig::try_from(spec)?.mma_order();
        let slots = self.shape.num_slots();
        for num_tokens in counts.iter().copied() {
            let actual = problem.run(kernel, num_tokens, slots)?;
            let again = problem.run(kernel, num_tokens, slots)?;
            let outputs = num_tokens * self.shape.hidden;
            let accuracy = Accuracy::of(
                &actual.output,
                &self.exact.output[..outputs],
                &self.outputs[..outputs],
            );
            let partials = outputs * slots;
            let of_slots = Accuracy::of(
                &actual.partials,
                &self.exact.partials[..partials],
                &self.partials[..partials],
            );
            let first = self.first[order].as_ref();
            let same = same_results(&actual, &again) && first.is_none_or(|f| begins_with(f, &actual));
            let passes = same
                && gathered(self.shape, &actual)
                && of_slots.passes(self.largest.1)
                && accuracy.passes(self.largest.0);
            judged.cases += 1;
            judged.wrong += usize::from(!passes);
            let launch = Launch {
                event: "mma",
                spec,
                inputs: name,
                seed,
                num_tokens: (counts.len() > 1).then_some(num_tokens),
                yardstick: "exact mode",
            };
            launch.tell(passes, same, &accuracy, sink);
            self.first[order].get_or_insert(actual);
        }
        Ok(())
    }
}

/// The variant; none where the GPU has less shared memory.
fn spec(
    jit: &Jit,
    context: &Context,
    shape: &WoShape,
    q_heads: usize,
    layout: &str,
    geometry: &[(&str, &str)],
) -> Result<Option<KernelSpec>, MeasureError> {
    let own = [("accumulate", "mma"), ("weight_layout", layout)];
    let spec = variant_of(jit, context, shape, q_heads, &[&own, geometry].concat())?;
    Ok(fits(&spec, context)?.then_some(spec))
}

/// A launch, as it is told.
pub(crate) struct Launch<'a> {
    pub event: &'a str,
    pub spec: &'a KernelSpec,
    pub inputs: &'a str,
    pub seed: u64,
    /// Where launches of several numbers of tokens are told apart.
    pub num_tokens: Option<usize>,
    /// What its distance from float64 is held to.
    pub yardstick: &'a str,
}

impl Launch<'_> {
    /// An event a launch for programs; a line for everybody if it was wrong.
    pub(crate) fn tell(&self, passes: bool, same: bool, accuracy: &Accuracy, sink: &mut Sink<'_>) {
        let mut event = json!({"event": self.event, "variant": self.spec.variant(), "inputs": self.inputs,
            "seed": self.seed, "passes": passes, "same_bits": same,
            "relative_l2": accuracy.mma.relative_l2, "relative_l2_exact": accuracy.exact.relative_l2,
            "max_abs": accuracy.mma.max_abs, "max_abs_exact": accuracy.exact.max_abs});
        if let Some(num_tokens) = self.num_tokens {
            event["num_tokens"] = num_tokens.into();
            // Its former name, for one release.
            event["nat"] = num_tokens.into();
        }
        sink(Event::Object(event));
        if !passes {
            let num_tokens = self
                .num_tokens
                .map(|num_tokens| format!(" num_tokens={num_tokens}"))
                .unwrap_or_default();
            sink(Event::Note(format!(
                "wrong: {} {} seed={}{num_tokens}: distance from float64 {:.2e} ({} {:.2e}), bits {}",
                self.spec.variant(),
                self.inputs,
                self.seed,
                accuracy.mma.relative_l2,
                self.yardstick,
                accuracy.exact.relative_l2,
                if same { "agree" } else { "differ" },
            )));
        }
    }
}

fn every_spec(jit: &Jit, context: &Context) -> Result<Vec<KernelSpec>, MeasureError> {
    let mut specs = Vec::new();
    for (hidden, q_heads, head_dim, num_kv_heads) in SHAPES {
        for wo_split in SPLITS {
            let shape = WoShape {
                hidden,
                k: q_heads * head_dim,
                num_kv_heads,
                wo_split,
            };
            for layout in LAYOUTS {
                for geometry in GEOMETRIES {
                    specs.extend(spec(jit, context, &shape, q_heads, layout, geometry)?);
                }
                for geometry in WIDE_GEOMETRIES {
                    let shape = few_rows(shape);
                    specs.extend(spec(jit, context, &shape, q_heads, layout, geometry)?);
                }
            }
        }
    }
    Ok(specs)
}

fn same_results(a: &WoOutput, b: &WoOutput) -> bool {
    same_bits(&a.partials, &b.partials) && same_bits(&a.output, &b.output)
}

/// Whether a launch of fewer tokens has the bits of the first ones of `all`.
fn begins_with(all: &WoOutput, some: &WoOutput) -> bool {
    same_bits(&all.partials[..some.partials.len()], &some.partials)
        && same_bits(&all.output[..some.output.len()], &some.output)
}

/// Whether the output is the partials summed in slot order, to the bit.
fn gathered(shape: &WoShape, out: &WoOutput) -> bool {
    let slots = shape.num_slots();
    out.output.iter().enumerate().all(|(i, value)| {
        let (token, row) = (i / shape.hidden, i % shape.hidden);
        let partial = |slot: usize| out.partials[(token * slots + slot) * shape.hidden + row];
        let sum = (0..slots).fold(0.0_f32, |sum, slot| sum + partial(slot));
        sum.to_bits() == value.to_bits()
    })
}

/// Inputs of a kind.
pub(crate) fn inputs(shape: &WoShape, name: &str, seed: u64, tokens: usize) -> WoInputs {
    let mut inputs = WoInputs::random(shape, tokens, 0.0123, seed);
    let mut rng = Rng::new(seed ^ 0x5eed);
    match name {
        // As a checkpoint has them: codes of normal weights under their own scales.
        "normal" => {
            let normal = rng.normal_bf16(shape.hidden * shape.k);
            let weights: Vec<f32> = normal.iter().map(|w| w.to_f32()).collect();
            let quantized = quantize(&weights, shape.hidden, shape.k, inputs.global_scale);
            (inputs.weight, inputs.scales) = quantized;
        }
        // The second half of K takes most of the first half back.
        "cancelling" => {
            let half = shape.k / 2;
            for row in inputs.weight.chunks_mut(half) {
                let (first, second) = row.split_at_mut(half / 2);
                second.copy_from_slice(first);
            }
            inputs.scales.fill(0x38);
            for token in inputs.attn.chunks_mut(shape.k) {
                for k in 0..half {
                    token[half + k] = bf16::from_f32(-token[k].to_f32() * 1.01);
                }
            }
        }
        "all equal" => {
            inputs.weight.fill(0x77);
            inputs.scales.fill(0x7e);
            inputs.attn.fill(bf16::ONE);
        }
        "extreme scales" => {
            let ends = [0x7e, 0xfe, 0x01, 0x81, 0x00, 0x80];
            for scale in &mut inputs.scales {
                *scale = ends[usize::from(*scale) % ends.len()];
            }
        }
        _ => {}
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: WoShape = WoShape {
        hidden: 8,
        k: 256,
        num_kv_heads: 2,
        wo_split: 2,
    };

    #[test]
    fn every_kind_of_input_packs_and_has_a_finite_result_of_its_own() {
        let mut seen: Vec<Vec<u64>> = Vec::new();
        for name in INPUTS {
            let inputs = inputs(&SHAPE, name, 5, TOKENS);
            inputs.packed(&SHAPE).expect("whole blocks");
            let result = matmul_f64(&SHAPE, &inputs);
            assert!(result.iter().all(|v| v.is_finite()), "{name}");
            seen.push(result.iter().map(|v| v.to_bits()).collect());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), INPUTS.len());
    }

    #[test]
    fn an_output_that_is_not_its_partials_in_slot_order_is_not_gathered() {
        let mut out = split_order(&SHAPE, &inputs(&SHAPE, "bytes", 6, TOKENS), true);
        assert!(gathered(&SHAPE, &out));
        out.output[3] = out.output[3].next_up();
        assert!(!gathered(&SHAPE, &out));
    }
}
