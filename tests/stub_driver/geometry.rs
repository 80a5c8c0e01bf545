//! Launches of every shape: three axes, expressions, dynamic shared memory, clusters,
//! priority, carve-out.

use std::sync::Arc;

use cudarc::driver::sys;
use jitc::engine::run::bind::BoundKernel;
use jitc::engine::run::device::Context;
use jitc::engine::run::launch::{LaunchError, Order, launch_grid};
use jitc::engine::run::load::{LoadError, LoadedKernel};

use crate::stub::{Stub, artifact, spec_of, under_stub};

const TOML: &str = r#"
summary = "s"
[constants.tile]
type = "list"
of = "u32"
values = [[32, 8], [16, 16], [64, 32]]
default = [32, 8]
help = "h"
[constants.wide]
type = "bool"
default = false
help = "h"
[constants.cluster]
type = "u32"
values = [1, 2, 16]
default = 2
help = "h"
[constants.urgency]
type = "i32"
range = [-5, 0]
default = -2
help = "h"
[[derived]]
name = "threads"
value = "tile[0] * tile[1]"
[[constraints]]
rule = "threads > 0"
because = "r"
[[entries]]
name = "tiled"
sizes = ["rows", "cols"]
grid = ["ceil_div(a=cols, b=tile[0]) * cluster", "min(a=rows, b=65535)", "pick(cond=wide, a=2, b=1)"]
block = ["tile[0]", "tile[1]"]
shared_mem_bytes = "round_up(a=rows * 4, b=16) + threads"
cluster = ["cluster"]
carveout = 50
priority = "urgency"
[[entries.parameters]]
name = "rows"
type = "u32"
value = "rows"
"#;

/// Blocks whose threads the launch gives.
const ROWS: &str = r#"
summary = "s"
[constants.together]
type = "bool"
default = false
help = "h"
[constants.early]
type = "bool"
default = false
help = "h"
[[entries]]
name = "rows"
sizes = ["rows", "cols"]
grid = "rows / 2"
block = ["min(a=round_up(a=cols, b=32), b=1024)", 1, "cols % 3"]
shared_mem_bytes = "cols * 8"
cooperative = "together and not early"
programmatic = "early"
[[entries.parameters]]
name = "rows"
type = "u32"
value = "rows"
"#;

fn load(context: &Context, toml: &str, set: &[(&str, &str)]) -> Result<Arc<LoadedKernel>, LoadError> {
    let spec = spec_of(toml, set, "sm_90a");
    LoadedKernel::load(context, &spec, &artifact(&spec)).map(Arc::new)
}

fn bound(kernel: &Arc<LoadedKernel>) -> BoundKernel {
    let bind = kernel.bind().size("rows", 1 << 20).size("cols", 1 << 20);
    bind.finish().expect("bound")
}

fn launch(bound: &BoundKernel, sizes: &[u32]) -> Result<(), LaunchError> {
    // SAFETY: no kernel runs.
    unsafe { bound.launch(sizes, std::ptr::null_mut()) }
}

fn only_call(stub: &Stub) -> String {
    let calls = stub.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let (call, _) = calls[0].split_once(" extra").expect("a launch");
    call.to_owned()
}

#[test]
fn three_axes_clusters_priority_and_shared_memory_are_those_of_the_launch() {
    let name = "geometry::three_axes_clusters_priority_and_shared_memory_are_those_of_the_launch";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    stub.calls();
    let kernel = load(&context, TOML, &[]).expect("loaded");
    assert_eq!(
        stub.calls_of("cuFuncSetAttribute"),
        [
            "cuFuncSetAttribute tiled 8 = 232448",
            "cuFuncSetAttribute tiled 9 = 50"
        ],
        "all of the shared memory, and the carve-out"
    );
    let entry = &kernel.entries()[0];
    assert_eq!(
        (entry.block_threads, entry.shared_mem_bytes, entry.capacity),
        (256, 0, 0)
    );
    assert_eq!((entry.cluster, entry.priority), (Some([2, 1, 1]), Some(-2)));
    let bound = bound(&kernel);
    stub.calls();
    launch(&bound, &[7, 65]).expect("launched");
    assert_eq!(
        only_call(&stub),
        "cuLaunchKernelEx tiled grid 6,7,1 block 32,8,1 shared 288 stream (nil) attributes 4=2x1x1,8=-2"
    );
    let wide = load(
        &context,
        TOML,
        &[("wide", "true"), ("tile", "[16,16]"), ("cluster", "16")],
    )
    .expect("loaded");
    assert!(
        stub.calls_of("cuFuncSetAttribute")
            .contains(&"cuFuncSetAttribute tiled 14 = 1".to_owned()),
        "a cluster of more than eight has to be allowed"
    );
    let urgent = wide
        .bind()
        .size("rows", 100_000)
        .size("cols", 9)
        .priority(-4)
        .order(Order::Programmatic);
    let urgent = urgent.finish().expect("bound");
    launch(&urgent, &[70_000, 1]).expect_err("too much shared memory");
    stub.calls();
    launch(&urgent, &[50_000, 1]).expect("launched");
    assert_eq!(
        only_call(&stub),
        "cuLaunchKernelEx tiled grid 16,50000,2 block 16,16,1 shared 200256 stream (nil) attributes \
         6=1,4=16x1x1,8=-4"
    );
}

