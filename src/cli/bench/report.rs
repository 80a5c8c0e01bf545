//! How a row of any measurement ends; and the table of `wo_gemv`, its JSON and its plot.
//!
//! Invariant: a variant that the gate refused is in the table, without a time.

use serde_json::{Value, json};

use super::{Choice, Measured, WoSession, files, plot};
use crate::cli::output;
use crate::measure::timing::{Method, Summary};

/// What the gate and the clock said of a variant.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Timed {
    pub(super) passes: bool,
    pub(in crate::cli) summary: Option<Summary>,
    /// Bytes that a launch has to move.
    pub(super) bytes: usize,
    /// The streaming kernel over them, microseconds.
    pub(in crate::cli) floor: f64,
}

impl Timed {
    /// Titles of [`cells`](Self::cells).
    pub(super) const TITLES: [&str; 7] = ["gate", "median us", "p5", "p95", "GB/s", "stream us", "x stream"];

    pub(super) fn median(&self) -> Option<f64> {
        self.summary.map(|s| s.median)
    }

    pub(super) fn gbps(&self) -> Option<f64> {
        self.median()
            .map(|us| files::gigabytes_per_second(self.bytes, us))
    }

    pub(super) fn over_stream(&self) -> Option<f64> {
        self.median().map(|us| us / self.floor)
    }

    /// The end of a row of the table.
    pub(super) fn cells(&self) -> [String; 7] {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        [
            if self.passes { "passes" } else { "FAILS" }.into(),
            number(self.median(), 2),
            number(self.summary.map(|s| s.p5), 2),
            number(self.summary.map(|s| s.p95), 2),
            number(self.gbps(), 0),
            number(Some(self.floor), 2),
            number(self.over_stream(), 2),
        ]
    }
}

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
pub(super) fn print(run: &WoSession, all: &[Measured], json: bool) -> Value {
    let titles = ["split", "mode", "geometry", "tokens", "scale"].into_iter();
    let titles = titles.chain(Timed::TITLES).chain(["constants"]);
    let mut rows = vec![titles.map(str::to_owned).collect()];
    let mut values = Vec::new();
    for m in all {
        let timed = &m.timed;
        let mut row = vec![
            m.case.shape.wo_split.to_string(),
            m.case.accumulate.clone(),
            m.case.geometry.clone(),
            m.case.nat.to_string(),
            m.case.global_scale.to_string(),
        ];
        row.extend(timed.cells());
        row.push(geometry_text(&m.choice));
        rows.push(row);
        values.push(json!({"event": "variant", "wo_split": m.case.shape.wo_split, "accumulate": m.case.accumulate,
            "geometry": m.case.geometry, "tokens": m.case.nat, "global_scale": m.case.global_scale,
            "passes": timed.passes, "max_abs": m.max_abs.to_string(), "relative_l2_vs_float64": m.drift.relative_l2.to_string(),
            "origin": m.choice.origin, "constants": m.choice.geometry, "provenance": m.how,
            "plan": m.plan, "summary": timed.summary, "payload_bytes": timed.bytes, "payload_gbps": timed.gbps(),
            "stream_us": timed.floor, "over_stream": timed.over_stream(), "ncu": m.counters}));
    }
    let device = run.session.context.device();
    if json {
        for value in &values {
            output::json(value);
        }
    } else {
        output::table(&rows);
        output::line(format!(
            "\n{}, {} samples, {} launches a sample; stream: reading the same bytes, same method",
            device.name,
            run.session.plan.samples,
            match all.first() {
                Some(m) if m.plan.method == Method::Graph => m.plan.launches_per_graph,
                _ => 1,
            },
        ));
        for m in all {
            if let Some(counters) = &m.counters {
                output::line(format!("{}: {}", m.case.folder(), counters.verdict()));
            }
        }
    }
    json!({"device": device, "variants": values})
}

/// `plot.svg`.
pub(super) fn picture(run: &WoSession, all: &[Measured]) -> String {
    let mut panel = plot::Panel::default();
    for m in all {
        let Some(us) = m.timed.median() else { continue };
        let case = &m.case;
        let name = format!(
            "{} {}, {} token{}, scale {}",
            case.geometry,
            case.accumulate,
            case.nat,
            if case.nat == 1 { "" } else { "s" },
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
