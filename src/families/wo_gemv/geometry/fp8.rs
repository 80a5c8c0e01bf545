//! The rule for FP8 weights, in either mode.
//!
//! Invariant: bytes and warps are those that the family derives.

use super::{Geometry, Gpu, alone, mma};

/// Rings of a block hold no more bytes than that: with more in flight the first stage, which
/// all else waits for, comes later.
const MOST_IN_RINGS: u32 = 120 << 10;

/// Warps of a block that run chains, where there is as much to do.
const LEAST_WARPS: u32 = 8;
const MOST_WARPS: u32 = 12;

/// A shape, as far as blocks see it.
#[derive(Clone, Copy)]
pub(super) struct Fp8Shape {
    pub hidden: u32,
    pub k: u32,
    pub slots: u32,
}

/// What one block takes besides its rows.
struct Block {
    warps: u32,
    /// Bytes of a stage of one warp's ring.
    stage: u32,
    /// Sums of a row and token.
    sums: u32,
}

impl Block {
    fn bytes(&self, shape: Fp8Shape, ring: u32, tokens: u32, rows: u32) -> u32 {
        self.warps * ring * self.stage + tokens * (2 * shape.k + 16) + rows * (4 + tokens * self.sums * 4)
    }

    /// The longest ring of up to four pieces that fits; none where not even two do.
    fn ring(&self, gpu: &Gpu, shape: Fp8Shape, tokens: u32, rows: u32) -> Option<u32> {
        let most = (MOST_IN_RINGS / (self.warps * self.stage)).clamp(2, 4);
        (2..=most)
            .rev()
            .find(|ring| self.bytes(shape, *ring, tokens, rows) <= gpu.shared_mem_per_block)
    }
}

/// A block a multiprocessor, or as many in turn as it takes for two tokens or more to share a
/// decode, and rings as long as fit.
pub(super) fn heuristic(gpu: &Gpu, tokens: u32, shape: Fp8Shape, by_mma: bool) -> Geometry {
    let unit = if by_mma { 8 } else { unit_rows(shape.slots) };
    let rows_of = |turns: u32| {
        let blocks = gpu.sm_count.max(1) * turns;
        (shape.hidden.div_ceil(unit).div_ceil(blocks) * unit).clamp(unit, 128)
    };
    let block_of = |rows: u32| {
        if by_mma {
            let part = mma::part_len(shape.k / shape.slots.max(1)).unwrap_or(shape.k.max(1));
            Block {
                warps: mma::warps(shape.k, part),
                stage: 2048,
                sums: shape.k / part,
            }
        } else {
            Block {
                warps: warps(rows, shape.slots),
                stage: 4096,
                sums: shape.slots,
            }
        }
    };
    let turns = 1..=shape.hidden.div_ceil(unit);
    let most = tokens.clamp(1, 8).next_power_of_two();
    let fitting = |tokens: u32| {
        turns.clone().map(rows_of).find_map(|rows| {
            let block = block_of(rows);
            let ring = block.ring(gpu, shape, tokens, rows)?;
            Some((rows, ring, block))
        })
    };
    let found = (0..=3).rev().map(|log| 1 << log).filter(|tokens| *tokens <= most);
    let found = found
        .into_iter()
        .find_map(|tokens| Some((tokens, fitting(tokens)?)));
    let Some((tokens, (rows, ring, block))) = found else {
        return Geometry::new();
    };
    let rows_name = if by_mma { "mma_rows" } else { "rows_per_cta" };
    let mut chosen = vec![(rows_name, rows), ("tokens_per_pass", tokens), ("mma_ring", ring)];
    if !by_mma {
        chosen.push(("num_threads", block.warps * 32));
    }
    let bytes = block.bytes(shape, ring, tokens, rows);
    chosen.extend(alone(gpu, shape.hidden.div_ceil(rows), bytes));
    chosen
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect()
}

/// Rows that a warp's 32 chains are of: up to four slots side by side.
fn unit_rows(slots: u32) -> u32 {
    32 / slots.clamp(1, 4)
}

/// Warps for the shortest way through a block's units of 32 chains: a multiprocessor's four
/// schedulers have a quarter of the warps each, which take the units in turns.
fn warps(rows: u32, slots: u32) -> u32 {
    let units = rows.div_ceil(unit_rows(slots)) * (slots / slots.clamp(1, 4));
    let turns = |warps: u32| warps.div_ceil(4) * units.div_ceil(warps);
    let warps = units.clamp(1, LEAST_WARPS)..=units.clamp(1, MOST_WARPS);
    warps.min_by_key(|warps| turns(*warps)).unwrap_or(1)
}

/// What there is to try.
pub(super) fn space(by_mma: bool, tokens: usize) -> Vec<(&'static str, &'static [u32])> {
    let passes: &[u32] = match tokens {
        0 | 1 => &[1],
        2 => &[1, 2],
        3 | 4 => &[2, 4],
        _ => &[4, 8],
    };
    if by_mma {
        vec![
            ("mma_rows", &[16, 24, 40]),
            ("mma_warps", &[8, 12, 16]),
            ("mma_ring", &[2, 3, 4, 6]),
            ("tokens_per_pass", passes),
        ]
    } else {
        vec![
            ("rows_per_cta", &[24, 40, 48]),
            ("num_threads", &[160, 256, 320, 448]),
            ("mma_ring", &[2, 3, 4, 6]),
            ("tokens_per_pass", passes),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::wo_gemv::geometry;
    use crate::measure::tune::tests::{gpu, problem};

    fn chosen(split: u32, tokens: u32, mode: &str) -> Geometry {
        let mut asked = problem(split, tokens);
        asked.constants.insert("accumulate".into(), mode.into());
        asked.constants.insert("wo_format".into(), "fp8".into());
        geometry::heuristic(&gpu(132), &asked)
    }

    #[test]
    fn by_rule_fp8_weights_get_a_block_a_multiprocessor_and_rings_that_fit() {
        let exact = chosen(8, 1, "fma");
        assert_eq!((&*exact["rows_per_cta"], &*exact["num_threads"]), ("40", "256"));
        assert_eq!(chosen(1, 1, "mul_add")["num_threads"], "160");
        let mma = chosen(8, 1, "mma");
        assert_eq!((&*mma["mma_rows"], &*mma["mma_ring"]), ("40", "3"));
        assert!(!mma.contains_key("num_threads"));
        assert_eq!(chosen(8, 9, "mma")["tokens_per_pass"], "8");
    }

    #[test]
    fn by_rule_the_warps_of_a_block_take_like_numbers_of_units() {
        assert_eq!(
            [warps(40, 32), warps(40, 4), warps(64, 1), warps(40, 128)],
            [8, 5, 2, 8]
        );
    }

    #[test]
    fn the_space_of_fp8_weights_sets_what_their_modes_read() {
        assert!(space(true, 1).iter().all(|(name, _)| *name != "rows_per_cta"));
        assert!(space(false, 4).iter().all(|(name, _)| *name != "mma_rows"));
    }
}
