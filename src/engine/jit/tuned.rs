//! What was measured, from wherever it is known, and on its way in bundles.
//!
//! Invariant: what was measured here holds over what a bundle carries; and what a bundle
//! carries counts only where nothing of it has to be signed, as nobody signs measurements.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::Jit;
use crate::engine::build::key::CacheKey;
use crate::engine::cache::Store;
use crate::engine::cache::bundle::{self, BundleError, Imported, import_signed};
use crate::engine::run::tuned::Record;
use crate::engine::sign::{Place, Require};

/// What a note of a bundle begins with that is a record.
const NOTE: &str = "tuned variants\n";

impl Jit {
    /// What was measured: the record beside the cache, and of problems that it does not
    /// have, what embedded bundles carry. Whether a winner still holds is said by
    /// [`Winner::variant`](crate::engine::run::tuned::Winner::variant).
    #[must_use]
    pub fn tuned(&self) -> Record {
        let own = self.record_path();
        let mut record = own.map_or_else(Record::default, |path| Record::load(&path, &self.registry));
        for tier in self.cache.tiers() {
            for carried in self.records(&tier.notes()) {
                record.fill_from(carried);
            }
        }
        record
    }

    /// The notes that a bundle of these entries carries: the winners whose machine code is
    /// among them, if there are any.
    #[must_use]
    pub fn tuned_notes(&self, keys: &[CacheKey]) -> Vec<String> {
        note_of(self.tuned(), keys)
    }

    /// Takes a bundle's entries into a folder, signed as demanded of bundles, and its winners
    /// into the record beside the cache, where that has none for their problems: how many.
    ///
    /// # Errors
    /// Those of the import; a record that cannot be written.
    pub fn import(
        &self,
        store: &Store,
        input: &mut (impl Read + Seek),
    ) -> Result<(Imported, usize), BundleError> {
        let admission = self.signing.of(Place::Bundle);
        let start = input.stream_position()?;
        let imported = import_signed(store, &admission, input)?;
        let path = self
            .record_path()
            .filter(|_| admission.in_force() == Require::None);
        let Some(path) = path else {
            return Ok((imported, 0));
        };
        input.seek(SeekFrom::Start(start))?;
        let carried = self.records(&bundle::notes(input)?);
        let mut record = Record::load(&path, &self.registry);
        let before = record.winners().len();
        if !carried.is_empty() {
            for carried in carried {
                record.fill_from(carried);
            }
            record.save(&path)?;
        }
        Ok((imported, record.winners().len() - before))
    }

    fn record_path(&self) -> Option<PathBuf> {
        self.config.cache_dir().map(|dir| Record::path(&dir))
    }

    /// The records among notes; one that cannot be understood is left out, with a warning.
    fn records(&self, notes: &[String]) -> Vec<Record> {
        let texts = notes.iter().filter_map(|note| note.strip_prefix(NOTE));
        let read = texts.filter_map(|text| {
            Record::parse(text, &self.registry)
                .inspect_err(|reason| tracing::warn!("what a bundle says was tuned is not used: {reason}"))
                .ok()
        });
        read.collect()
    }
}

/// A record as a note, without the winners whose machine code is not among these entries; none
/// where no winner is left.
pub(crate) fn note_of(mut record: Record, keys: &[CacheKey]) -> Vec<String> {
    let keys: Vec<String> = keys.iter().map(CacheKey::hex).collect();
    record.retain(|winner| {
        let policy = winner.policy.as_ref();
        policy.is_some_and(|policy| keys.contains(&policy.key))
    });
    if record.winners().is_empty() {
        return Vec::new();
    }
    let text = record.to_text();
    text.map_or_else(|_| Vec::new(), |text| vec![format!("{NOTE}{text}")])
}
