//! Launching: geometry, attributes and parameters as the driver gets them.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult as Code};
use jitc::engine::run::bind::BoundKernel;
use jitc::engine::run::device::Context;
use jitc::engine::run::driver_error::DriverError;
use jitc::engine::run::launch::{LaunchError, Order, launch_grid};
use jitc::engine::run::load::LoadedKernel;
use jitc::engine::run::tensor::{Dtype, Tensor};

use crate::stub::{Stub, artifact, pair, spec, under_stub};

/// A stream that nobody made: the stub takes any.
fn stream() -> sys::CUstream {
    std::ptr::without_provenance_mut(0x3abc)
}

fn load(context: &Context, set: &[(&str, &str)]) -> Arc<LoadedKernel> {
    let spec = spec(set);
    Arc::new(LoadedKernel::load(context, &spec, &artifact(&spec)).expect("loaded"))
}

/// Values for up to 100 rows and batches of 5.
fn bound(stub: &Stub, kernel: &Arc<LoadedKernel>, order: Order) -> BoundKernel {
    stub.say("pointer", 0).say("params.scale", "8,2,8,4");
    let bind = kernel.bind().order(order).size("rows", 100).size("batch", 5);
    let x = Tensor::flat(0x1234_5678_9ab0, Dtype::F32, 100);
    bind.arg("x", x).arg("half", 0xbeef_u16).finish().expect("bound")
}

/// Little-endian, as the device has them.
const PARAMS_OF_65_ROWS: &str = "b09a785634120000,efbe,0000000000000000,41000000";

fn launch(bound: &BoundKernel, sizes: &[u32]) -> Result<(), LaunchError> {
    // SAFETY: no kernel runs, and nothing is read at the addresses.
    unsafe { bound.launch(sizes, stream()) }
}

#[test]
fn a_plain_launch_gives_the_driver_its_grid_block_shared_memory_and_parameters() {
    let name = "launch::a_plain_launch_gives_the_driver_its_grid_block_shared_memory_and_parameters";
    let Some(stub) = under_stub(name) else { return };
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context, &[("block", "64"), ("shared", "2048")]);
    let bound = bound(&stub, &kernel, Order::Serial);
    stub.calls();
    launch(&bound, &[65, 4]).expect("launched");
    assert_eq!(
        stub.calls(),
        [format!(
            "cuLaunchKernel scale grid 2,4,3 block 64,1,1 shared 2048 stream 0x3abc extra 0 params {PARAMS_OF_65_ROWS}"
        )],
        "and nothing else is asked of the driver"
    );
    launch(&bound, &[1, 1]).expect("launched");
    let again = stub.calls().join("\n");
    assert!(
        again.contains("grid 1,1,3 ") && again.ends_with(",01000000"),
        "{again}"
    );
}

#[test]
fn cooperation_and_order_are_attributes_of_the_launch() {
    let Some(stub) = under_stub("launch::cooperation_and_order_are_attributes_of_the_launch") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let cases = [
        ("true", Order::Serial, "2=1"),
        ("false", Order::Programmatic, "6=1"),
        ("true", Order::Programmatic, "2=1,6=1"),
    ];
    for (together, order, attributes) in cases {
        let kernel = load(&context, &[("together", together)]);
        let bound = bound(&stub, &kernel, order);
        stub.calls();
        launch(&bound, &[65, 4]).expect("launched");
        assert_eq!(
            stub.calls(),
            [format!(
                "cuLaunchKernelEx scale grid 3,4,3 block 32,1,1 shared 1024 stream 0x3abc attributes {attributes} \
                 extra 0 params {PARAMS_OF_65_ROWS}"
            )]
        );
    }
}

/// Launches a grid past what is bound.
fn grid(kernel: &LoadedKernel, grid: [u32; 3]) -> Result<(), LaunchError> {
    let mut none: [*mut c_void; 0] = [];
    // SAFETY: no kernel runs, and the stub reads no parameters.
    unsafe { launch_grid(&kernel.entries()[0], grid, Order::Serial, stream(), &mut none) }
}

