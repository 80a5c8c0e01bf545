//! How often each thing happened, in all and by tier, as numbers and as Prometheus text.
//!
//! Invariant: counting takes no lock and writes nothing; it adds to an atomic.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event::Event;
use super::far_counters::{FarTally, METRICS, store_of};
use super::store::usage::FarCounters;
use super::tier::TierName;

/// How often each thing happened in one [`super::Cache`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Verified hits, on disk and in other tiers.
    pub hits: u64,
    /// Hits on artifacts that this process still held.
    pub memory_hits: u64,
    /// Misses.
    pub misses: u64,
    /// Artifacts built.
    pub built: u64,
    /// Time inside the compiler for what was built, microseconds.
    pub compile_us: u64,
    /// Time inside the compiler that hits of tiers saved, microseconds: what their entries
    /// say that they took; those of bundles do not say it.
    pub saved_us: u64,
    /// Entries written.
    pub published: u64,
    /// Artifacts that could not be kept.
    pub not_published: u64,
    /// Bad entries found.
    pub healed: u64,
    /// Looks into a tier that could not be read.
    pub unavailable: u64,
    /// Waits that were given up.
    pub lock_timeouts: u64,
    /// Entries pruned.
    pub pruned: u64,
    /// Compiles that should have been warmed ([`Event::LateCompile`]).
    pub late_compiles: u64,
    /// Requests that a policy refused.
    pub refused: u64,
    /// Times that the driver compiled PTX.
    pub driver_compiles: u64,
    /// Requests that a more general variant answered while they were compiled.
    pub behind: u64,
    /// Those of them that were done, and took over.
    pub took_over: u64,
    /// Those of them that failed.
    pub behind_failed: u64,
}

/// How often each thing happened in one tier.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TierCounters {
    /// The tier.
    pub tier: TierName,
    /// Verified hits.
    pub hits: u64,
    /// Entries written.
    pub published: u64,
    /// Bad entries found.
    pub healed: u64,
    /// Looks that ended in a tier that could not be read.
    pub unavailable: u64,
    /// More of a store that is asked over a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<FarCounters>,
}

/// The live counters behind [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    hits: AtomicU64,
    memory_hits: AtomicU64,
    misses: AtomicU64,
    built: AtomicU64,
    compile_us: AtomicU64,
    saved_us: AtomicU64,
    published: AtomicU64,
    not_published: AtomicU64,
    healed: AtomicU64,
    unavailable: AtomicU64,
    lock_timeouts: AtomicU64,
    pruned: AtomicU64,
    late_compiles: AtomicU64,
    refused: AtomicU64,
    driver_compiles: AtomicU64,
    behind: AtomicU64,
    took_over: AtomicU64,
    behind_failed: AtomicU64,
    tiers: Vec<TierTally>,
}

#[derive(Debug)]
struct TierTally {
    tier: TierName,
    hits: AtomicU64,
    published: AtomicU64,
    healed: AtomicU64,
    unavailable: AtomicU64,
    far: Option<FarTally>,
}

impl Tally {
    /// Of these tiers, each with whether it is asked over a network.
    pub(super) fn new(tiers: impl Iterator<Item = (TierName, bool)>) -> Self {
        let tally = |(tier, far): (TierName, bool)| TierTally {
            tier,
            far: far.then(FarTally::default),
            hits: AtomicU64::new(0),
            published: AtomicU64::new(0),
            healed: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
        };
        Self {
            tiers: tiers.map(tally).collect(),
            ..Self::default()
        }
    }

    pub(super) fn memory_hit(&self) {
        add(&self.memory_hits, 1);
    }

    /// A hit of a tier saved a compile of this long.
    pub(super) fn saved(&self, compile_us: u64) {
        add(&self.saved_us, compile_us);
    }

