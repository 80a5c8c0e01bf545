//! Rows in columns, for people: as wide as they are, or fitted to a terminal.
//!
//! Invariant: fitted or not, no number is broken or cut.

/// Rows before the widths of columns are settled and the first are given out.
const ROWS_AHEAD: usize = 1000;

/// To so many characters keys are cut where room is short: enough to name an entry by.
const KEY_WIDTH: usize = 8;

/// A table that gives its lines out while its rows come: the first thousand settle the
/// widths.
#[derive(Debug, Default)]
pub struct Table {
    limit: Option<usize>,
    ahead: Vec<Vec<String>>,
    settled: Option<Layout>,
}

/// How wide columns are, and what stands between them.
#[derive(Debug)]
struct Layout {
    widths: Vec<usize>,
    gap: &'static str,
}

impl Table {
    /// At most so wide, where that can be; without a limit as wide as it is.
    #[must_use]
    pub fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// A row, the first of which is the heading; gives lines that can be printed by now.
    /// Each is its cells, padded, with what stands between them.
    pub fn push(&mut self, row: Vec<String>) -> Vec<Vec<String>> {
        self.ahead.push(row);
        if self.ahead.len() < ROWS_AHEAD {
            return Vec::new();
        }
        self.lines()
    }

    /// The lines that are left.
    #[must_use]
    pub fn end(mut self) -> Vec<Vec<String>> {
        self.lines()
    }

    fn lines(&mut self) -> Vec<Vec<String>> {
        let layout = self
            .settled
            .get_or_insert_with(|| Layout::of(&self.ahead, self.limit));
        let rows = self.ahead.drain(..);
        rows.flat_map(|row| layout.lines_of(&row)).collect()
    }
}

impl Layout {
    fn of(rows: &[Vec<String>], limit: Option<usize>) -> Self {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let column = |at: usize| rows.iter().filter_map(move |row| row.get(at));
        let widest = |at: usize| column(at).map(|cell| width(cell)).max().unwrap_or(0);
        let mut layout = Self {
            widths: (0..columns).map(widest).collect(),
            gap: "  ",
        };
        let Some(limit) = limit else { return layout };
        if layout.fits(limit) {
            return layout;
        }
        for (at, wide) in layout.widths.iter_mut().enumerate() {
            let word = |cell: &String| cell.split(' ').map(width).max().unwrap_or(0);
            let heading = column(at).next().map_or(0, word);
            let cells = || column(at).skip(1);
            *wide = if cells().all(|cell| is_number(cell)) {
                cells().map(|cell| width(cell)).max().unwrap_or(0).max(heading)
            } else if cells().all(|cell| is_key(cell)) {
                KEY_WIDTH.max(heading)
            } else {
                cells().map(word).max().unwrap_or(0).max(heading)
            };
        }
        if !layout.fits(limit) {
            layout.gap = " ";
        }
        // What is left over goes to the texts that were narrowed.
        while layout.fits(limit.saturating_sub(1)) {
            let narrowed = (0..columns).find(|at| {
                let is_text = !column(*at).skip(1).all(|cell| is_number(cell) || is_key(cell));
                is_text && layout.widths[*at] < widest(*at)
            });
            let Some(narrowed) = narrowed else { break };
            layout.widths[narrowed] += 1;
        }
        layout
    }

    fn fits(&self, limit: usize) -> bool {
        let gaps = self.widths.len().saturating_sub(1) * self.gap.len();
        self.widths.iter().sum::<usize>() + gaps <= limit
    }

