//! The rule for tensor cores.
//!
//! Invariant: of a launch, whatever is chosen sums in one order: up to two tokens a
//! decode, up to eight, or more (`docs/TENSOR_CORES.md`).

use super::{Geometry, Gpu, alone};

/// Tensor cores: one block a multiprocessor, rows by eight, and up to eight
/// tokens in one decode, four where the activations and sums of eight do not fit; of more
/// up to 32, where as many fit.
pub(super) fn heuristic(gpu: &Gpu, tokens: u32, hidden: u32, k: u32, slots: u32) -> Geometry {
    let part = part_len(k / slots.max(1));
    let parts = part.map_or(0, |part| k / part);
    // Four warps keep too little in flight for a multiprocessor: it gets two blocks.
    let blocks_each = if part.is_some_and(|part| warps(k, part) <= 4) {
        2
    } else {
        1
    };
    let rows_of = |turns: u32| {
        let blocks = gpu.sm_count.max(1) * blocks_each * turns;
        (hidden.div_ceil(8).div_ceil(blocks) * 8).clamp(8, 512)
    };
    if tokens > 8
        && let Some(part) = part
        && let Some(chosen) = wide(gpu, tokens, hidden, (k, part), &rows_of)
    {
        return chosen;
    }
    let bytes = |tokens: u32, rows: u32| {
        let sums = if tokens <= 2 { 16 } else { 8 };
        tokens * (2 * k + 32) + parts * tokens * rows * sums
    };
    let fits = |tokens: u32, rows: u32| bytes(tokens, rows) <= gpu.shared_mem_per_block;
    // Tokens first: a decode for all of them, then rows in as many turns as it takes.
    let tokens = tokens
        .clamp(1, if fits(8, rows_of(1)) { 8 } else { 4 })
        .next_power_of_two();
    let rows = (1..=hidden)
        .map(rows_of)
        .find(|rows| fits(tokens, *rows) || *rows == 8);
    let rows = rows.unwrap_or(8);
    let blocks = hidden.next_multiple_of(128).div_ceil(rows);
    let mut chosen = vec![("mma_rows", rows), ("tokens_per_pass", tokens)];
    chosen.extend(alone(gpu, blocks, bytes(tokens, rows)));
    chosen
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect()
}

/// Sums of a block's rows and tokens that its warps' registers hold.
const WIDE_SUMS: u32 = 1536;

/// More than eight tokens: up to 32 in the same decode, of as many rows as fit. Passes of a
/// launch of more are alike. None where not even eight rows fit.
fn wide(
    gpu: &Gpu,
    tokens: u32,
    hidden: u32,
    (k, part): (u32, u32),
    rows_of: &dyn Fn(u32) -> u32,
) -> Option<Geometry> {
    let warps = warps(k, part);
    let (pieces, parts) = (k / warps / 128, k / part / warps);
    let tokens = tokens.div_ceil(tokens.div_ceil(32)).next_multiple_of(8).max(16);
    // Activations of a piece, and sums of a part, of a warp: the last part's take the place of
    // the activations.
    let stage = tokens * 256;
    let bytes = |rows: u32, stages: u32| {
        let sums = tokens * rows * 4;
        warps * ((stages * stage).max(sums) + (parts - 1) * sums)
    };
    let fits = |rows: u32, stages: u32| bytes(rows, stages) <= gpu.shared_mem_per_block;
    let rows = (1..=hidden.div_ceil(8))
        .map(rows_of)
        .find(|rows| tokens * rows <= WIDE_SUMS && fits(*rows, 1) || *rows == 8)?;
    let stages = (1..=pieces).rev().find(|stages| fits(rows, *stages))?;
    let blocks = hidden.next_multiple_of(128).div_ceil(rows);
    let mut chosen = vec![
        ("mma_rows", rows),
        ("tokens_per_pass", tokens),
        ("mma_x_stages", stages),
    ];
    chosen.extend(alone(gpu, blocks, bytes(rows, stages)));
    let text = |(name, value): (&str, u32)| (name.to_owned(), value.to_string());
    Some(chosen.into_iter().map(text).collect())
}

/// Whether tensor cores take slots of this shape; the others run exact chains.
pub(super) fn takes(k: u32, slots: u32) -> bool {
    let slots = slots.max(1);
    let slot_len = k / slots;
    let Some(part) = part_len(slot_len) else {
        return false;
    };
    k.is_multiple_of(16 * slots) && slot_len.is_multiple_of(part) && k.is_multiple_of(range_unit(part))
}

/// What a warp's range of k is a multiple of: whole parts, and whole pieces of 128.
fn range_unit(part: u32) -> u32 {
    part * (128 >> part.trailing_zeros().min(7))
}

