//! The decode layer on a GPU as a server uses it: graphs, streams, contexts, GPUs,
//! and what it says to wrong calls.

use std::process::Command;
use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaStream};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::{self, Context};
use jitc::engine::run::launch::LaunchError;
use jitc::families::decode_layer::reference::{Kv, LayerInputs, LayerShape, Lengths};
use jitc::families::decode_layer::{
    Dtype, FAMILY, Launch, Layer, LayerProblem, LayerTensors, LayerWeights, Room, Tensor, WorkspaceError,
    Written,
};

use super::{arch_of, gpu, jit, say};

const SHAPE: LayerShape = LayerShape {
    hidden: 256,
    intermediate: 320,
    num_q_heads: 4,
    num_kv_heads: 2,
    head_dim: 64,
    page_size: 16,
};
const SLOTS: usize = 4;
const ROOM: Room = Room {
    tokens: 3,
    max_pages: 20,
    pages: 40,
};

fn spec(jit: &Jit, context: &Context, launch: &str, more: &[(&str, &str)]) -> KernelSpec {
    let set = [
        ("hidden", "256"),
        ("intermediate", "320"),
        ("num_q_heads", "4"),
        ("num_kv_heads", "2"),
        ("head_dim", "64"),
        ("page_size", "16"),
        ("wo_split", "2"),
        ("num_ctas", "6"),
        ("launch", launch),
    ];
    let all = set
        .iter()
        .filter(|(name, _)| more.iter().all(|(own, _)| own != name))
        .chain(more);
    let family = jit.registry().get(FAMILY).expect("family");
    KernelSpec::new(family, all.copied(), arch_of(context)).expect("legal")
}

fn layer(jit: &Jit, context: &Context, launch: &str, more: &[(&str, &str)]) -> Layer {
    let spec = spec(jit, context, launch, more);
    Layer::new(&spec, jit.load(&spec, context).expect("loaded")).expect("a layer")
}

/// Steps with lengths around pages' ends; weights are those of the first.
fn steps() -> Vec<LayerInputs> {
    [[0, 1, 15], [16, 17, 300], [33, 0, 160], [1, 16, 5], [250, 48, 31]]
        .into_iter()
        .zip(10..)
        .map(|(lengths, seed)| LayerInputs::random(&SHAPE, &Lengths(lengths.to_vec()), Kv::Random, seed))
        .collect()
}

fn problem(stream: &Arc<CudaStream>, layer: &Layer, inputs: &LayerInputs) -> LayerProblem {
    let weights = Arc::new(LayerWeights::new(stream, inputs).expect("weights"));
    LayerProblem::new(stream, layer.dims(), ROOM, &weights, true).expect("memory")
}

fn eager(problem: &mut LayerProblem, layer: &Layer, step: &LayerInputs) -> Written {
    let bound = problem.bind(layer).expect("bound");
    problem.put(step).expect("put");
    problem.poison().expect("poisoned");
    // SAFETY: bound to this problem; the context was made current when it was opened.
    unsafe { problem.launch(&bound, 3) }.expect("launched");
    problem.read(3, SLOTS).expect("read")
}

#[test]
fn pages_beyond_four_gigabytes_of_cache_are_where_they_are() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let stream = context.cuda().new_stream().expect("stream");
    let layer = layer(&jit, &context, "cooperative", &[]);
    let step = &steps()[1];
    let expected = eager(&mut problem(&stream, &layer, step), &layer, step);
    let page = 2 * SHAPE.page_size * SHAPE.num_kv_heads * SHAPE.head_dim;
    // One page past what 32 bits of offset reach.
    let unused = (1_usize << 32) / page + 1;
    let room = Room {
        pages: unused + ROOM.pages,
        ..ROOM
    };
    let weights = Arc::new(LayerWeights::new(&stream, step).expect("weights"));
    let mut far = match LayerProblem::new(&stream, layer.dims(), room, &weights, true) {
        Ok(far) => far,
        Err(reason) => return say(&format!("skipped, a cache of 4 GB: {reason}")),
    };
    let bound = far.bind(&layer).expect("bound");
    far.put_behind(step, unused).expect("put");
    far.poison().expect("poisoned");
    // SAFETY: as in `eager`.
    unsafe { far.launch(&bound, 3) }.expect("launched");
    assert!(far.read(3, SLOTS).expect("read") == expected);
}