#[test]
fn a_cooperative_grid_fits_on_the_gpu_to_the_last_block_or_is_not_launched() {
    let Some(stub) =
        under_stub("launch::a_cooperative_grid_fits_on_the_gpu_to_the_last_block_or_is_not_launched")
    else {
        return;
    };
    stub.say("device.16", 10).say("blocks", 3);
    let context = Context::new(0).expect("a GPU");
    let together = load(&context, &[("together", "true")]);
    stub.calls();
    grid(&together, [5, 3, 2]).expect("30 blocks");
    assert_eq!(stub.calls().len(), 1);
    let error = grid(&together, [31, 1, 1]).expect_err("one too many");
    assert_eq!(
        error.to_string(),
        "`scale` is cooperative: its grid of 31 blocks has to be resident at once, and this GPU holds 30"
    );
    let most = grid(&together, [u32::MAX; 3]).expect_err("far too many");
    assert!(
        matches!(most, LaunchError::OverCapacity { blocks: u64::MAX, .. }),
        "{most}"
    );
    assert!(stub.calls().is_empty());
    assert_eq!(error.hint(), None);
    // Blocks that do not wait for each other take turns.
    let apart = load(&context, &[]);
    stub.calls();
    grid(&apart, [31, 1, 1]).expect("in turns");
    assert_eq!(stub.calls().len(), 1);
}

#[test]
fn a_grid_without_blocks_is_an_error_and_reaches_no_driver() {
    let Some(stub) = under_stub("launch::a_grid_without_blocks_is_an_error_and_reaches_no_driver") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context, &[]);
    stub.calls();
    for blocks in [[0, 2, 3], [1, 0, 3], [1, 2, 0]] {
        let error = grid(&kernel, blocks).expect_err("nothing to launch");
        let expected = LaunchError::EmptyGrid {
            entry: "scale".into(),
            grid: blocks,
        };
        assert_eq!(error, expected);
    }
    assert!(stub.calls().is_empty());
}

#[test]
fn what_the_driver_says_to_a_launch_is_understood_in_both_ways_of_launching() {
    let Some(stub) =
        under_stub("launch::what_the_driver_says_to_a_launch_is_understood_in_both_ways_of_launching")
    else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let (apart, together) = (load(&context, &[]), load(&context, &[("together", "true")]));
    for (function, kernel) in [("cuLaunchKernel", &apart), ("cuLaunchKernelEx", &together)] {
        let cases = [
            (2, DriverError::OutOfMemory),
            (700, DriverError::Spoilt(Code::CUDA_ERROR_ILLEGAL_ADDRESS)),
            (701, DriverError::Other(Code::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES)),
        ];
        for (code, reason) in cases {
            stub.say(function, code);
            let error = grid(kernel, [1, 1, 1]).expect_err("refused");
            let expected = LaunchError::Driver {
                entry: "scale".into(),
                reason,
            };
            assert_eq!(error, expected, "{function}");
            assert_eq!(error.hint(), reason.hint());
            assert_eq!(error.to_string(), format!("launching `scale`: {reason}"));
        }
    }
}

#[test]
fn sizes_over_what_was_bound_are_refused_by_name() {
    let Some(stub) = under_stub("launch::sizes_over_what_was_bound_are_refused_by_name") else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context, &[]);
    let bound = bound(&stub, &kernel, Order::Serial);
    assert_eq!(bound.most(), [100, 5]);
    assert!(Arc::ptr_eq(bound.kernel(), &kernel));
    stub.calls();
    let refused = |sizes: &[u32]| launch(&bound, sizes).expect_err("refused").to_string();
    assert_eq!(
        refused(&[101, 5]),
        "`scale`: rows = 101: it was bound for 1 to 100"
    );
    assert_eq!(refused(&[100, 0]), "`scale`: batch = 0: it was bound for 1 to 5");
    assert_eq!(refused(&[100]), "`scale`: a launch gives 2 launch sizes, not 1");
    assert_eq!(
        refused(&[100, 5, 1]),
        "`scale`: a launch gives 2 launch sizes, not 3"
    );
    assert!(bound.passed(&[101, 5]).is_none());
    let passed = bound.passed(&[100, 5]).expect("within");
    assert_eq!(passed.words(), [0x1234_5678_9ab0, 0xbeef, 0, 100]);
    assert!(stub.calls().is_empty());
    launch(&bound, &[100, 5]).expect("the most");
    assert_eq!(stub.calls().len(), 1);
}

