//! A launch's geometry, and which rows of a buffer a region can be in.
//!
//! Invariant: a mask comes from the geometry alone, never from what a buffer
//! holds and never from "the first n rows": rows outside it may be stale.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error as _};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};

use super::{Active, Mask, Place, RegionError, Table};
use crate::engine::request::spec::KernelSpec;

/// Whether each region has blocks of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The masks of the family's table hold: of the decode layer, a block a slot of `W_O`.
    #[default]
    Slots,
    /// Every block takes part in everything.
    Tiles,
}

/// The grid of a launch, the constants that its regions' masks read, and whether the
/// masks hold. The names of the sizes are nvllm's; files keep them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks in x.
    pub slice_ctas: u32,
    /// Blocks in y.
    pub num_k_tiles: u32,
    /// Blocks in z: sequences.
    pub num_seqs: u32,
    /// The constants that masks read, by name; in files they stand beside the grid.
    pub constants: BTreeMap<String, u32>,
    /// Whether masks hold.
    pub layout: Layout,
}

/// nvllm's grid for one sequence; no constants.
impl Default for Geometry {
    fn default() -> Self {
        Self {
            slice_ctas: 8,
            num_k_tiles: 8,
            num_seqs: 1,
            constants: BTreeMap::new(),
            layout: Layout::Slots,
        }
    }
}

/// The keys of a file that are no constants.
const GRID: [&str; 3] = ["slice_ctas", "num_k_tiles", "num_seqs"];
const LAYOUT: &str = "layout";

/// Flat: the grid, the constants, the layout. Constants go last name first, which for
/// nvllm's two is the order that files always had.
impl Serialize for Geometry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4 + self.constants.len()))?;
        for (name, size) in GRID.iter().zip(self.grid()) {
            map.serialize_entry(name, &size)?;
        }
        for (name, value) in self.constants.iter().rev() {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry(LAYOUT, &self.layout)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Geometry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let layout = match all.remove(LAYOUT) {
            None => Layout::default(),
            Some(layout) => serde_json::from_value(layout).map_err(D::Error::custom)?,
        };
        let mut constants = BTreeMap::new();
        for (name, value) in all {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            let number = number
                .ok_or_else(|| D::Error::custom(format!("geometry: `{name}` = {value}: expected a u32")))?;
            constants.insert(name, number);
        }
        let mut size = |name: &'static str| {
            let size = constants.remove(name);
            size.ok_or_else(|| D::Error::custom(format!("geometry: there is no `{name}`")))
        };
        Ok(Self {
            slice_ctas: size(GRID[0])?,
            num_k_tiles: size(GRID[1])?,
            num_seqs: size(GRID[2])?,
            constants,
            layout,
        })
    }
}

impl Geometry {
    /// This geometry with a value for one of the constants that masks read.
    #[must_use]
    pub fn with(mut self, name: &str, value: u32) -> Self {
        self.constants.insert(name.to_owned(), value);
        self
    }

    /// The geometry of a launch of `spec` on a grid: the constants that the masks of
    /// `table` read are the spec's, and the masks hold.
    #[must_use]
    pub fn of_launch(spec: &KernelSpec, table: &Table, grid: [u32; 3]) -> Self {
        let names = table.shared.constants.iter().map(|(name, _)| name);
        let [slice_ctas, num_k_tiles, num_seqs] = grid;
        Self {
            slice_ctas,
            num_k_tiles,
            num_seqs,
            constants: names
                .filter_map(|name| Some((name.clone(), spec.number(name)?)))
                .collect(),
            layout: Layout::Slots,
        }
    }

    /// Refuses what no launch has; a mask of it would be made up.
    pub fn check(&self, table: &Table) -> Result<(), RegionError> {
        let refused = |reason: String| Err(RegionError::Geometry { reason });
        if self.ctas() == 0 {
            return refused("a grid without blocks".to_owned());
        }
        let read = &table.shared.constants;
        if let Some((name, _)) = read.iter().find(|(name, _)| !self.constants.contains_key(name)) {
            return refused(format!("{name} is missing: masks of {} read it", table.family));
        }
        if let Some(name) = self
            .constants
            .keys()
            .find(|name| !read.iter().any(|(n, _)| n == *name))
        {
            return refused(format!("{name}: no mask of {} reads it", table.family));
        }
        if self.layout == Layout::Tiles {
            return Ok(());
        }
        let place = self.place(0);
        let rules = table.shared.rules.iter();
        match rules.into_iter().find(|rule| !rule.condition.holds(&place)) {
            None => Ok(()),
            Some(rule) => refused(format!("{}: {}", self.values(&rule.condition), rule.because)),
        }
    }

    /// The names that a condition reads, with their values here: `wo_split 8 and grid_x 4`.
    fn values(&self, condition: &Mask) -> String {
        let grid = ["grid_x", "grid_y", "grid_z"].into_iter().zip(self.grid());
        let value = |name: &str| {
            let size = grid.clone().find(|(of, _)| *of == name).map(|(_, size)| size);
            size.or_else(|| self.constants.get(name).copied()).unwrap_or(0)
        };
        let names = condition.names();
        let values: Vec<String> = names
            .iter()
            .map(|name| format!("{name} {}", value(name)))
            .collect();
        values.join(" and ")
    }

    /// Blocks in x, y and z.
    #[must_use]
    pub fn grid(&self) -> [u32; 3] {
        [self.slice_ctas, self.num_k_tiles, self.num_seqs]
    }

    /// Blocks of one sequence.
    #[must_use]
    pub fn ctas_per_seq(&self) -> usize {
        self.slice_ctas as usize * self.num_k_tiles as usize
    }

    /// Blocks of the launch.
    #[must_use]
    pub fn ctas(&self) -> usize {
        self.ctas_per_seq() * self.num_seqs as usize
    }

    /// 64-bit words of a device buffer for this grid: the blocks' rows, a word a
    /// block for its multiprocessor, a word for the identity.
    #[must_use]
    pub fn words(&self, table: &Table) -> usize {
        self.ctas() * (2 * table.count() + 1) + 1
    }

    /// bx, by and bz of a row.
    #[must_use]
    pub fn block(&self, cta: usize) -> (u32, u32, u32) {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (width, per_seq) = (self.slice_ctas.max(1) as usize, self.ctas_per_seq().max(1));
        (
            small(cta % width),
            small(cta % per_seq / width),
            small(cta / per_seq),
        )
    }

    fn place(&self, cta: usize) -> Place<'_> {
        let (bx, by, bz) = self.block(cta);
        Place {
            block: [bx, by, bz],
            grid: self.grid(),
            constants: &self.constants,
        }
    }

    /// Whether the block of this row can be in such a region.
    #[must_use]
    pub fn is_active(&self, active: &Active, cta: usize) -> bool {
        match active {
            Active::Blocks(mask) if self.layout == Layout::Slots => mask.holds(&self.place(cta)),
            _ => true,
        }
    }

    /// The most blocks that run such a region in one launch.
    #[must_use]
    pub fn expected(&self, active: &Active) -> usize {
        match active {
            _ if self.layout == Layout::Tiles => self.ctas(),
            Active::Elected => self.num_seqs as usize,
            Active::ElectedPerTile => self.num_seqs as usize * self.num_k_tiles as usize,
            Active::All | Active::Blocks(_) => (0..self.ctas())
                .filter(|&cta| self.is_active(active, cta))
                .count(),
        }
    }
}
