//! What a folder holds, added up, and remembered a shard at a time.
//!
//! Invariant: a shard is counted anew when anything was added to it, removed from it or
//! replaced in it since: its folder then has another time. What is remembered is for people,
//! and no load, prune or check reads it.

use std::collections::BTreeMap;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::entry::now_unix_ms;
use super::error::CacheError;
use super::inspect::{Record, Totals, is_shard, keys_in, names};
use super::{QUARANTINE, STAGING, Store, unique};
use crate::engine::sign::Require;
use crate::engine::threads::{cores, for_each_on};

/// The file in the format's folder.
const TALLY: &str = ".tally";
/// No more is read of it.
const LIMIT: u64 = 16 << 20;
/// A folder that changed so short a time ago may change again and keep its time.
const SETTLED_NS: i128 = 2_000_000_000;

/// Entries of one family and arch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Group {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Time that they took in the compiler, microseconds.
    pub compile_us: u64,
}

/// What a folder holds, and of which families and archs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// All of it.
    pub totals: Totals,
    /// Good entries by the names of family and arch.
    pub groups: BTreeMap<(String, String), Group>,
}

impl Tally {
    /// Adds what another folder holds.
    pub fn add(&mut self, other: &Self) {
        let (all, more) = (&mut self.totals, &other.totals);
        all.entries += more.entries;
        all.bytes = all.bytes.saturating_add(more.bytes);
        all.bad += more.bad;
        all.quarantined += more.quarantined;
        all.staging += more.staging;
        for (name, group) in &other.groups {
            let of = self.groups.entry(name.clone()).or_default();
            of.entries += group.entries;
            of.bytes = of.bytes.saturating_add(group.bytes);
            of.compile_us = of.compile_us.saturating_add(group.compile_us);
        }
    }
}

/// Which state of a shard's folder was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    inode: u64,
    modified_ns: i128,
}

impl State {
    fn of(dir: &Dir) -> Option<Self> {
        let stat = dir.stat().ok()?;
        Some(Self {
            inode: stat.st_ino,
            modified_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        })
    }
}

/// A shard that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    state: State,
    bad: u64,
    bad_bytes: u64,
    groups: Vec<(String, String, Group)>,
}

impl Counted {
    fn of(state: State, records: impl Iterator<Item = Record>) -> Self {
        let (mut bad, mut bad_bytes) = (0, 0);
        let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
        for record in records {
            let Ok(summary) = &record.summary else {
                bad += 1;
                bad_bytes += record.bytes;
                continue;
            };
            let name = (summary.family.clone(), summary.arch.to_string());
            let group = groups.entry(name).or_default();
            group.entries += 1;
            group.bytes += record.bytes;
            group.compile_us += summary.compile_us;
        }
        let groups = groups
            .into_iter()
            .map(|((family, arch), group)| (family, arch, group));
        Self {
            state,
            bad,
            bad_bytes,
            groups: groups.collect(),
        }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        tally.totals.bad = self.bad;
        (tally.totals.entries, tally.totals.bytes) = (self.bad, self.bad_bytes);
        for (family, arch, group) in &self.groups {
            tally.totals.entries += group.entries;
            tally.totals.bytes = tally.totals.bytes.saturating_add(group.bytes);
            tally.groups.insert((family.clone(), arch.clone()), *group);
        }
        tally
    }
}

impl Store {
    /// Adds up what the folder holds: shards that did not change since they were last counted
    /// are not read again. An entry that went bad in its place is noticed by
    /// [`Store::check`], and not here.
    pub fn tally(&self) -> Result<Tally, CacheError> {
        let mut tally = Tally::default();
        let view = self.names_view();
        let Some(version) = view.open_version()? else {
            return Ok(tally);
        };
        // Where signatures are demanded, what counts as bad depends on the keys.
        let remembers = self.admission.in_force() == Require::None;
        let mut known = if remembers {
            read(&version)
        } else {
            BTreeMap::new()
        };
        let now_ns = i128::from(now_unix_ms()) * 1_000_000;
        let mut counted: BTreeMap<String, Counted> = BTreeMap::new();
        let mut changed: Vec<(String, Dir, State)> = Vec::new();
        for shard in names(&version).into_iter().filter(|name| is_shard(name)) {
            let Ok(Some(dir)) = view.open_shard(&shard) else {
                continue;
            };
            let Some(state) = State::of(&dir) else { continue };
            match known.remove(&shard) {
                Some(one) if one.state == state => {
                    counted.insert(shard, one);
                }
                _ => changed.push((shard, dir, state)),
            }
        }
        let is_new = !changed.is_empty() || !known.is_empty();
        let anew = for_each_on(cores(), changed, |(shard, dir, state)| {
            let records = keys_in(&dir, &shard).into_iter().filter_map(|key| {
                if remembers {
                    self.record_in(&dir, &key)
                } else {
                    self.record(&key)
                }
            });
            let counted = Counted::of(state, records);
            (shard, counted)
        });
        counted.extend(anew);
        for one in counted.values() {
            tally.add(&one.tally());
        }
        let count = |name| version.open(name).map_or(0, |dir| names(&dir).len() as u64);
        tally.totals.quarantined = count(QUARANTINE);
        tally.totals.staging = count(STAGING);
        if remembers && is_new && self.is_writable() {
            counted.retain(|_, one| one.state.modified_ns + SETTLED_NS < now_ns);
            // What is not remembered is counted again.
            let _ = self.remember(&version, &counted);
        }
        Ok(tally)
    }

