//! The tiers of a cache: what each can do, and the two that are not on disk.
//!
//! Invariant: a tier never fails a request. It finds an entry, or says in a typed
//! way why not, and the next tier is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::event::Teller;
use super::store::entry::{Entry, Parts, Whole};
use super::store::error::{CacheError, Fault};
use super::store::lock::{Claim, Wait};
use super::store::manifest::{HeaderText, Manifest};
use super::store::prune::{Limits, Pruned, Schedule};
use super::store::read::Load;
use super::store::{Published, Store};
use crate::engine::build::key::CacheKey;
use crate::engine::per_process::PerProcess;
use crate::engine::request::target::ToolchainIdentity;

/// A tier's name, as provenance and tables show it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TierName(Arc<str>);

impl TierName {
    /// A tier name of this text.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for TierName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A place where entries may be found.
///
/// Whatever comes from a tier goes through [`Entry::verify`], so that a tier can
/// be wrong but not believed.
pub trait Tier: Send + Sync {
    /// Name of the tier.
    fn name(&self) -> &TierName;

    /// The verified entry of a key, or why there is none.
    fn load(&self, key: &CacheKey) -> Load;

    /// As [`Tier::load`], for those who only look: marks nothing as used.
    fn peek(&self, key: &CacheKey) -> Load {
        self.load(key)
    }

    /// As [`Tier::peek`], with all the texts of the entry, each verified.
    fn whole(&self, key: &CacheKey) -> Load<Whole>;

    /// Shows the manifest of each of its entries, for explaining a miss; a tier
    /// that cannot list shows none.
    fn visit(&self, _each: &mut dyn FnMut(Manifest)) {}

    /// The compilers that made its entries, each once, where it is a bundle that names
    /// them; lookups ask for these first.
    fn toolchains(&self) -> Vec<ToolchainIdentity> {
        Vec::new()
    }

    /// What it carries beside entries, where it is a bundle with notes. They are not signed.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether entries can be written to it.
    fn is_writable(&self) -> bool {
        false
    }

    /// Waits for the right to build a key, where the tier can give it.
    fn claim(&self, _key: &CacheKey, _wait: &Wait) -> Claim {
        Claim::Unsupported("the tier has no locks".to_owned())
    }

    /// Keeps an entry.
    fn publish(&self, _entry: &Whole) -> Result<Published, CacheError> {
        Err(CacheError::ReadOnly(self.name().to_string()))
    }

    /// Moves what is bad under a key out of the way, if it still is; says
    /// whether it did.
    fn quarantine(&self, _key: &CacheKey, _held: Option<&Claim>) -> Result<bool, CacheError> {
        Ok(false)
    }

    /// Moves the entry of a key out of the way, good bytes or not.
    fn expel(&self, _key: &CacheKey) -> Result<(), CacheError> {
        Err(CacheError::ReadOnly(self.name().to_string()))
    }

    /// Told of a publish of this many bytes: keeps the tier within its limits,
    /// if it is time to.
    fn tidy(&self, _limits: &Limits, _bytes: u64) -> Option<Pruned> {
        None
    }

    /// The folder, if the tier is one.
    fn store(&self) -> Option<&Store> {
        None
    }

    /// Whether it is asked over a network: after all others, once a miss, and what it has
    /// is kept in a nearer tier.
    fn is_far(&self) -> bool {
        false
    }

    /// Offers it an entry that was built here, which it may send on later.
    fn offer(&self, _entry: &Whole) -> Result<(), CacheError> {
        Ok(())
    }

    /// Waits for what it has still to send, but not for long.
    fn drain(&self) {}

    /// As [`Tier::whole`], whatever the tier remembers of an earlier answer.
    fn whole_anew(&self, key: &CacheKey) -> Load<Whole> {
        self.whole(key)
    }

    /// Asks for the right to build a key that other machines see, for so long at most. It
    /// ends once an entry that was offered is there, or with [`Tier::unlease`].
    fn lease(&self, _key: &CacheKey, _longest: Duration) -> Lease {
        Lease::None
    }

    /// Lets go of a lease of this process, if there is one.
    fn unlease(&self, _key: &CacheKey) {}

    /// Removes the lease of a holder that took too long.
    fn break_lease(&self, _key: &CacheKey, _holder: &str) {}

    /// Says whom to tell of what happens in it, beyond what its answers say.
    fn told_by(&self, _teller: &Teller) {}
}

/// Whose turn it is to build a key, of all machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// Nobody's: the tier does not know, or does not answer.
    None,
    /// This process's.
    Ours,
    /// Another's.
    Theirs {
        /// A name of the holder that nobody else has.
        holder: String,
        /// How long it may take.
        longest: Duration,
    },
}

