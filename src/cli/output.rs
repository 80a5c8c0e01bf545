//! The only printer. Results go to standard output, everything else to standard
//! error; a reader that went away is no error, and any other failure of standard output ends
//! the program with 2.

use std::fmt::Display;
use std::io::{Error, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};

use crate::measure::table;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Obeys `--color`: `always`, `never`, anything else by what the output is.
pub(super) fn color(when: Option<&str>) {
    match when {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
    .write_global();
}

/// The same choice for what clap prints itself.
pub(super) fn clap_color() -> clap::ColorChoice {
    match ColorChoice::global() {
        ColorChoice::Always | ColorChoice::AlwaysAnsi => clap::ColorChoice::Always,
        ColorChoice::Never => clap::ColorChoice::Never,
        ColorChoice::Auto => clap::ColorChoice::Auto,
    }
}

/// Whether escapes on standard error reach somebody who sees colors.
pub(super) fn stderr_is_colored() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}

/// Lines that belong to the one before, on standard error, indented below it. They quote
/// what others wrote: nothing in them is an order to the terminal.
pub(super) fn indented(text: &str) {
    let lines = text.trim_matches('\n').lines().map(|line| match line.trim_end() {
        "" => String::new(),
        line => format!(
            "  {}",
            line.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}")
        ),
    });
    note(lines.collect::<Vec<_>>().join("\n"));
}

/// What went wrong, on standard error.
pub(super) fn error(text: impl Display) {
    note(format!("{ERROR}error:{ERROR:#} {text}"));
}

/// What to do about it, a line each after a blank one, on standard error.
pub(super) fn hints(texts: &[String]) {
    for (n, text) in texts.iter().enumerate() {
        let gap = if n == 0 { "\n" } else { "" };
        note(format!("{gap}{HINT}hint:{HINT:#} {text}"));
    }
}

/// The first failure of standard output.
static FAILED: OnceLock<Error> = OnceLock::new();

fn check(written: Result<(), Error>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILED.set(error);
    }
}

/// Why what was printed did not all arrive, if it did not.
pub(super) fn failed() -> Option<&'static Error> {
    check(std::io::stdout().flush());
    FAILED.get()
}

/// A line on standard output.
pub(super) fn line(text: impl AsRef<str>) {
    check(writeln!(anstream::stdout().lock(), "{}", text.as_ref()));
}

/// Text as it is on standard output.
pub(super) fn text(text: impl AsRef<str>) {
    check(write!(anstream::stdout().lock(), "{}", text.as_ref()));
}

/// Bytes as they are on standard output.
pub(super) fn bytes(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// A path on a line of standard output, byte for byte.
pub(super) fn path(path: &Path) {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(b'\n');
    check(std::io::stdout().lock().write_all(&bytes));
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
    let mut table = Table::new();
    for row in rows {
        table.push(row.clone());
    }
    table.end();
}

/// A table that is printed while its rows come, fitted to the terminal where that is one.
pub(super) struct Table(table::Table);

impl Table {
    pub(super) fn new() -> Self {
        let terminal = rustix::termios::tcgetwinsize(std::io::stdout());
        let columns = terminal
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|n| *n > 0);
        Self(table::Table::new(columns))
    }

    /// A row; the first one is the heading.
    pub(super) fn push(&mut self, row: Vec<String>) {
        print(&self.0.push(row));
    }

    /// Prints what is left.
    pub(super) fn end(self) {
        print(&self.0.end());
    }
}

fn print(lines: &[Vec<String>]) {
    let cell = |cell: &String| match style_of(cell.trim()) {
        Some(style) => format!("{style}{cell}{style:#}"),
        None => cell.clone(),
    };
    for cells in lines {
        line(cells.iter().map(cell).collect::<String>());
    }
}

/// How a cell stands out that says how something ended.
fn style_of(cell: &str) -> Option<Style> {
    let color = match cell {
        "hit" | "good" | "passes" | "alike" => AnsiColor::Green,
        "built" | "miss" | "missing" => AnsiColor::Yellow,
        "failed" | "bad" | "FAILS" | "differs" => AnsiColor::Red,
        _ => return None,
    };
    Some(color.on_default())
}