#[test]
fn a_captured_layer_replayed_over_changing_inputs_writes_what_eager_launches_write() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let steps = steps();
    for launch in Launch::ALL {
        let layer = layer(&jit, &context, launch.name(), &[]);
        let stream = context.cuda().new_stream().expect("stream");
        let mut problem = problem(&stream, &layer, &steps[0]);
        let expected: Vec<Written> = steps.iter().map(|s| eager(&mut problem, &layer, s)).collect();
        assert!(expected.windows(2).all(|pair| pair[0] != pair[1]));
        let bound = problem.bind(&layer).expect("bound");
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).expect("capturing");
        // SAFETY: as in `eager`; the graph lives no longer than the problem.
        unsafe { problem.launch(&bound, 3) }.expect("captured");
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).expect("a graph");
        let graph = graph.expect("not empty");
        for replay in 0..1000 {
            let at = replay * 3 % steps.len();
            problem.put(&steps[at]).expect("put");
            problem.poison().expect("poisoned");
            graph.launch().expect("replayed");
            let written = problem.read(3, SLOTS).expect("read");
            assert!(
                written == expected[at],
                "{launch:?}: replay {replay} of step {at}"
            );
        }
    }
}

/// Small enough for every tool of compute-sanitizer.
#[test]
fn separate_and_cooperative_launches_write_the_same_bits_in_every_mode_and_geometries_the_same_results() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let stream = context.cuda().new_stream().expect("stream");
    let step = &steps().swap_remove(1).pack();
    let run = |launch: &str, more: &[(&str, &str)]| {
        let layer = layer(&jit, &context, launch, more);
        let mut problem = problem(&stream, &layer, step);
        eager(&mut problem, &layer, step)
    };
    let exact = run("cooperative", &[]);
    assert!(exact == run("separate", &[]));
    let tensor = [("accumulate", "mma"), ("tokens_per_pass", "4")];
    assert!(run("cooperative", &tensor) == run("separate", &tensor));
    // Packed weights: chains read W_O as it is, so its bits are the same.
    let packed = [("weight_layout", "packed64")];
    let chains = run("cooperative", &packed);
    assert!(chains == run("separate", &packed));
    assert!(chains.wo_output == exact.wo_output && chains.residual_output == exact.residual_output);
    let packed = [packed[0], ("accumulate", "mma"), ("tokens_per_pass", "4")];
    let together = run("cooperative", &packed);
    assert!(together == run("separate", &packed));
    // Launches that begin before the one ahead of them is done.
    let early = [packed[0], packed[1], packed[2], ("dependent", "true")];
    assert!(together == run("cooperative", &early));
    assert!(together == run("separate", &early));
    let original = run(
        "cooperative",
        &[("geometry", "original"), ("tile_k", "64"), ("slice_ctas", "3")],
    );
    // Attention is cut otherwise, so its last bits may differ.
    let floats =
        |bits: &[u16]| -> Vec<f32> { bits.iter().map(|b| half::bf16::from_bits(*b).to_f32()).collect() };
    let (a, b) = (floats(&exact.attn_rows), floats(&original.attn_rows));
    assert!(
        a.iter()
            .zip(&b)
            .all(|(a, b)| (a - b).abs() <= 0.01 * a.abs() + 0.01)
    );
}

#[test]
fn layers_in_flight_on_several_streams_write_what_one_stream_writes() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let steps = steps();
    let layer = layer(&jit, &context, "cooperative", &[]);
    let stream = context.cuda().new_stream().expect("stream");
    let mut alone = problem(&stream, &layer, &steps[0]);
    let expected: Vec<Written> = steps.iter().map(|s| eager(&mut alone, &layer, s)).collect();
    let weights = Arc::new(LayerWeights::new(&stream, &steps[0]).expect("weights"));
    let mut lanes = Vec::new();
    for step in &steps {
        let stream = context.cuda().new_stream().expect("stream");
        let mut own = LayerProblem::new(&stream, layer.dims(), ROOM, &weights, true).expect("memory");
        own.put(step).expect("put");
        own.poison().expect("poisoned");
        lanes.push((own.bind(&layer).expect("bound"), own));
    }
    context.cuda().synchronize().expect("ready");
    for _ in 0..100 {
        for (bound, own) in &lanes {
            // SAFETY: as in `eager`; every lane has a stream and a workspace of its own.
            unsafe { own.launch(bound, 3) }.expect("launched");
        }
    }
    for (at, (_, own)) in lanes.iter().enumerate() {
        assert!(
            own.read(3, SLOTS).expect("read") == expected[at],
            "stream {at} differs"
        );
    }
}

