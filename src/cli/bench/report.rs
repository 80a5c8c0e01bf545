//! The table of a measurement, its JSON and its plot.
//!
//! Invariant: a variant that the gate refused is in the table, without a time.

use serde_json::{Value, json};

use super::{Choice, Measured, Session, files, plot};
use crate::cli::output;
use crate::timing::Method;

fn geometry_text(choice: &Choice) -> String {
    let set: Vec<String> = choice.geometry.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let set = if set.is_empty() {
        "defaults".into()
    } else {
        set.join(" ")
    };
    format!("{:?}: {set}", choice.origin)
}

/// Prints the table, or an object a line, and gives `summary.json`.
pub(super) fn print(session: &Session, all: &[Measured], json: bool) -> Value {
    let mut rows = vec![
        [
            "split",
            "mode",
            "geometry",
            "tokens",
            "scale",
            "gate",
            "median us",
            "p5",
            "p95",
            "GB/s",
            "x stream",
            "constants",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut values = Vec::new();
    for m in all {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let summary = m.summary;
        let median = summary.map(|s| s.median);
        let gbps = median.map(|us| files::gigabytes_per_second(m.case.payload_bytes(), us));
        rows.push(vec![
            m.case.shape.wo_split.to_string(),
            m.case.accumulate.clone(),
            m.case.geometry.clone(),
            m.case.nat.to_string(),
            m.case.global_scale.to_string(),
            if m.passes { "passes".into() } else { "FAILS".into() },
            number(median, 2),
            number(summary.map(|s| s.p5), 2),
            number(summary.map(|s| s.p95), 2),
            number(gbps, 0),
            number(median.map(|us| us / m.floor), 2),
            geometry_text(&m.choice),
        ]);
        values.push(json!({"event": "variant", "wo_split": m.case.shape.wo_split, "accumulate": m.case.accumulate,
            "geometry": m.case.geometry, "tokens": m.case.nat, "global_scale": m.case.global_scale,
            "passes": m.passes, "max_abs": m.max_abs.to_string(), "relative_l2_vs_float64": m.drift.relative_l2.to_string(),
            "origin": m.choice.origin, "constants": m.choice.geometry, "provenance": m.how,
            "summary": summary, "payload_bytes": m.case.payload_bytes(), "payload_gbps": gbps,
            "stream_us": m.floor, "over_stream": median.map(|us| us / m.floor), "ncu": m.counters}));
    }
    let device = session.context.device();
    if json {
        for value in &values {
            output::json(value);
        }
    } else {
        output::table(&rows);
        let floors: Vec<String> = floors(all).iter().map(|f| format!("{f:.2}")).collect();
        output::line(format!(
            "\nstreaming the same bytes, same method: {} us; {}, {} samples, {} launches a sample",
            floors.join(", "),
            device.name,
            session.plan.samples,
            if session.plan.method == Method::Graph {
                session.plan.launches_per_graph
            } else {
                1
            },
        ));
        for m in all {
            if let Some(counters) = &m.counters {
                output::line(format!("{}: {}", m.case.folder(), counters.verdict()));
            }
        }
    }
    json!({"device": device, "plan": session.plan, "variants": values})
}

/// The floors of the global scales, each once.
fn floors(all: &[Measured]) -> Vec<f64> {
    let mut floors: Vec<f64> = all.iter().map(|m| m.floor).collect();
    floors.dedup();
    floors
}

/// `plot.svg`.
pub(super) fn picture(session: &Session, all: &[Measured]) -> String {
    let mut series: Vec<plot::Series> = Vec::new();
    for m in all {
        let Some(summary) = m.summary else { continue };
        let case = &m.case;
        let name = format!(
            "{} {}, {} token{}, scale {}",
            case.geometry,
            case.accumulate,
            case.nat,
            if case.nat == 1 { "" } else { "s" },
            case.global_scale
        );
        let point = (u32::try_from(case.shape.wo_split).unwrap_or(0), summary.median);
        match series.iter_mut().find(|s| s.name == name) {
            Some(one) => one.points.push(point),
            None => series.push(plot::Series {
                name,
                points: vec![point],
            }),
        }
    }
    let floor = all.iter().map(|m| m.floor).fold(f64::INFINITY, f64::min);
    let title = format!(
        "wo_gemv on {}, median microseconds a launch",
        session.context.device().name
    );
    plot::svg(&title, "wo_split", &series, Some(floor))
}
