//! Looking into a folder of entries: list, find, read, add up, clean.
//!
//! Invariant: looking changes nothing, not even when an entry was last used.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use serde::Serialize;

use super::dir::Dir;
use super::entry::{Entry, Notes, Whole};
use super::error::{CacheError, Fault, FindError};
use super::link::is_link;
use super::lock;
use super::manifest::Manifest;
use super::prune::sweep_staging;
use super::read::{Load, ReadError};
use super::{LOCKS, QUARANTINE, Store, VERSION, file_name, key_of};
use crate::engine::build::artifact::Resources;
use crate::engine::build::key::CacheKey;
use crate::engine::request::target::{Arch, ToolchainIdentity};
use crate::engine::sign::Require;
use crate::engine::threads::{cores, for_each_on};

/// One entry as a listing shows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Key of the entry.
    pub key: CacheKey,
    /// What its manifest says, verified; code and texts are not.
    pub summary: Result<Summary, Fault>,
    /// Bytes of its file.
    pub bytes: u64,
    /// When it was last used, to within an hour, in milliseconds since 1970.
    pub used_unix_ms: u64,
}

impl Record {
    /// Of an entry that lies in no folder. When it was made and used, nobody knows: 0.
    pub(in crate::engine::cache) fn of(whole: &Whole) -> Self {
        let (manifest, notes) = (whole.entry().manifest(), whole.entry().notes());
        let summary = Summary::of(manifest.clone(), notes.clone());
        Self {
            key: manifest.key,
            bytes: whole.to_bytes().len() as u64,
            used_unix_ms: 0,
            summary: Ok(Summary {
                created_unix_ms: 0,
                ..summary
            }),
        }
    }
}

/// The part of a manifest that a listing needs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The jitc that wrote it.
    pub jitc: String,
    /// When, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The family's name.
    pub family: String,
    /// Constants by name, as people write them.
    pub constants: BTreeMap<String, serde_json::Value>,
    /// The arch.
    pub arch: Arch,
    /// The compiler.
    pub toolchain: ToolchainIdentity,
    /// What each entry point uses.
    pub resources: Vec<Resources>,
    /// Time inside NVRTC, microseconds; 0 where nobody knows.
    pub compile_us: u64,
    cubin_bytes: u64,
}

impl Summary {
    /// Length of the machine code.
    #[must_use]
    pub fn cubin_bytes(&self) -> u64 {
        self.cubin_bytes
    }

    /// The most registers that a thread of an entry point uses.
    #[must_use]
    pub fn registers(&self) -> u64 {
        let all = self.resources.iter().map(|r| u64::from(r.registers));
        all.max().unwrap_or(0)
    }

    /// Spilled bytes a thread, of all entry points.
    #[must_use]
    pub fn spill_bytes(&self) -> u64 {
        self.resources.iter().map(|r| u64::from(r.spill_bytes)).sum()
    }

    fn of(manifest: Manifest, notes: Notes) -> Self {
        Self {
            jitc: notes.jitc,
            created_unix_ms: notes.created_unix_ms,
            family: manifest.family,
            constants: manifest.constants,
            arch: manifest.arch,
            toolchain: manifest.toolchain,
            resources: manifest.resources,
            compile_us: notes.compile_us.unwrap_or(0),
            cubin_bytes: manifest.code.length,
        }
    }
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Among them, those whose manifest is bad.
    pub bad: u64,
    /// Bad entries that were moved away.
    pub quarantined: u64,
    /// Files of writers, alive or dead.
    pub staging: u64,
}

/// What a clean did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cleaned {
    /// Entries removed.
    pub entries: u64,
    /// Left alone, since a builder or a reader has them in use.
    pub in_use: u64,
    /// Left alone, since they cannot be moved.
    pub stuck: u64,
    /// Why the first of them cannot, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck_reason: Option<String>,
    /// Failed sources removed.
    pub failed: u64,
}

