//! What a store said of keys, for a short while.
//!
//! Invariant: a key that the store does not have, or has something bad under, costs one
//! request in that while, however many ask; it is a memory of bounded size.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::engine::build::key::CacheKey;
use crate::engine::cache::store::error::Fault;

/// How long an answer counts.
const LIFE: Duration = Duration::from_secs(30);
/// So many are remembered at most.
const MOST: usize = 65_536;

/// The answers of one store that were no entries.
#[derive(Debug, Default)]
pub(super) struct Answers(HashMap<CacheKey, Answer>);

#[derive(Debug)]
struct Answer {
    until: Option<Instant>,
    said: Said,
}

/// What was said of a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// There is nothing.
    Absent,
    /// There is something that is bad.
    Bad(Fault),
}

impl Answers {
    /// What is remembered of a key.
    pub(super) fn get(&mut self, now: Instant, key: &CacheKey) -> Option<Said> {
        let answer = self.0.get(key)?;
        if answer.until.is_some_and(|until| until <= now) {
            self.0.remove(key);
            return None;
        }
        Some(answer.said.clone())
    }

    /// Remembers for a while what was said of a key.
    pub(super) fn keep(&mut self, now: Instant, key: &CacheKey, said: Said) {
        self.insert(now, *key, Some(now + LIFE), said);
    }

    /// Remembers for as long as this process lives what is wrong with a key.
    pub(super) fn refuse(&mut self, now: Instant, key: &CacheKey, fault: Fault) {
        self.insert(now, *key, None, Said::Bad(fault));
    }

    /// Forgets what was said of a key.
    pub(super) fn forget(&mut self, key: &CacheKey) {
        if self.0.get(key).is_some_and(|answer| answer.until.is_some()) {
            self.0.remove(key);
        }
    }

    fn insert(&mut self, now: Instant, key: CacheKey, until: Option<Instant>, said: Said) {
        if self.0.len() >= MOST {
            self.0
                .retain(|_, answer| answer.until.is_some_and(|until| until > now));
            if self.0.len() >= MOST {
                self.0.clear();
            }
        }
        self.0.insert(key, Answer { until, said });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> CacheKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        CacheKey::from_bytes(bytes)
    }

    #[test]
    fn an_answer_counts_for_a_while_and_a_refusal_for_good() {
        let now = Instant::now();
        let mut answers = Answers::default();
        answers.keep(now, &key(1), Said::Absent);
        answers.keep(now, &key(2), Said::Bad(Fault::Magic));
        answers.refuse(now, &key(3), Fault::Checksum);
        assert_eq!(answers.get(now, &key(0)), None);
        assert_eq!(answers.get(now, &key(1)), Some(Said::Absent));
        assert_eq!(answers.get(now, &key(2)), Some(Said::Bad(Fault::Magic)));
        answers.forget(&key(3));
        let later = now + LIFE;
        assert_eq!(answers.get(later, &key(1)), None);
        assert_eq!(answers.get(later, &key(2)), None);
        assert_eq!(answers.get(later, &key(3)), Some(Said::Bad(Fault::Checksum)));
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = Instant::now();
        let mut answers = Answers::default();
        for n in 0..=u32::try_from(MOST).expect("a number") {
            answers.keep(now, &key(n), Said::Absent);
        }
        assert!(answers.0.len() <= MOST, "{}", answers.0.len());
        assert_eq!(
            answers.get(now, &key(u32::try_from(MOST).expect("a number"))),
            Some(Said::Absent)
        );
    }
}
