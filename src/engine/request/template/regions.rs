//! Region tables by families and their constants.
//!
//! Invariant: a name that a family had before is good wherever it is told whose regions
//! are meant, and stands for the constants that it fixes.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::constants::Constant;
use super::legal::Legal;
use super::{Family, NamedFamily, Registry};
use crate::engine::request::constant::Value;
use crate::engine::request::regions::{self, Constants, Regions, RegionsFile, Table, TableError};

impl Family {
    /// Its table of this many regions, for a kernel with these constants; `None` for 0.
    pub(crate) fn region_table(
        &self,
        constants: &BTreeMap<String, Value>,
    ) -> Result<Option<Table>, TableError> {
        let Some(regions) = &self.regions else {
            return Ok(None);
        };
        let count = constants.get(&regions.count).and_then(Value::as_number);
        let name_of = |name: &str| name_in(constants, name);
        match count.unwrap_or(0) {
            0 => Ok(None),
            count => regions.table(count, &name_of).map(Some),
        }
    }

    /// The text of the header that its regions are rendered to, for a kernel with these
    /// constants.
    pub(crate) fn region_header(&self, constants: &BTreeMap<String, Value>) -> Result<String, TableError> {
        let table = self.region_table(constants)?;
        let name_of = |name: &str| name_in(constants, name);
        let known_as = (self.regions.as_ref()).map_or(self.name.as_str(), |r| r.known_as(&name_of));
        Ok(regions::header(known_as, self.regions.as_ref(), table.as_ref()))
    }
}

impl Registry {
    /// What a family declares of its regions, by its name or a former one, as files of any
    /// age have it; nobody is told.
    ///
    /// # Errors
    /// [`TableError::NoTable`] for a family that declares none, and for no family.
    pub fn regions(&self, family: &str) -> Result<&Regions, TableError> {
        let present = self.formerly(family).map_or(family, |(family, _)| &family.name);
        let found = self.get(present).ok().and_then(|family| family.regions.as_ref());
        found.ok_or_else(|| TableError::NoTable {
            family: family.to_owned(),
            known: self.timed().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The table of `count` regions of a family that a person named. A former name also says
    /// with which constants; of tables that differ by one which nobody fixes, the first.
    ///
    /// # Errors
    /// Those of [`Self::regions`], and [`TableError::Count`].
    pub fn region_table(&self, family: &str, count: u32) -> Result<Table, TableError> {
        let named = self.named(family).ok();
        let former = named.as_ref().and_then(NamedFamily::former_name);
        let fixed = |name: &str| name_in(&former?.constants, name);
        self.regions(family)?.table(count, &fixed)
    }

    /// The table of a buffer of `count` regions where nobody says whose: of families with
    /// equal regions the first by name.
    ///
    /// # Errors
    /// [`TableError::UnknownCount`], and [`TableError::Ambiguous`] where the regions differ.
    pub fn region_table_of(&self, count: u32) -> Result<Table, TableError> {
        let all = self.timed().filter_map(|(_, regions)| regions.tables(count).ok());
        let tables: Vec<Table> = all.flatten().collect();
        let Some(first) = tables.first() else {
            let known = self
                .timed()
                .map(|(name, regions)| format!("{name} {}", regions.counts()));
            return Err(TableError::UnknownCount {
                count,
                known: known.collect::<Vec<_>>().join("; "),
            });
        };
        if tables.iter().any(|table| table.regions != first.regions) {
            let mut families: Vec<&str> = tables.iter().map(|table| &*table.family).collect();
            families.dedup();
            return Err(TableError::Ambiguous {
                count,
                families: families.join(" or "),
            });
        }
        Ok(first.clone())
    }

    /// The families that have regions, by name.
    fn timed(&self) -> impl Iterator<Item = (&str, &Regions)> {
        self.families()
            .filter_map(|family| Some((family.name.as_str(), family.regions.as_ref()?)))
    }
}

/// The name that an enum constant has.
fn name_in(constants: &BTreeMap<String, Value>, name: &str) -> Option<String> {
    Some(constants.get(name)?.as_name()?.to_owned())
}

/// Checks what a family declares against its constants.
pub(super) fn check(
    file: RegionsFile,
    family: &str,
    constants: &IndexMap<String, Constant>,
) -> Result<Regions, String> {
    let legal = |name: &str| constants.get(name).map(|constant| &constant.legal);
    let about = Constants {
        values: &|name| match legal(name) {
            Some(Legal::U32Values(values)) => Some(values.clone()),
            _ => None,
        },
        names: &|name| match legal(name) {
            Some(Legal::Enum { names, .. }) => Some(names.clone()),
            _ => None,
        },
        default: &|name| constants.get(name)?.default.as_number(),
        all: constants.keys().map(String::as_str).collect(),
    };
    file.check(family, &about)
}
