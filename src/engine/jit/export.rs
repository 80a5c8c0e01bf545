//! Entries of the cache into a bundle.

use std::io::{BufWriter, Write};
use std::path::Path;

use super::Jit;
use crate::engine::atomic_file::write_atomically;
use crate::engine::build::key::CacheKey;
use crate::engine::cache::bundle::{BundleError, Exported, export_noting};
use crate::engine::cache::{CacheError, Query, TierName};

/// Why no bundle was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// No good entry is meant: why, in one line.
    #[error("{0}")]
    Nothing(String),
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Jit {
    /// Writes the entries that are meant into a bundle, with what was tuned for them. Where none is, what is at the path is
    /// left alone: it may be a slip in a name. `unreadable` is told of folders that cannot be
    /// read.
    ///
    /// # Errors
    /// No good entry is meant, or the file cannot be written.
    pub fn export(
        &self,
        query: &Query,
        path: &Path,
        unreadable: &mut dyn FnMut(&TierName, &CacheError),
    ) -> Result<Exported, ExportError> {
        let selected = query.select(self.cache(), self.registry());
        for (tier, error) in &selected.unreadable {
            unreadable(tier, error);
        }
        let keys: Vec<CacheKey> = selected.meant.iter().map(|one| one.record.key).collect();
        if !keys.iter().any(|key| self.cache().whole(key).is_some()) {
            return Err(ExportError::Nothing(match (keys.len(), selected.others.len()) {
                (0, 0) => "the cache has no entry".to_owned(),
                (0, all) => format!(
                    "none of {all} entries fits the filter{}",
                    query.unknown_name(&selected.others)
                ),
                (bad, _) => {
                    format!("all {bad} entries that fit are bad (`jitc cache verify` says why)")
                }
            }));
        }
        let written = write_atomically(path, 0o644, |file| -> Result<Exported, BundleError> {
            let mut out = BufWriter::new(file);
            let notes = self.tuned_notes(&keys);
            let exported = export_noting(|key| self.cache().whole(key), &keys, &notes, &mut out)?;
            out.flush()?;
            Ok(exported)
        });
        Ok(written?)
    }
}
