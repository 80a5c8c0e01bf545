//! Ticks -> an account: a row a region, and what explains the launch.
//!
//! Invariant: the numbers of nvllm's reducer, in its rules: a row counts if
//! the geometry says that its block runs the region and its time is positive;
//! percentiles interpolate linearly. Waiting and elected regions are never given
//! as a share of the kernel.

use super::{Layout, Region, TickSource, Ticks};

/// One region's row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegionRow {
    /// The region.
    pub region: Region,
    /// Blocks that ran it.
    pub n_active: usize,
    /// Blocks that run it in one launch; more than these are stale.
    pub expected: usize,
    /// Blocks outside of its mask whose row is not zero; they never count.
    pub outside: usize,
    /// Blocks inside its mask whose row is zero: they did not get there, or nobody
    /// wrote it down.
    pub silent: usize,
    /// Mean of their ticks; 0 where nobody ran it, as everywhere below.
    pub mean: f64,
    /// Median of their ticks.
    pub median: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Sum of their ticks.
    pub total: i64,
    /// The median in microseconds, by nvllm's rule: NaN unless the clock is
    /// globaltimer and the launch was measured.
    pub median_us: f64,
    /// The median over the launch's time; NaN without one, and for waiting and
    /// elected regions.
    pub frac_of_kernel: f64,
}

/// What is known of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CtaAccount {
    /// The block's row.
    pub cta: usize,
    /// Ticks of work.
    pub work: i64,
    /// Ticks of waiting.
    pub wait: i64,
    /// From its first tick to its last.
    pub span: i64,
    /// Its first tick and its last.
    pub ends: (i64, i64),
}

/// Where the launch's time is that no region of the busiest block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unaccounted {
    /// Before the first tick of any block and after the last one: from the launch's
    /// measured start to the kernel's first instruction, and from its last to the
    /// measured end. `None` without a measured launch, or with cycles.
    pub outside: Option<i64>,
    /// From the first tick of any block to the first of this one; `None` for cycles.
    pub before: Option<i64>,
    /// From the last tick of this block to the last of any; `None` for cycles.
    pub after: Option<i64>,
    /// Between two regions of this block.
    pub between: i64,
}

/// A launch's account.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reduced {
    /// A row a region, by id.
    pub rows: Vec<RegionRow>,
    /// The block that worked longest.
    pub busiest: CtaAccount,
    /// Ticks of work over all blocks.
    pub work: i64,
    /// Ticks of waiting over all blocks.
    pub wait: i64,
    /// What all times between ticks are multiples of: the clock's step, or a multiple
    /// of it; 0 for cycles.
    pub step: u64,
    /// From the first tick of any block to the last; `None` for a clock that
    /// blocks do not share.
    pub window: Option<i64>,
    /// What the busiest block's regions leave unexplained, by place.
    pub rest: Unaccounted,
}

impl Reduced {
    /// Work and waits of the busiest block over the launch's time in ticks; without
    /// a measured time, over the time from the first tick to the last.
    #[must_use]
    pub fn explained(&self, ticks: &Ticks) -> Option<f64> {
        let whole = match (ticks.source, ticks.launch_us) {
            (TickSource::GlobalTimer, Some(us)) => us * 1000.0,
            _ => float(self.window.unwrap_or(self.busiest.span)),
        };
        (whole > 0.0).then(|| float(self.busiest.work + self.busiest.wait) / whole)
    }

    /// nvllm's `wall_minus_regions_us`: a wall time less the medians of
    /// every region that does not wait. It counts a region's last iteration beside
    /// the sum of all; [`Self::explained`] does not.
    #[must_use]
    pub fn wall_minus_regions_us(&self, wall_us: f64) -> f64 {
        let work = self.rows.iter().filter(|row| !row.region.is_wait());
        wall_us - work.map(|row| row.median).sum::<f64>() / 1000.0
    }
}

