//! Leaves a store alone that fails.
//!
//! Invariant: while it is open nobody waits for the store; after its time one request is
//! let through, and what becomes of that one decides.

use std::time::{Duration, Instant};

/// So many failures in a row open it; one that took all the time that it had, at once.
const FAILURES: u32 = 3;

/// Whether a store may be asked.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Since when it is open, and why.
    open: Option<(Instant, String)>,
    /// Whether a request was let through to see.
    trying: bool,
}

/// What a failure or a success changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    None,
    /// The store is left alone from now on.
    Opened,
    /// It is asked again.
    Closed,
}

impl Breaker {
    /// Whether to ask now, where it is left alone for so long; else why not.
    pub(super) fn admit(&mut self, now: Instant, cool_down: Duration) -> Result<(), String> {
        let Some((since, reason)) = &self.open else {
            return Ok(());
        };
        if self.trying || now.saturating_duration_since(*since) < cool_down {
            return Err(reason.clone());
        }
        self.trying = true;
        Ok(())
    }

    /// The store answered.
    pub(super) fn worked(&mut self) -> Turn {
        let was_open = self.open.take().is_some();
        *self = Self::default();
        if was_open { Turn::Closed } else { Turn::None }
    }

    /// It did not; `at_once` if it kept somebody waiting for as long as that may take.
    pub(super) fn failed(&mut self, now: Instant, reason: &str, at_once: bool) -> Turn {
        self.failures += 1;
        if self.trying || at_once || self.failures >= FAILURES {
            let was_open = self.open.is_some();
            self.trying = false;
            self.open = Some((now, reason.to_owned()));
            return if was_open { Turn::None } else { Turn::Opened };
        }
        Turn::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_mins(1);

    #[test]
    fn three_failures_open_it_and_after_its_time_one_request_is_let_through() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for turn in [Turn::None, Turn::None, Turn::Opened] {
            assert_eq!(breaker.admit(start, COOL_DOWN), Ok(()));
            assert_eq!(breaker.failed(start, "refused", false), turn);
        }
        assert_eq!(breaker.admit(start, COOL_DOWN), Err("refused".to_owned()));
        let later = start + COOL_DOWN;
        assert_eq!(breaker.admit(later, COOL_DOWN), Ok(()), "one tries");
        assert_eq!(
            breaker.admit(later, COOL_DOWN),
            Err("refused".to_owned()),
            "the others do not"
        );
        assert_eq!(
            breaker.failed(later, "still", false),
            Turn::None,
            "it was open before"
        );
        assert_eq!(
            breaker.admit(later, COOL_DOWN),
            Err("still".to_owned()),
            "from anew"
        );
        assert_eq!(breaker.admit(later + COOL_DOWN, COOL_DOWN), Ok(()));
        assert_eq!(breaker.worked(), Turn::Closed);
        assert_eq!(breaker.admit(later, COOL_DOWN), Ok(()));
        assert_eq!(
            breaker.failed(later, "once", false),
            Turn::None,
            "counted from anew"
        );
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew_and_a_passed_deadline_opens_it_at_once() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..8 {
            assert_eq!(breaker.failed(now, "refused", false), Turn::None);
            assert_eq!(breaker.failed(now, "refused", false), Turn::None);
            assert_eq!(breaker.worked(), Turn::None);
        }
        assert_eq!(breaker.failed(now, "slow", true), Turn::Opened);
    }
}
