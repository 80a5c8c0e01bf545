//! The table of a layer's benchmark, its CSV, JSON and plot.
//!
//! Invariant: a point that was refused is in the table, without a time.

use std::fmt::Write;

use serde_json::{Value, json};

use super::super::{LayerConfig, LayerGeometry};
use super::record::At;
use super::request::BenchPath as Path;
use super::{Point, Run};
use crate::measure::bench::Timed;
use crate::measure::harness::{Event, Sink};
use crate::measure::plot;

/// Tells an object a point, and the table; gives `summary.json`.
pub(super) fn tell(run: &Run, sink: &mut Sink<'_>) -> Value {
    let titles = ["context", "tokens", "path", "variant"].into_iter();
    let mut rows = vec![titles.chain(Timed::TITLES).map(str::to_owned).collect()];
    let mut values = Vec::new();
    for p in &run.points {
        let timed = &p.timed;
        let mut row: Vec<String> = vec![
            p.at.context.to_string(),
            p.at.num_tokens.to_string(),
            p.path.name().to_owned(),
            p.spec.variant(),
        ];
        row.extend(timed.cells());
        rows.push(row);
        // `nat` is the former name of `num_tokens`, for one release.
        values.push(
            json!({"event": "point", "context": p.at.context, "num_tokens": p.at.num_tokens, "nat": p.at.num_tokens,
            "copies": p.at.copies, "plan": p.at.plan,
            "path": p.path.name(), "variant": p.spec.variant(), "passes": timed.passes, "bytes": timed.bytes,
            "gbps": timed.gbps(), "summary": timed.summary, "stream_us": timed.floor,
            "over_stream": timed.over_stream(), "tokens_a_decode": p.decodes}),
        );
    }
    let device = run.session.context.device();
    for value in &values {
        sink(Event::Object(value.clone()));
    }
    sink(Event::Table(rows));
    sink(Event::Line(String::new()));
    if run.request.paths.contains(&Path::Kernels) {
        sink(Event::Line(
            "kernels: attention, W_O, gate_up and down as kernels of their own, without norm, activation and \
             requantization; its gate is that of separate launches"
                .into(),
        ));
    }
    for line in decodes(&run.points) {
        sink(Event::Line(line));
    }
    for line in turns(&run.points) {
        sink(Event::Line(format!("{}, {line}", device.name)));
    }
    json!({"device": device, "points": values})
}

