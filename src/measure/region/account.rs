//! The account of a launch, and of the difference of two, for people.

use super::{Diff, Run, TickSource, thousands, warnings};

/// A part of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A line.
    Line(String),
    /// Rows in columns; the first row is the heading.
    Table(Vec<Vec<String>>),
    /// Beside the account: what is to be minded.
    Warning(String),
}

/// The account of a launch.
#[must_use]
pub fn account(run: &Run) -> Vec<Part> {
    let mut parts = Vec::new();
    let (ticks, reduced) = (&run.ticks, &run.reduced);
    let g = &ticks.geometry;
    let launch = ticks
        .launch_us
        .map_or("not measured".to_owned(), |us| format!("{} us", thousands(us)));
    parts.push(Part::Line(format!(
        "{}: {} with {} regions, grid {} x {} x {}, {}, launch {launch}",
        ticks.label,
        ticks.table.family,
        ticks.table.count(),
        g.slice_ctas,
        g.num_k_tiles,
        g.num_seqs,
        ticks.source.name(),
    )));
    let globaltimer = ticks.source == TickSource::GlobalTimer;
    let (unit, scale) = if globaltimer {
        ("us", 1000.0)
    } else {
        ("cycles", 1.0)
    };
    let time = |ticks: f64| format!("{:.3}", ticks / scale);
    let mut rows = vec![
        [
            "id",
            "region",
            "class",
            "CTAs",
            &format!("median {unit}"),
            "mean",
            "p99",
            "of launch",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in &reduced.rows {
        rows.push(vec![
            row.region.id.to_string(),
            row.region.name.to_string(),
            row.region.class.to_string(),
            row.n_active.to_string(),
            time(row.median),
            time(row.mean),
            time(row.p99),
            if row.frac_of_kernel.is_finite() {
                format!("{:.1} %", 100.0 * row.frac_of_kernel)
            } else {
                "-".to_owned()
            },
        ]);
    }
    parts.push(Part::Table(rows));
    let busiest = &reduced.busiest;
    let (bx, by, bz) = g.block(busiest.cta);
    #[expect(clippy::cast_precision_loss, reason = "ticks of a launch are far below 2^53")]
    let shown = |t: i64| format!("{} {unit}", thousands(t as f64 / scale));
    let explained = reduced.explained(ticks).map_or(String::new(), |share| {
        let of = if globaltimer && ticks.launch_us.is_some() {
            "of the launch"
        } else {
            "from first tick to last"
        };
        format!(": {:.1} % {of}", 100.0 * share)
    });
    parts.push(Part::Line(format!(
        "busiest CTA {} ({bx}, {by}, {bz}): {} of work and {} of waiting{explained}",
        busiest.cta,
        shown(busiest.work),
        shown(busiest.wait),
    )));
    parts.push(Part::Line(rest(run, &shown)));
    if globaltimer {
        parts.push(Part::Line(format!(
            "the clock moves in steps of {} ns",
            reduced.step
        )));
    }
    if let Some(cost) = &run.cost {
        parts.push(Part::Line(format!(
            "{}: {:.2} us without regions, {:.2} us with them; {:+.2} us ({:+.2} %) from one launch to the next; medians, \
             nothing of its own in L2; {}",
            cost.device,
            cost.off_us,
            cost.on_us,
            cost.more_us,
            100.0 * cost.more_us / cost.off_us,
            cost.held_to
        )));
        parts.push(Part::Line(format!(
            "the events around a launch are {:.2} us apart without one",
            cost.events_us
        )));
    }
    for warning in warnings(reduced) {
        parts.push(Part::Warning(format!("warning: {}: {warning}", ticks.label)));
    }
    parts.push(Part::Line(String::new()));
    parts
}

/// What no region of the busiest block holds, by place.
fn rest(run: &Run, shown: &dyn Fn(i64) -> String) -> String {
    let rest = &run.reduced.rest;
    let parts = [
        (
            rest.outside,
            "before the first tick of any block and after the last one",
        ),
        (rest.before, "before its own first tick"),
        (rest.after, "after its own last one"),
        (Some(rest.between), "between its regions"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter_map(|(ticks, place)| Some(format!("{} {place}", shown((*ticks)?))))
        .collect();
    format!("not in its regions: {}", parts.join("; "))
}

/// The account of the difference of two launches.
#[must_use]
pub fn account_of_diff(before: &Run, after: &Run, diff: &Diff) -> Vec<Part> {
    let mut parts = Vec::new();
    parts.push(Part::Line(format!(
        "{} -> {}, medians in {}",
        before.ticks.label, after.ticks.label, diff.unit
    )));
    let mut rows = vec![
        ["region", "CTAs", "before", "after", "delta", "ratio"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let more = diff.launch.iter();
    for row in diff.rows.iter().chain(&diff.cluster).chain(more) {
        rows.push(vec![
            row.name.clone(),
            format!("{} -> {}", row.n_before, row.n_after),
            format!("{:.3}", row.before),
            format!("{:.3}", row.after),
            format!("{:+.3}", row.delta()),
            row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}x")),
        ]);
    }
    parts.push(Part::Table(rows));
    parts.push(Part::Line(format!("\n{}", diff.reading())));
    parts
}
