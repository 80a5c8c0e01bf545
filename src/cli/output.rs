//! The only printer. Results go to standard output, everything else to standard
//! error; a reader that went away is no error.

use std::io::Write;

/// A line on standard output.
pub(super) fn line(text: impl AsRef<str>) {
    let _ = writeln!(anstream::stdout().lock(), "{}", text.as_ref());
}

/// Text as it is on standard output.
pub(super) fn text(text: impl AsRef<str>) {
    let _ = write!(anstream::stdout().lock(), "{}", text.as_ref());
}

/// A line on standard error.
pub(super) fn note(text: impl AsRef<str>) {
    let _ = writeln!(anstream::stderr().lock(), "{}", text.as_ref());
}

/// JSON on one line.
pub(super) fn json(value: &serde_json::Value) {
    line(value.to_string());
}

/// Rows in columns; the first row is the heading. Numbers align right.
pub(super) fn table(rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| {
                if cell.starts_with(|c: char| c.is_ascii_digit()) && cell.parse::<f64>().is_ok() {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        line(cells.join("  ").trim_end());
    }
}
