//! The rule for tensor cores.
//!
//! Invariant: of a launch, whatever is chosen sums in one order: up to two tokens a
//! decode, or more (`docs/TENSOR_CORES.md`).

use super::{Geometry, Gpu};

/// Tensor cores: one block a multiprocessor, rows by eight, and up to eight
/// tokens in one decode, four where the activations and sums of eight do not fit.
pub(super) fn heuristic(gpu: &Gpu, tokens: u32, hidden: u32, k: u32, slots: u32) -> Geometry {
    let rows = (hidden.div_ceil(8).div_ceil(gpu.sm_count.max(1)) * 8).clamp(8, 512);
    let parts = k / part_len(k / slots.max(1));
    let fits = |tokens: u32| tokens * (2 * k + 32) + parts * tokens * rows * 8 <= gpu.shared_mem_per_block;
    let tokens = tokens.clamp(1, if fits(8) { 8 } else { 4 }).next_power_of_two();
    Geometry::from([
        ("mma_rows".to_owned(), rows.to_string()),
        ("tokens_per_pass".to_owned(), tokens.to_string()),
    ])
}

/// Whether tensor cores take slots of this shape; the others run exact chains.
pub(super) fn takes(k: u32, slots: u32) -> bool {
    let part = part_len(k / slots.max(1));
    let range = if part.is_multiple_of(128) { part } else { 2 * part };
    k.is_multiple_of(64 * slots.max(1)) && k.is_multiple_of(range)
}

/// The part of a slot that one sum covers, as the family derives it.
fn part_len(slot_len: u32) -> u32 {
    match slot_len {
        1..=384 if slot_len.is_multiple_of(64) => slot_len,
        _ => [384, 320, 256, 192, 128]
            .into_iter()
            .find(|part| slot_len > 0 && slot_len.is_multiple_of(*part))
            .unwrap_or(64),
    }
}

/// Tokens of one decode to choose from for a launch of so many.
pub(super) fn tokens(num_tokens: usize) -> &'static [u32] {
    match num_tokens {
        0 | 1 => &[1],
        2 => &[1, 2],
        _ => &[4, 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(tokens(&gpu(132), 9), ("40".to_owned(), "8".to_owned()));
        let small = Gpu {
            shared_mem_per_block: 101_376,
            ..gpu(170)
        };
        assert_eq!(tokens(&small, 8).1, "4");
        assert_eq!(tokens(&small, 1).1, "1");
    }

    #[test]
    fn a_part_divides_its_slot_like_the_familys() {
        let parts = [192, 384, 768, 640, 1536, 200, 448].map(part_len);
        assert_eq!(parts, [192, 384, 384, 320, 384, 64, 64]);
    }

    #[test]
    fn geometries_to_choose_from_sum_in_one_order() {
        for num_tokens in [1, 2, 3, 8] {
            let orders = space("mma", num_tokens, &[])
                .iter()
                .map(|g| g["tokens_per_pass"].parse::<u32>().map(|t| t > 2))
                .collect::<Vec<_>>();
            assert!(orders.windows(2).all(|w| w[0] == w[1]));
            assert_eq!(orders[0], Ok(num_tokens > 2));
        }
    }
}
