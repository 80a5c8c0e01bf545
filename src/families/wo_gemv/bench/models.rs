//! A sweep over public models: how far each shape is from its own streaming floor, beside
//! the shape of the defaults at the same split.
//!
//! Invariant: ratios are of times of one run; a shape that streams in less than
//! [`LEAST_FLOOR_US`] is shown and not judged, since a launch has fixed costs.

use serde_json::{Value, json};

use super::super::config::Accumulate;
use super::report;
use super::session::{Measured, WoSession};
use super::{BenchRequest, FAMILY};
use crate::engine::jit::Jit;
use crate::measure::MeasureError;
use crate::measure::harness::{Event, Sink, Verdict};
use crate::measure::models::{MODELS, Model};
use crate::measure::run_files;

/// The shortest floor that a shape is judged by, microseconds.
const LEAST_FLOOR_US: f64 = 3.0;

/// A point of the sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    model: &'static str,
    mode: Accumulate,
    tokens: usize,
    global_scale: f32,
    split: usize,
    floor_us: f64,
    /// None, where the reference refused it.
    median_us: Option<f64>,
}

impl Point {
    fn of(model: &Model, measured: &Measured) -> Self {
        Self {
            model: model.name,
            mode: measured.case.accumulate,
            tokens: measured.case.num_tokens,
            global_scale: measured.case.global_scale,
            split: measured.case.shape.wo_split,
            floor_us: measured.timed.floor,
            median_us: measured.timed.median(),
        }
    }

    fn over_floor(&self) -> Option<f64> {
        self.median_us.map(|us| us / self.floor_us)
    }

    /// Whether it is the same kind of launch.
    fn is_like(&self, other: &Self) -> bool {
        (self.mode, self.tokens, self.global_scale) == (other.mode, other.tokens, other.global_scale)
    }

    /// How many times farther it is from its floor than the first model at its split.
    fn beside_first(&self, all: &[Self]) -> Option<f64> {
        let first = all
            .iter()
            .find(|p| p.model == MODELS[0].name && p.is_like(self) && p.split == self.split)?;
        Some(self.over_floor()? / first.over_floor()?)
    }

    /// How many times its time at the lowest split of the same shape it takes.
    fn beside_lowest_split(&self, all: &[Self]) -> Option<f64> {
        let same = all.iter().filter(|p| p.model == self.model && p.is_like(self));
        let lowest = same.min_by_key(|p| p.split)?;
        Some(self.median_us? / lowest.median_us?)
    }
}

