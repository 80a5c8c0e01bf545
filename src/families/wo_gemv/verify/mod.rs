//! `wo_gemv` verified on a GPU: chains bit for bit (`case`), tensor cores by their
//! own rules (`mma`).
//!
//! Invariant: what was asked is validated before a GPU is looked for; nothing is printed.

mod case;
mod fp8;
pub(crate) mod mma;

use std::collections::BTreeMap;
use std::time::Instant;

use half::bf16;
use serde_json::json;

use super::FAMILY;
use super::config::{WoConfig, WoFormat};
use super::device_buffers::WoBuffers;
use super::reference::{WoInputs, WoShape, chained, matmul_f64, split_order};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::Context;
use crate::families::nvfp4::packed::{BLOCK_ROWS, PACKED};
use crate::measure::MeasureError;
use crate::measure::compare::Comparison;
use crate::measure::harness::{Event, Flag, Options, Sink, Verdict};
use crate::measure::rng::Rng;

use case::{Case, Expected, Tally, finite};

/// hidden, query heads, head dim: the model's shape, small odd ones that neither tiles
/// nor scale groups divide, and a small one that packs, with slots that start in the
/// middle of a packed block.
const SHAPES: [(usize, usize, usize); 4] = [(5120, 24, 256), (72, 8, 24), (130, 16, 40), (72, 16, 96)];
const KV_HEADS: [usize; 4] = [1, 2, 4, 8];
const SPLITS: [usize; 4] = [1, 2, 4, 8];
const GLOBAL_SCALES: [f32; 3] = [1.0, 0.0123, -3.7e-4];
const MODES: [&str; 2] = ["fma", "mul_add"];

/// Geometries and layouts, and what sets them.
const FORMS: [(&str, &[(&str, &str)]); 5] = [
    ("tiled", &[]),
    (
        "tiled 40 x 2",
        &[("rows_per_cta", "40"), ("tokens_per_pass", "2")],
    ),
    ("original", &[("geometry", "original")]),
    ("packed", &[("weight_layout", "packed")]),
    (
        "packed 40 x 2",
        &[
            ("weight_layout", "packed"),
            ("rows_per_cta", "40"),
            ("tokens_per_pass", "2"),
        ],
    ),
];
const MAX_TOKENS: usize = 4;

/// Sets of random inputs.
pub(crate) const SEEDS: Flag = Flag::new(
    "seeds",
    "COUNT",
    Some("3"),
    "Sets of random inputs for each shape",
);
/// The small shapes alone.
pub(crate) const QUICK: Flag = Flag::switch("quick", "The small odd shapes only");
/// NVFP4 or FP8 alone.
const FORMAT: Flag = Flag::new(
    "format",
    "NAME",
    None,
    "Weights of this format alone: nvfp4 or fp8",
);
/// The GPU.
pub(crate) const DEVICE: Flag = Flag::new("device", "ORDINAL", Some("0"), "Which GPU, in the driver's order");

/// What verifying `wo_gemv` takes.
pub const FLAGS: &[Flag] = &[SEEDS, QUICK, FORMAT, DEVICE];

/// What is to be verified, of `wo_gemv` or of `gemv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyRequest {
    /// Sets of random inputs for each shape, at least one.
    pub seeds: u64,
    /// The small odd shapes alone.
    pub quick: bool,
    /// Weights of this format alone.
    pub format: Option<WoFormat>,
    /// Which GPU, in the driver's order.
    pub device: u32,
}

impl Default for VerifyRequest {
    fn default() -> Self {
        Self {
            seeds: 3,
            quick: false,
            format: None,
            device: 0,
        }
    }
}

impl VerifyRequest {
    /// Reads options; needs no GPU.
    ///
    /// # Errors
    /// A value that is none, by the flag's name.
    pub fn new(options: &Options) -> Result<Self, MeasureError> {
        let usual = Self::default();
        let format = |name: &str| {
            let unknown = || format!("--{} {name}: expected nvfp4 or fp8", FORMAT.name);
            WoFormat::of(name).ok_or_else(|| MeasureError::Request(unknown()))
        };
        Ok(Self {
            seeds: options.number(SEEDS.name, 1..=u64::MAX)?.unwrap_or(usual.seeds),
            quick: options.is_given(QUICK.name),
            format: options.text(FORMAT.name).map(format).transpose()?,
            device: options.number(DEVICE.name, 0..=u32::MAX)?.unwrap_or(usual.device),
        })
    }
}

