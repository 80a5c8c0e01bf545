//! How often each thing happened with a store that is asked over a network.
//!
//! Invariant: as of the other counters: no lock, and an atomic each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::event::{Asked, Event};
use super::store::usage::FarCounters;
use super::tier::TierName;

/// The live counters behind [`FarCounters`], in its fields' order.
#[derive(Debug, Default)]
pub(super) struct FarTally([AtomicU64; 11]);

impl FarTally {
    pub(super) fn count(&self, event: &Event) {
        let add = |at: usize, by: u64| {
            self.0[at].fetch_add(by, Ordering::Relaxed);
        };
        match event {
            Event::Asked {
                answer,
                bytes,
                elapsed,
                ..
            } => {
                add(*answer as usize, 1);
                add(4, *bytes);
                add(5, micros(*elapsed));
            }
            Event::Promoted { .. } => add(6, 1),
            Event::Sent { bytes, .. } => {
                add(7, 1);
                add(8, *bytes);
            }
            Event::NotSent { .. } => add(9, 1),
            Event::StoreLeftAlone { .. } => add(10, 1),
            _ => {}
        }
    }

    pub(super) fn read(&self) -> FarCounters {
        let at = |n: usize| self.0[n].load(Ordering::Relaxed);
        FarCounters {
            found: at(Asked::Found as usize),
            absent: at(Asked::Absent as usize),
            refused: at(Asked::Refused as usize),
            unreachable: at(Asked::Unreachable as usize),
            received_bytes: at(4),
            waited_us: at(5),
            promoted: at(6),
            sent: at(7),
            sent_bytes: at(8),
            not_sent: at(9),
            left_alone: at(10),
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The store that an event is of, if it is of one.
pub(super) fn store_of(event: &Event) -> Option<&TierName> {
    match event {
        Event::Asked { tier, .. }
        | Event::Promoted { tier, .. }
        | Event::Sent { tier, .. }
        | Event::NotSent { tier, .. }
        | Event::StoreLeftAlone { tier, .. } => Some(tier),
        _ => None,
    }
}

/// A metric: its name and help, and its samples of one store, each with a label that is its
/// own and a value.
type Metric = (
    &'static str,
    &'static str,
    fn(&FarCounters) -> Vec<(&'static str, String)>,
);

/// What Prometheus is shown of a store.
pub(super) const METRICS: [Metric; 7] = [
    (
        "store_requests_total",
        "Requests for an entry, by answer.",
        |of| {
            vec![
                (",answer=\"found\"", of.found.to_string()),
                (",answer=\"absent\"", of.absent.to_string()),
                (",answer=\"refused\"", of.refused.to_string()),
                (",answer=\"unreachable\"", of.unreachable.to_string()),
            ]
        },
    ),
    ("store_received_bytes_total", "Bytes of entries received.", |of| {
        one(of.received_bytes)
    }),
    ("store_wait_seconds_total", "Time waited for answers.", |of| {
        vec![(
            "",
            format!("{}.{:06}", of.waited_us / 1_000_000, of.waited_us % 1_000_000),
        )]
    }),
    ("store_promoted_total", "Entries kept in a nearer tier.", |of| {
        one(of.promoted)
    }),
    ("store_sent_total", "Entries sent.", |of| one(of.sent)),
    (
        "store_not_sent_total",
        "Entries that were to be sent and were not.",
        |of| one(of.not_sent),
    ),
    (
        "store_left_alone_total",
        "Times that the store was left alone for a while.",
        |of| one(of.left_alone),
    ),
];

fn one(value: u64) -> Vec<(&'static str, String)> {
    vec![("", value.to_string())]
}
