//! What a measurement tells while it runs, and how it ends.

use serde_json::Value;

/// One thing to tell. Programs are shown objects, people lines and tables; warnings and
/// failures are for both.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A result, as an object; of the same result a [`Line`](Self::Line) or a
    /// [`Table`](Self::Table) is told beside it.
    Object(Value),
    /// A line for people.
    Line(String),
    /// Rows for people; the first one is the heading, all are of its length.
    Table(Vec<Vec<String>>),
    /// Something that the reader ought to know, beside the results.
    Note(String),
    /// Something that went wrong, while the rest goes on.
    Failure(String),
}

/// How a measurement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was right.
    Good,
    /// Something was wrong, or refused by its reference.
    Wrong,
}

impl Verdict {
    /// [`Good`](Self::Good) where nothing was wrong.
    #[must_use]
    pub fn of(wrong: usize) -> Self {
        if wrong == 0 { Self::Good } else { Self::Wrong }
    }
}
