//! What is sent to the stores of a fleet, and taken from them, because somebody asks.
//!
//! Invariant: where a key is trusted, nothing that is not signed by one leaves or enters.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Cursor;

use super::{Error, Jit};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::bundle::{BundleError, Imported, export_noting};
use crate::engine::cache::{CacheError, Fault, Release, Remote, Store, Whole};
use crate::engine::sign::Place;

/// Why nothing was sent or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// There is no store of that use.
    #[error("no store is {0}: name one with --remote or JITC_REMOTE{1}")]
    NoStore(&'static str, &'static str),
    /// A store did not do it.
    #[error("{store}: {source}")]
    Store {
        /// The store.
        store: String,
        /// Why not.
        source: CacheError,
    },
    /// No store has it.
    #[error("no store has {0}")]
    Absent(Release),
    /// What is to be sent is not signed as what is taken has to be.
    #[error("the entry of {0} is not sent: {1}")]
    Unsigned(CacheKey, Fault),
    /// A registry is to be sent single entries.
    #[error("{0}: a registry takes whole releases: `jitc cache push NAME` sends one")]
    WholeReleases(String),
    /// None of the entries is there, and good.
    #[error("there is nothing to send")]
    Nothing,
    /// The bundle of a store was refused, or could not be kept.
    #[error("{store}: {source}{}", rest(source))]
    Bundle {
        /// The store.
        store: String,
        /// What is wrong with it.
        source: BundleError,
    },
}

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Pushed {
    /// Entries that a store took, each store counted.
    pub sent: u64,
    /// The same that were there already.
    pub present: u64,
    /// Entries that were asked for, but are missing or bad here.
    pub skipped: Vec<CacheKey>,
    /// What was not sent: the entry, the store and why not.
    pub failed: Vec<(CacheKey, String, String)>,
}

impl Pushed {
    /// Whether all that was asked for is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.skipped.is_empty() && self.failed.is_empty()
    }

    /// A line for each that is not.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let skipped = self.skipped.iter();
        let skipped = skipped.map(|key| format!("left out, since it is missing or bad: {key}"));
        skipped.chain(self.failed.iter().map(|(key, store, reason)| {
            let key = key.short();
            format!("{key} was not sent to {store}: {reason}")
        }))
    }
}

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entries sent, {} were there already",
            self.sent, self.present
        )
    }
}

/// A release that was sent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PushedRelease {
    /// What it is called.
    pub name: String,
    /// `sha256:` and the digest of its bundle.
    pub digest: String,
    /// How many entries it has.
    pub entries: u64,
}

impl fmt::Display for PushedRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries under {}: {}", self.entries, self.name, self.digest)
    }
}

impl Jit {
    fn writers(&self) -> Result<Vec<&Remote>, FleetError> {
        let writers: Vec<&Remote> = self
            .cache
            .remotes()
            .iter()
            .filter(|r| r.remote_store().role().writes())
            .collect();
        if writers.is_empty() {
            return Err(FleetError::NoStore("written to", ", and ?role=write at its end"));
        }
        Ok(writers)
    }

    fn to_send(&self, key: &CacheKey) -> Result<Option<Whole>, FleetError> {
        let Some(whole) = self.cache.whole_near(key) else {
            return Ok(None);
        };
        let admitted = whole.entry().admit(&self.signing.of(Place::Other));
        admitted.map_err(|fault| FleetError::Unsigned(*key, fault))?;
        Ok(Some(whole))
    }

    /// Sends these entries of this machine to every store that is written to, one by one.
    ///
    /// # Errors
    /// No store is written to, or an entry is not signed where that is demanded.
    pub fn push(&self, keys: &[CacheKey]) -> Result<Pushed, FleetError> {
        let writers = self.writers()?;
        let mut stores = writers.iter().map(|remote| remote.remote_store());
        if let Some(registry) = stores.find(|store| !store.takes_entries()) {
            return Err(FleetError::WholeReleases(registry.name().to_owned()));
        }
        let mut pushed = Pushed::default();
        // Tiers may have the same.
        for key in keys.iter().collect::<BTreeSet<_>>() {
            let Some(whole) = self.to_send(key)? else {
                pushed.skipped.push(*key);
                continue;
            };
            for store in &writers {
                match store.send(&whole) {
                    Ok(true) => pushed.sent += 1,
                    Ok(false) => pushed.present += 1,
                    Err(error) => {
                        let store = store.remote_store().name().to_owned();
                        pushed.failed.push((*key, store, error.to_string()));
                    }
                }
            }
        }
        Ok(pushed)
    }

    /// Sends these entries of this machine as one bundle under a name, with what was tuned
    /// for them.
    ///
    /// # Errors
    /// No store is written to, one did not take it, or an entry is not signed where that is
    /// demanded.
    pub fn push_release(&self, name: &str, keys: &[CacheKey]) -> Result<PushedRelease, FleetError> {
        let writers = self.writers()?;
        for key in keys {
            self.to_send(key)?;
        }
        let mut bundle = Vec::new();
        let notes = self.tuned_notes(keys);
        let exported = export_noting(|key| self.cache.whole_near(key), keys, &notes, &mut bundle);
        let entries = exported.map_or(0, |exported| exported.entries);
        if entries == 0 {
            return Err(FleetError::Nothing);
        }
        let mut digest = String::new();
        for store in writers {
            digest = store
                .push_bundle(name, bundle.clone())
                .map_err(|source| FleetError::Store {
                    store: store.remote_store().name().to_owned(),
                    source,
                })?;
        }
        Ok(PushedRelease {
            name: name.to_owned(),
            digest: format!("sha256:{digest}"),
            entries,
        })
    }

    /// Takes the entries of a release into a folder, from the first store that has it, and
    /// its winners as [`Jit::import`] does: how many.
    ///
    /// # Errors
    /// No store is read from or has it, or what the first has is refused.
    pub fn pull_release(&self, release: &Release, into: &Store) -> Result<(Imported, usize), FleetError> {
        let mut readers = self
            .cache
            .remotes()
            .iter()
            .filter(|r| r.remote_store().role().reads())
            .peekable();
        if readers.peek().is_none() {
            return Err(FleetError::NoStore("read from", ""));
        }
        for remote in readers {
            let store = || remote.remote_store().name().to_owned();
            let bundle = remote.pull_bundle(release).map_err(|source| FleetError::Store {
                store: store(),
                source,
            })?;
            let Some(bundle) = bundle else { continue };
            let imported = self.import(into, &mut Cursor::new(bundle));
            return imported.map_err(|source| FleetError::Bundle {
                store: store(),
                source,
            });
        }
        Err(FleetError::Absent(release.clone()))
    }
}

/// Refused before anything was written, unless the folder itself failed.
fn rest(error: &BundleError) -> &'static str {
    match error {
        BundleError::Cache(_) | BundleError::Io(_) => "",
        _ => "; nothing was changed",
    }
}

impl From<FleetError> for Error {
    fn from(error: FleetError) -> Self {
        Self::Fleet(error)
    }
}
