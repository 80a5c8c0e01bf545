//! `gemv` verified on a GPU: float64 within twice the exact chains' distance, and bits that
//! depend on the shape and the order alone.
//!
//! Invariant: every launch of one weight in one order is held to one result, whatever
//! its geometry, layout, tokens and output type; what it leaves out is still NaN.

use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, result};
use half::bf16;
use serde_json::json;

use super::FAMILY;
use super::config::GemvConfig;
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::families::nvfp4::packed;
use crate::families::wo_gemv::device_buffers::ProblemError;
use crate::families::wo_gemv::reference::mma::Accuracy;
use crate::families::wo_gemv::reference::{WoInputs, WoShape, matmul_f64, split_order};
use crate::families::wo_gemv::verify::VerifyRequest;
use crate::families::wo_gemv::verify::mma::{INPUTS, LAYOUTS, Launch, inputs};
use crate::measure::MeasureError;
use crate::measure::compare::{largest, same_bits};
use crate::measure::harness::{Event, Sink, Verdict};

/// Rows and K: small ones, one of rows that no tile divides, and the model's own.
const SHAPES: [(usize, usize); 5] = [(304, 5120), (136, 640), (130, 896), (34816, 5120), (5120, 17408)];
const SMALL: usize = 3;
const MAX_TOKENS: usize = 8;

/// Geometries whose bits have to agree, those of one order each.
const GEOMETRIES: [&[(&str, &str)]; 4] = [
    &[],
    &[("tokens_per_pass", "4"), ("rows_per_cta", "40")],
    &[
        ("tokens_per_pass", "2"),
        ("rows_per_cta", "24"),
        ("dependent", "true"),
    ],
    &[("tokens_per_pass", "4"), ("output", "bf16")],
];

/// Eight tokens in one decode, where shared memory holds their activations.
const EIGHT: &[(&str, &str)] = &[("tokens_per_pass", "8"), ("rows_per_cta", "16")];
const EIGHT_UP_TO: usize = 8192;

/// Holds every launch of every shape, geometry and layout to the reference, and to the
/// others of its order. Tells a `gemv` object a launch, and a `summary`.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU; those of making and launching kernels.
pub fn verify(jit: &Jit, request: &VerifyRequest, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let context = &Context::new(request.device)?;
    let started = Instant::now();
    let shapes = if request.quick {
        &SHAPES[..SMALL]
    } else {
        &SHAPES[..]
    };
    let stream = context.cuda().default_stream();
    let (mut cases, mut wrong) = (0, 0);
    for (at, (rows, k)) in shapes.iter().copied().enumerate() {
        let specs = specs(jit, context, rows, k)?;
        jit.prepare_each(specs.iter())?;
        let parts = GemvConfig::try_from(&specs[0])?.parts;
        let shape = WoShape {
            hidden: rows,
            k,
            num_kv_heads: parts,
            wo_split: 1,
        };
        // The model's shapes take long to make and to check: bytes have every code and scale.
        let names = if at < SMALL { &INPUTS[..] } else { &INPUTS[1..2] };
        for seed in 0..if at < SMALL { request.seeds } else { 1 } {
            for name in names {
                let inputs = inputs(&shape, name, 977 + seed, MAX_TOKENS);
                let there = DeviceInputs::new(&stream, &shape, &inputs)?;
                let sweep = Sweep {
                    jit,
                    context,
                    name,
                    seed,
                    exact: split_order(&shape, &inputs, true).output,
                    yardstick: matmul_f64(&shape, &inputs),
                };
                let (run, bad) = sweep.run(&there, &specs, sink)?;
                cases += run;
                wrong += bad;
            }
        }
    }
    let (device, seconds) = (&context.device().name, started.elapsed().as_secs_f64());
    sink(Event::Object(
        json!({"event": "summary", "device": device, "cases": cases, "wrong": wrong,
        "elapsed_ms": seconds * 1e3}),
    ));
    sink(Event::Line(format!(
        "{device}: gemv: {cases} cases, {wrong} with bits that depend on more than the shape or more than \
         twice the exact chains' distance from float64, in {seconds:.1} s"
    )));
    Ok(Verdict::of(wrong))
}

/// One set of inputs and what it must give.
struct Sweep<'a> {
    jit: &'a Jit,
    context: &'a Context,
    name: &'a str,
    seed: u64,
    exact: Vec<f32>,
    yardstick: Vec<f64>,
}

impl Sweep<'_> {
    /// Cases, and how many of them were wrong.
    fn run(
        &self,
        there: &DeviceInputs,
        specs: &[KernelSpec],
        sink: &mut Sink<'_>,
    ) -> Result<(usize, usize), MeasureError> {
        let (mut cases, mut wrong) = (0, 0);
        let mut first: [Option<Vec<f32>>; 2] = [None, None];
        let largest = largest(&self.yardstick);
        for spec in specs {
            let kernel = self.jit.load(spec, self.context)?;
            let config = GemvConfig::try_from(spec)?;
            let (short, order) = (config.is_bf16, config.mma_order());
            // The most tokens first: all other launches are held to the beginning of it.
            for num_tokens in (1..=MAX_TOKENS).rev() {
                let actual = there.launch(&kernel, &config, num_tokens)?;
                let again = there.launch(&kernel, &config, num_tokens)?;
                let accuracy = Accuracy::of(
                    &actual,
                    &self.exact[..actual.len()],
                    &self.yardstick[..actual.len()],
                );
                let same = same_bits(&actual, &again)
                    && first[order].as_ref().is_none_or(|f| {
                        f.iter().zip(&actual).all(|(f, a)| {
                            let expected = if short { bf16::from_f32(*f).to_f32() } else { *f };
                            expected.to_bits() == a.to_bits()
                        })
                    });
                // A bf16 output is held to the f32 one alone.
                let passes = same && (short || accuracy.passes(largest));
                cases += 1;
                wrong += usize::from(!passes);
                let told = Launch {
                    event: "gemv",
                    spec,
                    inputs: self.name,
                    seed: self.seed,
                    num_tokens: Some(num_tokens),
                    yardstick: "exact chains",
                };
                told.tell(passes, same, &accuracy, sink);
                first[order].get_or_insert(actual);
            }
        }
        Ok((cases, wrong))
    }
}

