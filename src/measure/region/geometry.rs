//! A launch's geometry, and which rows of a buffer a region can be in.
//!
//! Invariant: a mask comes from the geometry alone, never from what a buffer
//! holds and never from "the first n rows": rows outside it may be stale.

use serde::{Deserialize, Serialize};

use super::{Active, RegionError, Table};

/// How the blocks of a sequence share `W_O`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A block a slot: (bx, by) with `bx < wo_split` and `by < num_kv_heads`.
    #[default]
    Slots,
    /// Every block takes part in everything.
    Tiles,
}

/// The grid of a launch, (`slice_ctas`, `num_k_tiles`, `num_seqs`), and how it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Blocks in x.
    pub slice_ctas: u32,
    /// Blocks in y.
    pub num_k_tiles: u32,
    /// Blocks in z: sequences.
    pub num_seqs: u32,
    /// Slots of a kv head.
    pub wo_split: u32,
    /// Key/value heads.
    pub num_kv_heads: u32,
    /// How `W_O` is shared.
    #[serde(default)]
    pub layout: Layout,
}

/// nvllm's grid for one sequence at split 1.
impl Default for Geometry {
    fn default() -> Self {
        Self {
            slice_ctas: 8,
            num_k_tiles: 8,
            num_seqs: 1,
            wo_split: 1,
            num_kv_heads: 4,
            layout: Layout::Slots,
        }
    }
}

impl Geometry {
    /// Refuses what no launch has; a mask of it would be made up.
    pub fn check(&self) -> Result<(), RegionError> {
        let refused = |reason: String| Err(RegionError::Geometry { reason });
        if self.ctas() == 0 {
            return refused("a grid without blocks".to_owned());
        }
        if !matches!(self.wo_split, 1 | 2 | 4 | 8) {
            return refused(format!("wo_split {}: expected 1, 2, 4 or 8", self.wo_split));
        }
        if self.layout == Layout::Slots && self.wo_split > self.slice_ctas {
            return refused(format!(
                "wo_split {} and slice_ctas {}: a kv head has a block a slot",
                self.wo_split, self.slice_ctas
            ));
        }
        Ok(())
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

    /// Whether the block of this row can be in such a region.
    #[must_use]
    pub fn is_active(&self, active: Active, cta: usize) -> bool {
        let (bx, by, _) = self.block(cta);
        let head = by < self.num_kv_heads;
        if self.layout == Layout::Tiles {
            return true;
        }
        match active {
            Active::First => bx == 0 && by == 0,
            Active::KvHeads => bx == 0 && head,
            Active::WoSlots => bx < self.wo_split && head,
            Active::WoConsumers => 0 < bx && bx < self.wo_split && head,
            Active::All | Active::Elected | Active::ElectedPerTile => true,
        }
    }

    /// The most blocks that run such a region in one launch.
    #[must_use]
    pub fn expected(&self, active: Active) -> usize {
        match active {
            _ if self.layout == Layout::Tiles => self.ctas(),
            Active::Elected => self.num_seqs as usize,
            Active::ElectedPerTile => self.num_seqs as usize * self.num_k_tiles as usize,
            _ => (0..self.ctas())
                .filter(|&cta| self.is_active(active, cta))
                .count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(geometry: &Geometry, active: Active) -> Vec<usize> {
        (0..geometry.ctas())
            .filter(|&cta| geometry.is_active(active, cta))
            .collect()
    }

    #[test]
    fn a_mask_is_the_block_coordinates_and_not_the_first_rows() {
        let g = Geometry::default();
        assert_eq!(rows(&g, Active::First), [0]);
        assert_eq!(rows(&g, Active::KvHeads), [0, 8, 16, 24]);
        assert_eq!(rows(&g, Active::WoSlots), [0, 8, 16, 24]);
        assert!(rows(&g, Active::WoConsumers).is_empty());
        assert_eq!(rows(&g, Active::All).len(), 64);
    }

    #[test]
    fn every_split_has_its_own_writers_and_waiters() {
        for wo_split in [1, 2, 4, 8] {
            let g = Geometry {
                wo_split,
                ..Geometry::default()
            };
            assert_eq!(g.expected(Active::WoSlots), 4 * wo_split as usize);
            assert_eq!(g.expected(Active::WoConsumers), 4 * (wo_split as usize - 1));
            assert_eq!(g.expected(Active::KvHeads), 4);
        }
        let g = Geometry {
            wo_split: 2,
            ..Geometry::default()
        };
        assert_eq!(rows(&g, Active::WoSlots), [0, 1, 8, 9, 16, 17, 24, 25]);
        assert_eq!(rows(&g, Active::WoConsumers), [1, 9, 17, 25]);
    }

    #[test]
    fn every_sequence_repeats_the_mask_at_its_own_base() {
        let g = Geometry {
            num_seqs: 3,
            wo_split: 2,
            num_kv_heads: 2,
            ..Geometry::default()
        };
        assert_eq!(rows(&g, Active::First), [0, 64, 128]);
        assert_eq!(rows(&g, Active::WoConsumers), [1, 9, 65, 73, 129, 137]);
        assert_eq!(g.expected(Active::Elected), 3);
        assert_eq!(g.expected(Active::ElectedPerTile), 24);
    }

    #[test]
    fn a_geometry_that_no_launch_has_is_refused() {
        let refusal = |wo_split, slice_ctas, num_k_tiles| {
            let g = Geometry {
                slice_ctas,
                num_k_tiles,
                wo_split,
                ..Geometry::default()
            };
            g.check().expect_err("refused").to_string()
        };
        assert_eq!(refusal(3, 8, 8), "geometry: wo_split 3: expected 1, 2, 4 or 8");
        assert_eq!(
            refusal(8, 4, 8),
            "geometry: wo_split 8 and slice_ctas 4: a kv head has a block a slot"
        );
        assert_eq!(refusal(1, 8, 0), "geometry: a grid without blocks");
        let tiles = Geometry {
            slice_ctas: 1,
            wo_split: 8,
            layout: Layout::Tiles,
            ..Geometry::default()
        };
        assert!(tiles.check().is_ok());
    }

    #[test]
    fn heads_beyond_the_grid_have_no_rows() {
        let g = Geometry {
            num_k_tiles: 2,
            num_kv_heads: 4,
            ..Geometry::default()
        };
        assert_eq!(rows(&g, Active::KvHeads), [0, 8]);
    }
}