/// The context of the child is lost with the launch, and every other test's with it.
#[test]
fn a_wait_over_its_timeout_fails_the_launch_with_the_barriers_name() {
    if gpu().is_none() {
        return;
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "layer::child_that_waits_too_long",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .expect("ran");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("jitc: W_O to norm"), "{said}");
    assert!(said.contains("the launch failed: CUDA_ERROR_ASSERT"), "{said}");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn child_that_waits_too_long() {
    let context = gpu().expect("a GPU");
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let layer = layer(&jit, &context, "cooperative", &[("timeout_ms", "200")]);
    let stream = context.cuda().new_stream().expect("stream");
    let steps = steps();
    let mut problem = problem(&stream, &layer, &steps[0]);
    // In order first: a time-out that is not reached changes nothing.
    let _ = eager(&mut problem, &layer, &steps[0]);
    let bound = problem.bind(&layer).expect("bound");
    problem.spoil_counter(0, u32::MAX).expect("one arrival too few");
    // SAFETY: as in `eager`.
    unsafe { problem.launch(&bound, 3) }.expect("launched");
    let error = stream.synchronize().expect_err("the wait must not end well");
    say(&format!("the launch failed: {:?}", error.0));
}

#[test]
fn a_layer_over_the_gpus_capacity_is_refused_before_its_launch() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let steps = steps();
    let stream = context.cuda().new_stream().expect("stream");
    let many = [("num_ctas", "1024"), ("num_threads", "512")];
    let wide = layer(&jit, &context, "cooperative", &many);
    let problem = problem(&stream, &wide, &steps[0]);
    let bound = problem.bind(&wide).expect("bound");
    // SAFETY: refused on the host.
    let error = unsafe { problem.launch(&bound, 3) }.expect_err("over capacity");
    let WorkspaceError::Launch(LaunchError::OverCapacity { blocks, capacity, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*blocks, 1024);
    assert!(
        error.to_string().contains(&format!("this GPU holds {capacity}")),
        "{error}"
    );
    // The original's grid grows with the tokens, and so does what is refused.
    let original = [("geometry", "original"), ("tile_k", "64"), ("slice_ctas", "128")];
    let spec = spec(&jit, &context, "cooperative", &original);
    let kernel = jit.load(&spec, &context).expect("loaded");
    let entry = &kernel.entries()[0];
    assert_eq!(entry.grid(&[1]), [128, 4, 1]);
    assert_eq!(entry.grid(&[3]), [128, 4, 3]);
    assert_eq!(entry.capacity, entry.blocks_per_sm * context.device().sm_count);
}

#[test]
fn tokens_over_the_workspace_and_a_workspace_for_a_smaller_layer_are_refused() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let steps = steps();
    let stream = context.cuda().new_stream().expect("stream");
    let small = layer(&jit, &context, "cooperative", &[]);
    let problem = problem(&stream, &small, &steps[0]);
    let bound = problem.bind(&small).expect("bound");
    for num_tokens in [0, 4] {
        // SAFETY: refused on the host.
        let error = unsafe { problem.launch(&bound, num_tokens) }.expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("`decode_layer`: num_tokens = {num_tokens}: it was bound for 1 to 3")
        );
    }
    let error = problem
        .bind(&layer(&jit, &context, "cooperative", &[("wo_split", "8")]))
        .expect_err("more slots");
    assert_eq!(
        error.to_string(),
        "decode_layer: `decode_layer`: parameter `wo_output`: expected f32 [3, 16, 256], 12288 elements, got 3072"
    );
}

type Spoil = fn(&mut LayerTensors);

fn shaped(tensor: &mut Tensor, dtype: Dtype, shape: &[usize]) {
    *tensor = Tensor::new(tensor.address, dtype, shape);
}

