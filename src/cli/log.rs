//! Events of the library as lines of the command line.
//!
//! Invariant: a warning reads like every other line on standard error, and names no place
//! in the source; who asked for more (`-vv`) is told which part speaks.

use std::fmt;

use anstyle::{AnsiColor, Style};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::engine::request::template::NOTICE;

/// `note: `, `warning: ` and so on before the message and its fields.
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let (word, color) = match level {
            // As notes of the command line itself.
            _ if target == NOTICE => ("note", None),
            Level::ERROR => ("error", Some(AnsiColor::Red)),
            Level::WARN => ("warning", Some(AnsiColor::Yellow)),
            Level::INFO => ("info", None),
            Level::DEBUG => ("debug", None),
            Level::TRACE => ("trace", None),
        };
        match color.filter(|_| writer.has_ansi_escapes()) {
            Some(color) => {
                let style: Style = color.on_default().bold();
                write!(writer, "{style}{word}:{style:#} ")?;
            }
            None => write!(writer, "{word}: ")?,
        }
        if level > Level::INFO {
            write!(writer, "{target}: ")?;
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
