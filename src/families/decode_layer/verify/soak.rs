//! Many launches with random tokens, lengths, splits and modes on several streams at
//! once, and captured graphs replayed over inputs that change; every launch's results
//! held to the bit.
//!
//! Invariant: what a launch has to write was written before by the same variant
//! over the same inputs, alone on the GPU; both results of every launch are kept
//! until they were compared, and were NaN before it.

use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaSlice, CudaStream};
use serde_json::json;

use super::super::reference::{Kv, LayerInputs, LayerShape, Lengths};
use super::super::{
    BoundLayer, FAMILY, Launch, Layer, LayerDims, LayerProblem, LayerWeights, Room, WorkspaceError, Written,
};
use super::{SHAPE_NAMES, Soak, cases::MODEL, cases::SMALL};
use crate::engine::jit::Jit;
use crate::engine::request::spec::{KernelSpec, SpecError};
use crate::engine::request::target::Arch;
use crate::engine::request::template::Family;
use crate::engine::run::device::Context;
use crate::engine::threads::for_each_on;
use crate::measure::MeasureError;
use crate::measure::harness::{Event, Sink};
use crate::measure::rng::Rng;

const SPLITS: [&str; 4] = ["1", "2", "4", "8"];
/// Sets of inputs a stream.
const SETS: usize = 4;
/// Tokens of a set; a launch takes the first of them, as many as it likes.
const TOKENS: usize = 8;
/// Launches between two comparisons of a stream.
const WINDOW: usize = 250;
/// Replays of a captured launch.
const REPLAYS: usize = 1000;

/// Runs it; how many launches had a differing bit.
pub(super) fn run(
    jit: &Jit,
    context: &Context,
    launch: Launch,
    quick: bool,
    soak: Soak,
    sink: &mut Sink<'_>,
) -> Result<usize, MeasureError> {
    let layers = layers(jit, context, launch, quick)?;
    let shape = layers[0].dims().shape;
    let mut rng = Rng::stream(2026, 1);
    let inputs: Vec<LayerInputs> = (0..SETS * soak.streams)
        .map(|set| {
            let step = step(&shape, quick, &mut rng, 100 + set as u64);
            if set == 0 { step.pack() } else { step }
        })
        .collect();
    let dims = largest(&layers);
    let stream = context.cuda().new_stream().map_err(WorkspaceError::from)?;
    let weights = Arc::new(LayerWeights::new(&stream, &inputs[0])?);
    let room = inputs
        .iter()
        .map(|i| Room::of(&dims, i))
        .reduce(Room::or)
        .unwrap_or(Room {
            tokens: TOKENS,
            max_pages: 1,
            pages: 1,
        });
    let started = Instant::now();
    let bad = replays(&layers, &dims, room, &weights, &stream, &inputs)?;
    say(sink, launch, "replays", (REPLAYS, 1), bad, started);

    let mut lanes = Vec::new();
    for own in inputs.chunks(SETS) {
        let stream = context.cuda().new_stream().map_err(WorkspaceError::from)?;
        lanes.push(Lane::new(&stream, &layers, &dims, room, &weights, own)?);
    }
    context.cuda().synchronize().map_err(WorkspaceError::from)?;
    let each = soak.launches.div_ceil(soak.streams.max(1));
    let started = Instant::now();
    let differing: Vec<Result<usize, WorkspaceError>> =
        for_each_on(lanes.len(), lanes.iter_mut().enumerate(), |(at, lane)| {
            lane.soak(context, each, at as u64)
        });
    let mut sum = bad;
    for count in differing {
        sum += count?;
    }
    let launches = each * soak.streams;
    let shape = (launches, soak.streams);
    say(sink, launch, "soak", shape, sum - bad, started);
    Ok(sum)
}

fn say(
    sink: &mut Sink<'_>,
    launch: Launch,
    what: &str,
    (launches, streams): (usize, usize),
    differing: usize,
    since: Instant,
) {
    let (seconds, way) = (since.elapsed().as_secs_f64(), launch.name());
    sink(Event::Object(
        json!({"event": what, "family": FAMILY, "launch": way, "launches": launches,
        "streams": streams, "differing": differing, "elapsed_ms": seconds * 1e3}),
    ));
    sink(Event::Line(format!(
        "{FAMILY}, {way}: {what}: {launches} launches on {streams} streams, {differing} with a differing bit, \
         in {seconds:.1} s"
    )));
}

