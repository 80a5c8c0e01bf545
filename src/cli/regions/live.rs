//! `jitc regions --live`: runs a family on a GPU and reads what its blocks wrote.
//!
//! A kernel with regions is first held to the reference, then timed beside the same
//! kernel without them, launch by launch with nothing of its own in L2: behind a copy
//! over L2, a decode layer behind launches over other memory, as in a stream of
//! layers. The ticks kept are those of the launch with the median time, and so is
//! the time.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, sys};

use super::{Run, layer};
use crate::engine::jit::Jit;
use crate::engine::request::constant::Value;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::Legal;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::families::wo_gemv::problem::{ProblemError, WoProblem};
use crate::families::wo_gemv::reference::WoInputs;
use crate::families::wo_gemv::reference::WoShape;
use crate::families::wo_gemv::reference::split_order;
use crate::measure::MeasureError;
use crate::measure::compare::compare;
use crate::measure::region::{self, Geometry, Layout, RegionBuffer, RegionError, Table, TickSource, Ticks};

/// Launches before the first that counts, and launches that count, of each kind.
const WARMUPS: usize = 3;
const SAMPLES: usize = 41;

/// Written before each launch of `wo_gemv`, so that nothing of the last one is in L2.
const FLUSH_BYTES: usize = 256 << 20;

/// What regions cost.
pub(in crate::cli) struct Cost {
    /// Median launch without regions, microseconds.
    pub(super) off_us: f64,
    /// Median launch with them.
    pub(super) on_us: f64,
    /// Median over pairs of launches, one after the other, of with less without.
    pub(super) more_us: f64,
    /// Median time between the two events with no launch between them.
    pub(super) events_us: f64,
    /// The GPU.
    pub(super) device: String,
    /// What it was held to before.
    pub(super) held_to: &'static str,
}

