//! Requantization to NVFP4 as the layer's kernels do it, against its table: every
//! peak that a bf16 can be, with ties of both signs under each.

use half::bf16;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::tensor::{Dtype, Tensor};
use jitc::families::decode_layer::reference::quantize;
use jitc::families::nvfp4::e4m3;
use jitc::measure::rng::Rng;

use super::{arch_of, gpu};

const FAMILY: &str = r#"
summary = "requantization alone, a thread a block of 16"
options = ["--std=c++17", "--fmad=false"]
[constants.threads]
type = "u32"
values = [256]
default = 256
help = "threads a block"
[[entries]]
name = "requantize"
grid = [128, 1, 1]
block = "threads"
[[entries.parameters]]
name = "x"
type = "bf16"
shape = ["blocks", 16]
[[entries.parameters]]
name = "codes"
type = "e2m1x2"
shape = ["blocks", 8]
access = "out"
[[entries.parameters]]
name = "scales"
type = "e4m3"
shape = ["blocks"]
access = "out"
[[entries.parameters]]
name = "blocks"
type = "u32"
"#;

const SOURCE: &str = r#"
#include <jitc/nvfp4/quantize.cuh>

extern "C" __global__ void __launch_bounds__({{ threads }})
requantize(const unsigned short* x, unsigned char* codes, unsigned char* scales, unsigned blocks) {
    using namespace jitc;
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= blocks) return;
    float values[16], peak = 0.0f;
    for (int i = 0; i < 16; ++i) {
        values[i] = bf16_to_f32(x[at * 16 + i]);
        peak = fmaxf(peak, fabsf(values[i]));
    }
    const u32 scale = block_scale(peak);
    scales[at] = u8(scale);
    for (int i = 0; i < 8; ++i) {
        const u32 even = fp4_code(values[2 * i], e4m3_to_f32(scale));
        const u32 odd = fp4_code(values[2 * i + 1], e4m3_to_f32(scale));
        codes[at * 8 + i] = u8(even | odd << 4);
    }
}
"#;

/// A block for each bf16 from zero to infinity: the peak, its negative, ties of its
/// scale with both signs, both zeros, and deviates below it.
fn blocks() -> Vec<bf16> {
    let mut rng = Rng::new(5);
    let mut all = Vec::new();
    for bits in 0..=0x7f80_u16 {
        let peak = bf16::from_bits(bits).to_f32();
        let scale = e4m3::decode(e4m3::encode((peak / 6.0).max(1e-12)));
        let ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
        let mut block = vec![peak, -peak, 0.0, -0.0];
        for (at, tie) in ties.iter().enumerate() {
            let sign = if (usize::from(bits) + at) % 2 == 0 {
                1.0
            } else {
                -1.0
            };
            block.push((sign * tie * scale).clamp(-peak, peak));
        }
        while block.len() < 16 {
            let deviate = rng.normal_f32() * peak / 3.0;
            block.push(if deviate.is_finite() {
                deviate.clamp(-peak, peak)
            } else {
                peak
            });
        }
        all.extend(block.into_iter().map(bf16::from_f32));
    }
    all
}

#[test]
fn requantization_is_its_table_for_every_peak_and_every_tie() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::write(dir.path().join("requantize.toml"), FAMILY).expect("written");
    fs_err::write(dir.path().join("requantize.cu.tera"), SOURCE).expect("written");
    let flags = Flags {
        cache_dir: Some(dir.path().join("cache")),
        templates: Some(dir.path().to_path_buf()),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::capture()).expect("settings");
    let jit = Jit::new(config).expect("families");
    let family = jit.registry().get("requantize").expect("family");
    let spec = KernelSpec::new(family, [], arch_of(&context)).expect("legal");
    let kernel = jit.load(&spec, &context).expect("loaded");
    let values = blocks();
    let count = values.len() / 16;
    assert!((0x7f80..=128 * 256).contains(&count));
    let stream = context.cuda().default_stream();
    let bits: Vec<u16> = values.iter().map(|v| v.to_bits()).collect();
    let x = stream.clone_htod(&bits).expect("put");
    let codes = stream.alloc_zeros::<u8>(count * 8).expect("memory");
    let scales = stream.alloc_zeros::<u8>(count).expect("memory");
    let blocks = u32::try_from(count).expect("few");
    let bound = (kernel.bind())
        .arg("x", Tensor::all_of(&stream, &x, Dtype::Bf16))
        .arg("codes", Tensor::all_of(&stream, &codes, Dtype::U8))
        .arg("scales", Tensor::all_of(&stream, &scales, Dtype::E4m3))
        .arg("blocks", blocks)
        .finish()
        .expect("bound");
    // SAFETY: the buffers are alive until the stream is waited for.
    unsafe { bound.launch(&[], stream.cu_stream()) }.expect("launched");
    stream.synchronize().expect("done");
    let expected = quantize(&values);
    let scales = stream.clone_dtoh(&scales).expect("read");
    let codes = stream.clone_dtoh(&codes).expect("read");
    stream.synchronize().expect("done");
    let first = |a: &[u8], b: &[u8]| a.iter().zip(b).position(|(a, b)| a != b);
    assert_eq!(first(&scales, &expected.scales), None, "a scale");
    assert_eq!(first(&codes, &expected.codes), None, "a pair of codes");
}
