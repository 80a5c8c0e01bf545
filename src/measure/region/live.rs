//! A kernel with regions on a GPU, and what its blocks wrote.
//!
//! Invariant: a kernel with regions is timed beside the same kernel without them, launch
//! by launch, each behind what the caller puts before it. The ticks kept are those of the
//! launch with the median time, and so is the time. Whether the kernel is right is the
//! caller's to find out before.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, sys};

use super::{Geometry, Layout, Reduced, RegionBuffer, RegionError, Table, Ticks, argument, reduce};
use crate::engine::jit::Jit;
use crate::engine::request::spec::{KernelSpec, parse_archs};
use crate::engine::request::target::Arch;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::measure::MeasureError;

/// Launches before the first that counts, and launches that count, of each kind.
const WARMUPS: usize = 3;
const SAMPLES: usize = 41;

/// A launch's ticks and their account.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Run {
    /// The ticks.
    pub ticks: Ticks,
    /// Their account.
    pub reduced: Reduced,
    /// What the regions cost, where that was measured.
    pub cost: Option<Cost>,
}

impl Run {
    /// Reduces ticks.
    #[must_use]
    pub fn new(ticks: Ticks) -> Self {
        let reduced = reduce(&ticks);
        Self {
            ticks,
            reduced,
            cost: None,
        }
    }
}

/// What regions cost, microseconds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Median launch without regions.
    pub off_us: f64,
    /// Median launch with them.
    pub on_us: f64,
    /// Median over pairs of launches, one after the other, of with less without.
    pub more_us: f64,
    /// Median time between the two events with no launch between them.
    pub events_us: f64,
    /// The GPU.
    pub device: String,
    /// What it was compared with before.
    pub held_to: &'static str,
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

/// [`requested`] in two each.
///
/// # Errors
/// Those of [`requested`], and [`RegionError::NoRegions`].
pub fn requested_pairs(jit: &Jit, family: &str, here: Option<Arch>) -> Result<Vec<Pair>, MeasureError> {
    requested(jit, family, here)?.iter().map(Pair::of).collect()
}

/// A variant in two: with the regions that were asked for, else the largest set, and
/// without any.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pair {
    /// The variant with regions.
    pub on: KernelSpec,
    /// The same variant without regions.
    pub off: KernelSpec,
    /// The regions of `on`.
    pub table: Table,
}

impl Pair {
    /// The two of a variant.
    ///
    /// # Errors
    /// [`RegionError::NoRegions`] for a family without regions.
    pub fn of(spec: &KernelSpec) -> Result<Self, MeasureError> {
        let none = || RegionError::NoRegions {
            family: spec.family().name.clone(),
        };
        let regions = spec.family().regions.as_ref().ok_or_else(none)?;
        let with = |count: u32| spec.with([(regions.count.as_str(), count.to_string().as_str())]);
        let on = match spec.number(&regions.count) {
            None | Some(0) => with(regions.largest())?,
            Some(_) => spec.clone(),
        };
        Ok(Self {
            table: on.region_table()?.ok_or_else(none)?,
            off: with(0)?,
            on,
        })
    }
}

/// A launch of these sizes as its account sees it.
#[must_use]
pub fn geometry(pair: &Pair, kernel: &LoadedKernel, sizes: &[u32], layout: Layout) -> Geometry {
    let grid = kernel.entries()[0].grid(sizes);
    Geometry {
        layout,
        ..Geometry::of_launch(&pair.on, &pair.table, grid)
    }
}

/// Words for what a launch of this kernel writes, zeroed, and the argument that names them.
pub fn buffer(
    stream: &Arc<CudaStream>,
    pair: &Pair,
    geometry: &Geometry,
) -> Result<(CudaSlice<u64>, sys::CUdeviceptr), MeasureError> {
    let mut words = stream.alloc_zeros::<u64>(geometry.words(&pair.table))?;
    let (address, _) = words.device_ptr_mut(stream);
    let buffer = RegionBuffer {
        table: pair.table.clone(),
        geometry: geometry.clone(),
        address,
    };
    let timing = argument(Some(&buffer), &pair.on, geometry)?;
    Ok((words, timing))
}

/// Times a variant without regions and with them, launch by launch in turn, each behind
/// `before`. The account kept is that of the launch with the median time.
pub fn measure(
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
    ticks.label = format!("{} {}", off.family().name, off.variant());
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
        context.cuda().new_event(timing)
    };
    let (start, end) = (event()?, event()?);
    before()?;
    start.record(&stream)?;
    launch()?;
    end.record(&stream)?;
    Ok(1000.0 * f64::from(start.elapsed_ms(&end)?))
}
