//! The geometry of `wo_gemv`: its rule, and what there is to try.

mod mma;

use super::FAMILY;
use crate::measure::tune::{Geometry, Gpu, Problem, combinations};

/// The rule, drawn from measurements on one H200 (docs/KERNELS.md): one block a
/// multiprocessor, each with the same number of rows; with more than one token,
/// two share a decode.
#[must_use]
pub fn heuristic(gpu: &Gpu, problem: &Problem) -> Geometry {
    let number = |name| problem.number(name);
    let plain = problem.constants.get("geometry").is_none_or(|g| g == "tiled")
        && problem.constants.get("accumulate").is_none_or(|a| a != "mma");
    let (Some(hidden), Some(q_heads), Some(head_dim), Some(kv_heads), Some(split)) = (
        number("hidden"),
        number("num_q_heads"),
        number("head_dim"),
        number("num_kv_heads"),
        number("wo_split"),
    ) else {
        return Geometry::new();
    };
    let (k, slots) = (q_heads * head_dim, kv_heads * split);
    if problem.family == FAMILY && problem.constants.get("accumulate").is_some_and(|a| a == "mma") {
        return mma::heuristic(gpu, problem.tokens, hidden, k, slots);
    }
    if !plain || problem.family != FAMILY || k % (64 * slots) != 0 {
        return Geometry::new();
    }
    let tokens = if problem.tokens > 1 { 2 } else { 1 };
    let bytes = |rows: u32| {
        128 + rows * (k / 2 + 16)
            + k / 64 * rows * 4
            + tokens * (k + slots * 4) * 4
            + tokens * slots * rows * 4
    };
    let fits = |rows: u32| bytes(rows) <= gpu.shared_mem_per_block;
    // Packed rows come by eight.
    let packed = problem
        .constants
        .get("weight_layout")
        .is_some_and(|l| l == "packed");
    let unit = if packed { 8 } else { 4 };
    let mut rows = (hidden.div_ceil(unit).div_ceil(gpu.sm_count.max(1)) * unit).clamp(unit, 128);
    while rows > unit && !fits(rows) {
        rows -= unit;
    }
    if !fits(rows) {
        return Geometry::new();
    }
    let set = |pairs: &[(&str, u32)]| {
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.to_string()))
            .collect()
    };
    set(&[("rows_per_cta", rows), ("tokens_per_pass", tokens)])
}

/// What `jitc tune` tries: the product of these lists, or of `given` where it names
/// the constant. Combinations that the family forbids are the caller's to drop.
#[must_use]
pub fn space(accumulate: &str, tokens: usize, given: &[(String, Vec<String>)]) -> Vec<Geometry> {
    let lists: [(&str, &[u32]); 4] = if accumulate == "mma" {
        [
            ("mma_rows", &[16, 24, 40]),
            ("mma_warps", &[8, 16]),
            ("mma_ring", &[0, 3, 6]),
            ("tokens_per_pass", mma::tokens(tokens)),
        ]
    } else {
        [
            ("rows_per_cta", &[16, 20, 24, 40, 48]),
            ("rows_per_thread", &[1, 2]),
            ("row_groups", &[1, 2, 5, 10]),
            ("tokens_per_pass", if tokens > 1 { &[1, 2, 4] } else { &[1] }),
        ]
    };
    combinations(&lists, given)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn gpu(sm_count: u32) -> Gpu {
        Gpu {
            name: "NVIDIA H200".into(),
            compute_capability: "9.0".into(),
            sm_count,
            shared_mem_per_block: 232_448,
        }
    }

    pub(super) fn problem(split: u32, tokens: u32) -> Problem {
        let constants = [
            ("hidden", 5120),
            ("num_q_heads", 24),
            ("head_dim", 256),
            ("num_kv_heads", 4),
            ("wo_split", split),
        ];
        Problem {
            family: "wo_gemv".into(),
            constants: constants
                .iter()
                .map(|(n, v)| ((*n).into(), v.to_string()))
                .collect(),
            tokens,
        }
    }

    #[test]
    fn by_rule_every_multiprocessor_gets_the_same_number_of_rows() {
        let rows = |sms, split, tokens| heuristic(&gpu(sms), &problem(split, tokens))["rows_per_cta"].clone();
        assert_eq!(rows(132, 8, 1), "40");
        assert_eq!(rows(132, 1, 1), "40");
        assert_eq!(rows(132, 8, 4), "40");
        assert_eq!(rows(148, 1, 1), "36");
        let mut packed = problem(1, 1);
        packed.constants.insert("weight_layout".into(), "packed".into());
        assert_eq!(heuristic(&gpu(148), &packed)["rows_per_cta"], "40", "by eight");
    }

    #[test]
    fn a_space_is_a_product_and_a_list_given_replaces_the_declared_one() {
        let declared = space("fma", 1, &[]);
        let given = [("rows_per_cta".to_owned(), vec!["40".to_owned()])];
        let narrowed = space("fma", 1, &given);
        assert!(declared.len() > narrowed.len() && !narrowed.is_empty());
        assert!(
            narrowed
                .iter()
                .all(|g| g["rows_per_cta"] == "40" && declared.contains(g))
        );
        assert!(
            space("mma", 1, &[])
                .iter()
                .all(|g| !g.contains_key("rows_per_cta"))
        );
    }

    #[test]
    fn by_rule_a_block_fits_into_its_shared_memory() {
        let small = Gpu {
            shared_mem_per_block: 101_376,
            ..gpu(20)
        };
        let rows: u32 = heuristic(&small, &problem(1, 1))["rows_per_cta"]
            .parse()
            .expect("rows");
        assert!(rows <= 20, "{rows}");
        assert!(
            heuristic(
                &small,
                &Problem {
                    family: "other".into(),
                    ..problem(1, 1)
                }
            )
            .is_empty()
        );
    }
}