/// The point that is the farthest by one measure, and how far that is.
fn worst(all: &[Point], measure: impl Fn(&Point) -> Option<f64>) -> Option<(&Point, f64)> {
    let judged = all.iter().filter(|p| p.floor_us >= LEAST_FLOOR_US);
    judged
        .filter_map(|p| Some((p, measure(p)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

/// A row a model and kind of launch, a column a split: microseconds, and how many times the
/// floor that is.
fn table(all: &[Point]) -> Vec<Vec<String>> {
    let mut splits: Vec<usize> = all.iter().map(|p| p.split).collect();
    splits.sort_unstable();
    splits.dedup();
    let titles = ["model", "mode", "tokens", "scale", "stream us"].map(str::to_owned);
    let columns = splits.iter().map(|split| format!("split {split}"));
    let mut rows = vec![titles.into_iter().chain(columns).collect()];
    for (at, point) in all.iter().enumerate() {
        let is_same = |p: &Point| p.model == point.model && p.is_like(point);
        if all[..at].iter().any(is_same) {
            continue;
        }
        let mut row = vec![
            point.model.to_owned(),
            point.mode.to_string(),
            point.tokens.to_string(),
            point.global_scale.to_string(),
            format!("{:.2}", point.floor_us),
        ];
        row.extend(splits.iter().map(|split| {
            let found = all.iter().find(|p| is_same(p) && p.split == *split);
            let us = found.and_then(|p| p.median_us.map(|us| (us, us / p.floor_us)));
            us.map_or("-".into(), |(us, ratio)| format!("{us:.2} ({ratio:.2})"))
        }));
        rows.push(row);
    }
    rows
}

fn named(point: &Point) -> String {
    format!(
        "{}, split {}, {}, tokens {}, scale {}",
        point.model, point.split, point.mode, point.tokens, point.global_scale
    )
}

/// The three farthest points, for people and for programs.
fn summary(all: &[Point]) -> (Vec<String>, Value) {
    let measures = [
        ("over_stream", "x streaming", worst(all, Point::over_floor)),
        (
            "beside_first_model",
            "x as far from it as the first model at that split",
            worst(all, |p| p.beside_first(all)),
        ),
        (
            "beside_lowest_split",
            "x the time of the lowest split",
            worst(all, |p| p.beside_lowest_split(all)),
        ),
    ];
    let mut lines = Vec::new();
    let mut object = json!({"event": "models", "least_floor_us": LEAST_FLOOR_US});
    for (name, words, found) in measures {
        let Some((point, value)) = found else { continue };
        lines.push(format!("farthest: {value:.2} {words}: {}", named(point)));
        object[name] = json!({"value": value, "model": point.model, "wo_split": point.split,
            "accumulate": point.mode.name(), "tokens": point.tokens, "global_scale": point.global_scale});
    }
    (lines, object)
}

/// Measures every model, one after the other.
pub(super) fn bench(jit: &Jit, request: &BenchRequest, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let mut points = Vec::new();
    let mut values = Vec::new();
    let mut device = None;
    for model in &MODELS {
        let wo = request.wo.of_model(model);
        let mut options = request.options.clone();
        options.out = options.out.map(|out| out.join(model.name));
        let run = WoSession::open(jit, &wo, &options)?;
        for measured in run.every(sink)? {
            let mut value = report::object(&measured);
            value["model"] = json!(model.name);
            for (name, number) in model.attention_constants() {
                value[name] = json!(number);
            }
            sink(Event::Object(value.clone()));
            values.push(value);
            points.push(Point::of(model, &measured));
        }
        device.get_or_insert_with(|| run.session.context.device().clone());
    }
    let (lines, object) = summary(&points);
    sink(Event::Table(table(&points)));
    let name = device.as_ref().map_or("", |device| device.name.as_str());
    sink(Event::Line(format!(
        "\n{FAMILY} on {name}; microseconds a launch, in brackets over reading the same bytes, same method"
    )));
    for line in lines {
        sink(Event::Line(line));
    }
    sink(Event::Object(object.clone()));
    if let Some(out) = &request.options.out {
        let summary = json!({"device": device, "variants": values, "farthest": object});
        run_files::write_json(out, "summary.json", &summary)?;
    }
    let wrong = points.iter().filter(|p| p.median_us.is_none()).count();
    Ok(Verdict::of(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(model: &'static str, split: usize, floor_us: f64, median_us: f64) -> Point {
        Point {
            model,
            mode: Accumulate::Fma,
            tokens: 1,
            global_scale: 1.0,
            split,
            floor_us,
            median_us: Some(median_us),
        }
    }

    #[test]
    fn a_point_is_judged_beside_the_first_model_at_its_split_and_beside_its_own_lowest() {
        let [first, second] = [MODELS[0].name, MODELS[1].name];
        let all = [
            point(first, 1, 5.0, 10.0),
            point(first, 8, 5.0, 7.5),
            point(second, 1, 4.0, 8.0),
            point(second, 8, 4.0, 12.0),
        ];
        let near = |value: Option<f64>, expected: f64| (value.expect("value") - expected).abs() < 1e-12;
        assert!(near(all[2].beside_first(&all), 1.0));
        assert!(near(all[3].beside_first(&all), 2.0));
        assert!(near(all[3].beside_lowest_split(&all), 1.5));
        assert_eq!(worst(&all, |p| p.beside_first(&all)).map(|w| w.0), Some(&all[3]));
        assert_eq!(table(&all).len(), 3);
        assert_eq!(table(&all)[2][5..], ["8.00 (2.00)", "12.00 (3.00)"]);
    }

    #[test]
    fn a_shape_that_streams_in_no_time_is_not_judged_and_a_refused_one_has_no_time() {
        let mut all = [
            point(MODELS[0].name, 1, 5.0, 10.0),
            point(MODELS[1].name, 1, 2.9, 29.0),
        ];
        assert_eq!(worst(&all, Point::over_floor).map(|w| w.0), Some(&all[0]));
        all[0].median_us = None;
        assert!(worst(&all, Point::over_floor).is_none());
        assert_eq!(table(&all)[1][5], "-");
    }
}