/// Holds every launch of every shape, geometry, mode and split to the reference. Tells a
/// `case` or `mma` object a launch, and a `summary`.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU; those of making and launching kernels.
pub fn verify(jit: &Jit, request: &VerifyRequest, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let context = Context::new(request.device)?;
    let sweep = Sweep {
        jit,
        context: &context,
        seeds: request.seeds,
    };
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut mma = mma::Judged::default();
    if request.format != Some(WoFormat::Fp8) {
        for shape in &SHAPES[usize::from(request.quick)..] {
            sweep.shape(*shape, &mut tally, sink)?;
        }
        mma = mma::verify(jit, &context, request.seeds, sink)?;
    }
    if request.format != Some(WoFormat::Nvfp4) {
        let sets = (request.seeds, request.quick);
        let fp8 = fp8::verify(jit, &context, sets, &mut tally, sink)?;
        mma.cases += fp8.cases;
        mma.wrong += fp8.wrong;
    }
    let device = &context.device().name;
    let (cases, wrong) = (tally.cases, tally.wrong);
    let seconds = started.elapsed().as_secs_f64();
    sink(Event::Object(
        json!({"event": "summary", "device": device, "cases": cases, "wrong": wrong,
        "mma_cases": mma.cases, "mma_wrong": mma.wrong, "elapsed_ms": seconds * 1e3}),
    ));
    sink(Event::Table(tally.table()));
    sink(Event::Line(format!(
        "\n{device}: {cases} cases, {wrong} with a differing bit, in {seconds:.1} s"
    )));
    sink(Event::Line(format!(
        "mma: {} cases, {} with bits that depend on geometry or more than twice the exact mode's distance \
         from float64",
        mma.cases, mma.wrong
    )));
    Ok(Verdict::of(wrong + mma.wrong))
}

struct Sweep<'a> {
    jit: &'a Jit,
    context: &'a Context,
    seeds: u64,
}

impl Sweep<'_> {
    fn shape(
        &self,
        shape: (usize, usize, usize),
        tally: &mut Tally,
        sink: &mut Sink<'_>,
    ) -> Result<(), MeasureError> {
        let (hidden, q_heads, head_dim) = shape;
        let kv_heads: Vec<usize> = KV_HEADS.into_iter().filter(|kv| q_heads % kv == 0).collect();
        let specs = self.specs(shape, &kv_heads)?;
        self.jit.prepare_each(specs.values())?;
        let plain = WoShape {
            hidden,
            k: q_heads * head_dim,
            num_kv_heads: 1,
            wo_split: 1,
        };
        let most_slots = kv_heads.iter().max().unwrap_or(&1) * 8;
        let stream = self.context.cuda().default_stream();
        for seed in 0..self.seeds {
            let mut inputs = WoInputs::random(&plain, MAX_TOKENS, 1.0, 4242 + seed);
            if seed > 0 && seed + 1 == self.seeds {
                spread(&mut inputs.attn, seed);
            }
            let mut problems = vec![WoBuffers::new(&stream, &plain, most_slots, &inputs)?];
            if let Ok(packed) = inputs.packed(&plain) {
                problems.push(WoBuffers::new(&stream, &plain, most_slots, &packed)?);
            }
            for global_scale in GLOBAL_SCALES {
                inputs.global_scale = global_scale;
                for problem in &mut problems {
                    problem.set_global_scale(global_scale)?;
                }
                let set = Set {
                    seed,
                    float64: matmul_f64(&plain, &inputs),
                    inputs: &inputs,
                };
                for num_kv_heads in &kv_heads {
                    let shape = WoShape {
                        num_kv_heads: *num_kv_heads,
                        ..plain
                    };
                    self.orders(&shape, &set, &specs, &mut problems, (&mut *tally, &mut *sink))?;
                }
            }
        }
        Ok(())
    }

    /// Every mode, split, form and number of tokens over one set of inputs: `problems` has
    /// them as checkpoints do, then packed.
    fn orders(
        &self,
        shape: &WoShape,
        set: &Set<'_>,
        specs: &Specs,
        problems: &mut [WoBuffers],
        (tally, sink): (&mut Tally, &mut Sink<'_>),
    ) -> Result<(), MeasureError> {
        for mode in MODES {
            let fused = mode == "fma";
            let chained = chained(shape, set.inputs, fused);
            for wo_split in SPLITS {
                let shape = WoShape { wo_split, ..*shape };
                let expected = Expected {
                    wo: split_order(&shape, set.inputs, fused),
                    chained: &chained,
                    float64: &set.float64,
                };
                for (form, set_by) in FORMS {
                    let Some(spec) = specs.get(&(shape.num_kv_heads, wo_split, mode, form)) else {
                        continue;
                    };
                    let kernel = self.jit.load(spec, self.context)?;
                    let problem = &mut problems[usize::from(takes_packed(set_by))];
                    for num_tokens in 1..=MAX_TOKENS {
                        let actual = problem.run(&kernel, num_tokens, shape.num_slots())?;
                        let case = Case::new(&shape, num_tokens, &expected, &actual);
                        tell(spec, set, &case, sink);
                        tally.add(&shape, mode, form, &case);
                    }
                }
            }
        }
        Ok(())
    }

    fn specs(&self, shape: (usize, usize, usize), kv_heads: &[usize]) -> Result<Specs, MeasureError> {
        let (hidden, q_heads, head_dim) = shape;
        let mut specs = BTreeMap::new();
        for kv in kv_heads {
            for split in SPLITS {
                for mode in MODES {
                    for (form, set_by) in FORMS {
                        if takes_packed(set_by) && !packs(shape) {
                            continue;
                        }
                        let of = WoShape {
                            hidden,
                            k: q_heads * head_dim,
                            num_kv_heads: *kv,
                            wo_split: split,
                        };
                        let set = [&[("accumulate", mode)], set_by].concat();
                        let spec = variant_of(self.jit, self.context, &of, q_heads, &set)?;
                        // Tiles of forty rows are for GPUs that have room for them.
                        if fits(&spec, self.context)? {
                            specs.insert((*kv, split, mode, form), spec);
                        }
                    }
                }
            }
        }
        Ok(specs)
    }
}