impl Store {
    /// The keys of all entries, sorted; what is called otherwise is passed over.
    pub fn keys(&self) -> Result<Vec<CacheKey>, CacheError> {
        self.names_view().keys_here()
    }

    fn keys_here(&self) -> Result<Vec<CacheKey>, CacheError> {
        let shards = self.shards()?;
        Ok(shards.iter().flat_map(|shard| self.keys_of(shard)).collect())
    }

    /// The keys of one shard, sorted; what is called otherwise is passed over.
    pub(super) fn keys_of(&self, shard: &str) -> Vec<CacheKey> {
        match self.open_shard(shard) {
            Ok(Some(dir)) => keys_in(&dir, shard),
            _ => Vec::new(),
        }
    }

    /// Every entry, sorted by key.
    pub fn records(&self) -> Result<Vec<Record>, CacheError> {
        if self.admission.in_force() != Require::None {
            return Ok(spread(&self.keys()?, |part| {
                part.iter().filter_map(|key| self.record(key)).collect()
            }));
        }
        Ok(spread(&self.keys()?, |part| {
            self.in_shards(part, |shard, key| self.record_in(shard, key))
        }))
    }

    /// The shards that there are, by the first two digits of their keys, sorted.
    pub fn shards(&self) -> Result<Vec<String>, CacheError> {
        let Some(version) = self.names_view().open_version()? else {
            return Ok(Vec::new());
        };
        let mut shards = names(&version);
        shards.retain(|name| is_shard(name));
        shards.sort_unstable();
        Ok(shards)
    }

    /// Every entry of one shard, sorted by key.
    #[must_use]
    pub fn records_of(&self, shard: &str) -> Vec<Record> {
        let Ok(Some(dir)) = self.names_view().open_shard(shard) else {
            return Vec::new();
        };
        let keys = keys_in(&dir, shard);
        if self.admission.in_force() == Require::None {
            return keys.iter().filter_map(|key| self.record_in(&dir, key)).collect();
        }
        keys.iter().filter_map(|key| self.record(key)).collect()
    }

    /// Does something for each of these sorted keys, with the shard of each opened
    /// once: a cache may hold tens of thousands.
    pub(super) fn in_shards<T>(
        &self,
        keys: &[CacheKey],
        mut each: impl FnMut(&Dir, &CacheKey) -> Option<T>,
    ) -> Vec<T> {
        let mut results = Vec::with_capacity(keys.len());
        for shard in keys.chunk_by(|a, b| a.as_bytes()[0] == b.as_bytes()[0]) {
            if let Some(first) = shard.first()
                && let Ok(Some(dir)) = self.open_shard(&first.hex()[..2])
            {
                results.extend(shard.iter().filter_map(|key| each(&dir, key)));
            }
        }
        results
    }

    /// One entry as a listing shows it; `None` if it is not there.
    #[must_use]
    pub fn record(&self, key: &CacheKey) -> Option<Record> {
        let look = |view: &Self| {
            let shard = view.open_shard(&key.hex()[..2]).ok()??;
            view.record_in(&shard, key)
        };
        let untrusted = |record: &Record| matches!(record.summary, Err(Fault::Untrusted(_)));
        self.by_rule(look, |found| found.as_ref().is_none_or(untrusted))
    }

    pub(super) fn record_in(&self, shard: &Dir, key: &CacheKey) -> Option<Record> {
        let stat = shard.stat_of(&file_name(key)).ok()?;
        let summary = match self.read_head(shard, key) {
            Ok((manifest, notes, _)) => Ok(Summary::of(manifest, notes)),
            Err(ReadError::Errno(Errno::NOENT)) => return None,
            Err(ReadError::Errno(_)) => Err(Fault::Unreadable),
            Err(ReadError::Fault(fault)) => Err(fault),
        };
        Some(Record {
            key: *key,
            summary,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            used_unix_ms: u64::try_from(stat.st_mtime).unwrap_or(0) * 1000,
        })
    }

