//! The headline of nvllm's tool: the share of a launch in regions that reduce along k, and
//! the launch's time from a profile.

use std::path::{Path, PathBuf};

use regex::RegexBuilder;

use super::{RegionRow, Table};
use crate::engine::regular_file::{MAX_RECORDS, read_text};

/// The share along k and what it says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AlongK {
    /// From 0 to 1.
    pub share: f64,
    /// Whether it is a share of the launch, or of the ticks that do not wait.
    pub of_launch: bool,
    /// What people call the largest of the regions.
    pub site: String,
    /// The regions, as `R2 + R7 + R9`.
    pub regions: String,
}

impl AlongK {
    /// That of the rows of an account, of the regions that the family declares as such.
    #[must_use]
    pub fn of(table: &Table, rows: &[RegionRow]) -> Self {
        let declared = &table.shared.along_k;
        let called = |row: &RegionRow| declared.iter().find(|(name, _)| **name == *row.region.name);
        let found = rows.iter().filter_map(|row| Some((row, called(row)?.1.as_str())));
        let along_k: Vec<(&RegionRow, &str)> = found.collect();
        let site = along_k
            .iter()
            .max_by(|a, b| a.0.median.total_cmp(&b.0.median))
            .map_or("none", |found| found.1);
        let ids: Vec<String> = (along_k.iter())
            .map(|(row, _)| format!("R{}", row.region.id))
            .collect();
        let of_launch = along_k.iter().all(|(row, _)| row.frac_of_kernel.is_finite());
        let share = if of_launch {
            along_k.iter().map(|(row, _)| row.frac_of_kernel).sum()
        } else {
            let working = rows.iter().filter(|row| !row.region.is_wait());
            let all: f64 = working.map(|row| row.median).sum();
            let some: f64 = along_k.iter().map(|(row, _)| row.median).sum();
            if all > 0.0 { some / all } else { 0.0 }
        };
        Self {
            share,
            of_launch,
            site: site.to_owned(),
            regions: ids.join(" + "),
        }
    }

    /// What nvllm's tool concludes from it.
    #[must_use]
    pub fn verdict(&self) -> String {
        let site = &self.site;
        if self.share >= 0.50 {
            format!("strong go: cut {site} along k first")
        } else if self.share >= 0.40 {
            format!("proceed: cut {site} along k first")
        } else if self.share >= 0.25 {
            format!("conditional: cut {site} along k only if a profile shows it bound by memory")
        } else {
            "no-go: cutting along k is not enough by itself".to_owned()
        }
    }
}

/// Why a profile gives no time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The pattern is none.
    #[error("--kernel-symbol-regex {0}: not a regular expression")]
    Pattern(String),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no CSV.
    #[error("{}: {source}", file.display())]
    Csv {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: csv::Error,
    },
    /// A column is not there.
    #[error("{} has no column {name}: it has {found}", file.display())]
    NoColumn {
        /// The file.
        file: PathBuf,
        /// The column.
        name: &'static str,
        /// Those that are there.
        found: String,
    },
    /// A number is none.
    #[error("{}: `{text}` is not a number, in the column {column}", file.display())]
    NoNumber {
        /// The file.
        file: PathBuf,
        /// What is there.
        text: String,
        /// Name of the column.
        column: String,
    },
    /// A time of nothing.
    #[error("{}: a mean_us of {mean} for {symbol}: expected more than 0", file.display())]
    NoTime {
        /// The file.
        file: PathBuf,
        /// The time, microseconds.
        mean: f64,
        /// Symbol of the kernel.
        symbol: String,
    },
    /// No kernel has such a name.
    #[error("{}: no kernel_symbol matches {pattern}; the largest are {largest}", file.display())]
    NoKernel {
        /// The file.
        file: PathBuf,
        /// The pattern.
        pattern: String,
        /// Those that took the most time.
        largest: String,
    },
}

/// Mean time, microseconds, and symbol of a kernel in a profile: CSV with the columns
/// `kernel_symbol`, `mean_us` and `total_ms`. Of several whose symbol matches the pattern,
/// case aside, the one with the largest total.
///
/// # Errors
/// The file is not such a CSV, or no symbol matches.
pub fn profiled_kernel(path: &Path, pattern: &str) -> Result<(f64, String), ProfileError> {
    let file = || path.to_path_buf();
    let regex = RegexBuilder::new(pattern)
        .case_insensitive(true)
        .build()
        .map_err(|_| ProfileError::Pattern(pattern.to_owned()))?;
    let text = read_text(path, MAX_RECORDS)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let bad = |source| ProfileError::Csv { file: file(), source };
    let heading = reader.headers().map_err(bad)?.clone();
    let column = |name: &'static str| {
        heading.iter().position(|h| h == name).ok_or_else(|| {
            let found: Vec<&str> = heading.iter().collect();
            ProfileError::NoColumn {
                file: file(),
                name,
                found: found.join(", "),
            }
        })
    };
    let (symbol, mean, total) = (column("kernel_symbol")?, column("mean_us")?, column("total_ms")?);
    let mut kernels = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let number = |column: usize| {
            let text = record.get(column).unwrap_or_default();
            text.parse::<f64>().map_err(|_| ProfileError::NoNumber {
                file: file(),
                text: text.to_owned(),
                column: heading[column].to_owned(),
            })
        };
        kernels.push((record[symbol].to_owned(), number(mean)?, number(total)?));
    }
    kernels.sort_by(|a, b| b.2.total_cmp(&a.2));
    if let Some((symbol, mean, _)) = kernels.iter().find(|(name, ..)| regex.is_match(name)) {
        let (symbol, mean) = (symbol.clone(), *mean);
        if !(mean > 0.0 && mean.is_finite()) {
            return Err(ProfileError::NoTime {
                file: file(),
                mean,
                symbol,
            });
        }
        return Ok((mean, symbol));
    }
    let largest: Vec<&str> = kernels.iter().take(5).map(|(name, ..)| name.as_str()).collect();
    Err(ProfileError::NoKernel {
        file: file(),
        pattern: pattern.to_owned(),
        largest: largest.join(", "),
    })
}
