//! The layer's sets of regions: identities that buffers and kernels hold, masks of
//! nvllm's grid, and nvllm's sets before and between its changes.

use super::tests::{spec, table_of};
use crate::measure::region::{Active, Geometry, Region, RegionError, Scope};

fn original(wo_split: u32) -> Geometry {
    Geometry::default()
        .with("wo_split", wo_split)
        .with("num_kv_heads", 4)
}

fn active(name: &str) -> Active {
    let table = table_of("decode_layer", 20);
    table.region(name).expect("a region").active.clone()
}

const FIRST: &str = "phase0_pre_attn";
const KV_HEADS: &str = "phase1_attn_pre_wo";
const WO_SLOTS: &str = "phase1_wo_gemv";
const WO_CONSUMERS: &str = "phase1_pre_wo_wait";
const ALL: &str = "grid_barrier_wait";
const ELECTED: &str = "phase1_gather_reduce";
const ELECTED_PER_TILE: &str = "phase3_3d_last_cta_gather";

fn rows(geometry: &Geometry, name: &str) -> Vec<usize> {
    (0..geometry.ctas())
        .filter(|&cta| geometry.is_active(&active(name), cta))
        .collect()
}

fn expected(geometry: &Geometry, name: &str) -> usize {
    geometry.expected(&active(name))
}

#[test]
fn identities_are_those_that_kernels_and_saved_buffers_hold() {
    for (family, count, identity) in [
        ("beta_coop", 13, 0x3589_e0b4_1ecb_b06b_u64),
        ("beta_coop", 20, 0x31c9_901a_5b0c_a89a_u64),
        ("beta_coop", 21, 0x8947_0120_cf45_5be5_u64),
        ("beta_lite", 13, 0x14ff_b30f_dc2d_4cbb_u64),
        ("beta_lite", 20, 0x49a5_4eba_210f_d1fd_u64),
        ("beta_lite", 21, 0x5295_ac2b_856f_c8aa_u64),
        ("wo_gemv", 4, 0x8ad1_d36e_2cc8_a22b_u64),
    ] {
        let found = table_of(family, count).identity();
        assert_eq!(found, identity, "{family} {count}: {found:#018x}");
    }
    // The former names stand for a launch each, and a kernel's constants say the same.
    for (former, launch) in [("beta_coop", "cooperative"), ("beta_lite", "separate")] {
        let spec = spec(&[("launch", launch), ("num_regions", "20")]);
        let table = spec.region_table().expect("a table").expect("regions");
        assert_eq!(table, table_of(former, 20));
        assert_eq!(&*table.family, "decode_layer");
    }
}

#[test]
fn ids_are_rows_and_sums_and_what_they_sum_name_each_other() {
    for count in [11, 13, 16, 20, 21] {
        let table = table_of("decode_layer", count);
        assert_eq!(table.count(), count as usize);
        for (row, region) in table.regions.iter().enumerate() {
            assert_eq!(region.id as usize, row, "{}", region.name);
            let sum = match region.scope {
                Scope::PerIteration { sum } => sum,
                _ => None,
            };
            assert_eq!(sum.is_some(), (7..=9).contains(&region.id) && count >= 20);
            if let Some(sum) = sum {
                assert_eq!(table.regions[sum as usize].scope, Scope::Sum { of: region.id });
            }
        }
    }
}

#[test]
fn nvllms_earlier_sets_have_the_ids_and_names_of_its_later_ones() {
    let names = |count| -> Vec<String> {
        let table = table_of("decode_layer", count);
        table.regions.iter().map(|r| r.name.to_string()).collect()
    };
    assert_eq!(names(11), names(13)[..11]);
    assert_eq!(names(13), names(16)[..13]);
    let (between, last) = (table_of("decode_layer", 16), table_of("decode_layer", 20));
    for (old, new) in between.regions.iter().zip(&*last.regions) {
        let plain = |region: &Region| (region.class.clone(), region.active.clone(), region.id);
        assert_eq!(plain(old), plain(new));
        assert_eq!(old.name == new.name, old.id != 9, "{}", old.name);
    }
    assert_eq!(&*between.regions[9].name, "phase3_3c_fc2_atomic");
    // No kernel of ours is compiled with them.
    for name in ["phase1_pre_wo_wait", "phase3_3d_last_cta_gather"] {
        assert!(table_of("decode_layer", 11).region(name).is_none(), "{name}");
    }
}