    /// A row, over several lines where its texts are wider than their columns.
    fn lines_of(&self, row: &[String]) -> Vec<Vec<String>> {
        let cells = row.iter().zip(&self.widths);
        let cells: Vec<Vec<String>> = cells.map(|(cell, wide)| folded(cell, *wide)).collect();
        let high = cells.iter().map(Vec::len).max().unwrap_or(0);
        let line = |n: usize| {
            let mut line: Vec<String> = Vec::new();
            for (at, wide) in self.widths.iter().enumerate().take(row.len()) {
                if at > 0 {
                    line.push(self.gap.to_owned());
                }
                let part = cells[at].get(n).map_or("", String::as_str);
                line.push(if is_plain_number(part) {
                    format!("{part:>wide$}")
                } else {
                    format!("{part:<wide$}")
                });
            }
            while let Some(last) = line.last_mut() {
                last.truncate(last.trim_end().len());
                if !last.is_empty() {
                    break;
                }
                line.pop();
            }
            line
        };
        (0..high.max(1)).map(line).collect()
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A cell over lines, broken between words; a key is cut.
fn folded(cell: &str, wide: usize) -> Vec<String> {
    if width(cell) <= wide {
        return vec![cell.to_owned()];
    }
    if is_key(cell) {
        return vec![cell.chars().take(wide).collect()];
    }
    let mut lines: Vec<String> = Vec::new();
    for word in cell.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= wide => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn starts_as_number(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c))
}

/// A number without a unit, which is aligned right.
fn is_plain_number(cell: &str) -> bool {
    starts_as_number(cell) && cell.parse::<f64>().is_ok()
}

/// A number, with or without a unit, or nothing.
fn is_number(cell: &str) -> bool {
    cell.is_empty() || is_plain_number(cell) || starts_as_number(cell) && cell.contains(' ')
}

/// The beginning of an entry's key.
fn is_key(cell: &str) -> bool {
    cell.len() == 16 && cell.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rows: &[&[&str]], limit: Option<usize>) -> Vec<String> {
        let mut table = Table::new(limit);
        let mut lines = Vec::new();
        for row in rows {
            lines.extend(table.push(row.iter().map(|cell| (*cell).to_owned()).collect()));
        }
        lines.extend(table.end());
        lines.iter().map(|line| line.concat()).collect()
    }

    const ROWS: &[&[&str]] = &[
        &["family", "variant", "key", "NVRTC ms", "size"],
        &["wo_gemv", "wo_split=8", "c5777f6ec9f6399a", "1889.8", "1.5 MiB"],
        &[
            "decode_layer",
            "launch=separate wo_split=8",
            "bca63334818f35c2",
            "85.4",
            "900",
        ],
    ];

    #[test]
    fn without_a_limit_a_table_is_as_wide_as_it_is() {
        assert_eq!(
            shown(ROWS, None),
            [
                "family        variant                     key               NVRTC ms  size",
                "wo_gemv       wo_split=8                  c5777f6ec9f6399a    1889.8  1.5 MiB",
                "decode_layer  launch=separate wo_split=8  bca63334818f35c2      85.4      900",
            ]
        );
        assert_eq!(shown(ROWS, Some(200)), shown(ROWS, None));
    }

    #[test]
    fn a_narrow_table_folds_texts_cuts_keys_and_breaks_no_number() {
        assert_eq!(
            shown(ROWS, Some(60)),
            [
                "family        variant              key       NVRTC   size",
                "                                             ms",
                "wo_gemv       wo_split=8           c5777f6e  1889.8  1.5 MiB",
                "decode_layer  launch=separate      bca63334    85.4      900",
                "              wo_split=8",
            ]
        );
        let narrowest = shown(ROWS, Some(10));
        for whole in ["1889.8", "1.5 MiB", "decode_layer", "launch=separate", "bca63334"] {
            let lines = narrowest.iter();
            assert_eq!(lines.filter(|line| line.contains(whole)).count(), 1, "{whole}");
        }
    }

    #[test]
    fn a_long_table_settles_its_widths_once() {
        let mut table = Table::new(None);
        let row = |n: usize| vec![n.to_string(), "x".to_owned()];
        let first: usize = (0..ROWS_AHEAD).map(|n| table.push(row(n)).len()).sum();
        assert_eq!(first, ROWS_AHEAD);
        let later = table.push(row(12_345_678));
        assert!(later.is_empty());
        assert_eq!(table.end(), [["12345678", "  ", "x"]]);
    }
}