/// Reduces ticks to an account.
#[must_use]
pub fn reduce(ticks: &Ticks) -> Reduced {
    let globaltimer = ticks.source == TickSource::GlobalTimer;
    let total_us = ticks.launch_us;
    let rows = ticks
        .table
        .regions
        .iter()
        .map(|region| {
            let mut deltas: Vec<i64> = (0..ticks.geometry.ctas())
                .filter_map(|cta| ticks.delta(cta, region.id))
                .collect();
            deltas.sort_unstable();
            let total: i64 = deltas.iter().sum();
            let median = median(&deltas);
            let share = !region.is_wait() && !region.active.is_elected();
            RegionRow {
                region: region.clone(),
                n_active: deltas.len(),
                expected: ticks.geometry.expected(&region.active),
                outside: rows_where(ticks, region, false, true),
                silent: silent(ticks, region),
                mean: if deltas.is_empty() {
                    0.0
                } else {
                    float(total) / count(deltas.len())
                },
                median,
                p99: percentile(&deltas, 99.0),
                total,
                median_us: match total_us {
                    Some(_) if globaltimer => median / 1000.0,
                    _ => f64::NAN,
                },
                frac_of_kernel: match total_us {
                    Some(us) if globaltimer && share => median / (us * 1000.0),
                    _ => f64::NAN,
                },
            }
        })
        .collect();
    let accounted = ticks.accounted();
    let ctas: Vec<CtaAccount> = (0..ticks.geometry.ctas())
        .map(|cta| account(ticks, &accounted, cta))
        .collect();
    let busiest = ctas
        .iter()
        .copied()
        .max_by_key(|c| (c.work, std::cmp::Reverse(c.cta)))
        .unwrap_or(CtaAccount {
            cta: 0,
            work: 0,
            wait: 0,
            span: 0,
            ends: (0, 0),
        });
    let whole = globaltimer.then(|| ends((0..ticks.geometry.ctas()).flat_map(|cta| moments(ticks, cta))));
    let window = whole.map(|(first, last)| last - first);
    Reduced {
        rows,
        busiest,
        work: ctas.iter().map(|c| c.work).sum(),
        wait: ctas.iter().map(|c| c.wait).sum(),
        step: if globaltimer { step(ticks) } else { 0 },
        window,
        rest: Unaccounted {
            outside: window
                .zip(total_us)
                .map(|(window, us)| rounded(us * 1000.0) - window),
            before: whole.map(|(first, _)| busiest.ends.0 - first),
            after: whole.map(|(_, last)| last - busiest.ends.1),
            between: busiest.span - busiest.work - busiest.wait,
        },
    }
}

/// Rows in (or out of) a region's mask that are not zero (or are).
fn rows_where(ticks: &Ticks, region: &Region, inside: bool, written: bool) -> usize {
    (0..ticks.geometry.ctas())
        .filter(|&cta| ticks.geometry.is_active(&region.active, cta) == inside)
        .filter(|&cta| (ticks.pair(cta, region.id) != [0, 0]) == written)
        .count()
}

/// Blocks that should have written a region and did not. An elected block may be any;
/// and where every block does a part of everything, a block without a share of the
/// launch, or a region that the kernel has no place for, is none.
fn silent(ticks: &Ticks, region: &Region) -> usize {
    match ticks.geometry.layout {
        _ if region.active.is_elected() => 0,
        Layout::Slots => rows_where(ticks, region, true, false),
        Layout::Tiles if rows_where(ticks, region, true, true) == 0 => 0,
        Layout::Tiles => (0..ticks.geometry.ctas())
            .filter(|&cta| moments(ticks, cta).next().is_some() && ticks.pair(cta, region.id) == [0, 0])
            .count(),
    }
}

fn account(ticks: &Ticks, accounted: &[&Region], cta: usize) -> CtaAccount {
    let time = |wait: bool| {
        accounted
            .iter()
            .filter(|r| r.is_wait() == wait)
            .filter_map(|r| ticks.delta(cta, r.id))
            .sum()
    };
    let (first, last) = ends(moments(ticks, cta));
    CtaAccount {
        cta,
        work: time(false),
        wait: time(true),
        span: last - first,
        ends: (first, last),
    }
}

/// Entries and exits of the regions that a block ran and that are moments.
fn moments(ticks: &Ticks, cta: usize) -> impl Iterator<Item = i64> {
    ticks
        .table
        .regions
        .iter()
        .filter(move |r| r.is_span() && ticks.delta(cta, r.id).is_some())
        .flat_map(move |r| ticks.pair(cta, r.id))
}

fn step(ticks: &Ticks) -> u64 {
    let mut all = (0..ticks.geometry.ctas()).flat_map(|cta| moments(ticks, cta));
    let Some(first) = all.next() else {
        return 0;
    };
    all.fold(0, |step, t| common_divisor(step, (t - first).unsigned_abs()))
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// The first and the last; 0 and 0 where there are none.
fn ends(moments: impl Iterator<Item = i64>) -> (i64, i64) {
    let (first, last) = moments.fold((i64::MAX, i64::MIN), |(a, b), t| (a.min(t), b.max(t)));
    if first > last { (0, 0) } else { (first, last) }
}

#[expect(clippy::cast_possible_truncation, reason = "a launch's nanoseconds")]
fn rounded(ticks: f64) -> i64 {
    ticks.round() as i64
}

fn median(sorted: &[i64]) -> f64 {
    match (sorted.len() / 2, sorted.len() % 2) {
        (0, 0) => 0.0,
        (middle, 0) => f64::midpoint(float(sorted[middle - 1]), float(sorted[middle])),
        (middle, _) => float(sorted[middle]),
    }
}

/// Linear interpolation between the two ranks around `percent`, in numpy's order
/// of operations, so that the last bit agrees too.
fn percentile(sorted: &[i64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let rank = count(last) * (percent / 100.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank lies between 0 and the last index"
    )]
    let below = rank.floor() as usize;
    let (a, b) = (float(sorted[below]), float(sorted[(below + 1).min(last)]));
    let t = rank - rank.floor();
    if t >= 0.5 {
        b - (b - a) * (1.0 - t)
    } else {
        a + (b - a) * t
    }
}

#[expect(clippy::cast_precision_loss, reason = "ticks of a launch are far below 2^53")]
fn float(ticks: i64) -> f64 {
    ticks as f64
}

#[expect(clippy::cast_precision_loss, reason = "blocks of a launch are far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}
