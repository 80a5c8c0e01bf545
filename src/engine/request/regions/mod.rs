//! What a region is, and the table of a family's regions.
//!
//! Invariant: a [`Table`] is everything that anybody knows about a family's
//! regions. The CUDA header, the buffer's size, the reducer's masks and every
//! report are made from it, and its identity travels with the buffer.

mod families;

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

/// The name under which kernels include the rendered table.
pub const HEADER: &str = "jitc/region_table.cuh";

/// A table that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The family has no regions.
    #[error("family `{family}` has no region table: expected one of {known}")]
    NoTable {
        /// The family.
        family: String,
        /// Those that have.
        known: String,
    },
    /// The family has no set of this size.
    #[error("family `{family}` has no set of {count} regions: expected one of {legal}")]
    Count {
        /// The family.
        family: String,
        /// What was asked for.
        count: u32,
        /// What there is.
        legal: String,
    },
    /// No family has a set of this size.
    #[error("no family has {count} regions: known are {known}")]
    UnknownCount {
        /// What the buffer has.
        count: u32,
        /// Families and their counts.
        known: String,
    },
}

/// What kind of time a region holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Work before attention.
    Phase0,
    /// Attention and `W_O`.
    Phase1,
    /// Waiting for other blocks: never work.
    BarrierWait,
    /// The MLP.
    Phase3,
    /// Work of a block that was elected at run time.
    DynamicSingle,
    /// From a kernel's start to its first region, and from its last to its end.
    KernelBoundary,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Phase0 => "phase0",
            Self::Phase1 => "phase1",
            Self::BarrierWait => "barrier_wait",
            Self::Phase3 => "phase3",
            Self::DynamicSingle => "dynamic_single",
            Self::KernelBoundary => "kernel_boundary",
        })
    }
}

/// Which blocks of a sequence run a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Active {
    /// Block (0, 0).
    First,
    /// One a kv head: bx = 0.
    KvHeads,
    /// Those that own a slot of `W_O`: `bx < wo_split`.
    WoSlots,
    /// Those that wait for another block's attention: `0 < bx < wo_split`.
    WoConsumers,
    /// All of them.
    All,
    /// The one that arrived last; any of them.
    Elected,
    /// The last to arrive of each output tile; any of them.
    ElectedPerTile,
}

/// How often a region's two ticks are written in a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Once.
    PerLaunch,
    /// In every iteration; the last one stays. The region named sums them all.
    PerIteration {
        /// The region that holds the sum; `None` where nothing does.
        sum: Option<u32>,
    },
    /// Once, with the sum of another region's iterations: 0 and the sum.
    Sum {
        /// The region that is summed.
        of: u32,
    },
    /// Once, wholly inside another region.
    Inside {
        /// The region around it.
        of: u32,
    },
}

/// One region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Region {
    /// Its row in a block's part of the buffer.
    pub id: u32,
    /// Its name; in CUDA the type `jitc::measure::region::<name>`.
    pub name: &'static str,
    /// What kind of time it holds.
    pub class: Class,
    /// Which blocks run it.
    pub active: Active,
    /// How often it is written.
    pub scope: Scope,
}

impl Region {
    /// Whether its two ticks are moments, so that it can be drawn.
    #[must_use]
    pub fn is_span(&self) -> bool {
        !matches!(self.scope, Scope::Sum { .. })
    }

    /// Whether it is waiting and not work.
    #[must_use]
    pub fn is_wait(&self) -> bool {
        self.class == Class::BarrierWait
    }
}

/// A family's regions at one count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The family.
    pub family: &'static str,
    /// Its regions; the index is the id.
    pub regions: &'static [Region],
}

impl Table {
    /// The table of `family` with `count` regions.
    pub fn of(family: &str, count: u32) -> Result<Self, TableError> {
        let (family, sets) = families::sets(family).ok_or_else(|| TableError::NoTable {
            family: family.to_owned(),
            known: families::names().join(", "),
        })?;
        sets.iter()
            .find(|set| set.len() == count as usize)
            .map(|regions| Self { family, regions })
            .ok_or_else(|| TableError::Count {
                family: family.to_owned(),
                count,
                legal: families::counts(sets),
            })
    }

    /// The table that a buffer of `count` regions has, where nobody says which.
    pub fn of_count(count: u32) -> Result<Self, TableError> {
        families::names()
            .iter()
            .find_map(|family| Self::of(family, count).ok())
            .ok_or_else(|| TableError::UnknownCount {
                count,
                known: families::names()
                    .iter()
                    .filter_map(|name| families::sets(name))
                    .map(|(name, sets)| format!("{name} {}", families::counts(sets)))
                    .collect::<Vec<_>>()
                    .join("; "),
            })
    }

    /// How many regions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.regions.len()
    }

    /// The region of this name.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<&'static Region> {
        self.regions.iter().find(|r| r.name == name)
    }

    /// Hash of everything that the table says: equal for equal tables alone. The
    /// kernel writes it into the buffer, the reader holds it against its own.
    #[must_use]
    pub fn identity(&self) -> u64 {
        let mut text = self.family.to_owned();
        for region in self.regions {
            let _ = write!(text, "\n{region:?}");
        }
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        u64::from_be_bytes(first)
    }
}

/// The text of `jitc/region_table.cuh` for a family at a count: a type a region,
/// all of them, so that a kernel is written once for every set; one that the set
/// lacks is `absent` and compiles to nothing.
pub fn header(family: &str, count: u32) -> Result<String, TableError> {
    let (table, count_text) = match count {
        0 => (None, "no regions".to_owned()),
        n => (Some(Table::of(family, n)?), format!("{n} regions")),
    };
    let identity = table.map_or(0, |t| t.identity());
    let mut text = format!(
        "// Rendered from the region table of {family}: {count_text}.\n#pragma once\n\nnamespace jitc {{\n\n\
         constexpr unsigned region_absent = 0xffffffffu;\n\
         constexpr unsigned region_count = {count}u;\n\
         constexpr unsigned long long region_identity = {identity:#x}ull;\n\nnamespace region {{\n"
    );
    for name in families::all_names(family) {
        let region = table.and_then(|t| t.region(name));
        let id = region.map_or("region_absent".to_owned(), |r| format!("{}u", r.id));
        let waits = region.is_some_and(|r| r.class == Class::BarrierWait);
        let _ = writeln!(
            text,
            "struct {name} {{ static constexpr unsigned id = {id}; static constexpr bool waits = {waits}; }};"
        );
    }
    text.push_str("}  // namespace region\n\n}  // namespace jitc\n");
    Ok(text)
}