    pub(super) fn count(&self, event: &Event) {
        if let Some(store) = store_of(event) {
            let of = self.tiers.iter().find(|of| of.tier == *store);
            if let Some(far) = of.and_then(|of| of.far.as_ref()) {
                far.count(event);
            }
            return;
        }
        let (counter, by) = match event {
            Event::Hit { .. } => (&self.hits, 1),
            Event::Miss { .. } => (&self.misses, 1),
            Event::Built { compile_us, .. } => {
                add(&self.compile_us, *compile_us);
                (&self.built, 1)
            }
            Event::Published { .. } => (&self.published, 1),
            Event::NotPublished { .. } => (&self.not_published, 1),
            Event::Healed { .. } => (&self.healed, 1),
            Event::TierUnavailable { .. } => (&self.unavailable, 1),
            Event::LockTimedOut { .. } => (&self.lock_timeouts, 1),
            Event::Pruned { entries, .. } => (&self.pruned, *entries),
            Event::LateCompile { .. } => (&self.late_compiles, 1),
            Event::Refused { .. } => (&self.refused, 1),
            Event::DriverCompiled { .. } => (&self.driver_compiles, 1),
            Event::Behind { .. } => (&self.behind, 1),
            Event::TookOver { .. } => (&self.took_over, 1),
            Event::BehindFailed { .. } => (&self.behind_failed, 1),
            _ => return,
        };
        add(counter, by);
        let (tier, which): (_, fn(&TierTally) -> &AtomicU64) = match event {
            Event::Hit { tier, .. } => (tier, |of| &of.hits),
            Event::Published { tier, .. } => (tier, |of| &of.published),
            Event::Healed { tier, .. } => (tier, |of| &of.healed),
            Event::TierUnavailable { tier, .. } => (tier, |of| &of.unavailable),
            _ => return,
        };
        if let Some(of) = self.tiers.iter().find(|of| of.tier == *tier) {
            add(which(of), 1);
        }
    }

    pub(super) fn read(&self) -> Counters {
        Counters {
            hits: get(&self.hits),
            memory_hits: get(&self.memory_hits),
            misses: get(&self.misses),
            built: get(&self.built),
            compile_us: get(&self.compile_us),
            saved_us: get(&self.saved_us),
            published: get(&self.published),
            not_published: get(&self.not_published),
            healed: get(&self.healed),
            unavailable: get(&self.unavailable),
            lock_timeouts: get(&self.lock_timeouts),
            pruned: get(&self.pruned),
            late_compiles: get(&self.late_compiles),
            refused: get(&self.refused),
            driver_compiles: get(&self.driver_compiles),
            behind: get(&self.behind),
            took_over: get(&self.took_over),
            behind_failed: get(&self.behind_failed),
        }
    }

