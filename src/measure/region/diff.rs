//! Two accounts side by side, and what moved.
//!
//! Invariant: regions are matched by name, and only times of the same clock are
//! compared. Cycles are never turned into time.

use serde_json::{Value, json};

use super::{Reduced, RegionError, RegionRow, TickSource, Ticks};

/// A region, or a sum of regions, before and after; times are medians.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DiffRow {
    /// The region's name.
    pub name: String,
    /// Blocks that ran it before.
    pub n_before: usize,
    /// Blocks that ran it after.
    pub n_after: usize,
    /// Microseconds, or cycles.
    pub before: f64,
    /// Microseconds, or cycles.
    pub after: f64,
}

impl DiffRow {
    /// After minus before.
    #[must_use]
    pub fn delta(&self) -> f64 {
        self.after - self.before
    }

    /// Before over after: how many times faster. `None` where one of them is 0.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.before > 0.0 && self.after > 0.0).then(|| self.before / self.after)
    }
}

/// Two accounts side by side.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Diff {
    /// `us` or `cycles`.
    pub unit: &'static str,
    /// A row a region: those of the first, then those that only the second has.
    pub rows: Vec<DiffRow>,
    /// The sum over the regions that the first one's family adds up, if it does.
    pub cluster: Option<DiffRow>,
    /// The measured launches, where both were measured.
    pub launch: Option<DiffRow>,
    /// Parts of the kernel, by what their regions' names begin with.
    parts: Vec<(String, String)>,
}

/// Compares two accounts.
pub fn diff(before: (&Ticks, &Reduced), after: (&Ticks, &Reduced)) -> Result<Diff, RegionError> {
    let source = before.0.source;
    if source != after.0.source {
        return Err(RegionError::Clocks {
            before: source.name(),
            after: after.0.source.name(),
        });
    }
    let (unit, scale) = match source {
        TickSource::GlobalTimer => ("us", 1000.0),
        TickSource::Clock64 => ("cycles", 1.0),
    };
    let row = |name: &str| {
        let of = |reduced: &Reduced| {
            let found = reduced.rows.iter().find(|r| &*r.region.name == name);
            found.map_or((0, 0.0), |r: &RegionRow| (r.n_active, r.median / scale))
        };
        let ((n_before, old), (n_after, new)) = (of(before.1), of(after.1));
        DiffRow {
            name: name.to_owned(),
            n_before,
            n_after,
            before: old,
            after: new,
        }
    };
    let mut names: Vec<&str> = before.1.rows.iter().map(|r| &*r.region.name).collect();
    for later in &after.1.rows {
        if !names.contains(&&*later.region.name) {
            names.push(&later.region.name);
        }
    }
    let shared = &before.0.table.shared;
    let cluster = shared.together.as_ref().map(|together| {
        let parts: Vec<DiffRow> = together.regions.iter().map(|name| row(name)).collect();
        DiffRow {
            name: together.name.clone(),
            n_before: parts.iter().map(|p| p.n_before).max().unwrap_or(0),
            n_after: parts.iter().map(|p| p.n_after).max().unwrap_or(0),
            before: parts.iter().map(|p| p.before).sum(),
            after: parts.iter().map(|p| p.after).sum(),
        }
    });
    let launch = match (source, before.0.launch_us, after.0.launch_us) {
        (TickSource::GlobalTimer, Some(old), Some(new)) => Some(DiffRow {
            name: "launch".to_owned(),
            n_before: before.0.geometry.ctas(),
            n_after: after.0.geometry.ctas(),
            before: old,
            after: new,
        }),
        _ => None,
    };
    Ok(Diff {
        unit,
        rows: names.into_iter().map(row).collect(),
        cluster,
        launch,
        parts: shared.parts.clone(),
    })
}

impl Diff {
    /// As JSON; what has no ratio has null.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let row = |row: &DiffRow| {
            json!({"region": row.name, "n_before": row.n_before, "n_after": row.n_after,
                "before": row.before, "after": row.after, "delta": row.delta(), "ratio": row.ratio()})
        };
        json!({"schema": "jitc.regions-diff.v1", "unit": self.unit,
            "regions": self.rows.iter().map(row).collect::<Vec<_>>(), "cluster": self.cluster.as_ref().map(row),
            "launch": self.launch.as_ref().map(row), "reading": self.reading()})
    }

    /// One line on what moved: the largest move, those that went with it, what
    /// came or went, and whether the rest stayed.
    #[must_use]
    pub fn reading(&self) -> String {
        let mut moved: Vec<&DiffRow> = self
            .rows
            .iter()
            .filter(|row| row.delta().abs() > 0.05 * row.before.max(row.after))
            .collect();
        moved.sort_by(|a, b| b.delta().abs().total_cmp(&a.delta().abs()));
        let Some(largest) = moved.first() else {
            return "no region moved by more than 5 %".to_owned();
        };
        // A region that moved by less than a hundredth of the largest move is noise
        // in this sentence; the table has it.
        let floor = largest.delta().abs() / 100.0;
        let told: Vec<&&DiffRow> = moved.iter().filter(|row| row.delta().abs() >= floor).collect();
        let mut parts: Vec<String> = told.iter().take(5).map(|row| self.phrase(row)).collect();
        if let Some(cluster) = self.cluster.as_ref().filter(|c| c.before > 0.0) {
            parts.push(format!(
                "together {} {} -> {} {}{}",
                cluster.name,
                thousands(cluster.before),
                thousands(cluster.after),
                self.unit,
                times(cluster)
            ));
        }
        for (prefix, name) in &self.parts {
            let own = |row: &&DiffRow| row.name.starts_with(prefix.as_str()) && row.before >= floor;
            let stayed: Vec<&DiffRow> = self.rows.iter().filter(own).collect();
            if !stayed.is_empty() && stayed.iter().all(|row| !told.iter().any(|t| t.name == row.name)) {
                parts.push(format!("the {name} regions stay"));
            }
        }
        parts.join("; ")
    }

    fn phrase(&self, row: &DiffRow) -> String {
        let unit = self.unit;
        if row.before <= 0.0 {
            return format!(
                "{} is new, {} {unit} on {} CTAs",
                row.name,
                thousands(row.after),
                row.n_after
            );
        }
        if row.after <= 0.0 {
            return format!("{} is gone, {} {unit} before", row.name, thousands(row.before));
        }
        let ctas = if row.n_before == row.n_after {
            String::new()
        } else {
            format!(", {} -> {} CTAs", row.n_before, row.n_after)
        };
        format!(
            "{} {} -> {} {unit}{}{ctas}",
            row.name,
            thousands(row.before),
            thousands(row.after),
            times(row)
        )
    }
}

fn times(row: &DiffRow) -> String {
    match row.ratio() {
        Some(ratio) if ratio >= 1.0 => format!(" ({ratio:.2}x less)"),
        Some(ratio) => format!(" ({:.2}x more)", 1.0 / ratio),
        None => String::new(),
    }
}

/// `14,121`; three digits at least: `2.36`, `73.3`.
#[must_use]
pub fn thousands(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude < 10.0 {
        return format!("{number:.2}");
    }
    if magnitude < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{magnitude:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 { format!("-{text}") } else { text }
}
