//! The files that an account of launches is written to.

use std::path::{Path, PathBuf};

use super::{RegionError, Run, csv, page, trace};
use crate::engine::atomic_file::write_text;

/// Where to write what; `None` writes none of it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Reports {
    /// A folder for the buffers: .npy, and .json beside it.
    pub save: Option<PathBuf>,
    /// nvllm's columns: a file, or with several runs a folder.
    pub csv: Option<PathBuf>,
    /// Traces for Perfetto: a file, or with several runs a folder.
    pub trace: Option<PathBuf>,
    /// A page that needs nothing else, all runs in it.
    pub html: Option<PathBuf>,
    /// A wall time, microseconds, for the CSV's `wall_minus_regions_us`.
    pub wall_us: Option<f64>,
}

impl Reports {
    /// Writes them; files that are there are replaced.
    ///
    /// # Errors
    /// A file or a folder cannot be written.
    pub fn write(&self, runs: &[Run]) -> Result<(), RegionError> {
        if let Some(folder) = &self.save {
            fs_err::create_dir_all(folder)?;
            for run in runs {
                let name = format!("{}.npy", file_name(&run.ticks.label));
                run.ticks.save(&folder.join(name))?;
            }
        }
        let rows = |run: &Run| csv(&run.ticks, &run.reduced, self.wall_us);
        write_each(self.csv.as_deref(), "csv", runs, rows)?;
        let events = |run: &Run| trace(&run.ticks).to_string();
        write_each(self.trace.as_deref(), "trace.json", runs, events)?;
        if let Some(path) = &self.html {
            let all: Vec<_> = runs.iter().map(|run| (&run.ticks, &run.reduced)).collect();
            write_text(path, &page(&all))?;
        }
        Ok(())
    }
}

/// One file, or a folder with a file a buffer.
fn write_each(
    path: Option<&Path>,
    ending: &str,
    runs: &[Run],
    text: impl Fn(&Run) -> String,
) -> Result<(), RegionError> {
    let Some(path) = path else {
        return Ok(());
    };
    if let [run] = runs {
        return Ok(write_text(path, &text(run))?);
    }
    fs_err::create_dir_all(path)?;
    for run in runs {
        let name = format!("{}.{ending}", file_name(&run.ticks.label));
        write_text(&path.join(name), &text(run))?;
    }
    Ok(())
}

/// A label as a file's name: `wo_gemv-wo_split_8`.
fn file_name(label: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let words: Vec<&str> = label.split(|c| !plain(c)).filter(|w| !w.is_empty()).collect();
    words.join("-")
}
