//! What was measured on this GPU, kept beside the cache.
//!
//! Invariant: a winner holds for its GPU and its problem alone, and a file that cannot
//! be read is an empty record.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Geometry, Gpu, Problem};
use crate::engine::jit::Jit;
use crate::engine::regular_file::{MAX_RECORDS, read_text};
use crate::engine::request::template::Registry;
use crate::measure::MeasureError;

/// Of the record's file; another format is no record.
const FORMAT: u32 = 1;

/// The fastest geometry found for a problem on a GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// The GPU.
    pub gpu: Gpu,
    /// The problem.
    pub problem: Problem,
    /// The geometry.
    pub geometry: Geometry,
    /// Its median, microseconds a launch.
    pub median_us: f64,
    /// Geometries that were timed.
    pub tried: u32,
}

/// What `jitc tune` found so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    pub(super) winners: Vec<Winner>,
}

impl Record {
    /// Where a cache's record lies: beside its entries.
    #[must_use]
    pub fn path(cache_dir: &Path) -> PathBuf {
        cache_dir.join("tuned.json")
    }

    /// Where what is tuned is kept: beside the entries of this cache.
    ///
    /// # Errors
    /// [`MeasureError::Request`] where there is no cache folder.
    pub fn beside_cache(jit: &Jit) -> Result<PathBuf, MeasureError> {
        let dir = jit.config().cache_dir();
        dir.map(|dir| Self::path(&dir))
            .ok_or_else(|| MeasureError::Request("there is no cache folder to keep the record beside".into()))
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
        match serde_json::from_str::<Self>(&text) {
            Ok(record) if record.format == FORMAT => record,
            Ok(record) => {
                tracing::warn!(
                    "{}: tuned geometry of format {}, this program reads {FORMAT}",
                    path.display(),
                    record.format
                );
                Self::default()
            }
            Err(error) => {
                tracing::warn!("{}: no tuned geometry is used: {error}", path.display());
                Self::default()
            }
        }
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(dir)?;
        let mut staged = tempfile::NamedTempFile::new_in(dir)?;
        let whole = Self {
            format: FORMAT,
            winners: self.winners.clone(),
        };
        serde_json::to_writer_pretty(&mut staged, &whole)?;
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
        self.winners
            .retain(|w| w.gpu != winner.gpu || w.problem != winner.problem);
        self.winners.push(winner);
    }
}
