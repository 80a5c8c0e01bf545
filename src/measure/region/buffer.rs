//! Ticks of one launch, on their way from the device to a report.
//!
//! Invariant: [`Ticks`] are always of one table and one geometry, with as many
//! numbers as the two say. Where a buffer comes from a kernel or a file of ours,
//! the table's identity was compared; a bare file of nvllm's has none, and
//! its shape decides.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Array, Geometry, Region, RegionError, Scope, Table, TableError, npy};
use crate::engine::atomic_file::write_text;
use crate::engine::refused::Refused;
use crate::engine::regular_file::{self, MAX_RECORDS};
use crate::engine::request::constant::Value;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::Registry;

/// The clock that ticks were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TickSource {
    /// Nanoseconds, one clock for the whole device, in steps of its own.
    #[default]
    GlobalTimer,
    /// Cycles of one multiprocessor; never converted, never compared with another's.
    Clock64,
}

impl TickSource {
    /// Its name, as nvllm and the constant `tick_source` spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GlobalTimer => "globaltimer",
            Self::Clock64 => "clock64",
        }
    }

    /// The clock of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::GlobalTimer, Self::Clock64]
            .into_iter()
            .find(|s| s.name() == name)
    }

    /// The clock that a kernel's regions read; globaltimer where its family declares none.
    #[must_use]
    pub fn of_spec(spec: &KernelSpec) -> Self {
        let clock = spec.family().regions.as_ref().and_then(|r| r.clock.as_ref());
        let value = clock.and_then(|name| spec.constants().get(name));
        value
            .and_then(Value::as_name)
            .and_then(Self::of)
            .unwrap_or_default()
    }
}

/// A device buffer: whose regions it has room for, and where it lies.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegionBuffer {
    /// The table that it was made for.
    pub table: Table,
    /// The grid that it was made for.
    pub geometry: Geometry,
    /// Its device address; [`Geometry::words`] words.
    pub address: u64,
}

/// The value of a kernel's parameter `region_timing`: 0 where it has no regions,
/// else the buffer's address. No buffer, or another table's or grid's, is an error
/// here and not a store to address 0 there.
pub fn argument(
    buffer: Option<&RegionBuffer>,
    spec: &KernelSpec,
    geometry: &Geometry,
) -> Result<u64, RegionError> {
    let Some(table) = spec.region_table()? else {
        return Ok(0);
    };
    let buffer = buffer
        .filter(|b| b.address != 0)
        .ok_or_else(|| RegionError::NoBuffer {
            family: table.family.to_string(),
            count: u32::try_from(table.count()).unwrap_or(u32::MAX),
        })?;
    if buffer.table.identity() != table.identity() {
        return Err(RegionError::OtherTable {
            found: describe(&buffer.table),
            expected: describe(&table),
        });
    }
    if buffer.geometry.ctas() < geometry.ctas() {
        return Err(RegionError::Rows {
            what: "the buffer".to_owned(),
            found: buffer.geometry.ctas(),
            expected: geometry.ctas(),
        });
    }
    Ok(buffer.address)
}

fn describe(table: &Table) -> String {
    format!("{} with {} regions", table.family, table.count())
}

/// Ticks of one launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticks {
    /// Whose regions.
    pub table: Table,
    /// Of which launch.
    pub geometry: Geometry,
    /// Read from which clock.
    pub source: TickSource,
    /// Entry and exit of every region of every block, in that order of nesting.
    pub pairs: Vec<[i64; 2]>,
    /// The multiprocessor of every block, where it is known.
    pub sms: Option<Vec<u32>>,
    /// The launch's time, measured from outside, microseconds.
    pub launch_us: Option<f64>,
    /// What it is, for people.
    pub label: String,
}

/// What stands beside a `.npy` file, in a file of the same name that ends in
/// `.json`: everything that the numbers do not say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sidecar {
    schema: String,
    label: String,
    family: String,
    num_regions: u32,
    identity: String,
    geometry: Geometry,
    tick_source: TickSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launch_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sms: Option<Vec<u32>>,
}

const SCHEMA: &str = "jitc.region-buffer.v1";

impl Ticks {
    /// From the words that a kernel wrote.
    pub fn from_words(
        table: Table,
        geometry: Geometry,
        source: TickSource,
        words: &[u64],
    ) -> Result<Self, RegionError> {
        let ctas = geometry.ctas();
        let expected = geometry.words(&table);
        if words.len() != expected {
            return Err(RegionError::Words {
                found: words.len(),
                expected,
            });
        }
        let (rows, rest) = words.split_at(2 * ctas * table.count());
        if rest[ctas] != table.identity() {
            return Err(RegionError::OtherWriter {
                found: rest[ctas],
                expected: describe(&table),
            });
        }
        let (pairs, _) = rows.as_chunks::<2>();
        Ok(Self {
            label: table.family.to_string(),
            table,
            geometry,
            source,
            pairs: pairs.iter().map(|p| p.map(u64::cast_signed)).collect(),
            sms: Some(
                rest[..ctas]
                    .iter()
                    .map(|&sm| u32::try_from(sm).unwrap_or(u32::MAX))
                    .collect(),
            ),
            launch_us: None,
        })
    }

