//! Bounds: what is removed, oldest use first, and what is swept up after the dead.
//!
//! Invariant: an entry goes only under its key's lock, so never while it is being built or
//! published; whoever reads it has it open, and reads on.

use std::collections::{BTreeSet, BinaryHeap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::age;
use super::dir::Dir;
use super::error::CacheError;
use super::inspect::{keys_in, names};
use super::lock;
use super::{LOCKS, QUARANTINE, STAGING, Store, file_name};
use crate::engine::build::key::CacheKey;

/// A staged file is written in less than this.
const STAGING_AGE: Duration = Duration::from_mins(1);
/// So many times the age where a dead writer cannot be told from a live one.
const WITHOUT_LOCKS: u32 = 360;
/// Bad entries and failed sources are kept this long for whoever wants to look at them.
const QUARANTINE_AGE: Duration = Duration::from_hours(7 * 24);
/// And no more of them than this.
const QUARANTINE_COUNT: usize = 64;

/// What a folder may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all entries' files.
    pub max_bytes: u64,
    /// Entries.
    pub max_entries: u64,
    /// The longest time since an entry was last used.
    pub max_age: Option<Duration>,
}

impl Default for Limits {
    /// 4 GiB and 50,000 entries, of any age.
    fn default() -> Self {
        Self {
            max_bytes: 4 << 30,
            max_entries: 50_000,
            max_age: None,
        }
    }
}

impl Limits {
    /// No limits at all.
    pub const NONE: Self = Self {
        max_bytes: u64::MAX,
        max_entries: u64::MAX,
        max_age: None,
    };
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Entries removed, longest unused first.
    pub keys: Vec<CacheKey>,
    /// Their bytes.
    pub bytes: u64,
    /// Entries over the limits that are in use and stayed.
    pub in_use: u64,
    /// Entries over the limits that could not be moved and stayed.
    pub stuck: u64,
    /// Why the first of them could not, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck_reason: Option<String>,
    /// Entries that stayed.
    pub kept_entries: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Staged files of dead writers removed.
    pub staging: u64,
    /// Quarantined entries removed.
    pub quarantined: u64,
    /// Failed sources removed.
    pub failed: u64,
}

/// Ordered by use, the longest unused first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Usage {
    used_unix_ns: i128,
    key: CacheKey,
    bytes: u64,
}

impl Store {
    /// Removes the longest unused entries until the limits hold, and what dead
    /// writers left. With `dry_run` it only says what it would remove.
    pub fn prune(&self, limits: &Limits, dry_run: bool) -> Result<Pruned, CacheError> {
        let mut pruned = Pruned::default();
        if !dry_run {
            pruned.failed = self.prune_failures(QUARANTINE_AGE);
        }
        let Some(version) = self.open_version()? else {
            return Ok(pruned);
        };
        let mut left: BTreeSet<CacheKey> = BTreeSet::new();
        loop {
            let (surplus, entries, bytes) = self.surplus(limits, &left)?;
            (pruned.kept_entries, pruned.kept_bytes) = (entries, bytes);
            let before = left.len();
            for one in surplus {
                // One that cannot be removed ends nothing: the others still go.
                match if dry_run { Ok(true) } else { self.remove(&one.key) } {
                    Ok(true) => {
                        pruned.kept_entries = pruned.kept_entries.saturating_sub(1);
                        pruned.kept_bytes = pruned.kept_bytes.saturating_sub(one.bytes);
                        pruned.bytes += one.bytes;
                        pruned.keys.push(one.key);
                        continue;
                    }
                    Ok(false) => pruned.in_use += 1,
                    Err(e) => {
                        pruned.stuck += 1;
                        pruned.stuck_reason.get_or_insert_with(|| e.to_string());
                    }
                }
                left.insert(one.key);
            }
            // Those that stay are made up for by the next ones.
            if left.len() == before {
                break;
            }
        }
        if !dry_run {
            pruned.staging = sweep_staging(&version, STAGING_AGE);
            pruned.quarantined = sweep_quarantine(&version);
            if !pruned.keys.is_empty() {
                self.sweep_texts(&version, false)?;
            }
            if let Ok(locks) = version.open(LOCKS) {
                // What cannot be swept means nothing.
                let _ = lock::sweep(&Arc::new(locks));
            }
        }
        Ok(pruned)
    }

