//! The table of `jitc bench layer`, its CSV, JSON and plot.
//!
//! Invariant: a point that was refused is in the table, without a time.

use std::fmt::Write;

use serde_json::{Value, json};

use super::super::{Session, files, plot};
use super::Point;
use crate::cli::output;
use crate::timing::Plan;

/// Prints the table, or an object a line, and gives `summary.json`.
pub(super) fn print(session: &Session, plan: &Plan, points: &[Point], json: bool) -> Value {
    let mut rows = vec![
        [
            "context",
            "tokens",
            "path",
            "variant",
            "gate",
            "median us",
            "p5",
            "p95",
            "GB/s",
            "stream us",
            "x stream",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut values = Vec::new();
    for p in points {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let median = p.summary.map(|s| s.median);
        let gbps = median.map(|us| files::gigabytes_per_second(p.bytes, us));
        rows.push(vec![
            p.context.to_string(),
            p.nat.to_string(),
            p.path.name().to_owned(),
            p.variant.clone(),
            if p.passes { "passes".into() } else { "FAILS".into() },
            number(median, 2),
            number(p.summary.map(|s| s.p5), 2),
            number(p.summary.map(|s| s.p95), 2),
            number(gbps, 0),
            format!("{:.2}", p.floor),
            number(median.map(|us| us / p.floor), 2),
        ]);
        values.push(
            json!({"event": "point", "context": p.context, "nat": p.nat, "path": p.path.name(),
            "variant": p.variant, "passes": p.passes, "bytes": p.bytes, "gbps": gbps,
            "summary": p.summary, "stream_us": p.floor, "over_stream": median.map(|us| us / p.floor)}),
        );
    }
    let device = session.context.device();
    if json {
        for value in &values {
            output::json(value);
        }
    } else {
        output::table(&rows);
        output::line(format!(
            "\nseparate: attention, W_O, gate_up and down as kernels of their own, without norm, activation and \
             requantisation; its gate is that of beta_lite\n{}, {} samples, {} launches a sample, two copies of weights and cache in turn",
            device.name, plan.samples, plan.launches_per_graph,
        ));
    }
    json!({"device": device, "plan": plan, "points": values})
}

/// `timing.csv`.
pub(super) fn csv(points: &[Point]) -> String {
    let mut text = String::from("context,nat,path,variant,passes,bytes,median_us,p5_us,p95_us,stream_us\n");
    for p in points {
        let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.3}"));
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{:.3}",
            p.context,
            p.nat,
            p.path.name(),
            p.variant,
            p.passes,
            p.bytes,
            number(p.summary.map(|s| s.median)),
            number(p.summary.map(|s| s.p5)),
            number(p.summary.map(|s| s.p95)),
            p.floor
        );
    }
    text
}

/// `plot.svg`: times against contexts, with the floors.
pub(super) fn picture(session: &Session, points: &[Point]) -> String {
    let mut series: Vec<plot::Series> = Vec::new();
    for p in points {
        let context = u32::try_from(p.context).unwrap_or(u32::MAX);
        let tokens = if p.nat == 1 { "token" } else { "tokens" };
        let median = p.summary.map(|s| s.median);
        let lines = [
            (format!("streaming, {} {tokens}", p.nat), Some(p.floor)),
            (
                format!("{} {}, {} {tokens}", p.path.name(), p.variant, p.nat),
                median,
            ),
        ];
        for (name, us) in lines {
            let Some(us) = us else { continue };
            match series.iter_mut().find(|s| s.name == name) {
                Some(one) if one.points.iter().any(|(at, _)| *at == context) => {}
                Some(one) => one.points.push((context, us)),
                None => series.push(plot::Series {
                    name,
                    points: vec![(context, us)],
                }),
            }
        }
    }
    let title = format!(
        "decode layer on {}, median microseconds a launch",
        session.context.device().name
    );
    plot::svg(&title, "context", &series, None)
}

#[cfg(test)]
mod tests {
    use super::super::Path;
    use super::*;
    use crate::timing::Summary;

    #[test]
    fn a_refused_point_is_in_the_csv_without_a_time() {
        let point = |passes: bool| Point {
            context: 4096,
            nat: 1,
            path: Path::Coop,
            variant: "wo_split=8".into(),
            bytes: 1000,
            passes,
            summary: passes.then(|| Summary::of(&[2.0]).expect("a sample")),
            floor: 1.0,
        };
        let text = csv(&[point(true), point(false)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "4096,1,coop,wo_split=8,true,1000,2.000,2.000,2.000,1.000"
        );
        assert_eq!(lines[2], "4096,1,coop,wo_split=8,false,1000,,,,1.000");
    }
}