    /// From an array of shape (blocks, regions, 2).
    pub fn from_array(
        file: &str,
        array: &Array,
        table: Table,
        geometry: Geometry,
        source: TickSource,
    ) -> Result<Self, RegionError> {
        let (ctas, regions) = shape_of(file, array)?;
        if table.count() != regions {
            return Err(RegionError::OtherTable {
                found: format!("{file}: {regions} regions"),
                expected: describe(&table),
            });
        }
        geometry.check(&table)?;
        if ctas != geometry.ctas() {
            return Err(RegionError::Rows {
                what: file.to_owned(),
                found: ctas,
                expected: geometry.ctas(),
            });
        }
        let (pairs, _) = array.data.as_chunks::<2>();
        Ok(Self {
            table,
            geometry,
            source,
            pairs: pairs.to_vec(),
            sms: None,
            launch_us: None,
            label: file.to_owned(),
        })
    }

    /// Reads a `.npy` file and, if it stands there, the `.json` file beside it.
    /// Where that one speaks it decides; `bare` is for files without one.
    pub fn open(path: &Path, bare: &Bare, registry: &Registry) -> Result<Self, RegionError> {
        let beside = sidecar(path);
        if !beside.exists() {
            return Self::open_bare(path, bare, registry);
        }
        let array = npy::read(path)?;
        let file = path.display().to_string();
        let about: Sidecar =
            serde_json::from_slice(&regular_file::read(&beside, MAX_RECORDS)?).map_err(|e| {
                RegionError::Sidecar {
                    file: beside.display().to_string(),
                    reason: e.to_string(),
                }
            })?;
        if about.schema != SCHEMA {
            return Err(RegionError::Sidecar {
                file: beside.display().to_string(),
                reason: format!("schema `{}`: expected {SCHEMA}", about.schema),
            });
        }
        let tables = registry.regions(&about.family)?.tables(about.num_regions)?;
        let own = |table: &&Table| about.identity == format!("{:016x}", table.identity());
        let Some(table) = tables.iter().find(own) else {
            let expected = tables
                .iter()
                .map(|t| format!("{:016x}, {}", t.identity(), describe(t)));
            return Err(RegionError::OtherTable {
                found: format!("{}: identity {}", beside.display(), about.identity),
                expected: expected.collect::<Vec<_>>().join("; "),
            });
        };
        let mut ticks = Self::from_array(&file, &array, table.clone(), about.geometry, about.tick_source)?;
        if let Some(sms) = &about.sms
            && sms.len() != ticks.geometry.ctas()
        {
            return Err(RegionError::Rows {
                what: format!("{}: `sms`", beside.display()),
                found: sms.len(),
                expected: ticks.geometry.ctas(),
            });
        }
        ticks.sms = about.sms;
        ticks.launch_us = about.launch_us;
        ticks.label = about.label;
        Ok(ticks)
    }

    /// Reads a `.npy` file and nothing beside it.
    pub fn open_bare(path: &Path, bare: &Bare, registry: &Registry) -> Result<Self, RegionError> {
        let array = npy::read(path)?;
        let file = path.display().to_string();
        let table = bare.table(&file, &array, registry)?;
        let mut geometry = bare.geometry.clone();
        for (name, default) in &table.shared.constants {
            geometry.constants.entry(name.clone()).or_insert(*default);
        }
        let mut ticks = Self::from_array(&file, &array, table, geometry, bare.source)?;
        ticks.label = path
            .file_stem()
            .map_or(file, |s| s.to_string_lossy().into_owned());
        Ok(ticks)
    }

    /// Writes the `.npy` file and the `.json` file beside it.
    pub fn save(&self, path: &Path) -> Result<(), RegionError> {
        let array = Array {
            shape: vec![self.geometry.ctas(), self.table.count(), 2],
            data: self.pairs.iter().copied().flatten().collect(),
        };
        npy::write(path, &array)?;
        let about = Sidecar {
            schema: SCHEMA.to_owned(),
            label: self.label.clone(),
            family: self.table.family.to_string(),
            num_regions: u32::try_from(self.table.count()).unwrap_or(u32::MAX),
            identity: format!("{:016x}", self.table.identity()),
            geometry: self.geometry.clone(),
            tick_source: self.source,
            launch_us: self.launch_us,
            sms: self.sms.clone(),
        };
        let text = serde_json::to_string(&about).map_err(|e| RegionError::Sidecar {
            file: path.display().to_string(),
            reason: e.to_string(),
        })?;
        Ok(write_text(&sidecar(path), &(text + "\n"))?)
    }