    /// The longest unused entries, without which the limits hold, oldest first, those that
    /// have to be left aside; and how many entries of how many bytes there are. A shard at a
    /// time: what is held in memory is what is to go.
    fn surplus(
        &self,
        limits: &Limits,
        left: &BTreeSet<CacheKey>,
    ) -> Result<(Vec<Usage>, u64, u64), CacheError> {
        let shards = self.shards()?;
        let each = |shard: &String| -> Vec<Usage> {
            let Ok(Some(dir)) = self.open_shard(shard) else {
                return Vec::new();
            };
            let keys = keys_in(&dir, shard).into_iter();
            keys.filter_map(|key| usage(&dir, &key)).collect()
        };
        let (mut entries, mut bytes, mut any_old) = (0_u64, 0_u64, false);
        let is_old = |one: &Usage| {
            let unused = age::since(one.used_unix_ns);
            limits.max_age.is_some_and(|age| unused >= age)
        };
        for one in shards.iter().flat_map(each) {
            entries += 1;
            bytes = bytes.saturating_add(one.bytes);
            any_old |= is_old(&one);
        }
        let too_many = entries.saturating_sub(limits.max_entries);
        let too_large = bytes.saturating_sub(limits.max_bytes);
        if too_many == 0 && too_large == 0 && !any_old {
            return Ok((Vec::new(), entries, bytes));
        }
        // The newest on top: it goes back as soon as the older ones suffice.
        let mut surplus: BinaryHeap<Usage> = BinaryHeap::new();
        let mut held = 0_u64;
        for one in shards
            .iter()
            .flat_map(each)
            .filter(|one| !left.contains(&one.key))
        {
            held = held.saturating_add(one.bytes);
            surplus.push(one);
            while let Some(newest) = surplus.peek() {
                let without = (surplus.len() as u64 - 1, held - newest.bytes);
                if is_old(newest) || without.0 < too_many || without.1 < too_large {
                    break;
                }
                held = without.1;
                surplus.pop();
            }
        }
        Ok((surplus.into_sorted_vec(), entries, bytes))
    }

    /// Removes one entry unless it is in use; says whether it is gone.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, key: &CacheKey) -> Result<bool, CacheError> {
        let claim = self.claim(key, &lock::Wait::none());
        if matches!(claim, lock::Claim::TimedOut) {
            return Ok(false);
        }
        let Some(shard) = self.open_shard(&key.hex()[..2])? else {
            return Ok(true);
        };
        let removed = shard.remove(&file_name(key));
        removed
            .map(|()| true)
            .map_err(|errno| self.io("remove", key, errno))
    }
}

/// Size and stamp alone, without opening anything.
fn usage(shard: &Dir, key: &CacheKey) -> Option<Usage> {
    let stat = shard.stat_of(&file_name(key)).ok()?;
    Some(Usage {
        key: *key,
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        used_unix_ns: age::modified_ns(&stat),
    })
}

/// Removes staged files whose writer is dead and that are older than `age`.
pub(super) fn sweep_staging(version: &Dir, age: Duration) -> u64 {
    let Ok(staging) = version.open(STAGING) else {
        return 0;
    };
    let mut swept = 0;
    for name in names(&staging) {
        let age_of_folder = staging.stat_of(&name).map_or(Duration::ZERO, |s| age::of(&s));
        // A young one is not even tried: its writer may be about to publish it.
        if age_of_folder < age {
            continue;
        }
        let file = staging.open_file(&name);
        let dead = match file.as_ref().map(|(file, _)| lock::try_exclusive(file)) {
            Ok(Ok(free)) => free,
            Ok(Err(_)) => age_of_folder >= age * WITHOUT_LOCKS,
            // No file: nothing of ours.
            Err(_) => true,
        };
        if dead && staging.remove(&name).is_ok() {
            swept += 1;
        }
    }
    swept
}

/// Removes bad entries that were kept long enough, or that are too many.
fn sweep_quarantine(version: &Dir) -> u64 {
    let Ok(quarantine) = version.open(QUARANTINE) else {
        return 0;
    };
    // `<key>.<unix ms>.<process>.<count>`
    let since = |name: &str| name.split('.').nth(1)?.parse::<u64>().ok();
    let mut all: Vec<_> = names(&quarantine)
        .into_iter()
        .map(|name| (since(&name).unwrap_or(0), name))
        .collect();
    all.sort_unstable();
    let surplus = all.len().saturating_sub(QUARANTINE_COUNT);
    let mut swept = 0;
    for (n, (quarantined, name)) in all.iter().enumerate() {
        let kept = age::since(i128::from(*quarantined) * 1_000_000);
        if (n < surplus || kept > QUARANTINE_AGE) && quarantine.remove(name).is_ok() {
            swept += 1;
        }
    }
    swept
}

/// When a prune is due after a publish: a scan costs, so not after each.
#[derive(Debug, Default)]
pub(in crate::engine::cache) struct Schedule(Mutex<Since>);

#[derive(Debug, Default)]
struct Since {
    started: bool,
    entries: u64,
    bytes: u64,
}

impl Schedule {
    /// Counts a publish. Due at a process's first one and then whenever a
    /// sixty-fourth of a limit was added.
    pub(in crate::engine::cache) fn is_due(&self, limits: &Limits, bytes: u64) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.entries += 1;
        since.bytes = since.bytes.saturating_add(bytes);
        let due =
            !since.started || since.entries > limits.max_entries / 64 || since.bytes > limits.max_bytes / 64;
        if due {
            *since = Since {
                started: true,
                ..Since::default()
            };
        }
        due
    }
}
