//! The trace of a launch against the trace-event format, strictly.
//!
//! What is checked is what both viewers need: known kinds of events with just the
//! members that their kind has, whole ids, finite times that do not run backwards,
//! and on each track spans that nest and never cross.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jitc::engine::request::template::Registry;
use jitc::families::decode_layer::regions::synthetic;
use jitc::measure::region::{Bare, Geometry, Layout, TickSource, Ticks, trace};
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

/// Nanoseconds; the format has microseconds.
fn ns(value: &Value) -> i64 {
    let us = value.as_f64().expect("a number");
    assert!(us.is_finite() && us >= 0.0, "{us}");
    #[expect(clippy::cast_possible_truncation, reason = "a launch's nanoseconds")]
    let ns = (us * 1000.0).round() as i64;
    #[expect(clippy::cast_precision_loss, reason = "a launch's nanoseconds")]
    let back = ns as f64 / 1000.0;
    assert!((back - us).abs() < 1e-9, "{us} is no whole number of nanoseconds");
    ns
}

/// Refuses whatever the format does not have; the number of spans.
fn is_strict(trace: &Value) -> usize {
    assert_eq!(keys(trace), ["displayTimeUnit", "otherData", "traceEvents"]);
    assert_eq!(trace["displayTimeUnit"], "ns");
    assert!(
        trace["otherData"]
            .as_object()
            .expect("object")
            .values()
            .all(Value::is_string)
    );
    let (mut named, mut processes) = (BTreeSet::new(), BTreeSet::new());
    let mut tracks: BTreeMap<(u64, u64), Vec<(i64, i64)>> = BTreeMap::new();
    for event in trace["traceEvents"].as_array().expect("events") {
        let pid = event["pid"].as_u64().expect("a process");
        let name = event["name"].as_str().expect("a name");
        match (event["ph"].as_str().expect("a kind"), name) {
            ("X", _) => {
                assert_eq!(
                    keys(event),
                    ["args", "cat", "dur", "name", "ph", "pid", "tid", "ts"]
                );
                assert!(event["cat"].is_string() && event["args"].is_object());
                let lane = (pid, event["tid"].as_u64().expect("a lane"));
                let (start, length) = (ns(&event["ts"]), ns(&event["dur"]));
                assert!(length > 0, "{event}");
                tracks.entry(lane).or_default().push((start, start + length));
            }
            ("M", "thread_name") => {
                assert_eq!(keys(event), ["args", "name", "ph", "pid", "tid"]);
                assert!(event["args"]["name"].is_string());
                assert!(
                    named.insert((pid, event["tid"].as_u64().expect("a lane"))),
                    "{event}"
                );
            }
            ("M", "process_name") => {
                assert_eq!(keys(event), ["args", "name", "ph", "pid"]);
                assert!(
                    event["args"]["name"].is_string() && processes.insert(pid),
                    "{event}"
                );
            }
            ("M", "process_sort_index") => {
                assert_eq!(keys(event), ["args", "name", "ph", "pid"]);
                assert!(event["args"]["sort_index"].is_u64());
            }
            other => panic!("{other:?} is no kind of event that a trace of ours has"),
        }
    }
    for (track, spans) in &mut tracks {
        assert!(
            named.contains(track) && processes.contains(&track.0),
            "{track:?} has no name"
        );
        // An outer one comes before what it holds.
        spans.sort_by_key(|(start, end)| (*start, -end));
        let mut open: Vec<i64> = Vec::new();
        for (start, end) in spans.iter() {
            while open.last().is_some_and(|outer| outer <= start) {
                open.pop();
            }
            assert!(
                open.last().is_none_or(|outer| end <= outer),
                "{track:?}: a span crosses another"
            );
            open.push(*end);
        }
    }
    tracks.values().map(Vec::len).sum()
}

#[test]
fn a_trace_is_the_trace_event_format_to_the_letter() {
    let registry = Registry::load(None).expect("families");
    for (slice_ctas, wo_split, num_seqs) in [(8, 1, 1), (8, 8, 2), (132, 8, 1)] {
        for count in [11, 13, 16, 20] {
            let geometry = Geometry {
                slice_ctas,
                num_seqs,
                ..Geometry::default()
            };
            let mut ticks = synthetic(&registry, &geometry, wo_split, count).expect("ticks");
            let spans = is_strict(&trace(&ticks));
            assert!(spans > 6 * geometry.ctas(), "{spans}");
            // The same without knowing the multiprocessors, and as cycles.
            ticks.sms = None;
            assert_eq!(is_strict(&trace(&ticks)), spans);
            ticks.source = TickSource::Clock64;
            assert_eq!(is_strict(&trace(&ticks)), spans);
        }
    }
}

/// Every buffer below a folder that has a file beside it.
fn buffers(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            buffers(&path, found);
        } else if path.extension().is_some_and(|e| e == "npy") && path.with_extension("json").exists() {
            found.push(path);
        }
    }
}

#[test]
fn traces_of_the_launches_that_were_measured_are_strict_too() {
    let mut found = Vec::new();
    buffers(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/runs"),
        &mut found,
    );
    let mut slots = 0;
    let registry = Registry::load(None).expect("families");
    for path in &found {
        let ticks = Ticks::open(path, &Bare::default(), &registry).expect("a buffer");
        slots += usize::from(ticks.geometry.layout == Layout::Slots);
        assert!(is_strict(&trace(&ticks)) > 0, "{}", path.display());
    }
    assert!(
        found.len() >= 8 && slots >= 4,
        "{} buffers, {slots} of nvllm's geometry",
        found.len()
    );
}