/// Warps that share K, as the family derives them.
pub(super) fn warps(k: u32, part: u32) -> u32 {
    let units = k / range_unit(part);
    (1..=16)
        .rev()
        .find(|warps| units.is_multiple_of(*warps))
        .unwrap_or(1)
}

/// Parts of a slot that is too long for one sum, the longest that divides it: whole runs
/// of 64 before others.
const PARTS: [u32; 22] = [
    384, 320, 256, 192, 128, 64, 352, 336, 304, 288, 272, 240, 224, 208, 176, 160, 144, 112, 96, 80, 48, 32,
];

/// The part of a slot that one sum covers, as the family derives it; none where slots are
/// not whole scale groups, or but one.
pub(super) fn part_len(slot_len: u32) -> Option<u32> {
    match slot_len {
        _ if !slot_len.is_multiple_of(16) || slot_len < 32 => None,
        ..=384 => Some(slot_len),
        _ => PARTS.into_iter().find(|part| slot_len.is_multiple_of(*part)),
    }
}

/// Tokens of one decode to choose from for a launch of so many.
pub(super) fn tokens(num_tokens: usize) -> &'static [u32] {
    match num_tokens {
        0 | 1 => &[1],
        2 => &[1, 2],
        3..=8 => &[4, 8],
        _ => &[16, 24, 32],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::wo_gemv::WoFormat;
    use crate::families::wo_gemv::geometry::space;
    use crate::measure::tune::tests::{gpu, problem};

    #[test]
    fn by_rule_tensor_cores_have_a_block_a_multiprocessor_and_decode_once_for_as_many_tokens_as_fit() {
        let tokens = |gpu: &Gpu, num_tokens: u32| {
            let mut asked = problem(8, num_tokens);
            asked.constants.insert("accumulate".into(), "mma".into());
            let geometry = crate::families::wo_gemv::geometry::heuristic(gpu, &asked);
            (geometry["mma_rows"].clone(), geometry["tokens_per_pass"].clone())
        };
        assert_eq!(tokens(&gpu(132), 3), ("40".to_owned(), "4".to_owned()));
        assert_eq!(tokens(&gpu(132), 8), ("40".to_owned(), "8".to_owned()));
        for (num_tokens, a_pass) in [
            (9, "16"),
            (16, "16"),
            (17, "24"),
            (25, "32"),
            (33, "24"),
            (64, "32"),
        ] {
            let expected = ("40".to_owned(), a_pass.to_owned());
            assert_eq!(tokens(&gpu(132), num_tokens), expected, "{num_tokens} tokens");
        }
        let small = Gpu {
            shared_mem_per_block: 101_376,
            ..gpu(170)
        };
        assert_eq!(tokens(&small, 8).1, "4");
        assert_eq!(tokens(&small, 1).1, "1");
        assert_eq!(tokens(&small, 9), ("32".to_owned(), "16".to_owned()));
    }

    #[test]
    fn a_part_divides_its_slot_like_the_familys() {
        let parts = [192, 384, 768, 640, 1536, 448].map(part_len);
        assert_eq!(parts, [192, 384, 384, 320, 384, 64].map(Some));
        // Slots that are not whole runs of 64: one sum, or the longest that divides them.
        let parts = [32, 80, 112, 224, 288, 416, 560].map(part_len);
        assert_eq!(parts, [32, 80, 112, 224, 288, 208, 112].map(Some));
        assert_eq!([16, 24, 200, 464].map(part_len), [None; 4]);
    }

    #[test]
    fn by_rule_a_multiprocessor_has_two_blocks_where_one_has_four_warps() {
        assert_eq!([warps(3584, 112), warps(7168, 112), warps(6144, 192)], [4, 8, 16]);
        let chosen = |slots| heuristic(&gpu(132), 1, 3584, 3584, slots);
        assert_eq!(chosen(32)["mma_rows"], "16");
        assert!(!chosen(32).contains_key("min_shared_bytes"));
        assert_eq!(chosen(4)["mma_rows"], "32");
    }

    #[test]
    fn geometries_to_choose_from_sum_in_one_order() {
        for num_tokens in [1, 2, 3, 8, 9, 32] {
            let orders = space(WoFormat::Nvfp4, "mma", num_tokens, &[])
                .iter()
                .map(|g| g["tokens_per_pass"].parse::<usize>().map(|t| (t > 2, t > 8)))
                .collect::<Vec<_>>();
            assert!(orders.windows(2).all(|w| w[0] == w[1]));
            assert_eq!(orders[0], Ok((num_tokens > 2, num_tokens > 8)));
        }
    }
}