#[test]
fn a_wrong_tensor_is_refused_by_its_name() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let stream = context.cuda().new_stream().expect("stream");
    let gated = [("output_gate", "true"), ("input_norm", "true")];
    let layer = layer(&jit, &context, "cooperative", &gated);
    let weights = Arc::new(LayerWeights::new(&stream, &steps()[0]).expect("weights"));
    let problem = LayerProblem::new(&stream, layer.dims(), ROOM, &weights, false).expect("memory");
    let wrong: [(&str, Spoil); 9] = [
        ("query", |t| shaped(&mut t.query, Dtype::F32, &[3, 4, 64])),
        ("query", |t| t.query.address += 2),
        ("kv_cache", |t| {
            shaped(&mut t.kv_cache, Dtype::U8, &[40, 2, 32, 2, 64]);
        }),
        ("page_table", |t| shaped(&mut t.page_table, Dtype::I32, &[2, 20])),
        ("seq_lens", |t| t.seq_lens.address = 0),
        ("gate", |t| t.gate = None),
        ("wo_scales", |t| t.wo_scales.address = 0),
        ("gate_scales", |t| {
            shaped(&mut t.gate_scales, Dtype::U8, &[320 * 16]);
        }),
        ("attn_input", |t| t.attn_input = None),
    ];
    for (name, spoil) in wrong {
        let mut tensors = problem.tensors(layer.dims());
        spoil(&mut tensors);
        let error = problem.bind_tensors(&layer, &tensors).expect_err(name);
        let start = format!("decode_layer: `decode_layer`: parameter `{name}`: expected ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    let timed = self::layer(&jit, &context, "cooperative", &[("num_regions", "13")]);
    let error = problem.bind(&timed).expect_err("no buffer for the times");
    assert_eq!(
        error.to_string(),
        "decode_layer: `decode_layer`: parameter `region_timing`: expected u64[*], got null"
    );
}

#[test]
fn two_contexts_of_one_gpu_keep_their_modules_apart() {
    let Some(context) = gpu() else { return };
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let other = CudaContext::new_non_primary(0, 0).expect("a second context");
    let other = Context::of(other).expect("of this GPU");
    let steps = steps();
    let mut all = Vec::new();
    for context in [&context, &other, &context] {
        context.bind().expect("current");
        let layer = layer(&jit, context, "cooperative", &[]);
        let stream = context.cuda().new_stream().expect("stream");
        let mut problem = problem(&stream, &layer, &steps[1]);
        all.push(eager(&mut problem, &layer, &steps[1]));
    }
    assert!(all[0] == all[1] && all[1] == all[2]);
    let spec = spec(&jit, &context, "cooperative", &[]);
    let [one, two, again] =
        [&context, &other, &context].map(|context| jit.load(&spec, context).expect("loaded"));
    assert!(!Arc::ptr_eq(&one, &two));
    assert!(Arc::ptr_eq(&one, &again));
    context.bind().expect("current");
}

#[test]
fn two_gpus_in_one_process_write_the_same_bits_side_by_side() {
    if gpu().is_none() {
        return;
    }
    let count = device::list().map_or(0, |gpus| gpus.len());
    if count < 2 {
        say(&format!("skipped: this takes two GPUs, and {count} is here"));
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path());
    let steps = steps();
    let mut lanes = Vec::new();
    for ordinal in [0, 1] {
        let context = Context::new(ordinal).expect("a GPU");
        let layer = layer(&jit, &context, "cooperative", &[]);
        let stream = context.cuda().new_stream().expect("stream");
        let mut problem = problem(&stream, &layer, &steps[1]);
        problem.put(&steps[1]).expect("put");
        problem.poison().expect("poisoned");
        lanes.push((problem.bind(&layer).expect("bound"), problem, context));
    }
    for _ in 0..100 {
        for (bound, problem, context) in &lanes {
            context.bind().expect("current");
            // SAFETY: bound to this problem, whose context was just made current.
            unsafe { problem.launch(bound, 3) }.expect("launched");
        }
    }
    let read = |at: usize| lanes[at].1.read(3, SLOTS).expect("read");
    assert!(read(0) == read(1));
}
