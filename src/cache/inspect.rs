//! Looking into a folder of entries: list, find, read, add up, clean.
//!
//! Invariant: looking changes nothing, not even when an entry was last used.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use serde::Serialize;

use super::dir::Dir;
use super::entry::{Entry, MANIFEST, MANIFEST_LIMIT, Manifest};
use super::error::{CacheError, Fault, FindError};
use super::lock::{self, Claim};
use super::store::{LOCKS, Load, QUARANTINE, STAGING, Store, VERSION};
use crate::key::CacheKey;

/// One entry as a listing shows it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its key.
    pub key: CacheKey,
    /// Its manifest, sealed and understood; the other files are not verified.
    pub manifest: Result<Manifest, Fault>,
    /// Bytes of all its files, the manifest included.
    pub bytes: u64,
    /// When it was last used, to within an hour, in milliseconds since 1970.
    pub used_unix_ms: u64,
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Among them, those whose manifest is bad.
    pub bad: u64,
    /// Bad entries that were moved away.
    pub quarantined: u64,
    /// Folders of writers, alive or dead.
    pub staging: u64,
}

/// What a clean did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Entries removed.
    pub entries: u64,
    /// Left alone, since a builder or a reader has them in use.
    pub in_use: u64,
}

impl Store {
    /// The keys of all entries, sorted; what is no key's folder is passed over.
    pub fn keys(&self) -> Result<Vec<CacheKey>, CacheError> {
        let Some(version) = self.open_version()? else {
            return Ok(Vec::new());
        };
        let mut keys = Vec::new();
        for shard in names(&version) {
            if is_shard(&shard)
                && let Ok(Some(dir)) = self.open_shard(&shard)
            {
                let in_shard = names(&dir).into_iter().filter(|n| n.starts_with(&shard));
                keys.extend(in_shard.filter_map(|n| n.parse::<CacheKey>().ok()));
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Every entry, sorted by key.
    pub fn records(&self) -> Result<Vec<Record>, CacheError> {
        let keys = self.keys()?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = keys.len().div_ceil(threads).max(64);
        let mut records = Vec::with_capacity(keys.len());
        std::thread::scope(|scope| {
            let read = |part: &[CacheKey]| -> Vec<_> {
                part.iter().filter_map(|key| self.record(key)).collect()
            };
            let workers: Vec<_> = keys
                .chunks(share)
                .map(|part| scope.spawn(move || read(part)))
                .collect();
            for worker in workers {
                match worker.join() {
                    Ok(part) => records.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        Ok(records)
    }

    /// The manifests of all entries that have a good one.
    #[must_use]
    pub fn manifests(&self) -> Vec<Manifest> {
        let records = self.records().unwrap_or_default();
        records
            .into_iter()
            .filter_map(|r| r.manifest.ok())
            .collect()
    }

    /// One entry as a listing shows it; `None` if it is not there.
    #[must_use]
    pub fn record(&self, key: &CacheKey) -> Option<Record> {
        let hex = key.hex();
        let shard = self.open_shard(&hex[..2]).ok()??;
        let dir = shard.open(&hex).ok()?;
        let mut record = Record {
            key: *key,
            manifest: Err(Fault::Missing(MANIFEST.to_owned())),
            bytes: 0,
            used_unix_ms: 0,
        };
        match dir.read(MANIFEST, MANIFEST_LIMIT) {
            Ok(file) => {
                record.used_unix_ms = u64::try_from(file.stat.st_mtime).unwrap_or(0) * 1000;
                record.bytes = file.bytes.len() as u64;
                record.manifest = Manifest::from_bytes(&file.bytes);
                if let Ok(manifest) = &record.manifest {
                    record.bytes = record.bytes.saturating_add(manifest.payload_bytes());
                    if manifest.key != *key {
                        record.manifest = Err(Fault::Key(manifest.key));
                    }
                }
            }
            Err(Errno::NOENT) => {}
            Err(_) => record.manifest = Err(Fault::Unreadable(MANIFEST.to_owned())),
        }
        Some(record)
    }

    /// The one key that starts with these hex digits.
    pub fn find(&self, prefix: &str) -> Result<CacheKey, FindError> {
        let digits = prefix
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if prefix.is_empty() || prefix.len() > 64 || !digits {
            return Err(FindError::NotAPrefix(prefix.to_owned()));
        }
        let mut keys = self.keys()?;
        keys.retain(|key| key.hex().starts_with(prefix));
        match keys.as_slice() {
            [] => Err(FindError::None(prefix.to_owned())),
            [key] => Ok(*key),
            _ => Err(FindError::Ambiguous {
                prefix: prefix.to_owned(),
                keys,
            }),
        }
    }

    /// Reads and verifies the entry of a key; a bad one is an error here.
    pub fn read(&self, key: &CacheKey) -> Result<Entry, FindError> {
        match self.load(key) {
            Load::Found(entry) => Ok(*entry),
            Load::Absent => Err(FindError::None(key.hex())),
            Load::Bad(fault) => Err(FindError::Bad { key: *key, fault }),
            Load::Unavailable(e) => Err(e.into()),
        }
    }

    /// Adds up what the folder holds.
    pub fn totals(&self) -> Result<Totals, CacheError> {
        let mut totals = Totals::default();
        for record in self.records()? {
            totals.entries += 1;
            totals.bytes = totals.bytes.saturating_add(record.bytes);
            totals.bad += u64::from(record.manifest.is_err());
        }
        if let Some(version) = self.open_version()? {
            let count = |name| version.open(name).map_or(0, |d| names(&d).len() as u64);
            totals.quarantined = count(QUARANTINE);
            totals.staging = count(STAGING);
        }
        Ok(totals)
    }

    /// Removes everything that jitc put into the folder, but for what is in use.
    /// Other files of the root stay.
    pub fn clean(&self) -> Result<Cleaned, CacheError> {
        let mut cleaned = Cleaned::default();
        let Some(version) = self.open_version()? else {
            return Ok(cleaned);
        };
        for key in self.keys()? {
            if self.remove(&version, &key)? {
                cleaned.entries += 1;
            } else {
                cleaned.in_use += 1;
            }
        }
        for name in names(&version) {
            let Ok(dir) = version.open(&name) else {
                // A file in a folder's place.
                let _ = version.remove(&name);
                continue;
            };
            match name.as_str() {
                LOCKS => {
                    let _ = lock::sweep(&Arc::new(dir));
                }
                STAGING => sweep_staging(&dir),
                QUARANTINE => drop(version.remove(&name)),
                _ if is_shard(&name) => sweep_shard(&dir),
                _ => {}
            }
            // Stays if anything in it is in use.
            let _ = version.remove_empty(&name);
        }
        if let Ok(root) = Dir::open_root(self.root()) {
            let _ = root.remove_empty(VERSION);
        }
        Ok(cleaned)
    }

    /// Removes one entry unless it is in use; says whether it is gone.
    pub(super) fn remove(&self, version: &Dir, key: &CacheKey) -> Result<bool, CacheError> {
        let hex = key.hex();
        let claim = self.claim(key, Duration::ZERO);
        let Some(shard) = self.open_shard(&hex[..2])? else {
            return Ok(true);
        };
        if matches!(claim, Claim::TimedOut) {
            return Ok(false);
        }
        let dir = match shard.open(&hex) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(true),
            Err(_) => return Ok(shard.remove(&hex).is_ok()),
        };
        if matches!(lock::try_exclusive(&dir), Ok(false)) {
            return Ok(false);
        }
        // Out of its name at once, so that nobody meets it half removed.
        let staging = self.ensure(version, STAGING)?;
        let name = format!("{}.{}", key.short(), super::store::unique());
        match shard.rename(&hex, &staging, &name) {
            Ok(()) => Ok(staging.remove(&name).is_ok()),
            Err(Errno::NOENT) => Ok(true),
            Err(errno) => Err(CacheError::Io {
                action: "remove",
                path: self.entry_path(key),
                errno,
            }),
        }
    }
}

/// Removes staging folders whose writer is dead.
pub(super) fn sweep_staging(staging: &Dir) {
    for name in names(staging) {
        let alive = match staging.open(&name) {
            Ok(dir) => matches!(lock::try_exclusive(&dir), Ok(false)),
            Err(_) => false,
        };
        if !alive {
            let _ = staging.remove(&name);
        }
    }
}

/// Removes what no entry's folder can be; entries that are left are in use.
fn sweep_shard(shard: &Dir) {
    for name in names(shard) {
        if name.parse::<CacheKey>().is_err() {
            let _ = shard.remove(&name);
        }
    }
}

/// The names in a folder that are text; jitc makes no others.
pub(super) fn names(dir: &Dir) -> Vec<String> {
    let names = dir.names().unwrap_or_default();
    let text = |n: &OsString| OsStr::to_str(n).map(str::to_owned);
    names.iter().filter_map(text).collect()
}

/// Two lower-case hex digits.
pub(super) fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
