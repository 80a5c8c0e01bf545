//! How long a launch takes: events around each launch, or around replays of a
//! graph of launches.
//!
//! Invariant: between the two events of a sample stands nothing but the launches
//! that it counts; all of them are queued before the first is waited for.

use cudarc::driver::{CudaEvent, CudaGraph, CudaStream, DriverError, sys};
use serde::Serialize;

use crate::engine::run::device::{Context, DeviceError};
use crate::engine::run::launch::LaunchError;

/// Why nothing was timed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// A launch failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The context could not be made current.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Launches that were to become a graph left none.
    #[error("the launches were captured, and no graph came of it")]
    NoGraph,
    /// The driver said no.
    #[error("timing: {}", crate::engine::run::driver_error::DriverError::of(*.0))]
    Driver(#[from] DriverError),
}

/// What stands between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A graph of launches; a sample is a replay's time divided by its launches.
    Graph,
    /// One launch; the events' own cost is part of a sample.
    Events,
}

/// How a launch is timed, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// What stands between two events.
    pub method: Method,
    /// Launches of a graph.
    pub launches_per_graph: usize,
    /// Launches, or replays, before the first sample.
    pub warmups: usize,
    /// Number of samples.
    pub samples: usize,
}

/// How many sets of inputs, of so many bytes each, take turns so that a launch finds
/// nothing of its own in L2: together 32 times the L2, and 256 sets at most.
///
/// Two sets, each larger than L2, are not enough: what is marked to leave L2 first makes
/// room for the next launch's lines in place of older ones, so a part of what was read
/// two turns ago is still there. On an H200 two copies of a decode layer took 58.2 us
/// where ten took 62.8.
#[must_use]
pub fn cold_sets(l2_bytes: u32, set_bytes: usize) -> usize {
    const TIMES_L2: usize = 32;
    let l2 = usize::try_from(l2_bytes).unwrap_or(usize::MAX);
    l2.saturating_mul(TIMES_L2)
        .div_ceil(set_bytes.max(1))
        .clamp(2, 256)
}

/// Samples, each microseconds a launch. `launch` gets the launch's number, by which
/// it chooses its inputs, and the stream; its own error ends the measurement, as it is.
pub fn sample<E: From<TimingError>>(
    context: &Context,
    plan: &Plan,
    launch: &mut dyn FnMut(usize, sys::CUstream) -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    let driver = |error: DriverError| TimingError::from(error);
    context.bind().map_err(TimingError::from)?;
    let stream = context.cuda().new_stream().map_err(driver)?;
    let handle = stream.cu_stream();
    let pairs = event_pairs(context, plan.samples)?;
    let per_sample = match plan.method {
        Method::Events => {
            for i in 0..plan.warmups {
                launch(i, handle)?;
            }
            stream.synchronize().map_err(driver)?;
            for (i, (start, end)) in pairs.iter().enumerate() {
                start.record(&stream).map_err(driver)?;
                launch(plan.warmups + i, handle)?;
                end.record(&stream).map_err(driver)?;
            }
            1
        }
        Method::Graph => {
            // The first launch outside: a module's first launch does more than launch.
            launch(0, handle)?;
            stream.synchronize().map_err(driver)?;
            stream
                .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
                .map_err(driver)?;
            let queued = (0..plan.launches_per_graph).try_for_each(|i| launch(i, handle));
            let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
            queued?;
            replays(&stream, graph, plan.warmups, &pairs)?;
            plan.launches_per_graph
        }
    };
    stream.synchronize().map_err(driver)?;
    let launches = f64::from(u32::try_from(per_sample).unwrap_or(u32::MAX));
    let micros = pairs.iter().map(|(start, end)| {
        let elapsed_ms = start.elapsed_ms(end).map_err(driver)?;
        Ok(f64::from(elapsed_ms) * 1e3 / launches)
    });
    Ok(micros.collect::<Result<_, TimingError>>()?)
}

/// What stands before a sample, and behind it.
type Pair = (CudaEvent, CudaEvent);

fn event_pairs(context: &Context, count: usize) -> Result<Vec<Pair>, TimingError> {
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let one = |_| Ok((context.cuda().new_event(timed)?, context.cuda().new_event(timed)?));
    (0..count).map(one).collect()
}

/// Replays of what was captured: some before the first sample, then one a sample.
fn replays(
    stream: &CudaStream,
    captured: Result<Option<CudaGraph>, DriverError>,
    warmups: usize,
    pairs: &[Pair],
) -> Result<(), TimingError> {
    let graph = captured?.ok_or(TimingError::NoGraph)?;
    for _ in 0..warmups {
        graph.launch()?;
    }
    stream.synchronize()?;
    for (start, end) in pairs {
        start.record(stream)?;
        graph.launch()?;
        end.record(stream)?;
    }
    Ok(stream.synchronize()?)
}

/// Samples in short, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Number of samples.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The middle one.
    pub median: f64,
    /// A twentieth lies below.
    pub p5: f64,
    /// A twentieth lies above.
    pub p95: f64,
}

impl Summary {
    /// Of at least one sample.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return None;
        }
        let count = f64::from(u32::try_from(sorted.len()).ok()?);
        Some(Self {
            count: sorted.len(),
            mean: sorted.iter().sum::<f64>() / count,
            median: quantile(&sorted, 1, 2),
            p5: quantile(&sorted, 1, 20),
            p95: quantile(&sorted, 19, 20),
        })
    }
}

/// The `part / whole` quantile of sorted samples, linear between neighbors.
fn quantile(sorted: &[f64], part: usize, whole: usize) -> f64 {
    let steps = (sorted.len() - 1) * part;
    let (below, rest) = (steps / whole, steps % whole);
    let above = (below + 1).min(sorted.len() - 1);
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    sorted[below] + (sorted[above] - sorted[below]) * number(rest) / number(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn a_summary_does_not_depend_on_the_order_of_its_samples() {
        let summary = Summary::of(&[3.0, 1.0, 2.0, 5.0, 4.0]).expect("samples");
        assert_eq!(summary, Summary::of(&[5.0, 4.0, 3.0, 2.0, 1.0]).expect("samples"));
        is(summary.median, 3.0);
        is(summary.mean, 3.0);
        is(summary.p5, 1.2);
        is(summary.p95, 4.8);
    }

    #[test]
    fn one_sample_is_every_quantile_of_itself_and_none_is_no_summary() {
        let summary = Summary::of(&[7.5]).expect("a sample");
        is(summary.p5, 7.5);
        is(summary.median, 7.5);
        is(summary.p95, 7.5);
        assert!(Summary::of(&[]).is_none());
    }

    #[test]
    fn cold_sets_are_many_times_the_l2_and_at_least_two() {
        let l2 = 50 << 20;
        assert_eq!(cold_sets(l2, 160 << 20), 10, "a decode layer");
        assert_eq!(cold_sets(l2, 18 << 20), 89, "one matrix");
        assert_eq!(cold_sets(l2, 4 << 30), 2);
        assert_eq!(cold_sets(l2, 1 << 10), 256);
        assert_eq!(cold_sets(l2, 0), 256);
        assert_eq!(cold_sets(0, 1), 2, "a driver that does not say");
    }

    #[test]
    fn an_even_number_of_samples_has_its_median_between_two() {
        is(Summary::of(&[1.0, 2.0, 10.0, 20.0]).expect("samples").median, 6.0);
    }
}
