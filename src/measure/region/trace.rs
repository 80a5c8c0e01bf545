//! A launch as a trace for Perfetto and `chrome://tracing`.
//!
//! Invariant: a track a block, a group a multiprocessor where it is known. Cycles
//! count from the first tick of their own multiprocessor: two of them have no
//! common zero.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Region, Scope, TickSource, Ticks};

/// A span of a block, in ticks from the zero of its clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span<'a> {
    /// The region.
    pub region: &'a Region,
    /// Its first tick.
    pub entry: i64,
    /// Its last tick.
    pub exit: i64,
}

/// The spans that a block's ticks show, by entry, an outer one before what is in it.
pub(super) fn spans(ticks: &Ticks, cta: usize) -> Vec<Span<'_>> {
    let mut spans: Vec<Span<'_>> = ticks
        .table
        .regions
        .iter()
        .filter(|region| region.is_span() && ticks.delta(cta, region.id).is_some())
        .map(|region| {
            let [entry, exit] = ticks.pair(cta, region.id);
            Span { region, entry, exit }
        })
        .collect();
    spans.sort_by_key(|s| (s.entry, std::cmp::Reverse(s.exit)));
    spans
}

/// The tick that counts as 0 for each block.
pub(super) fn zeros(ticks: &Ticks) -> Vec<i64> {
    let first: Vec<Option<i64>> = (0..ticks.geometry.ctas())
        .map(|cta| spans(ticks, cta).iter().map(|s| s.entry).min())
        .collect();
    // Blocks that share a clock share a zero: all of them, those of one
    // multiprocessor, or, where it is not known, each its own.
    let clock = |cta: usize| match (ticks.source, &ticks.sms) {
        (TickSource::GlobalTimer, _) => (0, 0),
        (TickSource::Clock64, Some(sms)) => (1, sms[cta] as usize),
        (TickSource::Clock64, None) => (2, cta),
    };
    let mut zero = BTreeMap::new();
    for (cta, first) in first.iter().enumerate() {
        if let Some(first) = first {
            let at = zero.entry(clock(cta)).or_insert(*first);
            *at = (*at).min(*first);
        }
    }
    (0..first.len())
        .map(|cta| zero.get(&clock(cta)).copied().unwrap_or(0))
        .collect()
}

/// The trace, in the JSON that both viewers read.
#[must_use]
pub fn trace(ticks: &Ticks) -> Value {
    let zeros = zeros(ticks);
    let mut events = Vec::new();
    let mut groups = BTreeMap::new();
    for (cta, zero) in zeros.iter().enumerate() {
        let (pid, group) = match &ticks.sms {
            Some(sms) => (sms[cta], format!("SM {}", sms[cta])),
            None => (0, "multiprocessor not recorded".to_owned()),
        };
        groups.insert(pid, group);
        let (bx, by, bz) = ticks.geometry.block(cta);
        events.push(json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": cta,
            "args": {"name": format!("CTA {cta} ({bx}, {by}, {bz})")}}));
        for span in spans(ticks, cta) {
            let mut args = json!({"region_id": span.region.id, "ticks": span.exit - span.entry});
            if let Scope::PerIteration { sum: Some(sum) } = span.region.scope {
                args["all_iterations_ticks"] = json!(ticks.delta(cta, sum));
            }
            events.push(
                json!({"ph": "X", "name": &*span.region.name, "cat": &*span.region.class,
                "pid": pid, "tid": cta, "ts": us(span.entry - zero),
                "dur": us(span.exit - span.entry), "args": args}),
            );
        }
    }
    for (pid, name) in groups {
        events.push(json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}));
        events
            .push(json!({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}));
    }
    json!({"traceEvents": events, "displayTimeUnit": "ns",
        "otherData": {"label": ticks.label, "family": &*ticks.table.family, "tick_source": ticks.source.name()}})
}

/// Microseconds, which viewers expect; a cycle is shown as a nanosecond.
#[expect(clippy::cast_precision_loss, reason = "ticks of a launch are far below 2^53")]
fn us(ticks: i64) -> f64 {
    ticks as f64 / 1000.0
}
