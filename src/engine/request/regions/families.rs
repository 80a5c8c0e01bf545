//! The regions of each family.
//!
//! Invariant: ids are rows, in order, without gaps; a name means the same points
//! of the code wherever it stands.

use super::Active::{All, Elected, ElectedPerTile, First, KvHeads, WoConsumers, WoSlots};
use super::Class::{BarrierWait, DynamicSingle, KernelBoundary, Phase0, Phase1, Phase3};
use super::Scope::{Inside, PerIteration, PerLaunch, Sum};
use super::{Active, Class, Region, Scope};

const fn region(id: u32, name: &'static str, class: Class, active: Active, scope: Scope) -> Region {
    Region {
        id,
        name,
        class,
        active,
        scope,
    }
}

const LAST_ONLY: Scope = PerIteration { sum: None };

/// The layer: nvllm's first set.
#[rustfmt::skip]
const LAYER_13: [Region; 13] = [
    region(0, "phase0_pre_attn", Phase0, First, PerLaunch),
    region(1, "phase1_attn_pre_wo", Phase1, KvHeads, PerLaunch),
    region(2, "phase1_wo_gemv", Phase1, WoSlots, PerLaunch),
    region(3, "phase1_wo_post", Phase1, WoSlots, PerLaunch),
    region(4, "grid_barrier_wait", BarrierWait, All, PerLaunch),
    region(5, "phase3_load_x", Phase3, All, PerLaunch),
    region(6, "phase3_partial_reset", Phase3, All, PerLaunch),
    region(7, "phase3_3a_fc1_silu", Phase3, All, LAST_ONLY),
    region(8, "phase3_3b_quant", Phase3, All, LAST_ONLY),
    region(9, "phase3_3c_fc2_atomic", Phase3, All, LAST_ONLY),
    region(10, "phase3_3d_arrival", Phase3, All, PerLaunch),
    region(11, "phase1_pre_wo_wait", BarrierWait, WoConsumers, PerLaunch),
    region(12, "phase1_gather_reduce", DynamicSingle, Elected, PerLaunch),
];

/// The layer: nvllm's last set. Sums account for every iteration.
#[rustfmt::skip]
const LAYER_20: [Region; 20] = [
    LAYER_13[0],
    LAYER_13[1],
    LAYER_13[2],
    LAYER_13[3],
    LAYER_13[4],
    LAYER_13[5],
    LAYER_13[6],
    region(7, "phase3_3a_fc1_silu", Phase3, All, PerIteration { sum: Some(16) }),
    region(8, "phase3_3b_quant", Phase3, All, PerIteration { sum: Some(17) }),
    region(9, "phase3_3c_fc2_last_iter", Phase3, All, PerIteration { sum: Some(18) }),
    LAYER_13[10],
    LAYER_13[11],
    LAYER_13[12],
    region(13, "prologue_pre_r0", KernelBoundary, All, PerLaunch),
    region(14, "epilogue_post_r10", KernelBoundary, All, PerLaunch),
    region(15, "phase3_3d_last_cta_gather", DynamicSingle, ElectedPerTile, Inside { of: 10 }),
    region(16, "phase3_3a_fc1_silu_per_call", Phase3, All, Sum { of: 7 }),
    region(17, "phase3_3b_quant_per_call", Phase3, All, Sum { of: 8 }),
    region(18, "phase3_3c_fc2_per_call", Phase3, All, Sum { of: 9 }),
    region(19, "phase3_post_loop_atomic", Phase3, All, PerLaunch),
];

/// jitc's own: also the wait between FC1 and FC2, which nvllm does not have
/// and which its tables, where a kernel has it, hold as arrival.
const LAYER_21: [Region; 21] = {
    let mut regions = [region(20, "phase3_fc2_wait", BarrierWait, All, PerLaunch); 21];
    let mut i = 0;
    while i < 20 {
        regions[i] = LAYER_20[i];
        i += 1;
    }
    regions
};

/// The `W_O` GEMV on its own. Unlike the layer, every block takes part in the
/// gather, so it is no region of an elected block and has a name of its own.
#[rustfmt::skip]
const WO: [Region; 4] = [
    region(0, "phase1_wo_stage", Phase1, WoSlots, PerLaunch),
    region(1, "phase1_wo_gemv", Phase1, WoSlots, PerLaunch),
    region(2, "grid_barrier_wait", BarrierWait, All, PerLaunch),
    region(3, "phase1_gather", Phase1, All, PerLaunch),
];

type Sets = &'static [&'static [Region]];

const FAMILIES: [(&str, Sets); 4] = [
    ("beta_coop", &[&LAYER_13, &LAYER_20, &LAYER_21]),
    ("beta_lite", &[&LAYER_13, &LAYER_20, &LAYER_21]),
    ("decode_layer", &[&LAYER_13, &LAYER_20, &LAYER_21]),
    ("wo_gemv", &[&WO]),
];

/// The families that have tables; a bare buffer belongs to the first that has as
/// many regions.
pub(super) fn names() -> [&'static str; 4] {
    FAMILIES.map(|(name, _)| name)
}

/// A family's sets, smallest first.
pub(super) fn sets(family: &str) -> Option<(&'static str, Sets)> {
    FAMILIES.into_iter().find(|(name, _)| *name == family)
}

/// The counts of sets, as a message shows them: `13, 20`.
pub(super) fn counts(sets: Sets) -> String {
    let counts: Vec<String> = sets.iter().map(|set| set.len().to_string()).collect();
    counts.join(", ")
}

/// Every name that any of a family's sets has, once.
pub(super) fn all_names(family: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for region in sets(family)
        .into_iter()
        .flat_map(|(_, sets)| sets.iter().copied().flatten())
    {
        if !names.contains(&region.name) {
            names.push(region.name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_rows_and_names_are_unique_in_a_set() {
        for (_, sets) in FAMILIES {
            for set in sets {
                for (row, region) in set.iter().enumerate() {
                    assert_eq!(region.id as usize, row, "{}", region.name);
                    assert_eq!(set.iter().filter(|r| r.name == region.name).count(), 1);
                }
            }
        }
    }

    #[test]
    fn sums_and_what_they_sum_name_each_other() {
        for region in LAYER_20 {
            match region.scope {
                Sum { of } => assert_eq!(LAYER_20[of as usize].scope, PerIteration { sum: Some(region.id) }),
                PerIteration { sum: Some(id) } => {
                    assert_eq!(LAYER_20[id as usize].scope, Sum { of: region.id });
                }
                _ => {}
            }
        }
    }
}
