//! Hardware counters: the same launch once more, under ncu.
//!
//! Invariant: a verdict names the fullest unit and its share of its peak, and calls
//! nothing a bound that is less than 60 % full: a kernel that uses 4 % of its
//! memory's speed is not bound by memory.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Serialize;

/// From here on a unit counts as full.
const FULL: f64 = 60.0;

const PERCENT: [(&str, &str); 9] = [
    (
        "memory (DRAM)",
        "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    ),
    ("L2", "lts__throughput.avg.pct_of_peak_sustained_elapsed"),
    (
        "issue slots",
        "smsp__issue_active.avg.pct_of_peak_sustained_elapsed",
    ),
    (
        "ALU pipe",
        "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_elapsed",
    ),
    (
        "FMA pipe",
        "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_elapsed",
    ),
    (
        "FP16 pipe",
        "sm__inst_executed_pipe_fp16.avg.pct_of_peak_sustained_elapsed",
    ),
    (
        "LSU pipe",
        "sm__inst_executed_pipe_lsu.avg.pct_of_peak_sustained_elapsed",
    ),
    (
        "XU pipe",
        "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_elapsed",
    ),
    (
        "tensor pipe",
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    ),
];
const PLAIN: [&str; 5] = [
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "sm__inst_executed.sum",
    "sm__warps_active.avg.per_cycle_active",
    "sm__cycles_elapsed.avg.per_second",
];

/// What was counted in one launch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Share of its peak, percent, by unit.
    pub percent: BTreeMap<String, f64>,
    /// Plain numbers by metric, in ncu's base units.
    pub plain: BTreeMap<String, f64>,
    /// Warp instructions for 32 weights.
    pub instructions_per_weight: f64,
}

impl Counters {
    /// What the counters support, in a line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let fullest = self
            .percent
            .iter()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map_or(("nothing", 0.0), |(name, share)| (name.as_str(), *share));
        let (name, share) = fullest;
        let word = if share >= FULL {
            format!("bound by {name}, {share:.0} % of its peak")
        } else {
            format!("bound by latency: no unit is full, the fullest is {name} at {share:.0} %")
        };
        let memory = self.percent.get(PERCENT[0].0).copied().unwrap_or(0.0);
        format!(
            "{word}; DRAM {memory:.0} %, {:.2} warp instructions for 32 weights",
            self.instructions_per_weight
        )
    }
}

/// Why there are no counters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NcuError {
    /// This program, or ncu, could not be started.
    #[error("no counters: ncu could not be started: {0}")]
    Start(#[from] std::io::Error),
    /// It ended without a launch that it counted; its last words.
    #[error("no counters: ncu said {0}")]
    Nothing(String),
}

/// Runs this program once more under ncu, with these arguments, and counts its first
/// launch of `kernel`, which decodes so many weights. Of use to `jitc` itself: another
/// program would have to take the arguments.
///
/// # Errors
/// Where ncu is not there or says nothing.
pub fn count(kernel: &str, arguments: &[String], weights: usize) -> Result<Counters, NcuError> {
    let metrics: Vec<&str> = PERCENT.iter().map(|p| p.1).chain(PLAIN).collect();
    let output = Command::new("ncu")
        .args(["--replay-mode", "application", "--clock-control", "none"])
        .args(["--kernel-name", kernel, "--launch-count", "1"])
        .args(["--csv", "--page", "raw"])
        .args(["--print-units", "base", "--metrics", &metrics.join(",")])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text, weights).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let mut lines = text.lines().chain(errors.lines());
        let last = lines.rfind(|l| !l.trim().is_empty());
        NcuError::Nothing(last.unwrap_or("nothing").to_owned())
    })
}

/// Reads ncu's raw page: names, units, then a row a launch.
fn parse(text: &str, weights: usize) -> Option<Counters> {
    let mut rows = text.lines().filter(|l| l.starts_with('"')).map(fields);
    let (names, _units, values) = (rows.next()?, rows.next()?, rows.next()?);
    let value = |metric: &str| -> Option<f64> {
        let at = names.iter().position(|n| n == metric)?;
        values.get(at)?.replace(',', "").parse().ok()
    };
    let percent: BTreeMap<String, f64> = PERCENT
        .iter()
        .filter_map(|(name, metric)| Some(((*name).to_owned(), value(metric)?)))
        .collect();
    let plain: BTreeMap<String, f64> = PLAIN
        .iter()
        .filter_map(|metric| Some(((*metric).to_owned(), value(metric)?)))
        .collect();
    let executed = value("sm__inst_executed.sum")?;
    let warps = f64::from(u32::try_from(weights / 32).ok()?.max(1));
    Some(Counters {
        percent,
        plain,
        instructions_per_weight: executed / warps,
    })
}

/// Fields of a row in which every field is quoted.
fn fields(line: &str) -> Vec<String> {
    line.trim()
        .trim_matches('"')
        .split("\",\"")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "==PROF== Connected\n\
        \"ID\",\"Kernel Name\",\"dram__throughput.avg.pct_of_peak_sustained_elapsed\",\"sm__inst_executed.sum\",\"smsp__issue_active.avg.pct_of_peak_sustained_elapsed\"\n\
        \"\",\"\",\"%\",\"inst\",\"%\"\n\
        \"0\",\"wo_gemv\",\"41.50\",\"5,898,240\",\"71.2\"\n";

    #[test]
    fn a_raw_page_is_read_by_the_names_of_its_columns() {
        let counters = parse(TEXT, 5120 * 6144).expect("counters");
        assert!((counters.percent["issue slots"] - 71.2).abs() < 1e-9);
        assert!((counters.instructions_per_weight - 6.0).abs() < 1e-9);
        assert!(counters.verdict().starts_with("bound by issue slots, 71 %"));
    }

    #[test]
    fn what_fills_nothing_is_bound_by_latency() {
        let text = TEXT.replace("71.2", "9.1").replace("41.50", "4.0");
        let verdict = parse(&text, 5120 * 6144).expect("counters").verdict();
        assert!(verdict.starts_with("bound by latency"), "{verdict}");
    }

    #[test]
    fn a_page_without_a_launch_has_no_counters() {
        assert_eq!(parse("==ERROR== no permission\n", 32), None);
    }
}
