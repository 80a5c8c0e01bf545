//! A launch by regions on a GPU, whatever the family: the same kernel without regions and
//! with them, launch by launch, with nothing of its own in L2.
//!
//! Invariant: a family holds the kernel with regions to its reference before it is timed
//! here. The ticks kept are those of the launch with the median time, and so is the time.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, sys};

use super::{Geometry, Layout, RegionBuffer, RegionError, Table, TickSource, Ticks, argument};
use crate::engine::jit::Jit;
use crate::engine::request::constant::Value;
use crate::engine::request::spec::{KernelSpec, parse_archs};
use crate::engine::request::target::Arch;
use crate::engine::request::template::Legal;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::measure::MeasureError;

/// Launches before the first that counts, and launches that count, of each kind.
const WARMUPS: usize = 3;
const SAMPLES: usize = 41;

/// What regions cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// Median launch without regions, microseconds.
    pub off_us: f64,
    /// Median launch with them.
    pub on_us: f64,
    /// Median over pairs of launches, one after the other, of with less without.
    pub more_us: f64,
    /// Median time between the two events with no launch between them.
    pub events_us: f64,
    /// The GPU.
    pub device: String,
    /// What it was held to before.
    pub held_to: &'static str,
}

/// A variant's ticks, and what it cost to take them.
#[derive(Debug)]
pub struct LiveRun {
    /// Of the launch with the median time.
    pub ticks: Ticks,
    /// What regions cost.
    pub cost: Cost,
}

/// Every variant of a family that the settings ask for, for the architectures that they
/// name; where they name none, for `here`, and without it for the usual ones: what is not
/// legal is so without a GPU, too.
///
/// # Errors
/// Constants that the family does not declare, and values that it forbids.
pub fn requested(jit: &Jit, family: &str, here: Option<Arch>) -> Result<Vec<KernelSpec>, MeasureError> {
    jit.registry().check_constants(&[family], jit.config())?;
    let family = jit.registry().named(family)?;
    let named = jit.config().arch().map(|setting| parse_archs(&setting));
    let archs = named.transpose()?.unwrap_or_else(|| match here {
        Some(arch) => vec![arch],
        None => Arch::DEFAULTS
            .into_iter()
            .filter(|arch| family.family().does(*arch))
            .collect(),
    });
    Ok(KernelSpec::expand(&family, jit.config(), &archs)?)
}

/// Times a variant without regions and with them, launch by launch in turn, each behind
/// `before`. `words` is what a launch with regions writes, `account` reads it; `launch` is
/// told whether regions are asked for.
///
/// # Errors
/// Those of launching and of the driver, and of a buffer that makes no sense.
pub fn measure(
    context: &Context,
    before: &mut dyn FnMut() -> Result<(), MeasureError>,
    words: &CudaSlice<u64>,
    off: &KernelSpec,
    held_to: &'static str,
    account: &dyn Fn(&[u64]) -> Result<Ticks, RegionError>,
    launch: &mut dyn FnMut(bool) -> Result<(), MeasureError>,
) -> Result<LiveRun, MeasureError> {
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
            let read = stream.clone_dtoh(words)?;
            stream.synchronize()?;
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
    Ok(LiveRun {
        ticks,
        cost: Cost {
            off_us: without[SAMPLES / 2],
            on_us: *on_us,
            more_us: more[SAMPLES / 2],
            events_us: nothing[SAMPLES / 2],
            device: context.device().name.clone(),
            held_to,
        },
    })
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
        context.cuda().new_event(timing)
    };
    let (start, end) = (event()?, event()?);
    before()?;
    start.record(&stream)?;
    launch()?;
    end.record(&stream)?;
    let elapsed_ms = start.elapsed_ms(&end)?;
    Ok(1000.0 * f64::from(elapsed_ms))
}

/// Words for what a launch of this kernel writes, zeroed, and the argument that names them.
///
/// # Errors
/// Regions that the family does not have, and the driver's.
pub fn buffer(
    stream: &Arc<CudaStream>,
    spec: &KernelSpec,
    count: u32,
    geometry: Geometry,
) -> Result<(CudaSlice<u64>, sys::CUdeviceptr), MeasureError> {
    let table = Table::of(spec.region_name(), count)?;
    let mut words = stream.alloc_zeros::<u64>(geometry.words(&table))?;
    let (address, _) = words.device_ptr_mut(stream);
    let buffer = RegionBuffer {
        table,
        geometry,
        address,
    };
    let timing = argument(Some(&buffer), spec.region_name(), count, &geometry)?;
    Ok((words, timing))
}

/// The same variant with another number of regions.
///
/// # Errors
/// A number that the family does not have.
pub fn with_regions(spec: &KernelSpec, count: u32) -> Result<KernelSpec, MeasureError> {
    Ok(spec.with([("num_regions", count.to_string().as_str())])?)
}

/// The clock of a variant.
#[must_use]
pub fn source(spec: &KernelSpec) -> TickSource {
    let name = spec.constants.get("tick_source").and_then(Value::as_name);
    name.and_then(TickSource::of).unwrap_or_default()
}

/// The regions asked for, else the largest set.
#[must_use]
pub fn chosen(spec: &KernelSpec) -> u32 {
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

fn number(spec: &KernelSpec, name: &str) -> u32 {
    spec.number(name).unwrap_or(0)
}

/// The grid as the account sees it.
#[must_use]
pub fn geometry(spec: &KernelSpec, kernel: &LoadedKernel, nat: usize) -> Geometry {
    let tokens = u32::try_from(nat).unwrap_or(u32::MAX);
    let [slice_ctas, num_k_tiles, num_seqs] = kernel.entries()[0].grid(&[tokens]);
    let original = spec.constants.get("geometry").and_then(Value::as_name) == Some("original");
    Geometry {
        slice_ctas,
        num_k_tiles,
        num_seqs,
        wo_split: number(spec, "wo_split"),
        num_kv_heads: number(spec, "num_kv_heads"),
        layout: if original { Layout::Slots } else { Layout::Tiles },
    }
}