/// The launches that the constants ask for; or one line on why there are none.
pub(super) fn runs(jit: &Jit, family: &str, nat: u32) -> Result<Result<Vec<Run>, String>, MeasureError> {
    if !["wo_gemv", "beta_coop", "beta_lite"].contains(&family) {
        return Ok(Err(format!(
            "--live {family}: expected wo_gemv, beta_coop or beta_lite"
        )));
    }
    let specs = crate::cli::specs(jit, &[family.to_owned()])?;
    let context = Context::new(0).map_err(MeasureError::Device)?;
    let mut runs = Vec::new();
    let mut problem: Option<(WoShape, WoInputs, WoProblem)> = None;
    let mut scratch: Option<CudaSlice<u8>> = None;
    for spec in specs {
        if family != "wo_gemv" {
            match layer::one(jit, &context, &spec, nat)? {
                Ok(run) => runs.push(run),
                Err(reason) => return Ok(Err(reason)),
            }
            continue;
        }
        let shape = shape(&spec);
        // Weights do not depend on the split: most variants share them.
        let same = |p: &(WoShape, WoInputs, WoProblem)| p.0.hidden == shape.hidden && p.0.k == shape.k;
        let (_, inputs, problem) = match &mut problem {
            Some(kept) if same(kept) => kept,
            slot => {
                let inputs = WoInputs::random(&shape, nat as usize, 1.0, 4242);
                let stream = context.cuda().default_stream();
                let most_slots = 8 * shape.num_kv_heads.max(4);
                let there = WoProblem::new(&stream, &shape, most_slots, &inputs)?;
                slot.insert((shape, inputs, there))
            }
        };
        let scratch = match &mut scratch {
            Some(kept) => kept,
            slot => {
                let stream = context.cuda().default_stream();
                slot.insert(stream.alloc_zeros(FLUSH_BYTES).map_err(ProblemError::from)?)
            }
        };
        match one(jit, &context, &spec, (shape, inputs, problem), scratch)? {
            Ok(run) => runs.push(run),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    Ok(Ok(runs))
}

fn one(
    jit: &Jit,
    context: &Context,
    spec: &KernelSpec,
    (shape, inputs, problem): (WoShape, &WoInputs, &mut WoProblem),
    scratch: &mut CudaSlice<u8>,
) -> Result<Result<Run, String>, MeasureError> {
    let off = with_regions(spec, 0)?;
    let count = chosen(spec);
    let on = with_regions(spec, count)?;
    let (on_kernel, off_kernel) = (jit.load(&on, context)?, jit.load(&off, context)?);
    let table = Table::of(&on.family.name, count)?;
    let nat = inputs.nat;
    let geometry = geometry(&on, &on_kernel, nat);
    let stream = context.cuda().default_stream();
    let (words, timing) = buffer(&stream, &on, count, geometry)?;

    let fused = on.constants["accumulate"].as_name() == Some("fma");
    let expected = split_order(&shape, inputs, fused);
    let actual = problem.run_timed(&on_kernel, nat, shape.num_slots(), timing)?;
    for (what, compared) in [
        ("partials", compare(&expected.partials, &actual.partials)),
        ("output", compare(&expected.output, &actual.output)),
    ] {
        if let Some(first) = compared.first_mismatch {
            return Ok(Err(format!(
                "{}: {what}[{}] differs from the reference, and {} more: nothing was timed",
                on.variant(),
                first.index,
                compared.mismatches - 1
            )));
        }
    }

    let against = "equal to the reference in every bit";
    let account = |words: &[u64]| Ticks::from_words(table, geometry, source(&on), words);
    measure(
        context,
        &mut || Ok(stream.memset_zeros(scratch).map_err(ProblemError::from)?),
        &words,
        &off,
        against,
        &account,
        &mut |regions| {
            let (kernel, timing) = if regions {
                (&on_kernel, timing)
            } else {
                (&off_kernel, 0)
            };
            Ok(problem.launch(&kernel.entries()[0], nat, timing)?)
        },
    )
    .map(Ok)
}

/// Times a variant without regions and with them, launch by launch in turn, each behind
/// `before`. The account kept is that of the launch with the median time.
pub(super) fn measure(
    context: &Context,
    before: &mut dyn FnMut() -> Result<(), MeasureError>,
    words: &CudaSlice<u64>,
    off: &KernelSpec,
    held_to: &'static str,
    account: &dyn Fn(&[u64]) -> Result<Ticks, RegionError>,
    launch: &mut dyn FnMut(bool) -> Result<(), MeasureError>,
) -> Result<Run, MeasureError> {
    let stream = context.cuda().default_stream();
    let (mut without, mut with, mut more, mut nothing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for i in 0..WARMUPS + SAMPLES {
        // Each kind goes first in turn: what is first after the copy is not always the same.
        let mut pair = [0.0; 2];
        for regions in [i % 2 == 1, i % 2 == 0] {
            pair[usize::from(regions)] = timed(context, before, &mut || launch(regions))?;
        }
        let [off_us, on_us] = pair;
        let events_us = timed(context, before, &mut || Ok(()))?;
        if i >= WARMUPS {
            let read = stream.clone_dtoh(words).map_err(ProblemError::from)?;
            stream.synchronize().map_err(ProblemError::from)?;
            without.push(off_us);
            with.push((on_us, read));
            more.push(on_us - off_us);
            nothing.push(events_us);
        }
    }
    for times in [&mut without, &mut more, &mut nothing] {
        times.sort_by(f64::total_cmp);
    }
    with.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (on_us, read) = &with[SAMPLES / 2];
    let mut ticks = account(read)?;
    ticks.launch_us = Some(*on_us);
    ticks.label = format!("{} {}", off.family.name, off.variant());
    let mut run = Run::new(ticks);
    run.cost = Some(Cost {
        off_us: without[SAMPLES / 2],
        on_us: *on_us,
        more_us: more[SAMPLES / 2],
        events_us: nothing[SAMPLES / 2],
        device: context.device().name.clone(),
        held_to,
    });
    Ok(run)
}

/// One launch between two events, behind `before`; microseconds.
fn timed(
    context: &Context,
    before: &mut dyn FnMut() -> Result<(), MeasureError>,
    launch: &mut dyn FnMut() -> Result<(), MeasureError>,
) -> Result<f64, MeasureError> {
    let stream = context.cuda().default_stream();
    let event = || {
        let timing = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        context.cuda().new_event(timing).map_err(ProblemError::from)
    };
    let (start, end) = (event()?, event()?);
    before()?;
    start.record(&stream).map_err(ProblemError::from)?;
    launch()?;
    end.record(&stream).map_err(ProblemError::from)?;
    let elapsed_ms = start.elapsed_ms(&end).map_err(ProblemError::from)?;
    Ok(1000.0 * f64::from(elapsed_ms))
}

/// Words for what a launch of this kernel writes, and the argument that names them.
pub(super) fn buffer(
    stream: &Arc<CudaStream>,
    spec: &KernelSpec,
    count: u32,
    geometry: Geometry,
) -> Result<(CudaSlice<u64>, sys::CUdeviceptr), MeasureError> {
    let table = Table::of(&spec.family.name, count)?;
    let mut words = stream
        .alloc_zeros::<u64>(geometry.words(&table))
        .map_err(ProblemError::from)?;
    let (address, _) = words.device_ptr_mut(stream);
    let buffer = RegionBuffer {
        table,
        geometry,
        address,
    };
    let timing = region::argument(Some(&buffer), &spec.family.name, count, &geometry)?;
    Ok((words, timing))
}

/// The same variant with another number of regions.
pub(super) fn with_regions(spec: &KernelSpec, count: u32) -> Result<KernelSpec, MeasureError> {
    Ok(spec.with([("num_regions", count.to_string().as_str())])?)
}

/// The clock of a variant.
pub(super) fn source(spec: &KernelSpec) -> TickSource {
    let name = spec.constants.get("tick_source").and_then(Value::as_name);
    name.and_then(TickSource::of).unwrap_or_default()
}

/// The regions asked for, else the largest set.
pub(super) fn chosen(spec: &KernelSpec) -> u32 {
    match number(spec, "num_regions") {
        0 => most_regions(spec),
        count => count,
    }
}

/// The largest set that the family has.
fn most_regions(spec: &KernelSpec) -> u32 {
    match spec.family.constants.get("num_regions").map(|c| &c.legal) {
        Some(Legal::U32Values(counts)) => counts.iter().copied().max().unwrap_or(0),
        _ => 0,
    }
}

pub(super) fn number(spec: &KernelSpec, name: &str) -> u32 {
    spec.number(name).unwrap_or(0)
}

fn shape(spec: &KernelSpec) -> WoShape {
    let size = |name: &str| number(spec, name) as usize;
    WoShape {
        hidden: size("hidden"),
        k: size("num_q_heads") * size("head_dim"),
        num_kv_heads: size("num_kv_heads"),
        wo_split: size("wo_split"),
    }
}

/// The grid as the account sees it.
pub(super) fn geometry(spec: &KernelSpec, kernel: &LoadedKernel, nat: usize) -> Geometry {
    let tokens = u32::try_from(nat).unwrap_or(u32::MAX);
    let [slice_ctas, num_k_tiles, num_seqs] = kernel.entries()[0].grid(tokens);
    let original = spec.constants.get("geometry").and_then(Value::as_name) == Some("original");
    Geometry {
        slice_ctas,
        num_k_tiles,
        // There a launch has a layer of blocks a token, whatever the entry point says of one.
        num_seqs: if original { tokens } else { num_seqs },
        wo_split: number(spec, "wo_split"),
        num_kv_heads: number(spec, "num_kv_heads"),
        layout: if original { Layout::Slots } else { Layout::Tiles },
    }
}