#[test]
fn a_block_that_the_launch_decides_is_checked_at_each_launch() {
    let name = "geometry::a_block_that_the_launch_decides_is_checked_at_each_launch";
    let Some(stub) = under_stub(name) else { return };
    stub.say("function.0", 512);
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context, ROWS, &[]).expect("loaded");
    assert_eq!(
        (kernel.entries()[0].block_threads, kernel.entries()[0].max_threads),
        (0, 512)
    );
    let bound = bound(&kernel);
    stub.calls();
    launch(&bound, &[6, 100]).expect("launched");
    assert_eq!(
        only_call(&stub),
        "cuLaunchKernel rows grid 3,1,1 block 128,1,1 shared 800 stream (nil)"
    );
    launch(&bound, &[2, 200]).expect("launched");
    assert_eq!(
        only_call(&stub),
        "cuLaunchKernel rows grid 1,1,1 block 224,1,2 shared 1600 stream (nil)"
    );
    for (sizes, words) in [
        ([7, 100], "`rows`: a grid of [0, 1, 1] blocks launches nothing"),
        (
            [2, 99],
            "`rows`: a block of [128, 1, 0] threads: the kernel takes 1 to 512, at most 64 in z",
        ),
        (
            [2, 1000],
            "`rows`: a block of [1024, 1, 1] threads: the kernel takes 1 to 512, at most 64 in z",
        ),
    ] {
        let error = launch(&bound, &sizes).expect_err("does not come out");
        assert_eq!(error.to_string(), words);
    }
    stub.calls();
    // What is launched past binding has no sizes, so its block is not known.
    let mut none = [];
    // SAFETY: nothing is launched.
    let error = unsafe {
        launch_grid(
            &kernel.entries()[0],
            [1, 1, 1],
            Order::Serial,
            std::ptr::null_mut::<sys::CUstream_st>(),
            &mut none,
        )
    };
    assert!(
        matches!(error, Err(LaunchError::Block { block: [0, 1, 0], .. })),
        "{error:?}"
    );
    assert!(stub.calls().is_empty());
}

#[test]
fn shared_memory_that_the_launch_decides_is_at_most_what_a_block_can_have() {
    let name = "geometry::shared_memory_that_the_launch_decides_is_at_most_what_a_block_can_have";
    let Some(stub) = under_stub(name) else { return };
    stub.say("device.97", 4096).say("function.1", 96);
    let context = Context::new(0).expect("a GPU");
    let bound = bound(&load(&context, ROWS, &[]).expect("loaded"));
    launch(&bound, &[2, 500]).expect("4000 bytes");
    stub.calls();
    let error = launch(&bound, &[2, 502]).expect_err("4016 bytes");
    assert_eq!(
        error.to_string(),
        "`rows`: 4016 bytes of dynamic shared memory a block, and the kernel can have 0 to 4000"
    );
    assert!(stub.calls().is_empty());
}

#[test]
fn a_cooperative_launch_of_a_size_of_its_own_asks_how_many_blocks_fit() {
    let name = "geometry::a_cooperative_launch_of_a_size_of_its_own_asks_how_many_blocks_fit";
    let Some(stub) = under_stub(name) else { return };
    stub.say("device.16", 10).say("blocks", 3);
    let context = Context::new(0).expect("a GPU");
    let bound = bound(&load(&context, ROWS, &[("together", "true")]).expect("loaded"));
    stub.calls();
    launch(&bound, &[60, 100]).expect("30 blocks");
    let calls = stub.calls();
    assert_eq!(
        calls[0],
        "cuOccupancyMaxActiveBlocksPerMultiprocessor rows threads 128 shared 800"
    );
    assert!(calls[1].contains(" attributes 2=1 "), "{calls:?}");
    let error = launch(&bound, &[62, 100]).expect_err("31 blocks");
    assert!(
        matches!(
            error,
            LaunchError::OverCapacity {
                blocks: 31,
                capacity: 30,
                ..
            }
        ),
        "{error}"
    );
    let early = load(&context, ROWS, &[("together", "true"), ("early", "true")]).expect("loaded");
    stub.calls();
    launch(&self::bound(&early), &[2, 100]).expect("launched");
    assert!(
        stub.calls()[0].contains(" attributes 6=1 "),
        "declared, and not asked for"
    );
}

#[test]
fn a_grid_is_made_of_whole_clusters() {
    let Some(stub) = under_stub("geometry::a_grid_is_made_of_whole_clusters") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let toml = TOML.replace(" * cluster", "");
    let bound = bound(&load(&context, &toml, &[]).expect("loaded"));
    launch(&bound, &[7, 64]).expect("two blocks");
    stub.calls();
    let error = launch(&bound, &[7, 65]).expect_err("three blocks");
    assert_eq!(
        error.to_string(),
        "`tiled`: a grid of [3, 7, 1] blocks is not made of clusters of [2, 1, 1]"
    );
    assert!(stub.calls().is_empty());
}

#[test]
fn what_a_gpu_does_not_have_is_refused_when_it_is_loaded() {
    let name = "geometry::what_a_gpu_does_not_have_is_refused_when_it_is_loaded";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    stub.say("function.0", 255);
    let error = load(&context, TOML, &[]).expect_err("its registers");
    assert_eq!(
        error.to_string(),
        "f: `tiled` has blocks of 256 threads, and the kernel takes at most 255"
    );
    stub.forget("function.0");
    stub.say("device.75", 8);
    let old = Context::new(0).expect("a GPU");
    for (toml, set, how) in [
        (TOML, &[][..], "in clusters"),
        (ROWS, &[("early", "true")][..], "in programmatic order"),
    ] {
        let spec = spec_of(toml, set, "sm_80");
        let error = LoadedKernel::load(&old, &spec, &artifact(&spec)).expect_err("too old");
        let entry = error.to_string();
        assert!(
            entry.ends_with(&format!(
                "is launched {how}, which takes compute capability 9.0: Stub 0 has 8.0"
            )),
            "{entry}"
        );
    }
}
