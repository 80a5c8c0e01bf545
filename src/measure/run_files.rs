//! Files of a run: JSON and text in a folder, samples as a table.
//!
//! Invariant: a value that JSON has no word for is written as a string, never left out.

use std::fmt::Write;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::bench::gigabytes_per_second;
use crate::engine::atomic_file::write_text;

/// `timing.csv`: every sample, with the bytes that it moved.
#[must_use]
pub fn timing_csv(payload: usize, scratch: usize, samples: &[f64]) -> String {
    let mut text = String::from(
        "launch_idx,elapsed_us,payload_bytes,scratch_bytes,effective_bytes,effective_gbps,is_warmup\n",
    );
    for (i, us) in samples.iter().enumerate() {
        let gbps = gigabytes_per_second(payload + scratch, *us);
        let _ = writeln!(
            text,
            "{i},{us:.4},{payload},{scratch},{},{gbps:.3},false",
            payload + scratch
        );
    }
    text
}

/// JSON has no infinity; a string is seen.
#[must_use]
pub fn finite(value: f64) -> Value {
    if value.is_finite() {
        json!(value)
    } else {
        json!(value.to_string())
    }
}

/// Writes one of them.
pub fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    fs_err::create_dir_all(dir)?;
    write_text(&dir.join(name), text)
}

/// Writes JSON, for people too.
pub fn write_json(dir: &Path, name: &str, value: &Value) -> io::Result<()> {
    write(dir, name, &format!("{value:#}\n"))
}

/// The commit of the folder that this runs in, where there is one.
#[must_use]
pub fn git_sha() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infinite_value_is_written_as_a_word() {
        assert_eq!(finite(f64::INFINITY), json!("inf"));
        assert_eq!(finite(0.5), json!(0.5));
    }

    #[test]
    fn a_row_of_the_timing_table_gives_bytes_over_time() {
        let text = timing_csv(17_727_492, 1_310_720, &[10.0]);
        let row: Vec<&str> = text.lines().nth(1).expect("row").split(',').collect();
        assert_eq!(row[2..], ["17727492", "1310720", "19038212", "1903.821", "false"]);
    }
}