    fn remember(&self, version: &Dir, counted: &BTreeMap<String, Counted>) -> Result<(), Errno> {
        let staging = self.ensure(version, STAGING).map_err(|_| Errno::ACCESS)?;
        let staged = format!("tally.{}", unique());
        let bytes = serde_json::to_vec(counted).unwrap_or_default();
        let written = staging.write_new(&staged, &bytes);
        let replaced = written.and_then(|()| staging.replace(&staged, version, TALLY));
        if replaced.is_err() {
            let _ = staging.remove(&staged);
        }
        replaced
    }
}

/// What is remembered; nothing where there is nothing that can be read.
fn read(version: &Dir) -> BTreeMap<String, Counted> {
    let file = version.read(TALLY, LIMIT).ok();
    file.and_then(|file| serde_json::from_slice(&file.bytes).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::entry::Whole;
    use super::super::test_fixtures;
    use super::*;

    fn store(entries: u32) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::new(dir.path().join("c"));
        (0..entries).for_each(|n| publish(&store, n));
        (dir, store)
    }

    fn publish(store: &Store, n: u32) {
        let entry = Whole::new(&test_fixtures::subject_of(n), &test_fixtures::artifact());
        store.publish(&entry).expect("published");
    }

    fn path(store: &Store) -> std::path::PathBuf {
        store.root().join(super::super::VERSION).join(TALLY)
    }

    /// Lets every shard be as old as one that is remembered.
    fn settle(store: &Store) {
        let old = SystemTime::now() - Duration::from_mins(1);
        for shard in fs_err::read_dir(store.root().join(super::super::VERSION)).expect("folder") {
            let path = shard.expect("entry").path();
            let file = fs_err::File::open(&path).expect("opened");
            if path.is_dir() {
                file.file().set_modified(old).expect("stamped");
            }
        }
    }

    #[test]
    fn a_shard_is_counted_again_once_something_in_it_changed() {
        let (_dir, store) = store(5);
        settle(&store);
        let first = store.tally().expect("tally");
        assert_eq!(first.totals.entries, 5);
        assert!(path(&store).exists());
        // What is remembered is what is shown: a number that was never true shows it.
        let text = fs_err::read_to_string(path(&store)).expect("text");
        fs_err::write(path(&store), text.replace("\"entries\":1", "\"entries\":7")).expect("written");
        let second = store.tally().expect("tally").totals.entries;
        assert!(second > 5, "{second}");
        // A publish changes its shard, and that one is counted again.
        publish(&store, 5);
        let third = store.tally().expect("tally").totals.entries;
        assert!(third > second - 6 && third < 7 * 6, "{third}");
        fs_err::remove_file(path(&store)).expect("removed");
        assert_eq!(store.tally().expect("tally").totals.entries, 6);
    }

    #[test]
    fn a_shard_that_changed_just_now_is_not_remembered() {
        let (_dir, store) = store(2);
        assert_eq!(store.tally().expect("tally").totals.entries, 2);
        let version = store.open_version().expect("opened").expect("a folder");
        assert!(path(&store).exists() && read(&version).is_empty());
        publish(&store, 2);
        assert_eq!(store.tally().expect("tally").totals.entries, 3);
    }

    #[test]
    fn nonsense_is_nothing_and_a_folder_that_is_only_read_stays_as_it_is() {
        let (_dir, store) = store(3);
        settle(&store);
        let read_only = Store::read_only(store.root());
        assert_eq!(read_only.tally().expect("tally").totals.entries, 3);
        assert!(!path(&store).exists());
        fs_err::write(path(&store), "{\"ab\": 7}").expect("written");
        assert_eq!(read_only.tally().expect("tally").totals.entries, 3);
        assert_eq!(fs_err::read_to_string(path(&store)).expect("text"), "{\"ab\": 7}");
    }
}