fn layers(jit: &Jit, context: &Context, launch: Launch, quick: bool) -> Result<Vec<Layer>, MeasureError> {
    let device = context.device();
    let arch = device.arch();
    let family = jit.registry().get(FAMILY)?;
    let specs = specs(family, launch, quick, device.sm_count, arch)?;
    jit.prepare_each(specs.iter())?;
    specs
        .iter()
        .map(|spec| Ok(Layer::new(spec, jit.load(spec, context)?)?))
        .collect()
}

/// Every split, in the exact mode with a token a pass and on tensor cores with four;
/// weights as checkpoints have them, and packed with launches that begin early.
fn specs(
    family: &Arc<Family>,
    launch: Launch,
    small: bool,
    blocks: u32,
    arch: Arch,
) -> Result<Vec<KernelSpec>, SpecError> {
    let numbers = (if small { SMALL } else { MODEL }).map(|n| n.to_string());
    let blocks = if small { 6 } else { blocks }.to_string();
    let kinds = [("nvfp4", "false"), ("packed64", "true")];
    let modes = [("fma", "1"), ("mma", "4")].map(|mode| kinds.map(|kind| (mode, kind)));
    let mut specs = Vec::new();
    for split in SPLITS {
        for ((mode, tokens), (layout, early)) in modes.into_iter().flatten() {
            let shape = SHAPE_NAMES.into_iter().zip(numbers.iter().map(String::as_str));
            // A slot of the small shape is too short for tensor cores from split 4 on.
            let mode = if small { "fma" } else { mode };
            let own = [
                ("launch", launch.name()),
                ("wo_split", split),
                ("accumulate", mode),
                ("tokens_per_pass", tokens),
                ("num_ctas", blocks.as_str()),
                ("weight_layout", layout),
                ("dependent", early),
            ];
            specs.push(KernelSpec::new(family, shape.chain(own), arch)?);
        }
    }
    Ok(specs)
}

/// Sizes that have room for every layer.
fn largest(layers: &[Layer]) -> LayerDims {
    let mut dims = *layers[0].dims();
    dims.slots = layers.iter().map(|l| l.dims().slots).max().unwrap_or(dims.slots);
    dims
}

/// Inputs of a step: lengths from none to some pages.
fn step(shape: &LayerShape, small: bool, rng: &mut Rng, seed: u64) -> LayerInputs {
    let most = if small { 300 } else { 1500 };
    let lengths = (0..TOKENS).map(|_| below(rng, most)).collect();
    let mut inputs = LayerInputs::random(
        &LayerShape {
            // The weights are those of the first set: the others' need not be made.
            intermediate: if seed == 100 { shape.intermediate } else { 64 },
            ..*shape
        },
        &Lengths(lengths),
        Kv::Random,
        seed,
    );
    // Boundaries besides: nothing, one position, whole pages.
    for (token, length) in [0, 1, shape.page_size].into_iter().enumerate() {
        if below(rng, 4) == 0 {
            inputs.seq_lens[token] = i32::try_from(length).unwrap_or(0).min(inputs.seq_lens[token]);
        }
    }
    inputs
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.next_u64() % end as u64).unwrap_or(0)
}

/// One launch, captured once and replayed over inputs that are put in place.
fn replays(
    layers: &[Layer],
    dims: &LayerDims,
    room: Room,
    weights: &Arc<LayerWeights>,
    stream: &Arc<CudaStream>,
    inputs: &[LayerInputs],
) -> Result<usize, MeasureError> {
    let mut problem = LayerProblem::new(stream, dims, room, weights, false)?;
    let num_tokens = u32::try_from(TOKENS).unwrap_or(u32::MAX);
    let layer = &layers[layers.len() - 1];
    let bound = problem.bind(layer)?;
    let read = |problem: &LayerProblem| -> Result<Written, WorkspaceError> {
        problem.read(TOKENS, layer.dims().slots)
    };
    let mut expected = Vec::new();
    for set in inputs {
        problem.put(set)?;
        problem.poison()?;
        // SAFETY: bound to this problem, whose stream is of the current context.
        unsafe { problem.launch(&bound, num_tokens) }?;
        expected.push(read(&problem)?);
    }
    stream
        .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .map_err(WorkspaceError::from)?;
    // SAFETY: as above; the graph lives no longer than the problem.
    let captured = unsafe { problem.launch(&bound, num_tokens) };
    let graph = stream.end_capture(CUgraphInstantiate_flags(0));
    captured?;
    let graph = graph
        .map_err(WorkspaceError::from)?
        .ok_or(WorkspaceError::NoGraph)?;
    let mut bad = 0;
    for replay in 0..REPLAYS {
        let set = replay * 7 % inputs.len();
        problem.put(&inputs[set])?;
        problem.poison()?;
        graph.launch().map_err(WorkspaceError::from)?;
        bad += usize::from(read(&problem)? != expected[set]);
    }
    Ok(bad)
}