/// How often each context was timed, and over how many copies.
fn turns(points: &[Point]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for At {
        context,
        copies,
        plan,
        ..
    } in points.iter().map(|p| p.at)
    {
        let line = format!(
            "context {context}: {} samples, {} launches a sample, {copies} copies of weights and cache in turn",
            plan.samples, plan.launches_per_graph,
        );
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Where separate kernels need several decodes of weights for the tokens of a launch.
fn decodes(points: &[Point]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for p in points {
        let Some([gate_up, down]) = p.decodes else {
            continue;
        };
        if gate_up.min(down) < p.at.num_tokens {
            let line = format!(
                "kernels with {} tokens: {gate_up} a decode of gate_up, {down} of down: \
                 what shared memory has room for",
                p.at.num_tokens
            );
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// `points.csv`.
pub(super) fn csv(points: &[Point]) -> String {
    let mut text =
        String::from("context,num_tokens,path,variant,passes,bytes,median_us,p5_us,p95_us,stream_us\n");
    for p in points {
        let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.3}"));
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{:.3}",
            p.at.context,
            p.at.num_tokens,
            p.path.name(),
            p.spec.variant(),
            p.timed.passes,
            p.timed.bytes,
            number(p.timed.median()),
            number(p.timed.summary.map(|s| s.p5)),
            number(p.timed.summary.map(|s| s.p95)),
            p.timed.floor
        );
    }
    text
}

/// `plot.svg`: times against contexts, a frame a number of tokens; of several splits
/// the fastest.
pub(super) fn picture(device: &str, points: &[Point]) -> String {
    let mut panels: Vec<(usize, plot::Panel)> = Vec::new();
    for p in points {
        let at = panels
            .iter()
            .position(|(num_tokens, _)| *num_tokens == p.at.num_tokens);
        let at = at.unwrap_or_else(|| {
            let title = format!(
                "{} token{}",
                p.at.num_tokens,
                if p.at.num_tokens == 1 { "" } else { "s" }
            );
            panels.push((p.at.num_tokens, plot::Panel::new(title)));
            panels.len() - 1
        });
        let panel = &mut panels[at].1;
        panel.floor(p.at.context, p.timed.floor);
        if let Some(us) = p.timed.median() {
            panel.put(&line(p), p.at.context, us);
        }
    }
    panels.sort_by_key(|(num_tokens, _)| *num_tokens);
    let panels: Vec<plot::Panel> = panels.into_iter().map(|(_, panel)| panel).collect();
    let title = format!("decode layer on {device}, median microseconds a launch, the fastest split of each");
    plot::svg(&title, "context", &panels)
}

/// What a line of the plot is of.
fn line(point: &Point) -> String {
    let path = point.path.name();
    let Ok(config) = LayerConfig::try_from(&point.spec) else {
        return path.to_owned();
    };
    let geometry = match config.geometry {
        LayerGeometry::Spread => String::new(),
        other @ LayerGeometry::Original => format!(", {} geometry", other.name()),
    };
    format!("{path}, {}{geometry}", config.accumulate.name())
}

#[cfg(test)]
mod tests {
    use super::super::record::At;
    use super::*;
    use crate::engine::request::spec::KernelSpec;
    use crate::measure::timing::{Method, Plan, Summary};

    fn point(num_tokens: usize, split: &str, us: Option<f64>) -> Point {
        let registry = crate::engine::request::template::Registry::load(None).expect("families");
        let family = registry
            .get(crate::families::decode_layer::FAMILY)
            .expect("family");
        let arch = "sm_90a".parse().expect("arch");
        Point {
            at: At {
                context: 4096,
                num_tokens,
                copies: 10,
                plan: Plan {
                    method: Method::Graph,
                    launches_per_graph: 10,
                    warmups: 1,
                    samples: 5,
                },
                bytes: 1000,
                floor: 1.0,
            },
            path: Path::Cooperative,
            spec: KernelSpec::new(family, [("wo_split", split)], arch).expect("legal"),
            timed: Timed {
                passes: us.is_some(),
                summary: us.and_then(|us| Summary::of(&[us])),
                bytes: 1000,
                floor: 1.0,
            },
            decodes: Some([8, 4]),
        }
    }

    #[test]
    fn a_refused_point_is_in_the_csv_without_a_time() {
        let text = csv(&[point(1, "8", Some(2.0)), point(1, "8", None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "4096,1,cooperative,wo_split=8,true,1000,2.000,2.000,2.000,1.000"
        );
        assert_eq!(lines[2], "4096,1,cooperative,wo_split=8,false,1000,,,,1.000");
    }

    #[test]
    fn a_contexts_turns_are_said_once() {
        let mut longer = point(1, "8", None);
        (longer.at.context, longer.at.copies) = (32_768, 3);
        let lines = turns(&[point(1, "8", None), point(2, "8", None), longer]);
        assert_eq!(
            lines,
            [
                "context 4096: 5 samples, 10 launches a sample, 10 copies of weights and cache in turn",
                "context 32768: 5 samples, 10 launches a sample, 3 copies of weights and cache in turn",
            ]
        );
    }

    #[test]
    fn the_plot_has_a_frame_a_number_of_tokens_and_a_line_of_the_fastest_split() {
        let points = [
            point(1, "1", Some(3.25)),
            point(1, "8", Some(2.25)),
            point(8, "8", Some(9.25)),
        ];
        let text = picture("a GPU", &points);
        for word in [">1 token<", ">8 tokens<", ": 2.25<", ": 9.25<"] {
            assert!(text.contains(word), "{word}");
        }
        assert!(!text.contains(": 3.25<"));
    }

    #[test]
    fn fewer_tokens_a_decode_than_a_launch_has_are_said_once() {
        let lines = decodes(&[point(4, "1", None), point(8, "1", None), point(8, "8", None)]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("kernels with 8 tokens: 8 a decode of gate_up, 4 of down"));
    }
}
