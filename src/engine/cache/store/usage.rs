//! What all processes have counted in a folder: hits, misses and compile time saved.
//!
//! Invariant: a hint. Processes add a line each when they end or once an hour, never on
//! the way of a request; a killed one adds none, so the numbers may be low and are never
//! high. Nothing else reads it, and a broken line costs itself alone.

use std::fmt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::entry::now_unix_ms;
use super::error::CacheError;
use super::root::has_tag;
use super::{Store, io_error, unique};

/// The file in the root.
pub(super) const USAGE: &str = "usage.jsonl";
/// Longer than this, its lines become one.
const FOLD_AT: u64 = 64 << 10;
/// No more is read of it.
const LIMIT: u64 = 1 << 20;

/// What was counted in a folder since it was last set to zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Usage {
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Verified hits, of all tiers.
    pub hits: u64,
    /// Hits on artifacts that their process still held.
    pub memory_hits: u64,
    /// Misses.
    pub misses: u64,
    /// Artifacts built.
    pub built: u64,
    /// Time inside the compiler, microseconds.
    pub compile_us: u64,
    /// Time inside the compiler that hits saved, microseconds.
    pub saved_us: u64,
    /// Of all stores that are asked over a network.
    pub stores: FarCounters,
}

/// How often each thing happened with one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FarCounters {
    /// Requests for an entry that it answered with one.
    pub found: u64,
    /// The same that it answered with none.
    pub absent: u64,
    /// The same whose answer was no entry that may be loaded.
    pub refused: u64,
    /// The same without an answer, those that were not sent since it is left alone included.
    pub unreachable: u64,
    /// Bytes that it sent for entries.
    pub received_bytes: u64,
    /// Time that was waited for its answers, microseconds.
    pub waited_us: u64,
    /// Entries that were kept in a nearer tier.
    pub promoted: u64,
    /// Entries that were sent to it.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Entries that were to be sent and were not.
    pub not_sent: u64,
    /// How often it was left alone for a while, since it failed.
    pub left_alone: u64,
}

impl fmt::Display for FarCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} found, {} absent, {} refused, {} not reached; {} bytes received; {} sent, {} not",
            self.found,
            self.absent,
            self.refused,
            self.unreachable,
            self.received_bytes,
            self.sent,
            self.not_sent
        )
    }
}

impl FarCounters {
    /// Each of two stores, or of two times, put together.
    #[must_use]
    pub fn with(self, other: Self, each: fn(u64, u64) -> u64) -> Self {
        Self {
            found: each(self.found, other.found),
            absent: each(self.absent, other.absent),
            refused: each(self.refused, other.refused),
            unreachable: each(self.unreachable, other.unreachable),
            received_bytes: each(self.received_bytes, other.received_bytes),
            waited_us: each(self.waited_us, other.waited_us),
            promoted: each(self.promoted, other.promoted),
            sent: each(self.sent, other.sent),
            sent_bytes: each(self.sent_bytes, other.sent_bytes),
            not_sent: each(self.not_sent, other.not_sent),
            left_alone: each(self.left_alone, other.left_alone),
        }
    }
}

impl Usage {
    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let since_unix_ms = self.since_unix_ms;
        *self
            == Self {
                since_unix_ms,
                ..Self::default()
            }
    }

    fn plus(self, other: Self) -> Self {
        let since = [self.since_unix_ms, other.since_unix_ms];
        Self {
            since_unix_ms: since.into_iter().filter(|ms| *ms > 0).min().unwrap_or(0),
            hits: self.hits.saturating_add(other.hits),
            memory_hits: self.memory_hits.saturating_add(other.memory_hits),
            misses: self.misses.saturating_add(other.misses),
            built: self.built.saturating_add(other.built),
            compile_us: self.compile_us.saturating_add(other.compile_us),
            saved_us: self.saved_us.saturating_add(other.saved_us),
            stores: self.stores.with(other.stores, u64::saturating_add),
        }
    }
}

