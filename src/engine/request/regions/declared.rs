//! What a family declares of its regions: its sets, and the tables made from them.
//!
//! Invariant: a set was checked when the family was read; here nothing can be wrong but
//! the count that is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Region, Shared, Table, TableError};

/// What a family declares of its regions.
#[derive(Debug)]
#[non_exhaustive]
pub struct Regions {
    pub(super) family: Arc<str>,
    /// The constant whose value is how many regions a kernel is compiled with.
    pub count: String,
    /// The constant that is the clock's name; without one it is `globaltimer`.
    pub clock: Option<String>,
    /// The parameter that ticks are written to.
    pub buffer: String,
    pub(super) hashed_as: HashedAs,
    /// The sets, smallest first.
    pub(super) sets: Vec<Set>,
    pub(super) shared: Arc<Shared>,
}

/// One set of regions.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) regions: Arc<[Region]>,
    /// Whether no kernel is compiled with it, and buffers of it are only read.
    pub(super) read_only: bool,
}

/// What stands for the family in the identity: a name, or one for each value of an enum
/// constant.
#[derive(Debug)]
pub(super) enum HashedAs {
    Name(Arc<str>),
    By(String, BTreeMap<String, Arc<str>>),
}

impl Regions {
    /// The legal counts, as a message shows them: `13, 20`.
    #[must_use]
    pub fn counts(&self) -> String {
        let counts: Vec<String> = self
            .sets
            .iter()
            .map(|set| set.regions.len().to_string())
            .collect();
        counts.join(", ")
    }

    /// The largest set that a kernel can be compiled with.
    #[must_use]
    pub fn largest(&self) -> u32 {
        let compiled = self.sets.iter().filter(|set| !set.read_only);
        compiled.map(|set| length(&set.regions)).max().unwrap_or(0)
    }

    /// The constants that masks read, with their defaults.
    pub fn masked(&self) -> impl Iterator<Item = (&str, u32)> {
        let constants = self.shared.constants.iter();
        constants.map(|(name, default)| (name.as_str(), *default))
    }

    /// Every name that a compiled set has, once, smaller sets first.
    #[must_use]
    pub fn compiled_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let compiled = self.sets.iter().filter(|set| !set.read_only);
        for region in compiled.flat_map(|set| &*set.regions) {
            if !names.contains(&&*region.name) {
                names.push(&region.name);
            }
        }
        names
    }

    /// The table of this many regions, for a kernel with these values of enum constants.
    pub fn table(&self, count: u32, name_of: &dyn Fn(&str) -> Option<String>) -> Result<Table, TableError> {
        let set = self.set(count)?;
        Ok(self.with(set, self.known_as(name_of)))
    }

    /// What stands for the family in the identity, for a kernel with these values of enum
    /// constants; where one is not given, its first.
    pub(crate) fn known_as(&self, name_of: &dyn Fn(&str) -> Option<String>) -> &Arc<str> {
        let found = match &self.hashed_as {
            HashedAs::Name(name) => Some(name),
            HashedAs::By(constant, names) => match name_of(constant) {
                Some(value) => names.get(&value),
                None => names.values().next(),
            },
        };
        // A value that is no key cannot be: the names were compared when the family was read.
        found.unwrap_or(&self.family)
    }

    /// The tables that a buffer of this many regions can have, one at least; more where
    /// the identity depends on a constant.
    pub fn tables(&self, count: u32) -> Result<Vec<Table>, TableError> {
        let set = self.set(count)?;
        Ok(match &self.hashed_as {
            HashedAs::Name(name) => vec![self.with(set, name)],
            HashedAs::By(_, names) => names.values().map(|name| self.with(set, name)).collect(),
        })
    }

    /// The first of [`Self::tables`].
    pub fn first(&self, count: u32) -> Result<Table, TableError> {
        self.table(count, &|_| None)
    }

    fn set(&self, count: u32) -> Result<&Set, TableError> {
        let found = self.sets.iter().find(|set| length(&set.regions) == count);
        found.ok_or_else(|| TableError::Count {
            family: self.family.to_string(),
            count,
            legal: self.counts(),
        })
    }

    fn with(&self, set: &Set, hashed_as: &Arc<str>) -> Table {
        Table {
            family: Arc::clone(&self.family),
            regions: Arc::clone(&set.regions),
            shared: Arc::clone(&self.shared),
            hashed_as: Arc::clone(hashed_as),
        }
    }
}

fn length(regions: &[Region]) -> u32 {
    u32::try_from(regions.len()).unwrap_or(u32::MAX)
}
