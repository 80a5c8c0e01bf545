//! Launches as one HTML page that needs nothing else.
//!
//! Invariant: the page is the frame in page.html with its script, its style and
//! the numbers put in; it names no address of any network, and every number that
//! it shows was worked out here, so that it cannot disagree with the table.

use serde_json::{Map, Value, json};

use super::trace::{spans, zeros};
use super::{Reduced, Scope, Ticks, diff, to_json};

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page for these launches; the first is what the others are compared with.
#[must_use]
pub fn page(runs: &[(&Ticks, &Reduced)]) -> String {
    let mut diffs = Map::new();
    for (a, before) in runs.iter().enumerate() {
        for (b, after) in runs.iter().enumerate().filter(|(b, _)| *b != a) {
            let found = match diff(*before, *after) {
                Ok(diff) => diff.to_json(),
                Err(error) => json!({"error": error.to_string()}),
            };
            diffs.insert(format!("{a},{b}"), found);
        }
    }
    let runs: Vec<Value> = runs.iter().map(|(ticks, reduced)| run(ticks, reduced)).collect();
    // The only way out of a script element is a `<` of its own.
    let data = json!({"runs": runs, "diffs": diffs})
        .to_string()
        .replace('<', "\\u003c");
    FRAME
        .replace("/*STYLE*/", STYLE)
        .replace("/*DATA*/", &data)
        .replace("/*SCRIPT*/", SCRIPT)
}

/// What the page knows of one launch: its account, and spans as
/// `[region, entry, duration]` in ticks from the zero of the block's clock.
fn run(ticks: &Ticks, reduced: &Reduced) -> Value {
    let zeros = zeros(ticks);
    let ctas: Vec<Value> = zeros
        .iter()
        .enumerate()
        .map(|(cta, zero)| {
            let spans: Vec<[i64; 3]> = spans(ticks, cta)
                .iter()
                .map(|s| [i64::from(s.region.id), s.entry - zero, s.exit - s.entry])
                .collect();
            let sums: Vec<[i64; 2]> = ticks
                .table
                .regions
                .iter()
                .filter(|r| matches!(r.scope, Scope::Sum { .. }))
                .filter_map(|r| Some([i64::from(r.id), ticks.delta(cta, r.id)?]))
                .collect();
            json!({"sm": ticks.sms.as_ref().map(|sms| sms[cta]), "block": ticks.geometry.block(cta),
                "spans": spans, "sums": sums})
        })
        .collect();
    let accounted: Vec<u32> = ticks.accounted().iter().map(|r| r.id).collect();
    let waits: Vec<u32> = ticks
        .table
        .regions
        .iter()
        .filter(|r| r.is_wait())
        .map(|r| r.id)
        .collect();
    // As whoever makes numbers up labels them.
    let synthetic = ticks.label.starts_with("synthetic");
    json!({"account": to_json(ticks, reduced), "synthetic": synthetic, "ctas": ctas, "accounted": accounted, "waits": waits})
}
