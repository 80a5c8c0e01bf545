//! What was measured on this GPU, kept beside the cache.
//!
//! Invariant: a winner holds for its GPU and its problem alone, and a file that cannot
//! be read is an empty record.

use crate::engine::refused::Refused;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Gpu, Problem, Winner};
use crate::engine::regular_file::{MAX_RECORDS, read_text};
use crate::engine::request::template::Registry;

/// Of the record's file; another format is no record.
const FORMAT: u32 = 1;

/// What `jitc tune` found so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    winners: Vec<Winner>,
}

impl Record {
    /// Where a cache's record lies: beside its entries.
    #[must_use]
    pub fn path(cache_dir: &Path) -> PathBuf {
        cache_dir.join("tuned.json")
    }

    /// Puts one winner into the record of this file. What is there is read again:
    /// another process may have tuned something else meanwhile.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn keep(path: &Path, registry: &Registry, winner: Winner) -> io::Result<()> {
        let mut record = Self::load(path, registry);
        record.put(winner);
        record.save(path)
    }

    /// Reads a record, families by the names that they have now. A missing one is
    /// empty; one that cannot be understood is empty too, with a warning.
    #[must_use]
    pub fn load(path: &Path, registry: &Registry) -> Self {
        let mut record = Self::read(path);
        for winner in &mut record.winners {
            winner.problem.rename(registry);
        }
        record
    }

    fn read(path: &Path) -> Self {
        let text = match read_text(path, MAX_RECORDS) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!("no tuned geometry is used: {error}");
                return Self::default();
            }
        };
        understood(&text).unwrap_or_else(|reason| {
            tracing::warn!("{}: no tuned geometry is used: {reason}", path.display());
            Self::default()
        })
    }

    /// A record from its text, as a bundle carries it.
    ///
    /// # Errors
    /// Text that is no record, or one of another format, in one line.
    pub fn parse(text: &str, registry: &Registry) -> Result<Self, Refused> {
        let mut record = understood(text)?;
        for winner in &mut record.winners {
            winner.problem.rename(registry);
        }
        Ok(record)
    }

    /// It as text.
    pub fn to_text(&self) -> io::Result<String> {
        Ok(serde_json::to_string_pretty(&self.whole())? + "\n")
    }

    /// Every winner.
    #[must_use]
    pub fn winners(&self) -> &[Winner] {
        &self.winners
    }

    /// Takes winners of another record in for problems that it has none for.
    pub fn fill_from(&mut self, other: Self) {
        for winner in other.winners {
            if self.find(&winner.gpu, &winner.problem).is_none() {
                self.winners.push(winner);
            }
        }
    }

    /// Keeps only winners for which this holds.
    pub fn retain(&mut self, holds: impl Fn(&Winner) -> bool) {
        self.winners.retain(holds);
    }

    fn whole(&self) -> Self {
        Self {
            format: FORMAT,
            winners: self.winners.clone(),
        }
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(dir)?;
        let mut staged = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut staged, &self.whole())?;
        staged.as_file().sync_all()?;
        staged.persist(path).map_err(|e| e.error)?;
        Ok(())
    }

    /// The winner for a problem on a GPU.
    #[must_use]
    pub fn find(&self, gpu: &Gpu, problem: &Problem) -> Option<&Winner> {
        self.winners
            .iter()
            .find(|w| w.gpu == *gpu && w.problem == *problem)
    }

    /// Puts a winner in, instead of an earlier one.
    pub fn put(&mut self, winner: Winner) {
        self.remove(&winner.gpu, &winner.problem);
        self.winners.push(winner);
    }

    /// Takes the winner for a problem on a GPU out, where there is one.
    pub fn remove(&mut self, gpu: &Gpu, problem: &Problem) {
        self.winners.retain(|w| w.gpu != *gpu || w.problem != *problem);
    }
}

fn understood(text: &str) -> Result<Record, String> {
    let record: Record = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if record.format != FORMAT {
        return Err(format!(
            "it is of format {}, and this program reads {FORMAT}",
            record.format
        ));
    }
    Ok(record)
}