    /// One entry's manifest; `None` if there is no good one.
    #[must_use]
    pub fn manifest(&self, key: &CacheKey) -> Option<Manifest> {
        self.by_rule(|view| view.manifest_here(key), Option::is_none)
    }

    /// The same, signed or not: what is kept for it is kept under every policy.
    pub(super) fn manifest_here(&self, key: &CacheKey) -> Option<Manifest> {
        let shard = self.open_shard(&key.hex()[..2]).ok()??;
        self.read_head(&shard, key).ok().map(|(manifest, ..)| manifest)
    }

    /// The one key that starts with these hex digits.
    pub fn find(&self, prefix: &str) -> Result<CacheKey, FindError> {
        let is_digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_digit) {
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
        match self.peek(key) {
            Load::Found(entry) => Ok(*entry),
            Load::Absent => Err(FindError::None(key.hex())),
            Load::Bad(fault) => Err(FindError::Bad { key: *key, fault }),
            Load::Unavailable(e) => Err(e.into()),
        }
    }

    /// Reads and verifies all of an entry; a bad one is an error here.
    pub fn read_whole(&self, key: &CacheKey) -> Result<Whole, FindError> {
        match self.whole(key) {
            Load::Found(whole) => Ok(*whole),
            Load::Absent => Err(FindError::None(key.hex())),
            Load::Bad(fault) => Err(FindError::Bad { key: *key, fault }),
            Load::Unavailable(e) => Err(e.into()),
        }
    }

    /// Removes everything that jitc put into the folder, but for what is in use and the
    /// tag. Other files of the root and symlinks stay.
    pub fn clean(&self) -> Result<Cleaned, CacheError> {
        let mut cleaned = Cleaned {
            failed: self.remove_failures(),
            ..Cleaned::default()
        };
        let Some(version) = self.open_version()? else {
            return Ok(cleaned);
        };
        for key in self.keys()? {
            match self.remove(&key) {
                Ok(true) => cleaned.entries += 1,
                Ok(false) => cleaned.in_use += 1,
                Err(e) => {
                    cleaned.stuck += 1;
                    cleaned.stuck_reason.get_or_insert_with(|| e.to_string());
                }
            }
        }
        sweep_staging(&version, Duration::ZERO);
        self.sweep_texts(&version, true)?;
        for name in names(&version) {
            if version.stat_of(&name).is_ok_and(|stat| is_link(&stat)) {
                continue;
            }
            match (name.as_str(), version.open(&name)) {
                // A file.
                (_, Err(_)) | (QUARANTINE, _) => {
                    let _ = version.remove(&name);
                }
                (LOCKS, Ok(dir)) => {
                    let _ = lock::sweep(&Arc::new(dir));
                }
                (_, Ok(dir)) if is_shard(&name) => {
                    let strays = names(&dir).into_iter();
                    for stray in strays.filter(|n| key_of(n).is_none()) {
                        let _ = dir.remove(&stray);
                    }
                }
                _ => {}
            }
            // Stays if anything in it is in use.
            let _ = version.remove_empty(&name);
        }
        if let Ok(root) = self.root_dir() {
            let _ = root.remove_empty(VERSION);
        }
        Ok(cleaned)
    }
}

/// Does something for parts of the keys on all cores; the results are in the keys'
/// order.
pub(super) fn spread<T: Send>(keys: &[CacheKey], each: impl Fn(&[CacheKey]) -> Vec<T> + Sync) -> Vec<T> {
    let share = keys.len().div_ceil(cores()).max(64);
    let parts = for_each_on(cores(), keys.chunks(share), each);
    parts.into_iter().flatten().collect()
}

/// The keys of a shard that is open, sorted.
pub(super) fn keys_in(dir: &Dir, shard: &str) -> Vec<CacheKey> {
    let in_shard = names(dir).into_iter().filter(|name| name.starts_with(shard));
    let mut keys: Vec<CacheKey> = in_shard.filter_map(|name| key_of(&name)).collect();
    keys.sort_unstable();
    keys
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
