//! A family of one's own on a GPU: three axes, shared memory by the launch, values of every
//! width by value, clusters, and variables.

use std::path::Path;
use std::sync::Arc;

use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Context;
use jitc::engine::run::load::LoadedKernel;
use jitc::engine::run::tensor::{Dtype, Tensor};

use crate::{arch_of, gpu};

const TILED: &str = r#"
summary = "s"
[constants.tile]
type = "list"
of = "u32"
values = [[32, 4], [8, 8]]
default = [32, 4]
help = "h"
[[entries]]
name = "tiled"
sizes = ["rows", "cols"]
grid = ["ceil_div(a=cols, b=tile[0])", "ceil_div(a=rows, b=tile[1])"]
block = ["tile[0]", "tile[1]"]
shared_mem_bytes = "max(a=cols, b=tile[0] * tile[1]) * 4"
priority = -1
[[entries.parameters]]
name = "p"
type = "struct"
bytes = 24
alignment = 8
[[entries.parameters]]
name = "on"
type = "bool"
[[entries.parameters]]
name = "bias"
type = "i64"
[[entries.parameters]]
name = "y"
type = "f32"
shape = ["rows", "cols"]
access = "out"
[[entries.parameters]]
name = "rows"
type = "u32"
value = "rows"
[[entries.parameters]]
name = "cols"
type = "u32"
value = "cols"
"#;

const TILED_SOURCE: &str = r#"
struct P { float a; double b; short c; };
__constant__ float table[4];
namespace ns { __device__ unsigned launches; }
constexpr unsigned tile[] = { {{ tile }} };
extern "C" __global__ void __launch_bounds__(tile[0] * tile[1])
tiled(const __grid_constant__ P p, bool on, long long bias, float* y, unsigned rows, unsigned cols) {
    extern __shared__ float line[];
    unsigned x = blockIdx.x * tile[0] + threadIdx.x, row = blockIdx.y * tile[1] + threadIdx.y;
    unsigned at = threadIdx.y * blockDim.x + threadIdx.x;
    line[at] = table[x % 4];
    __syncthreads();
    if (x == 0 && row == 0) atomicAdd(&ns::launches, 1u);
    if (x < cols && row < rows)
        y[row * cols + x] = on ? line[at] * p.a + float(p.b) + float(p.c) + float(bias) + float(row) : 0.0f;
}
"#;

const CLUSTERED: &str = r#"
summary = "s"
oldest_arch = "sm_90"
[constants.blocks]
type = "u32"
values = [2, 4]
default = 2
help = "h"
[[entries]]
name = "clustered"
sizes = ["n"]
grid = "n * blocks"
block = 32
cluster = "blocks"
programmatic = true
[[entries.parameters]]
name = "y"
type = "u32"
shape = ["n", "blocks"]
access = "out"
"#;

const CLUSTERED_SOURCE: &str = r#"
extern "C" __global__ void clustered(unsigned* y) {
    unsigned rank, size;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (threadIdx.x == 0) y[blockIdx.x] = rank * 100 + size;
}
"#;

fn load(
    folder: &Path,
    context: &Context,
    family: (&str, &str, &str),
    set: &[(&str, &str)],
) -> Arc<LoadedKernel> {
    let (name, toml, source) = family;
    fs_err::write(folder.join(format!("{name}.toml")), toml).expect("written");
    fs_err::write(folder.join(format!("{name}.cu.tera")), source).expect("written");
    let flags = Flags {
        templates: Some(folder.to_owned()),
        cache_dir: Some(folder.join("cache")),
        ..Flags::default()
    };
    let jit = Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families");
    let family = jit.registry().get(name).expect("family");
    let spec = KernelSpec::new(family, set.iter().copied(), arch_of(context)).expect("legal");
    jit.load(&spec, context).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_launch_of_any_shape_has_its_values_in_their_places() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    for tile in ["[32,4]", "[8,8]"] {
        let kernel = load(
            dir.path(),
            &context,
            ("tiled", TILED, TILED_SOURCE),
            &[("tile", tile)],
        );
        kernel
            .variable("table")
            .expect("there")
            .set(&[1.0_f32, 2.0, 3.0, 4.0])
            .expect("set");
        let stream = context.cuda().default_stream();
        let (rows, cols) = (7_u32, 50_u32);
        let y = stream.alloc_zeros::<f32>(350).expect("memory");
        let mut p = Vec::new();
        p.extend_from_slice(&2.0_f32.to_le_bytes());
        p.extend_from_slice(&[0; 4]);
        p.extend_from_slice(&10.5_f64.to_le_bytes());
        p.extend_from_slice(&(-3_i16).to_le_bytes());
        p.extend_from_slice(&[0; 6]);
        let bound = kernel
            .bind()
            .size("rows", rows)
            .size("cols", cols)
            .arg("p", &p[..])
            .arg("on", true);
        let bound = bound
            .arg("bias", -1_i64 << 20)
            .arg("y", Tensor::of(&stream, &y, Dtype::F32, &[7, 50]));
        let bound = bound.finish().expect("bound");
        for _ in 0..2 {
            // SAFETY: the memory is as large as was bound and lives to the end.
            unsafe { bound.launch(&[rows, cols], stream.cu_stream()) }.expect("launched");
        }
        let actual = stream.clone_dtoh(&y).expect("read");
        let expected: Vec<f32> = (0_u16..350)
            .map(|at| {
                let (row, x) = (at / 50, at % 50);
                f32::from(x % 4 + 1) * 2.0 + 10.5 - 3.0 - 1_048_576.0 + f32::from(row)
            })
            .collect();
        assert_eq!(actual, expected, "{tile}");
        let mut launches = [0_u32];
        kernel
            .variable("ns::launches")
            .expect("there")
            .read(&mut launches)
            .expect("read");
        assert_eq!(launches, [2]);
    }
}

#[test]
fn blocks_of_a_cluster_know_it() {
    let Some(context) = gpu() else { return };
    if context.device().major < 9 {
        crate::say("skipped: clusters take compute capability 9.0");
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    for (blocks, expected) in [
        ("2", &[2, 102, 2, 102, 2, 102][..]),
        ("4", &[4, 104, 204, 304, 4, 104, 204, 304, 4, 104, 204, 304]),
    ] {
        let kernel = load(
            dir.path(),
            &context,
            ("clustered", CLUSTERED, CLUSTERED_SOURCE),
            &[("blocks", blocks)],
        );
        let stream = context.cuda().default_stream();
        let y = stream.alloc_zeros::<u32>(expected.len()).expect("memory");
        let bound = kernel
            .bind()
            .size("n", 3)
            .arg("y", Tensor::all_of(&stream, &y, Dtype::U32));
        let bound = bound.finish().expect("bound");
        // SAFETY: the memory is as large as was bound and lives to the end.
        unsafe { bound.launch(&[3], stream.cu_stream()) }.expect("launched");
        assert_eq!(stream.clone_dtoh(&y).expect("read"), expected);
    }
}
