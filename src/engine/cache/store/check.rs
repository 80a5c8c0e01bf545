//! Verifying a whole folder, and putting it right.
//!
//! Invariant: what is reported good was verified byte by byte just now.

use serde::Serialize;

use super::error::{CacheError, Fault};
use super::inspect::{is_shard, names, spread};
use super::read::Load;
use super::{Store, key_of};
use crate::engine::build::key::CacheKey;

/// What a check of a folder found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Checked {
    /// Entries that verify.
    pub good: u64,
    /// Their bytes, without the manifests.
    pub bytes: u64,
    /// Entries that do not, and why.
    pub bad: Vec<BadEntry>,
    /// Entries that could not be read: no verdict.
    pub unreadable: Vec<(CacheKey, CacheError)>,
    /// What lies among the entries and is none, as paths under the version folder.
    pub strays: Vec<String>,
}

/// One entry that does not verify.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BadEntry {
    /// Under which key it lies.
    pub key: CacheKey,
    /// What is wrong with it.
    pub fault: Fault,
    /// Whether it was moved away.
    pub repaired: bool,
}

/// A check in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckTotals {
    /// Entries that verify.
    pub good: u64,
    /// Entries that do not.
    pub bad: u64,
    /// Among them, those that were moved away.
    pub repaired: u64,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Things that are no entries.
    pub strays: u64,
}

impl Checked {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.bad.is_empty() && self.unreadable.is_empty() && self.strays.is_empty()
    }

    /// In numbers.
    #[must_use]
    pub fn totals(&self) -> CheckTotals {
        CheckTotals {
            good: self.good,
            bad: self.bad.len() as u64,
            repaired: self.bad.iter().filter(|b| b.repaired).count() as u64,
            unreadable: self.unreadable.len() as u64,
            strays: self.strays.len() as u64,
        }
    }
}

impl Store {
    /// Verifies every entry; with `repair` moves the bad ones away, so that the
    /// next request builds them anew, and removes strays.
    pub fn check(&self, repair: bool) -> Result<Checked, CacheError> {
        let mut checked = Checked::default();
        let looks = spread(&self.keys()?, |part| {
            part.iter().map(|key| (*key, self.whole(key))).collect()
        });
        for (key, look) in looks {
            match look {
                Load::Found(whole) => {
                    checked.good += 1;
                    checked.bytes += whole.entry().manifest().payload_bytes();
                }
                // Removed since it was listed.
                Load::Absent => {}
                Load::Bad(fault) => {
                    let repaired = repair && self.quarantine_whole(&key)?;
                    checked.bad.push(BadEntry { key, fault, repaired });
                }
                Load::Unavailable(e) => checked.unreadable.push((key, e)),
            }
        }
        checked.strays = self.strays(repair)?;
        Ok(checked)
    }

    fn strays(&self, remove: bool) -> Result<Vec<String>, CacheError> {
        let mut strays = Vec::new();
        let view = if remove { self.clone() } else { self.names_view() };
        let Some(version) = view.open_version()? else {
            return Ok(strays);
        };
        for shard in names(&version).into_iter().filter(|n| is_shard(n)) {
            let Ok(dir) = version.open(&shard) else {
                strays.push(shard);
                continue;
            };
            for name in names(&dir) {
                if name.starts_with(&shard) && key_of(&name).is_some() {
                    continue;
                }
                if remove {
                    // What cannot be removed is reported again next time.
                    let _ = dir.remove(&name);
                }
                strays.push(format!("{shard}/{name}"));
            }
        }
        strays.sort_unstable();
        Ok(strays)
    }
}