/// A variant of a shape for this GPU, with further constants.
fn variant_of(
    jit: &Jit,
    context: &Context,
    shape: &WoShape,
    q_heads: usize,
    set: &[(&str, &str)],
) -> Result<KernelSpec, MeasureError> {
    let numbers = [
        ("hidden", shape.hidden),
        ("num_q_heads", q_heads),
        ("head_dim", shape.k / q_heads),
        ("num_kv_heads", shape.num_kv_heads),
        ("wo_split", shape.wo_split),
    ]
    .map(|(name, n)| (name, n.to_string()));
    let shape = numbers.iter().map(|(name, n)| (*name, n.as_str()));
    let family = jit.registry().get(FAMILY)?;
    let all = shape.chain(set.iter().copied());
    Ok(KernelSpec::new(family, all, context.device().arch())?)
}

/// Whether a block of it has room on this GPU.
fn fits(spec: &KernelSpec, context: &Context) -> Result<bool, MeasureError> {
    Ok(WoConfig::try_from(spec)?.shared_bytes <= context.device().shared_mem_per_block)
}

/// Tells a launch, and what differs in it.
fn tell(spec: &KernelSpec, set: &Set<'_>, case: &Case, sink: &mut Sink<'_>) {
    let (num_tokens, seed, global_scale) = (case.num_tokens, set.seed, set.inputs.global_scale);
    let part = |c: &Comparison| {
        json!({"max_abs": finite(c.max_abs), "max_rel": finite(c.max_rel),
            "mismatches": c.mismatches, "elements": c.elements,
            "first": c.first_mismatch.map(|m| json!({"index": m.index,
                "expected_bits": m.expected_bits, "actual_bits": m.actual_bits}))})
    };
    // `nat` is the former name of `num_tokens`, for one release.
    sink(Event::Object(
        json!({"event": "case", "variant": spec.variant(), "seed": seed, "num_tokens": num_tokens, "nat": num_tokens,
        "global_scale": global_scale, "partials": part(&case.partials), "output": part(&case.output),
        "drift_from_chained_max_abs": finite(case.from_chained.max_abs),
        "drift_from_float64_max_abs": finite(case.from_float64.max_abs),
        "drift_from_float64_relative_l2": finite(case.from_float64.relative_l2)}),
    ));
    for (what, comparison) in [("partials", &case.partials), ("output", &case.output)] {
        if let Some(first) = comparison.first_mismatch {
            sink(Event::Note(format!(
                "wrong: {} seed={seed} num_tokens={num_tokens} global_scale={global_scale:?}: {what}[{}] is {:#010x}, \
                 expected {:#010x}; {} of {} differ",
                spec.variant(),
                first.index,
                first.actual_bits,
                first.expected_bits,
                comparison.mismatches,
                comparison.elements
            )));
        }
    }
}

/// Variants by kv heads, split, mode and form.
type Specs = BTreeMap<(usize, usize, &'static str, &'static str), KernelSpec>;

/// One set of inputs.
struct Set<'a> {
    seed: u64,
    inputs: &'a WoInputs,
    float64: Vec<f64>,
}

fn takes_packed(set_by: &[(&str, &str)]) -> bool {
    set_by.contains(&("weight_layout", "packed"))
}

/// Whether there are packed weights of this shape: rows by eight, k by 128.
fn packs((hidden, q_heads, head_dim): (usize, usize, usize)) -> bool {
    hidden.is_multiple_of(BLOCK_ROWS) && (q_heads * head_dim).is_multiple_of(PACKED.block_len)
}

/// Activations of every magnitude below 2^61, subnormal ones and zeros among them.
fn spread(attn: &mut [bf16], seed: u64) {
    let mut rng = Rng::new(seed ^ 0x5bead);
    for x in attn {
        let drawn = rng.next_u64();
        let exponent = u16::try_from(drawn % 188).unwrap_or(0);
        let bits = x.to_bits() & 0x807f | exponent << 7;
        *x = bf16::from_bits(if drawn >> 60 == 0 { 0 } else { bits });
    }
}