impl Store {
    /// What was counted in this folder.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        match self.admitted_root()? {
            Some(root) => read(&root).map_err(|e| io_error("read", self.root().join(USAGE), e)),
            None => Ok(Usage::default()),
        }
    }

    /// Adds what a process counted, where the folder is a cache already.
    pub fn add_usage(&self, counted: &Usage) -> Result<(), CacheError> {
        let io = |errno| io_error("write", self.root().join(USAGE), errno);
        if !self.is_writable() || counted.is_empty() {
            return Ok(());
        }
        let Some(root) = self.admitted_root()? else {
            return Ok(());
        };
        if !has_tag(&root).map_err(io)? {
            return Ok(());
        }
        let length = root.append(USAGE, &line(counted)).map_err(io)?;
        if length > FOLD_AT {
            // What another process adds meanwhile may be lost: the numbers are low then.
            replace(&root, &read(&root).map_err(io)?).map_err(io)?;
        }
        Ok(())
    }

    /// Counts from now on.
    pub fn zero_usage(&self) -> Result<(), CacheError> {
        let zero = Usage {
            since_unix_ms: now_unix_ms(),
            ..Usage::default()
        };
        let root = self.open_root()?;
        replace(&root, &zero).map_err(|errno| io_error("write", self.root().join(USAGE), errno))
    }

    fn admitted_root(&self) -> Result<Option<Dir>, CacheError> {
        match self.root_dir() {
            Ok(root) => {
                self.admit(&root, || self.root().to_owned())?;
                Ok(Some(root))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(io_error("open", self.root().to_owned(), errno)),
        }
    }
}

fn replace(root: &Dir, usage: &Usage) -> rustix::io::Result<()> {
    let staged = format!(".{USAGE}.{}", unique());
    let written = root.write_new(&staged, &line(usage));
    let replaced = written.and_then(|()| root.replace(&staged, root, USAGE));
    if replaced.is_err() {
        let _ = root.remove(&staged);
    }
    replaced
}

fn read(root: &Dir) -> rustix::io::Result<Usage> {
    let file = match root.read(USAGE, LIMIT) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::FBIG | Errno::LOOP) => return Ok(Usage::default()),
        Err(e) => return Err(e),
    };
    let lines = file.bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<Usage>(line).ok());
    Ok(lines.fold(Usage::default(), Usage::plus))
}

fn line(usage: &Usage) -> Vec<u8> {
    // Numbers alone: it cannot fail.
    let mut line = serde_json::to_vec(usage).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::super::entry::Whole;
    use super::super::test_fixtures;
    use super::*;

    fn counted(hits: u64) -> Usage {
        Usage {
            since_unix_ms: 1000 + hits,
            hits,
            saved_us: 10 * hits,
            stores: FarCounters {
                found: hits,
                ..FarCounters::default()
            },
            ..Usage::default()
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::new(dir.path().join("c"));
        (dir, store)
    }

    fn publish(store: &Store) {
        let entry = Whole::new(&test_fixtures::subject_of(0), &test_fixtures::artifact());
        store.publish(&entry).expect("published");
    }

    #[test]
    fn what_processes_add_is_summed_and_set_to_zero() {
        let (_dir, store) = store();
        publish(&store);
        store.add_usage(&counted(3)).expect("added");
        store.add_usage(&counted(4)).expect("added");
        let usage = store.usage().expect("read");
        assert_eq!((usage.hits, usage.saved_us, usage.since_unix_ms), (7, 70, 1003));
        assert_eq!((usage.stores.found, usage.stores.absent), (7, 0));
        store.zero_usage().expect("zero");
        let usage = store.usage().expect("read");
        assert!(usage.is_empty() && usage.since_unix_ms > 1003, "{usage:?}");
        store.add_usage(&counted(1)).expect("added");
        assert_eq!(store.usage().expect("read").hits, 1);
    }

    #[test]
    fn nothing_is_made_where_no_cache_is_nor_for_nothing() {
        let (_dir, store) = store();
        store.add_usage(&counted(3)).expect("no folder");
        assert!(!store.root().exists());
        fs_err::create_dir(store.root()).expect("folder");
        store.add_usage(&counted(3)).expect("no cache");
        publish(&store);
        store.add_usage(&Usage::default()).expect("nothing");
        assert!(!store.root().join(USAGE).exists());
        Store::read_only(store.root())
            .add_usage(&counted(3))
            .expect("not written to");
        assert!(!store.root().join(USAGE).exists());
    }

    #[test]
    fn many_lines_become_one_and_a_broken_one_costs_itself_alone() {
        let (_dir, store) = store();
        publish(&store);
        let path = store.root().join(USAGE);
        store.add_usage(&counted(1)).expect("added");
        let mut text = fs_err::read_to_string(&path).expect("text").repeat(800);
        text.push_str("{\"hits\": nonsense\n");
        fs_err::write(&path, text).expect("written");
        store.add_usage(&counted(1)).expect("added");
        assert_eq!(store.usage().expect("read").hits, 801);
        assert_eq!(fs_err::read_to_string(&path).expect("text").lines().count(), 1);
        // Of a size that none of ours has: nothing, and nothing is refused for it.
        fs_err::write(&path, "x".repeat(2 << 20)).expect("written");
        assert!(store.usage().expect("read").is_empty());
    }
}
