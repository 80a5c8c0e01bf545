//! Sizes and times for people on a terminal, plain numbers for everybody else.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFormat {
    /// `1.5 MiB`, `3 h ago`.
    Human,
    /// `1572864`, seconds since 1970.
    Plain,
}

impl NumberFormat {
    /// What fits standard output.
    #[must_use]
    pub fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Human
        } else {
            Self::Plain
        }
    }

    /// A number of bytes.
    #[must_use]
    pub fn bytes(self, bytes: u64) -> String {
        if self == Self::Plain || bytes < 1024 {
            return bytes.to_string();
        }
        let mut unit = 0;
        let mut scaled = bytes;
        // Tenths are worked out in whole numbers, so no size rounds up to 1024.0.
        while scaled >= 1024 * 1024 {
            scaled /= 1024;
            unit += 1;
        }
        let tenths = scaled * 10 / 1024;
        let unit = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][unit.min(5)];
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }

    /// A number of bytes within a sentence, with its unit in any case.
    #[must_use]
    pub fn size(self, bytes: u64) -> String {
        match self {
            Self::Human if bytes >= 1024 => self.bytes(bytes),
            _ => format!("{bytes} bytes"),
        }
    }

    /// A point in time, in milliseconds since 1970.
    #[must_use]
    pub fn time(self, unix_ms: u64) -> String {
        match self {
            Self::Plain => (unix_ms / 1000).to_string(),
            Self::Human if unix_ms == 0 => "-".to_owned(),
            Self::Human => format!("{} ago", span(now_unix_ms().saturating_sub(unix_ms) / 1000)),
        }
    }

    /// A number of microseconds as milliseconds.
    #[must_use]
    pub fn millis(self, us: u64) -> String {
        let ms = Duration::from_micros(us).as_secs_f64() * 1e3;
        match self {
            Self::Plain => format!("{ms:.1}"),
            Self::Human => format!("{ms:.1} ms"),
        }
    }
}

/// A span in its largest unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_human_on_a_terminal_and_plain_elsewhere() {
        for (bytes, human) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (1_048_575, "1023.9 KiB"),
            (4 << 30, "4.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(NumberFormat::Human.bytes(bytes), human);
            assert_eq!(NumberFormat::Plain.bytes(bytes), bytes.to_string());
            assert_eq!(NumberFormat::Plain.size(bytes), format!("{bytes} bytes"));
        }
    }

    #[test]
    fn a_size_in_a_sentence_has_a_unit() {
        assert_eq!(NumberFormat::Human.size(12), "12 bytes");
        assert_eq!(NumberFormat::Human.size(2048), "2.0 KiB");
    }

    #[test]
    fn times_are_spans_on_a_terminal_and_seconds_elsewhere() {
        let three_hours_ago = now_unix_ms() - 3 * 3_600_000;
        assert_eq!(NumberFormat::Human.time(three_hours_ago), "3 h ago");
        assert_eq!(NumberFormat::Human.time(0), "-");
        assert_eq!(NumberFormat::Plain.time(1_700_000_000_123), "1700000000");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(172_800), "2 d");
    }
}