/// A stream with its problems, each with a workspace of its own.
struct Lane {
    stream: Arc<CudaStream>,
    problems: Vec<LayerProblem>,
    /// Of each problem, every layer.
    bound: Vec<Vec<BoundLayer>>,
    /// Both results, by problem, layer and tokens.
    expected: Vec<Vec<u16>>,
    /// Both results of every launch of a window, at equal distances.
    log: CudaSlice<u16>,
    width: usize,
}

impl Lane {
    /// Uploads, and launches everything once, alone.
    fn new(
        stream: &Arc<CudaStream>,
        layers: &[Layer],
        dims: &LayerDims,
        room: Room,
        weights: &Arc<LayerWeights>,
        inputs: &[LayerInputs],
    ) -> Result<Self, WorkspaceError> {
        let width = 2 * TOKENS * dims.hidden;
        let mut lane = Self {
            stream: Arc::clone(stream),
            problems: Vec::new(),
            bound: Vec::new(),
            expected: Vec::new(),
            log: stream.alloc_zeros(WINDOW * width)?,
            width,
        };
        for set in inputs {
            let mut problem = LayerProblem::new(stream, dims, room, weights, false)?;
            problem.put(set)?;
            let bound: Result<Vec<_>, _> = layers.iter().map(|layer| problem.bind(layer)).collect();
            lane.bound.push(bound?);
            lane.problems.push(problem);
        }
        for problem in 0..inputs.len() {
            for layer in 0..layers.len() {
                for tokens in 0..TOKENS {
                    lane.launch(problem, layer, tokens + 1, 0)?;
                    let written = stream.clone_dtoh(&lane.log.slice(..width))?;
                    lane.expected.push(written);
                }
            }
        }
        stream.synchronize()?;
        Ok(lane)
    }

    /// Launches over poisoned results, and copies these to a place of the log.
    fn launch(
        &mut self,
        problem: usize,
        layer: usize,
        tokens: usize,
        place: usize,
    ) -> Result<(), WorkspaceError> {
        let memory = &mut self.problems[problem];
        memory.poison_outputs()?;
        let num_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        // SAFETY: bound to this problem; `soak` has made the context current.
        unsafe { memory.launch(&self.bound[problem][layer], num_tokens) }?;
        let half = self.width / 2;
        for (at, result) in memory.outputs().into_iter().enumerate() {
            let from = place * self.width + at * half;
            let mut to = self.log.slice_mut(from..from + half);
            self.stream.memcpy_dtod(&result.slice(..half), &mut to)?;
        }
        Ok(())
    }

    fn soak(&mut self, context: &Context, launches: usize, seed: u64) -> Result<usize, WorkspaceError> {
        context.cuda().bind_to_thread()?;
        let mut rng = Rng::stream(77, seed);
        let layers = self.bound[0].len();
        let (mut done, mut bad) = (0, 0);
        while done < launches {
            let count = WINDOW.min(launches - done);
            let mut asked = Vec::with_capacity(count);
            for place in 0..count {
                let problem = below(&mut rng, self.problems.len());
                let (layer, tokens) = (below(&mut rng, layers), below(&mut rng, TOKENS));
                self.launch(problem, layer, tokens + 1, place)?;
                asked.push((problem * layers + layer) * TOKENS + tokens);
            }
            let written = self.stream.clone_dtoh(&self.log.slice(..count * self.width))?;
            self.stream.synchronize()?;
            bad += asked
                .iter()
                .zip(written.chunks(self.width))
                .filter(|(case, written)| self.expected[**case] != **written)
                .count();
            done += count;
        }
        Ok(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::template::Registry;

    #[test]
    fn every_variant_of_the_soak_is_a_legal_kernel_of_its_family() {
        let registry = Registry::load(None).expect("registry");
        let arch: Arch = "sm_90a".parse().expect("arch");
        let family = registry.get(FAMILY).expect("family");
        for launch in Launch::ALL {
            for small in [true, false] {
                let specs = specs(family, launch, small, 132, arch).expect("legal");
                assert_eq!(specs.len(), 16);
                let most = arch.shared_mem_per_block();
                assert!(
                    specs.iter().all(|s| Some(s.derived()["shared_bytes"]) <= most),
                    "{launch:?}"
                );
            }
        }
    }
}