#[test]
fn a_mask_is_the_block_coordinates_and_not_the_first_rows() {
    let g = original(1);
    assert_eq!(rows(&g, FIRST), [0]);
    assert_eq!(rows(&g, KV_HEADS), [0, 8, 16, 24]);
    assert_eq!(rows(&g, WO_SLOTS), [0, 8, 16, 24]);
    assert!(rows(&g, WO_CONSUMERS).is_empty());
    assert_eq!(rows(&g, ALL).len(), 64);
}

#[test]
fn every_split_has_its_own_writers_and_waiters() {
    for wo_split in [1, 2, 4, 8] {
        let g = original(wo_split);
        assert_eq!(expected(&g, WO_SLOTS), 4 * wo_split as usize);
        assert_eq!(expected(&g, WO_CONSUMERS), 4 * (wo_split as usize - 1));
        assert_eq!(expected(&g, KV_HEADS), 4);
    }
    let g = original(2);
    assert_eq!(rows(&g, WO_SLOTS), [0, 1, 8, 9, 16, 17, 24, 25]);
    assert_eq!(rows(&g, WO_CONSUMERS), [1, 9, 17, 25]);
}

#[test]
fn every_sequence_repeats_the_mask_at_its_own_base() {
    let g = Geometry {
        num_seqs: 3,
        ..original(2).with("num_kv_heads", 2)
    };
    assert_eq!(rows(&g, FIRST), [0, 64, 128]);
    assert_eq!(rows(&g, WO_CONSUMERS), [1, 9, 65, 73, 129, 137]);
    assert_eq!(expected(&g, ELECTED), 3);
    assert_eq!(expected(&g, ELECTED_PER_TILE), 24);
}

#[test]
fn heads_beyond_the_grid_have_no_rows() {
    let g = Geometry {
        num_k_tiles: 2,
        ..original(1)
    };
    assert_eq!(rows(&g, KV_HEADS), [0, 8]);
}

#[test]
fn a_geometry_that_no_launch_has_is_refused() {
    let table = table_of("decode_layer", 13);
    let check = |geometry: &Geometry| geometry.check(&table).map_err(|e: RegionError| e.to_string());
    let refusal = |wo_split, slice_ctas, num_k_tiles| {
        let g = Geometry {
            slice_ctas,
            num_k_tiles,
            ..original(wo_split)
        };
        check(&g).expect_err("refused")
    };
    assert_eq!(refusal(3, 8, 8), "geometry: wo_split 3: expected 1, 2, 4 or 8");
    assert_eq!(
        refusal(8, 4, 8),
        "geometry: wo_split 8 and grid_x 4: a kv head has a block a slot"
    );
    assert_eq!(refusal(1, 8, 0), "geometry: a grid without blocks");
    let tiles = Geometry {
        slice_ctas: 1,
        layout: crate::measure::region::Layout::Tiles,
        ..original(8)
    };
    assert_eq!(check(&tiles), Ok(()));
    // Constants are the ones that masks read: no more, no less.
    assert_eq!(
        check(&Geometry::default().with("wo_split", 1)).expect_err("refused"),
        "geometry: num_kv_heads is missing: masks of decode_layer read it"
    );
    assert_eq!(
        check(&original(1).with("rows", 4)).expect_err("refused"),
        "geometry: rows: no mask of decode_layer reads it"
    );
}

#[test]
fn a_geometry_is_written_flat_and_in_the_order_of_files_before() {
    let text = serde_json::to_string(&original(8)).expect("JSON");
    assert_eq!(
        text,
        r#"{"slice_ctas":8,"num_k_tiles":8,"num_seqs":1,"wo_split":8,"num_kv_heads":4,"layout":"slots"}"#
    );
    assert_eq!(
        serde_json::from_str::<Geometry>(&text).expect("read"),
        original(8)
    );
    let read = |text: &str| serde_json::from_str::<Geometry>(text).map_err(|e| e.to_string());
    assert!(
        read(r#"{"slice_ctas":8,"num_k_tiles":8}"#)
            .expect_err("refused")
            .contains("num_seqs")
    );
    assert!(
        read(&text.replace("8,\"num_kv", "\"8\",\"num_kv"))
            .expect_err("refused")
            .contains("wo_split")
    );
}