    /// Entry and exit of a region in a block.
    #[must_use]
    pub fn pair(&self, cta: usize, region: u32) -> [i64; 2] {
        self.pairs[cta * self.table.count() + region as usize]
    }

    /// The regions whose times add up to a block's account: each once, and a loop's
    /// as its sum, or as its last iteration where no block has written a sum.
    #[must_use]
    pub fn accounted(&self) -> Vec<&Region> {
        let written = |region: u32| (0..self.geometry.ctas()).any(|cta| self.delta(cta, region).is_some());
        let regions = self.table.regions.iter();
        regions
            .filter(|region| match region.scope {
                Scope::PerLaunch | Scope::Sum { .. } => true,
                Scope::PerIteration { sum } => !sum.is_some_and(written),
                Scope::Inside { .. } => false,
            })
            .collect()
    }

    /// Exit minus entry, where the block runs the region and the time is positive.
    #[must_use]
    pub fn delta(&self, cta: usize, region: u32) -> Option<i64> {
        let active = &self.table.regions[region as usize].active;
        let [entry, exit] = self.pair(cta, region);
        let delta = exit.wrapping_sub(entry);
        (delta > 0 && self.geometry.is_active(active, cta)).then_some(delta)
    }
}

/// What is said of a file that has no `.json` beside it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Bare {
    /// Whose regions; `None`: the family that has as many.
    pub family: Option<String>,
    /// The launch's grid; constants that masks read and that it lacks are at their
    /// family's defaults.
    pub geometry: Geometry,
    /// The clock.
    pub source: TickSource,
}

/// The constants that masks of some family's regions read.
#[must_use]
pub fn masked_constants(registry: &Registry) -> BTreeSet<&str> {
    let regions = registry.families().filter_map(|family| family.regions.as_ref());
    regions
        .flat_map(|regions| regions.masked().map(|(name, _)| name))
        .collect()
}

impl Bare {
    /// What somebody says of it, by the names of the geometry's parts: `slice_ctas`,
    /// `num_k_tiles`, `num_tokens`, `tick_source`, and constants that masks read. What is not
    /// said is as usual.
    ///
    /// # Errors
    /// One line on a number or a clock that is none.
    pub fn said<'t>(
        registry: &Registry,
        family: Option<String>,
        said: &dyn Fn(&str) -> Option<&'t str>,
    ) -> Result<Self, Refused> {
        let number = |name: &str, usual: u32| match said(name) {
            None => Ok(usual),
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=65_536).contains(n))
                .ok_or_else(|| format!("{name} = {text}: expected a whole number from 1 to 65536")),
        };
        let source = match said("tick_source") {
            None => TickSource::default(),
            Some(text) => TickSource::of(text)
                .ok_or_else(|| format!("tick_source = {text}: expected globaltimer or clock64"))?,
        };
        let usual = Geometry::default();
        let mut geometry = Geometry {
            slice_ctas: number("slice_ctas", usual.slice_ctas)?,
            num_k_tiles: number("num_k_tiles", usual.num_k_tiles)?,
            num_seqs: number("num_tokens", usual.num_seqs)?,
            ..usual
        };
        for name in masked_constants(registry) {
            if said(name).is_some() {
                geometry = geometry.with(name, number(name, 1)?);
            }
        }
        Ok(Self {
            family,
            geometry,
            source,
        })
    }

    /// The table of a file: the family's that is named, else the one of that many regions.
    fn table(&self, file: &str, array: &Array, registry: &Registry) -> Result<Table, RegionError> {
        let (_, regions) = shape_of(file, array)?;
        let count = u32::try_from(regions).unwrap_or(u32::MAX);
        let Some(family) = &self.family else {
            return registry.region_table_of(count).map_err(|error| match error {
                TableError::UnknownCount { count, known } => RegionError::FileCount {
                    file: file.to_owned(),
                    count,
                    known,
                },
                error => error.into(),
            });
        };
        Ok(registry.region_table(family, count)?)
    }
}

/// The `.json` beside a `.npy`.
#[must_use]
pub fn sidecar(path: &Path) -> PathBuf {
    path.with_extension("json")
}

/// Blocks and regions of an array of shape (blocks, regions, 2).
fn shape_of(file: &str, array: &Array) -> Result<(usize, usize), RegionError> {
    match array.shape.as_slice() {
        &[ctas, regions, 2] => Ok((ctas, regions)),
        shape => Err(RegionError::Shape {
            file: file.to_owned(),
            shape: format!("{shape:?}").replace('[', "(").replace(']', ")"),
        }),
    }
}
