//! Made-up ticks in the shape of a layer's launch.
//!
//! Invariant: nothing here was measured. The durations are of the size that was
//! published for nvllm on a GB10, the order of events is the kernel's, and
//! every label says `synthetic`.

use crate::engine::request::template::Registry;
use crate::families::decode_layer::FAMILY;
use crate::measure::region::{Geometry, RegionError, TickSource, Ticks};

/// The step of the clock, nanoseconds.
const STEP: i64 = 32;
const SLICES: i64 = 34;

/// A launch of the layer with `count` regions on this grid, its `W_O` split so.
pub fn synthetic(
    registry: &Registry,
    grid: &Geometry,
    wo_split: u32,
    count: u32,
) -> Result<Ticks, RegionError> {
    let table = registry.regions(FAMILY)?.first(count)?;
    let mut geometry = grid.clone();
    for (name, default) in &table.shared.constants {
        geometry.constants.entry(name.clone()).or_insert(*default);
    }
    let geometry = geometry.with("wo_split", wo_split);
    geometry.check(&table)?;
    let mut ticks = Ticks {
        pairs: vec![[0, 0]; geometry.ctas() * table.count()],
        table,
        source: TickSource::GlobalTimer,
        sms: Some(
            (0..geometry.ctas())
                .map(|cta| u32::try_from(cta % 48).unwrap_or(0))
                .collect(),
        ),
        launch_us: None,
        label: format!("synthetic, wo_split {wo_split}"),
        geometry,
    };
    let geometry = ticks.geometry.clone();
    let start = 1_700_000_000_000_000_000;
    let mut end = start;
    for seq in 0..geometry.num_seqs as usize {
        end = end.max(sequence(&mut ticks, seq * geometry.ctas_per_seq(), start));
    }
    #[expect(clippy::cast_precision_loss, reason = "a launch's nanoseconds")]
    let us = (end - start) as f64 / 1000.0 + 4.2;
    ticks.launch_us = Some(us);
    Ok(ticks)
}

/// One sequence's blocks from `base` on; its last tick.
fn sequence(ticks: &mut Ticks, base: usize, start: i64) -> i64 {
    let geometry = ticks.geometry.clone();
    let (wo_split, heads) = (geometry.constants["wo_split"], geometry.constants["num_kv_heads"]);
    let ctas = base..base + geometry.ctas_per_seq();
    let split = i64::from(wo_split);
    // Attention of each head, then W_O: near 1/split, with a part that does not shrink.
    let attention = |by: u32| start + 14_000 + jitter(by as usize, 1, 249_000, 6);
    let heads_done = (0..heads.min(geometry.num_k_tiles))
        .map(attention)
        .max()
        .unwrap_or(start);
    let mut arrived = Vec::new();
    for cta in ctas.clone() {
        let (bx, by, _) = geometry.block(cta);
        let begin = start + jitter(cta, 13, 96, 40);
        put(ticks, cta, "prologue_pre_r0", start, begin);
        let mut at = begin;
        if bx == 0 && by == 0 {
            put(ticks, cta, "phase0_pre_attn", at, at + 12_448);
            at += 12_448;
        }
        if bx < wo_split && by < heads {
            if bx == 0 {
                put(ticks, cta, "phase1_attn_pre_wo", at, attention(by));
                at = attention(by);
            } else {
                put(ticks, cta, "phase1_pre_wo_wait", at, heads_done);
                at = heads_done;
            }
            let gemv = jitter(cta, 2, 13_600_000 / split + 560_000, 7);
            put(ticks, cta, "phase1_wo_gemv", at, at + gemv);
            put(ticks, cta, "phase1_wo_post", at + gemv, at + gemv + STEP);
            at += gemv + STEP;
        }
        arrived.push(at);
    }
    let elected = (0..arrived.len()).max_by_key(|&i| arrived[i]).unwrap_or(0);
    let gathered = arrived[elected] + 59_000 + 13_500 * split;
    put(
        ticks,
        base + elected,
        "phase1_gather_reduce",
        arrived[elected],
        gathered,
    );
    arrived[elected] = gathered;
    let opened = gathered + 900;
    let mut last = opened;
    for (cta, &at) in ctas.clone().zip(&arrived) {
        put(
            ticks,
            cta,
            "grid_barrier_wait",
            at,
            opened + STEP * i64::from(cta.is_multiple_of(7)),
        );
        last = last.max(mlp(ticks, cta, opened + 64));
    }
    last
}

/// The MLP of one block; its last tick.
fn mlp(ticks: &mut Ticks, cta: usize, start: i64) -> i64 {
    let loaded = start + jitter(cta, 5, 1_936, 2);
    put(ticks, cta, "phase3_load_x", start, loaded);
    let mut at = loaded + 96;
    put(ticks, cta, "phase3_partial_reset", loaded, at);
    let (fc1, quant, fc2) = (
        jitter(cta, 7, 568_000, 4),
        jitter(cta, 8, 544, 3),
        jitter(cta, 9, 114_600, 9),
    );
    at += (SLICES - 1) * (fc1 + quant + fc2);
    put(ticks, cta, "phase3_3a_fc1_silu", at, at + fc1);
    put(ticks, cta, "phase3_3b_quant", at + fc1, at + fc1 + quant);
    at += fc1 + quant;
    put(ticks, cta, "phase3_3c_fc2_last_iter", at, at + fc2);
    put(ticks, cta, "phase3_3c_fc2_atomic", at, at + fc2 + 416);
    put(ticks, cta, "phase3_post_loop_atomic", at + fc2, at + fc2 + 416);
    put(ticks, cta, "phase3_3a_fc1_silu_per_call", 0, SLICES * fc1);
    put(ticks, cta, "phase3_3b_quant_per_call", 0, SLICES * quant);
    put(ticks, cta, "phase3_3c_fc2_per_call", 0, SLICES * fc2);
    at += fc2 + 416;
    let elected = cta.is_multiple_of(ticks.geometry.slice_ctas as usize);
    let arrival = if elected { 2_016 } else { 96 };
    put(ticks, cta, "phase3_3d_arrival", at, at + arrival);
    if elected {
        put(
            ticks,
            cta,
            "phase3_3d_last_cta_gather",
            at + 64,
            at + arrival - 64,
        );
    }
    put(ticks, cta, "epilogue_post_r10", at + arrival, at + arrival + STEP);
    at + arrival + STEP
}

fn put(ticks: &mut Ticks, cta: usize, name: &str, entry: i64, exit: i64) {
    if let Some(region) = ticks.table.region(name) {
        let row = cta * ticks.table.count() + region.id as usize;
        ticks.pairs[row] = [entry, exit].map(|t| t / STEP * STEP);
    }
}

/// `around`, up to `percent` more or less, always the same for a block and region.
fn jitter(cta: usize, salt: usize, around: i64, percent: i64) -> i64 {
    let mixed = (cta * 31 + salt).wrapping_mul(0x9E37_79B9) >> 7;
    let offset = i64::try_from(mixed % 2001).unwrap_or(0) - 1000;
    around + around * percent * offset / 100_000
}