/// A folder as a tier.
#[derive(Debug)]
pub struct Folder {
    name: TierName,
    store: Store,
    schedule: PerProcess<Schedule>,
}

impl Folder {
    /// The store under a name.
    #[must_use]
    pub fn new(name: &str, store: Store) -> Self {
        Self {
            name: TierName::new(name),
            store,
            schedule: PerProcess::new(),
        }
    }
}

impl Tier for Folder {
    fn name(&self) -> &TierName {
        &self.name
    }

    fn load(&self, key: &CacheKey) -> Load {
        self.store.load(key)
    }

    fn peek(&self, key: &CacheKey) -> Load {
        self.store.peek(key)
    }

    fn whole(&self, key: &CacheKey) -> Load<Whole> {
        self.store.whole(key)
    }

    fn visit(&self, each: &mut dyn FnMut(Manifest)) {
        let keys = self.store.keys().unwrap_or_default();
        keys.iter()
            .filter_map(|key| self.store.manifest(key))
            .for_each(each);
    }

    fn is_writable(&self) -> bool {
        self.store.is_writable()
    }

    fn claim(&self, key: &CacheKey, wait: &Wait) -> Claim {
        self.store.claim(key, wait)
    }

    fn publish(&self, entry: &Whole) -> Result<Published, CacheError> {
        self.store.publish(entry)
    }

    fn quarantine(&self, key: &CacheKey, held: Option<&Claim>) -> Result<bool, CacheError> {
        self.store.quarantine(key, held)
    }

    fn expel(&self, key: &CacheKey) -> Result<(), CacheError> {
        self.store.expel(key)
    }

    fn tidy(&self, limits: &Limits, bytes: u64) -> Option<Pruned> {
        let due = self.schedule.is_due(limits, bytes);
        // One that fails is tried again later; the entry is published already.
        due.then(|| self.store.prune(limits, false).ok()).flatten()
    }

    fn store(&self) -> Option<&Store> {
        Some(&self.store)
    }
}

/// A tier in memory: the stand-in for a remote one in tests.
#[derive(Debug)]
pub struct Memory {
    name: TierName,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    entries: BTreeMap<CacheKey, Parts>,
    texts: BTreeMap<String, Arc<str>>,
}

impl Memory {
    /// An empty tier.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: TierName::new(name),
            held: Mutex::default(),
        }
    }

    /// Puts bytes under a key, verified by nobody yet.
    pub fn put(&self, key: CacheKey, parts: Parts) {
        self.held().entries.insert(key, parts);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load<T>(found: Option<Result<T, Fault>>) -> Load<T> {
    match found {
        None => Load::Absent,
        Some(Ok(found)) => Load::Found(Box::new(found)),
        Some(Err(fault)) => Load::Bad(fault),
    }
}

impl Tier for Memory {
    fn name(&self) -> &TierName {
        &self.name
    }

    fn load(&self, key: &CacheKey) -> Load {
        let parts = self.held().entries.get(key).cloned();
        load(parts.map(|parts| Entry::of_parts(key, parts)))
    }

    fn whole(&self, key: &CacheKey) -> Load<Whole> {
        let held = self.held();
        let text = |header: &HeaderText| {
            let text = held.texts.get(&header.sha256).cloned();
            text.ok_or_else(|| Fault::Missing(format!("header {}", header.name)))
        };
        let parts = held.entries.get(key).cloned();
        load(parts.map(|parts| Whole::verify(key, parts, text)))
    }

    fn visit(&self, each: &mut dyn FnMut(Manifest)) {
        let held = self.held();
        let read = |parts: &Parts| Manifest::from_bytes(&parts.manifest).ok();
        held.entries.values().filter_map(read).for_each(each);
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn publish(&self, entry: &Whole) -> Result<Published, CacheError> {
        let manifest = entry.entry().manifest();
        for (record, (_, text)) in manifest.headers.iter().zip(&entry.texts().headers) {
            self.held().texts.insert(record.sha256.clone(), Arc::clone(text));
        }
        self.put(manifest.key, entry.parts());
        Ok(Published::Ours)
    }

    fn quarantine(&self, key: &CacheKey, _held: Option<&Claim>) -> Result<bool, CacheError> {
        if matches!(self.load(key), Load::Bad(_)) {
            return self.expel(key).map(|()| true);
        }
        Ok(false)
    }

    fn expel(&self, key: &CacheKey) -> Result<(), CacheError> {
        self.held().entries.remove(key);
        Ok(())
    }
}