#[test]
fn kernels_that_share_a_struct_are_launched_in_order_or_one_by_one() {
    let Some(stub) = under_stub("launch::kernels_that_share_a_struct_are_launched_in_order_or_one_by_one")
    else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let pair = pair();
    let kernel = Arc::new(LoadedKernel::load(&context, &pair, &artifact(&pair)).expect("loaded"));
    stub.say("pointer", 0)
        .say("params.first", 16)
        .say("params.second", 16);
    let x = Tensor::flat(0x700, Dtype::F32, 9);
    let both = kernel.bind().size("rows", 9).arg("x", x).finish().expect("bound");
    let first = "cuLaunchKernel first grid 7,1,1 block 32,1,1 shared 0 stream 0x3abc extra 0 params \
                 00070000000000000700000000000000";
    let second = "cuLaunchKernel second grid 2,7,1 block 64,1,1 shared 0 stream 0x3abc extra 0 params \
                  00070000000000000700000000000000";
    stub.calls();
    launch(&both, &[7]).expect("launched");
    assert_eq!(stub.calls(), [first, second]);
    // SAFETY: no kernel runs.
    unsafe { both.launch_entries(1..2, &[7], stream()) }.expect("launched");
    assert_eq!(stub.calls(), [second]);
    // The second is not launched where the first was refused.
    stub.say("cuLaunchKernel", 700);
    launch(&both, &[7]).expect_err("refused");
    assert_eq!(stub.calls(), [first]);
    stub.forget("cuLaunchKernel");
    let bind = kernel.bind_entry("second").size("rows", 9).arg("x", x);
    let alone = bind.finish().expect("bound");
    stub.calls();
    launch(&alone, &[7]).expect("launched");
    assert_eq!(stub.calls(), [second]);
    let error = launch(&alone, &[10]).expect_err("over").to_string();
    assert!(error.starts_with("`second`: rows = 10"), "{error}");
}

#[test]
fn launches_are_captured_into_a_graph_with_nothing_between_them() {
    let Some(stub) = under_stub("launch::launches_are_captured_into_a_graph_with_nothing_between_them")
    else {
        return;
    };
    let context = Context::new(0).expect("a GPU");
    let kernel = load(&context, &[]);
    let bound = bound(&stub, &kernel, Order::Serial);
    let stream = context.cuda().new_stream().expect("a stream");
    stub.calls();
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).expect("begun");
    for rows in [1, 2] {
        // SAFETY: no kernel runs.
        unsafe { bound.launch(&[rows, 1], stream.cu_stream()) }.expect("captured");
    }
    let graph = stream
        .end_capture(sys::CUgraphInstantiate_flags(0))
        .expect("ended")
        .expect("a graph");
    graph.launch().expect("replayed");
    drop(graph);
    let calls = stub.calls();
    let words: Vec<&str> = calls.iter().filter_map(|call| call.split(' ').next()).collect();
    assert_eq!(
        words,
        [
            "cuStreamBeginCapture",
            "cuLaunchKernel",
            "cuLaunchKernel",
            "cuStreamEndCapture",
            "cuGraphInstantiate",
            "cuGraphLaunch",
            "cuGraphExecDestroy",
            "cuGraphDestroy"
        ]
    );
    assert!(
        calls[1].contains(" stream 0x3000 ") && calls[1].ends_with(",01000000"),
        "{calls:?}"
    );
    assert!(calls[2].ends_with(",02000000"), "{calls:?}");
}
