//! How long ago a stamp was made, by clocks that need not agree.
//!
//! Invariant: a stamp from the future protects nothing for ever.

use std::time::Duration;

use rustix::fs::Stat;

use super::entry::now_unix_ms;

/// Clocks may be so far apart, as those of machines that share a folder are.
const SKEW_NS: i128 = 24 * 3600 * 1_000_000_000;

/// Time since a stamp in nanoseconds since 1970: none for one of the near future, and the
/// longest there is for one that no honest clock has made.
pub(super) fn since(stamp_ns: i128) -> Duration {
    between(stamp_ns, i128::from(now_unix_ms()) * 1_000_000)
}

/// Time since the last change of a file's bytes.
pub(super) fn of(stat: &Stat) -> Duration {
    since(modified_ns(stat))
}

/// The last change of a file's bytes, nanoseconds since 1970; 0, and so the first to go,
/// if it lies in a future that no honest clock has seen.
pub(super) fn modified_ns(stat: &Stat) -> i128 {
    let stamp = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let now = i128::from(now_unix_ms()) * 1_000_000;
    if stamp > now + SKEW_NS { 0 } else { stamp }
}

fn between(stamp_ns: i128, now_ns: i128) -> Duration {
    if stamp_ns > now_ns + SKEW_NS {
        return Duration::MAX;
    }
    let passed = u64::try_from((now_ns - stamp_ns).max(0));
    passed.map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_the_future_is_new_within_a_day_and_as_old_as_can_be_beyond() {
        let now = 1_800_000_000_000_000_000;
        assert_eq!(between(now - 5, now), Duration::from_nanos(5));
        assert_eq!(between(now + 5, now), Duration::ZERO);
        assert_eq!(between(now + SKEW_NS, now), Duration::ZERO);
        assert_eq!(between(now + SKEW_NS + 1, now), Duration::MAX);
        assert_eq!(between(0, now), Duration::from_hours(500_000));
    }
}
