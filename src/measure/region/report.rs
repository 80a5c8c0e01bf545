//! An account as CSV and as JSON.
//!
//! Invariant: the CSV has nvllm's columns in its order and writes numbers
//! as its tools do, so that the two can be compared as text; the JSON is
//! `jitc.regions.v1` (docs/regions.schema.json), where what is not a number is null.

use serde_json::{Value, json};

use super::{Reduced, RegionRow, Ticks};

/// nvllm's columns.
pub const COLUMNS: [&str; 11] = [
    "region_id",
    "region",
    "n_active_ctas",
    "cta_class",
    "tick_source",
    "mean_ticks",
    "median_ticks",
    "p99_ticks",
    "raw_total_ticks",
    "median_us",
    "frac_of_kernel",
];

/// CSV; with a wall time also nvllm's column `wall_minus_regions_us`.
#[must_use]
pub fn csv(ticks: &Ticks, reduced: &Reduced, wall_us: Option<f64>) -> String {
    let mut heading = COLUMNS.join(",");
    let mut tail = String::new();
    if let Some(wall_us) = wall_us {
        heading.push_str(",wall_minus_regions_us");
        tail = format!(",{}", number(reduced.wall_minus_regions_us(wall_us)));
    }
    let mut text = heading + "\n";
    for row in &reduced.rows {
        let cells = [
            row.region.id.to_string(),
            row.region.name.to_string(),
            row.n_active.to_string(),
            row.region.class.to_string(),
            ticks.source.name().to_owned(),
            number(row.mean),
            number(row.median),
            number(row.p99),
            row.total.to_string(),
            number(row.median_us),
            number(row.frac_of_kernel),
        ];
        text.push_str(&cells.join(","));
        text.push_str(&tail);
        text.push('\n');
    }
    text
}

/// The account as `jitc.regions.v1`.
#[must_use]
pub fn to_json(ticks: &Ticks, reduced: &Reduced) -> Value {
    let rows: Vec<Value> = reduced.rows.iter().map(|row| row_json(ticks, row)).collect();
    let (bx, by, bz) = ticks.geometry.block(reduced.busiest.cta);
    json!({
        "schema": "jitc.regions.v1",
        "label": ticks.label,
        "family": &*ticks.table.family,
        "num_regions": ticks.table.count(),
        "identity": format!("{:016x}", ticks.table.identity()),
        "geometry": ticks.geometry,
        "tick_source": ticks.source.name(),
        "launch_us": ticks.launch_us,
        "regions": rows,
        "account": {
            "busiest_cta": reduced.busiest.cta,
            "busiest_block": [bx, by, bz],
            "busiest_work_ticks": reduced.busiest.work,
            "busiest_wait_ticks": reduced.busiest.wait,
            "work_ticks": reduced.work,
            "wait_ticks": reduced.wait,
            "window_ticks": reduced.window,
            "step_ticks": reduced.step,
            "explained": reduced.explained(ticks),
            "rest": {
                "outside_ticks": reduced.rest.outside,
                "before_ticks": reduced.rest.before,
                "after_ticks": reduced.rest.after,
                "between_ticks": reduced.rest.between,
            },
        },
        "warnings": warnings(reduced),
    })
}

fn row_json(ticks: &Ticks, row: &RegionRow) -> Value {
    json!({
        "region_id": row.region.id,
        "region": &*row.region.name,
        "cta_class": &*row.region.class,
        "scope": row.region.scope,
        "n_active_ctas": row.n_active,
        "expected_ctas": row.expected,
        "outside_ctas": row.outside,
        "silent_ctas": row.silent,
        "tick_source": ticks.source.name(),
        "mean_ticks": row.mean,
        "median_ticks": row.median,
        "p99_ticks": row.p99,
        "raw_total_ticks": row.total,
        "median_us": finite(row.median_us),
        "frac_of_kernel": finite(row.frac_of_kernel),
    })
}

/// What looks wrong in the numbers themselves, a line each.
#[must_use]
pub fn warnings(reduced: &Reduced) -> Vec<String> {
    let mut said = Vec::new();
    for row in &reduced.rows {
        let name = &row.region.name;
        if row.n_active > row.expected {
            said.push(format!(
                "{name}: {} blocks have ticks and a launch elects {}: the rest is left from earlier launches",
                row.n_active, row.expected
            ));
        }
        if row.outside > 0 {
            said.push(format!(
                "{name}: {} blocks have ticks that do not run it in this geometry: they are not counted",
                row.outside
            ));
        }
        if row.silent > 0 {
            said.push(format!(
                "{name}: {} of the blocks that run it in this geometry have no ticks",
                row.silent
            ));
        }
    }
    said
}

fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

/// A float as Python writes it; NaN is an empty cell.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return String::new();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&power) {
        return format!("{value:?}");
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (value, text) in [
            (12448.0, "12448.0"),
            (0.000_311_2, "0.0003112"),
            (4.88e-5, "4.88e-05"),
            (8e-7, "8e-07"),
            (1.5e17, "1.5e+17"),
            (251_073.142_857_142_87, "251073.14285714287"),
            (0.0, "0.0"),
            (f64::NAN, ""),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
