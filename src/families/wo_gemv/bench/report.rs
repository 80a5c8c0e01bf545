//! The table of a benchmark of `wo_gemv`, its JSON and its plot.
//!
//! Invariant: a variant that the gate refused is in the table, without a time.

use serde_json::{Value, json};

use super::session::{Measured, WoSession};
use crate::measure::bench::Timed;
use crate::measure::harness::{Event, Sink};
use crate::measure::plot;
use crate::measure::timing::Method;
use crate::measure::tune::{Choice, geometry_text};

fn choice_text(choice: &Choice) -> String {
    let set = match geometry_text(&choice.geometry) {
        none if none.is_empty() => "defaults".into(),
        set => set,
    };
    format!("{:?}: {set}", choice.origin)
}

/// A variant, as programs are told of it.
pub(super) fn object(m: &Measured) -> Value {
    let timed = &m.timed;
    json!({"event": "variant", "wo_split": m.case.shape.wo_split, "accumulate": m.case.accumulate.name(),
        "geometry": m.case.geometry.name(), "tokens": m.case.num_tokens, "global_scale": m.case.global_scale,
        "passes": timed.passes, "max_abs": m.max_abs.to_string(), "relative_l2_vs_float64": m.drift.relative_l2.to_string(),
        "origin": m.choice.origin, "constants": m.choice.geometry, "provenance": m.how,
        "plan": m.plan, "summary": timed.summary, "payload_bytes": timed.bytes, "payload_gbps": timed.gbps(),
        "stream_us": timed.floor, "over_stream": timed.over_stream(), "ncu": m.counters})
}

/// Tells the table, and an object a variant, and gives `summary.json`.
pub(super) fn tell(run: &WoSession<'_>, all: &[Measured], sink: &mut Sink<'_>) -> Value {
    let titles = ["split", "mode", "geometry", "tokens", "scale"].into_iter();
    let titles = titles.chain(Timed::TITLES).chain(["constants"]);
    let mut rows = vec![titles.map(str::to_owned).collect()];
    let mut values = Vec::new();
    for m in all {
        let timed = &m.timed;
        let mut row = vec![
            m.case.shape.wo_split.to_string(),
            m.case.accumulate.to_string(),
            m.case.geometry.to_string(),
            m.case.num_tokens.to_string(),
            m.case.global_scale.to_string(),
        ];
        row.extend(timed.cells());
        row.push(choice_text(&m.choice));
        rows.push(row);
        values.push(object(m));
    }
    let device = run.session.context.device();
    for value in &values {
        sink(Event::Object(value.clone()));
    }
    sink(Event::Table(rows));
    sink(Event::Line(format!(
        "\n{}, {} samples, {} launches a sample; stream: reading the same bytes, same method",
        device.name,
        run.session.plan.samples,
        match all.first() {
            Some(m) if m.plan.method == Method::Graph => m.plan.launches_per_graph,
            _ => 1,
        },
    )));
    for m in all {
        if let Some(counters) = &m.counters {
            sink(Event::Line(format!(
                "{}: {}",
                m.case.folder(),
                counters.verdict()
            )));
        }
    }
    json!({"device": device, "variants": values})
}

/// `plot.svg`.
pub(super) fn picture(run: &WoSession<'_>, all: &[Measured]) -> String {
    let mut panel = plot::Panel::default();
    for m in all {
        let Some(us) = m.timed.median() else { continue };
        let case = &m.case;
        let name = format!(
            "{} {}, {} token{}, scale {}",
            case.geometry,
            case.accumulate,
            case.num_tokens,
            if case.num_tokens == 1 { "" } else { "s" },
            case.global_scale
        );
        panel.put(&name, case.shape.wo_split, us);
        // One shape, so one floor, within noise.
        panel.floor(case.shape.wo_split, m.timed.floor);
    }
    let title = format!(
        "wo_gemv on {}, median microseconds a launch",
        run.session.context.device().name
    );
    plot::svg(&title, "wo_split", &[panel])
}