/// Every variant of a shape; the first has an f32 output.
fn specs(jit: &Jit, context: &Context, rows: usize, k: usize) -> Result<Vec<KernelSpec>, MeasureError> {
    let device = context.device();
    let arch = device.arch();
    let (rows_text, k_text) = (rows.to_string(), k.to_string());
    let layouts = if rows.is_multiple_of(packed::BLOCK_ROWS) {
        &LAYOUTS[..]
    } else {
        &LAYOUTS[..1]
    };
    let eight = (k <= EIGHT_UP_TO).then_some(EIGHT);
    let mut specs = Vec::new();
    for layout in layouts {
        for geometry in GEOMETRIES.into_iter().chain(eight) {
            let set = [
                ("rows", rows_text.as_str()),
                ("k_total", k_text.as_str()),
                ("weight_layout", *layout),
            ];
            let set = set.into_iter().chain(geometry.iter().copied());
            specs.push(KernelSpec::new(jit.registry().get(FAMILY)?, set, arch)?);
        }
    }
    Ok(specs)
}

/// Inputs in device memory, in both layouts where the rows allow it.
struct DeviceInputs {
    stream: Arc<CudaStream>,
    x: CudaSlice<u16>,
    layouts: Vec<(CudaSlice<u8>, CudaSlice<u8>)>,
    global_scale: CudaSlice<f32>,
    rows: usize,
}

impl DeviceInputs {
    fn new(stream: &Arc<CudaStream>, shape: &WoShape, inputs: &WoInputs) -> Result<Self, ProblemError> {
        let x: Vec<u16> = inputs.attn.iter().map(|x| x.to_bits()).collect();
        let put = |i: &WoInputs| -> Result<_, ProblemError> {
            Ok((stream.clone_htod(&i.weight)?, stream.clone_htod(&i.scales)?))
        };
        let mut layouts = vec![put(inputs)?];
        if let Ok(packed) = inputs.packed(shape) {
            layouts.push(put(&packed)?);
        }
        Ok(Self {
            stream: Arc::clone(stream),
            x: stream.clone_htod(&x)?,
            layouts,
            global_scale: stream.clone_htod(&[inputs.global_scale])?,
            rows: shape.hidden,
        })
    }

    /// Output `[num_tokens, rows]` of one launch; a bf16 one widened.
    fn launch(
        &self,
        kernel: &Arc<LoadedKernel>,
        config: &GemvConfig,
        num_tokens: usize,
    ) -> Result<Vec<f32>, ProblemError> {
        let (stream, short) = (&self.stream, config.is_bf16);
        let elements = num_tokens * self.rows;
        // All bits set is a NaN of either type.
        let mut buffer: CudaSlice<u16> = stream.alloc_zeros(elements * if short { 1 } else { 2 })?;
        let bytes = buffer.len() * size_of::<u16>();
        let (weight, scales) = &self.layouts[usize::from(config.is_packed)];
        {
            let (out, _written) = buffer.device_ptr_mut(stream);
            // SAFETY: the buffer has that many bytes.
            unsafe { result::memset_d8_async(out, 0xff, bytes, stream.cu_stream()) }?;
        }
        let dtype = if short { Dtype::Bf16 } else { Dtype::F32 };
        let num_tokens = u32::try_from(num_tokens).unwrap_or(u32::MAX);
        let bound = (kernel.bind())
            .size("num_tokens", num_tokens)
            .arg("x", Tensor::all_of(stream, &self.x, Dtype::Bf16))
            .arg("weight", Tensor::all_of(stream, weight, Dtype::U8))
            .arg("scales", Tensor::all_of(stream, scales, Dtype::E4m3))
            .arg(
                "global_scale",
                Tensor::all_of(stream, &self.global_scale, Dtype::F32),
            )
            .arg("output", Tensor::all_of(stream, &buffer, dtype))
            .finish()?;
        // SAFETY: the buffers are alive until the stream is waited for below.
        unsafe { bound.launch(&[num_tokens], stream.cu_stream()) }?;
        let halves = stream.clone_dtoh(&buffer)?;
        stream.synchronize()?;
        Ok(if short {
            halves.iter().map(|b| bf16::from_bits(*b).to_f32()).collect()
        } else {
            let word = |pair: &[u16]| u32::from(pair[1]) << 16 | u32::from(pair[0]);
            halves.chunks(2).map(|pair| f32::from_bits(word(pair))).collect()
        })
    }
}
