//! A serving loop around the decode layer: variants are prepared at start, compiling
//! is forbidden afterwards, and each step chooses by its number of tokens and
//! launches. Without a GPU it warms the variants and says what it would launch.
//!
//!     cargo run --release --example embed

use std::error::Error;
use std::io::Write;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DriverError};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;
use jitc::engine::run::occupancy::capacity;
use jitc::engine::run::occupancy::known_device;
use jitc::families::decode_layer::dispatch::Policy;
use jitc::families::decode_layer::dispatch::Problem;
use jitc::families::decode_layer::dispatch::Variant;
use jitc::families::decode_layer::dispatch::select;
use jitc::families::decode_layer::tune::lay_out;
use jitc::families::decode_layer::{
    Dtype, FAMILY, Launch, Layer, LayerDims, LayerScales, LayerTensors, Tensor, Workspace,
};
use jitc::measure::tune::Record;

const MAX_TOKENS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let context = Context::new(0).ok();
    let here = context.as_ref().map(|c| c.device().clone());
    let device = here.or_else(|| known_device("h200")).ok_or("no device")?;
    let arch = device.arch();

    // Start: everything that may be launched is made now, or found in the cache.
    let jit = Jit::new(Config::load(Flags::default(), Environment::capture())?)?;
    let (mut specs, mut variants) = (Vec::new(), Vec::new());
    // What `jitc tune` found on this GPU, else the rule.
    let record = (jit.config().cache_dir()).map_or_else(Record::default, |dir| {
        Record::load(&Record::path(&dir), jit.registry())
    });
    for launch in Launch::ALL {
        for tokens in [1, 4] {
            let set = [("launch", launch.name()), ("wo_split", "8")];
            let asked = KernelSpec::new(jit.registry().get(FAMILY)?, set, arch)?;
            specs.push(lay_out(&record, &device, &asked, tokens, &["wo_split"])?.0);
        }
    }
    jit.prepare_each(&specs)?;
    for spec in &specs {
        let registers = jit.prepare(spec)?.fetched.artifact.registers();
        let [threads, shared] = ["block_threads", "shared_bytes"].map(|n| spec.derived()[n]);
        let resident = match &context {
            Some(context) => jit.load(spec, context)?.entries()[0].capacity,
            None => capacity(&device, registers, threads, shared),
        };
        variants.push(Variant::of(spec, resident).ok_or("a decode layer")?);
    }
    // From here on a miss is an error, not a pause of seconds.
    jit.forbid();
    let policy = Policy {
        max_tokens: MAX_TOKENS.try_into()?,
        ..Policy::default()
    };
    let step = |num_tokens| Problem {
        num_tokens,
        layer: 3,
        decode_only: true,
    };
    let Some(context) = context else {
        for num_tokens in [1, 2, 4, 8] {
            let choice = select(&variants, &policy, &step(num_tokens));
            let spec = &specs[choice.variant.ok_or("nothing to launch")?];
            let what = format!("{} {}", spec.family().name, spec.variant());
            writeln!(
                out,
                "{num_tokens} tokens on {}: would launch {what}: {}",
                device.name, choice.reason
            )?;
        }
        return Ok(());
    };

    context.bind()?;
    let stream = context.cuda().new_stream()?;
    let dims = LayerDims::of(&specs[0])?;
    let (tensors, _memory) = memory(&stream, &dims)?;
    let workspace = Workspace::new(&stream, &dims, MAX_TOKENS, false)?;
    let scales = LayerScales {
        softmax: 1.0 / 16.0,
        k: 1.0,
        v: 1.0,
        rms_eps: 1e-6,
        gate_up: 1.0,
        down: 1.0,
    };
    let mut bound = Vec::new();
    for spec in &specs {
        let layer = Layer::new(spec, jit.load(spec, &context)?)?;
        bound.push(layer.bind(&stream, &tensors, &scales, &workspace, 0)?);
    }
    for num_tokens in (1..=8).cycle().take(1000) {
        let choice = select(&variants, &policy, &step(num_tokens));
        let layer = &bound[choice.variant.ok_or("nothing to launch")?];
        // SAFETY: tensors and workspace live to the end of `main`, which waits for
        // the stream; all launches are on it. Lengths and pages are zeros.
        unsafe { layer.launch(num_tokens, stream.cu_stream()) }?;
    }
    stream.synchronize()?;
    writeln!(out, "1000 steps of 1 to 8 tokens on {}", device.name)?;
    Ok(())
}

/// Zeros of the right shapes; a server has its model here.
fn memory(
    stream: &Arc<CudaStream>,
    d: &LayerDims,
) -> Result<(LayerTensors, Vec<CudaSlice<u8>>), DriverError> {
    let mut kept = Vec::new();
    let mut zeros = |dtype: Dtype, shape: &[usize]| {
        let bytes = stream.alloc_zeros(shape.iter().product::<usize>() * dtype.bytes())?;
        let tensor = Tensor::new(bytes.device_ptr(stream).0, dtype, shape);
        kept.push(bytes);
        Ok::<_, DriverError>(tensor)
    };
    let (n, hidden, inner, k) = (MAX_TOKENS, d.hidden, d.intermediate, d.k());
    let tensors = LayerTensors {
        query: zeros(Dtype::Bf16, &[n, d.num_q_heads, d.head_dim])?,
        kv_cache: zeros(Dtype::U8, &[1, 2, d.page_size, d.num_kv_heads, d.head_dim])?,
        page_table: zeros(Dtype::I32, &[n, 1])?,
        seq_lens: zeros(Dtype::I32, &[n])?,
        gate: None,
        wo_weight: zeros(Dtype::U8, &[hidden, k / 2])?,
        wo_scales: zeros(Dtype::U8, &[hidden * k / 16])?,
        wo_global_scale: zeros(Dtype::F32, &[1])?,
        hidden_in: None,
        residual_in: zeros(Dtype::Bf16, &[n, hidden])?,
        input_gamma: None,
        post_attn_gamma: zeros(Dtype::Bf16, &[hidden])?,
        gate_weight: zeros(Dtype::U8, &[inner, hidden / 2])?,
        gate_scales: zeros(Dtype::U8, &[inner * hidden / 16])?,
        up_weight: zeros(Dtype::U8, &[inner, hidden / 2])?,
        up_scales: zeros(Dtype::U8, &[inner * hidden / 16])?,
        down_weight: zeros(Dtype::U8, &[hidden, inner / 2])?,
        down_scales: zeros(Dtype::U8, &[hidden * inner / 16])?,
        attn_input: None,
        attn_output: zeros(Dtype::Bf16, &[n, hidden])?,
        residual_output: zeros(Dtype::Bf16, &[n, hidden])?,
        mlp_output: zeros(Dtype::Bf16, &[n, hidden])?,
    };
    Ok((tensors, kept))
}
