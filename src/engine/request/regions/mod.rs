//! What a region is, and the tables of a family's regions.
//!
//! Invariant: a [`Table`] is everything that anybody knows about a family's
//! regions. The CUDA header, the buffer's size, the reducer's masks and every
//! report are made from it, and its identity travels with the buffer. A family
//! declares it (`[regions]` of its TOML); no table is written anywhere else.

mod declared;
mod file;
mod mask;

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use declared::Regions;
pub(crate) use file::{Constants, RegionsFile};
pub use mask::{Mask, PLACES, Place};

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
    /// Several families have a set of this size, and not the same one.
    #[error("{count} regions could be those of {families}: say which with --family")]
    Ambiguous {
        /// What the buffer has.
        count: u32,
        /// The families.
        families: String,
    },
}

/// Which blocks run a region.
#[derive(Debug, Clone, PartialEq)]
pub enum Active {
    /// All of them.
    All,
    /// One of those with the same bz, whichever was elected at run time.
    Elected,
    /// One of those with the same by and bz, whichever was elected at run time.
    ElectedPerTile,
    /// Those for which a condition holds.
    Blocks(Arc<Mask>),
}

impl Active {
    /// Whether the blocks are known only when the kernel has run.
    #[must_use]
    pub fn is_elected(&self) -> bool {
        matches!(self, Self::Elected | Self::ElectedPerTile)
    }
}

/// How often a region's two ticks are written in a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Once in a launch.
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
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Region {
    /// Its row in a block's part of the buffer.
    pub id: u32,
    /// Its name; in CUDA the type `jitc::region::<name>`.
    pub name: Arc<str>,
    /// What kind of time it holds, by the family's own list: `phase1`.
    pub class: Arc<str>,
    /// Whether it is waiting for other blocks, and not work.
    pub wait: bool,
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
        self.wait
    }

    /// Its line of what a table's identity is the hash of. The text is part of the
    /// format of buffers: another text is another identity for an equal table, and other
    /// machine code in every kernel with regions.
    fn hashed(&self) -> String {
        let class = upper_camel(&self.class);
        let active = match &self.active {
            Active::All => "All",
            Active::Elected => "Elected",
            Active::ElectedPerTile => "ElectedPerTile",
            Active::Blocks(mask) => mask.hashed_as(),
        };
        let scope = match self.scope {
            Scope::PerLaunch => "PerLaunch".to_owned(),
            Scope::PerIteration { sum: None } => "PerIteration { sum: None }".to_owned(),
            Scope::PerIteration { sum: Some(sum) } => format!("PerIteration {{ sum: Some({sum}) }}"),
            Scope::Sum { of } => format!("Sum {{ of: {of} }}"),
            Scope::Inside { of } => format!("Inside {{ of: {of} }}"),
        };
        let (id, name) = (self.id, &self.name);
        format!("Region {{ id: {id}, name: {name:?}, class: {class}, active: {active}, scope: {scope} }}")
    }
}

/// `barrier_wait` as `BarrierWait`.
fn upper_camel(name: &str) -> String {
    let mut out = String::new();
    for word in name.split('_') {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

/// What must hold between a launch's grid and the constants that masks read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// The condition; it reads no block's place.
    pub condition: Mask,
    /// Why, in one line.
    pub because: String,
}

/// Regions that are added up in a comparison of two launches.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Together {
    /// What people call them: `W_O and its waits`.
    pub name: String,
    /// Their names; those that a table lacks count as 0.
    pub regions: Vec<String>,
}

/// What all tables of a family share.
#[derive(Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Shared {
    /// The constants that masks and rules read, with the values that a buffer of unknown
    /// origin is taken to have: the family's defaults.
    pub constants: Vec<(String, u32)>,
    /// What must hold for a launch whose masks are to be believed.
    pub rules: Vec<Rule>,
    /// Regions that comparisons add up.
    pub together: Option<Together>,
    /// Parts of the kernel by what their regions' names begin with, and what people
    /// call them: `phase3`, `MLP`.
    pub parts: Vec<(String, String)>,
    /// Regions whose reduction runs along k, by name, and what people call them.
    pub along_k: Vec<(String, String)>,
}

/// A family's regions at one count. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Table {
    /// The family.
    pub family: Arc<str>,
    /// Its regions; the index is the id.
    pub regions: Arc<[Region]>,
    /// What all tables of the family share.
    pub shared: Arc<Shared>,
    /// What stands for the family in the identity.
    hashed_as: Arc<str>,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.family == other.family && self.hashed_as == other.hashed_as && self.regions == other.regions
    }
}

impl Table {
    /// How many regions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.regions.len()
    }

    /// The region of this name.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|r| &*r.name == name)
    }

    /// Hash of what the table says of its regions: equal for equal tables alone. The
    /// kernel writes it into the buffer, the reader holds it against its own.
    #[must_use]
    pub fn identity(&self) -> u64 {
        let mut text = (*self.hashed_as).to_owned();
        for region in &*self.regions {
            let _ = write!(text, "\n{}", region.hashed());
        }
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        u64::from_be_bytes(first)
    }
}

/// The text of `jitc/region_table.cuh` for one of a family's tables, which is known by
/// the name that stands for the family in its identity: a type a
/// region of any compiled set, so that a kernel is written once for every set; one that
/// the set lacks is `absent` and compiles to nothing. Without a table all are.
#[must_use]
pub(crate) fn header(known_as: &str, regions: Option<&Regions>, table: Option<&Table>) -> String {
    let count_text = match table {
        None => "no regions".to_owned(),
        Some(table) => format!("{} regions", table.count()),
    };
    let count = table.map_or(0, Table::count);
    let identity = table.map_or(0, Table::identity);
    let mut text = format!(
        "// Rendered from the region table of {known_as}: {count_text}.\n#pragma once\n\nnamespace jitc {{\n\n\
         constexpr unsigned region_absent = 0xffffffffu;\n\
         constexpr unsigned region_count = {count}u;\n\
         constexpr unsigned long long region_identity = {identity:#x}ull;\n\nnamespace region {{\n"
    );
    for name in regions.into_iter().flat_map(Regions::compiled_names) {
        let region = table.and_then(|t| t.region(name));
        let id = region.map_or("region_absent".to_owned(), |r| format!("{}u", r.id));
        let waits = region.is_some_and(Region::is_wait);
        let _ = writeln!(
            text,
            "struct {name} {{ static constexpr unsigned id = {id}; static constexpr bool waits = {waits}; }};"
        );
    }
    text.push_str("}  // namespace region\n\n}  // namespace jitc\n");
    text
}