    pub(super) fn read_tiers(&self) -> Vec<TierCounters> {
        let read = |of: &TierTally| TierCounters {
            tier: of.tier.clone(),
            hits: get(&of.hits),
            published: get(&of.published),
            healed: get(&of.healed),
            unavailable: get(&of.unavailable),
            store: of.far.as_ref().map(FarTally::read),
        };
        self.tiers.iter().map(read).collect()
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

type OfTier = fn(&TierCounters) -> u64;

/// What is counted of each tier.
const BY_TIER: [(&str, &str, OfTier); 4] = [
    ("cache_hits_total", "Verified hits.", |of| of.hits),
    ("cache_published_total", "Entries written.", |of| of.published),
    ("cache_bad_entries_total", "Bad entries found.", |of| of.healed),
    (
        "cache_unavailable_total",
        "Looks into a tier that could not be read.",
        |of| of.unavailable,
    ),
];

/// The counters in Prometheus' text format, version 0.0.4.
pub(super) fn prometheus(all: &Counters, tiers: &[TierCounters]) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, samples: &[(String, String)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP jitc_{name} {help}\n# TYPE jitc_{name} counter");
        for (labels, value) in samples {
            let _ = writeln!(text, "jitc_{name}{labels} {value}");
        }
    };
    for (name, help, of) in BY_TIER {
        let sample = |tier: &TierCounters| {
            let label = escaped(tier.tier.as_str());
            (format!("{{tier=\"{label}\"}}"), of(tier).to_string())
        };
        metric(name, help, &tiers.iter().map(sample).collect::<Vec<_>>());
    }
    let stores = || tiers.iter().filter_map(|tier| Some((tier, tier.store.as_ref()?)));
    if stores().next().is_some() {
        for (name, help, of) in METRICS {
            let samples = stores().flat_map(|(tier, store)| {
                let label = escaped(tier.tier.as_str());
                let sample = move |(more, value)| (format!("{{tier=\"{label}\"{more}}}"), value);
                of(store).into_iter().map(sample)
            });
            metric(name, help, &samples.collect::<Vec<_>>());
        }
    }
    let whole = [
        (
            "cache_memory_hits_total",
            "Hits on artifacts that this process still held.",
            all.memory_hits,
        ),
        ("cache_misses_total", "Misses.", all.misses),
        ("compiles_total", "Artifacts built.", all.built),
        (
            "late_compiles_total",
            "Compiles of what should have been warmed.",
            all.late_compiles,
        ),
        ("refused_total", "Requests that a policy refused.", all.refused),
        (
            "driver_compiles_total",
            "Times that the driver compiled PTX.",
            all.driver_compiles,
        ),
        (
            "behind_total",
            "Requests that a more general variant answered while they were compiled.",
            all.behind,
        ),
        (
            "took_over_total",
            "Kernels that took over from a more general variant.",
            all.took_over,
        ),
        (
            "behind_failed_total",
            "Compiles behind a more general variant that failed.",
            all.behind_failed,
        ),
        (
            "cache_not_published_total",
            "Artifacts that could not be kept.",
            all.not_published,
        ),
        (
            "cache_lock_timeouts_total",
            "Waits for another builder that were given up.",
            all.lock_timeouts,
        ),
        (
            "cache_pruned_total",
            "Entries removed to keep within the limits.",
            all.pruned,
        ),
    ];
    for (name, help, value) in whole {
        metric(name, help, &[(String::new(), value.to_string())]);
    }
    let times = [
        (
            "compile_seconds_total",
            "Time inside the compiler.",
            all.compile_us,
        ),
        (
            "compile_seconds_saved_total",
            "Time inside the compiler that hits saved.",
            all.saved_us,
        ),
    ];
    for (name, help, us) in times {
        let seconds = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
        metric(name, help, &[(String::new(), seconds)]);
    }
    text
}

/// A label's value, as the format wants it.
fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::event::Asked;
    use super::*;
    use crate::engine::build::key::CacheKey;

    #[test]
    fn what_happens_in_a_tier_is_counted_there_and_in_all() {
        let [first, second] = ["user", "a \"b\""].map(TierName::new);
        let tally = Tally::new([(first.clone(), false), (second.clone(), true)].into_iter());
        let key = CacheKey::from_bytes([7; 32]);
        let elapsed = Duration::ZERO;
        for tier in [&first, &second, &second] {
            let tier = tier.clone();
            tally.count(&Event::Hit { key, tier, elapsed });
        }
        tally.count(&Event::TierUnavailable {
            tier: second.clone(),
            reason: "gone".into(),
        });
        tally.count(&Event::Built {
            key,
            waited: elapsed,
            elapsed,
            compile_us: 1_500_000,
        });
        tally.saved(250);
        tally.count(&Event::Asked {
            key,
            tier: second.clone(),
            answer: Asked::Refused,
            bytes: 77,
            elapsed,
        });
        let (all, tiers) = (tally.read(), tally.read_tiers());
        assert_eq!((all.hits, all.unavailable, all.built), (3, 1, 1));
        assert_eq!((all.compile_us, all.saved_us), (1_500_000, 250));
        assert_eq!([tiers[0].hits, tiers[1].hits], [1, 2]);
        assert_eq!([tiers[0].unavailable, tiers[1].unavailable], [0, 1]);
        let text = prometheus(&all, &tiers);
        for line in [
            "# TYPE jitc_cache_hits_total counter",
            "jitc_cache_hits_total{tier=\"user\"} 1",
            "jitc_cache_hits_total{tier=\"a \\\"b\\\"\"} 2",
            "jitc_store_requests_total{tier=\"a \\\"b\\\"\",answer=\"refused\"} 1",
            "jitc_store_received_bytes_total{tier=\"a \\\"b\\\"\"} 77",
            "jitc_compiles_total 1",
            "jitc_compile_seconds_total 1.500000",
            "jitc_compile_seconds_saved_total 0.000250",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(
            text.lines()
                .all(|line| line.starts_with("# ") || line.starts_with("jitc_"))
        );
        assert!(text.ends_with('\n'));
    }
}
