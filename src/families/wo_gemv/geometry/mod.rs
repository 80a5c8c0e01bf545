//! The geometry of `wo_gemv`: its rule, and what there is to try.

mod fp8;
mod mma;

use super::{FAMILY, WoFormat};
use crate::measure::tune::{Geometry, Gpu, Problem, combinations};

/// Threads that compute, at most: a block has one more warp.
const MOST_THREADS: u32 = 992;

/// The rule, drawn from measurements on one H200 and one H100 (docs/KERNELS.md): one
/// block a multiprocessor, or as many in turn as shared memory makes of it, each with
/// the same number of rows, which where a thread has two of them make at least four
/// groups; with more than one token, two share a decode. Where there are more items
/// than threads, all passes over them are of one length.
#[must_use]
pub fn heuristic(gpu: &Gpu, problem: &Problem) -> Geometry {
    let number = |name| problem.number(name);
    let is = |name, value| problem.constants.get(name).is_some_and(|v| v == value);
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
    if problem.family != FAMILY {
        return Geometry::new();
    }
    let by_mma = is("accumulate", "mma") && mma::takes(k, slots);
    if is("wo_format", WoFormat::Fp8.name()) {
        let shape = fp8::Fp8Shape { hidden, k, slots };
        return fp8::heuristic(gpu, problem.tokens, shape, by_mma);
    }
    if by_mma {
        return mma::heuristic(gpu, problem.tokens, hidden, k, slots);
    }
    if is("geometry", "original") || k % 32 != 0 {
        return Geometry::new();
    }
    let bytes = |rows: u32, tokens: u32| {
        128 + rows * (k / 2 + 16)
            + k.div_ceil(64) * rows * 4
            + tokens * (k + slots * 4) * 4
            + tokens * slots * rows * 4
    };
    let fits = |rows: u32, tokens: u32| bytes(rows, tokens) <= gpu.shared_mem_per_block;
    // Packed rows come by eight.
    let unit = if is("weight_layout", "packed") { 8 } else { 4 };
    let units = hidden.div_ceil(unit);
    let rows_in_turns = |turns: u32| (units.div_ceil(gpu.sm_count.max(1) * turns) * unit).clamp(unit, 128);
    // Where the fewest rows have no room for the activations of two tokens, one is a pass.
    let most: u32 = if problem.tokens > 1 { 2 } else { 1 };
    let chosen = (1..=most).rev().find_map(|tokens| {
        let rows = (1..=units).map(rows_in_turns).find(|&rows| fits(rows, tokens))?;
        Some((rows, tokens))
    });
    let Some((mut rows, tokens)) = chosen else {
        return Geometry::new();
    };
    // The family makes five groups of rows by ten, four of rows by eight, and less of others.
    if row_chains(slots, rows) == 2 && rows % 8 != 0 && rows % 10 != 0 && fits(rows + 4, tokens) {
        rows += 4;
    }
    let mut chosen = vec![("rows_per_cta", rows), ("tokens_per_pass", tokens)];
    let blocks = if is("weight_layout", "packed") {
        hidden.div_ceil(rows)
    } else {
        hidden.next_multiple_of(128).div_ceil(rows)
    };
    chosen.extend(alone(gpu, blocks, bytes(rows, tokens)));
    let items = slots * rows / row_chains(slots, rows);
    if let Some(threads) = threads_of_like_passes(items).or(threads_that_fetch(items, tokens * k)) {
        chosen.push(("num_threads", threads));
    }
    chosen
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect()
}

/// Of no more blocks than multiprocessors, each gets one of its own only where a second has
/// no room beside it: otherwise some get two, and others none. What to set for that.
fn alone(gpu: &Gpu, blocks: u32, bytes: u32) -> Option<(&'static str, u32)> {
    let more_than_half = gpu.shared_mem_per_block / 2 + 1024;
    (blocks <= gpu.sm_count && bytes < more_than_half).then_some(("min_shared_bytes", more_than_half))
}

/// Chains that a thread runs side by side, as the family derives them.
fn row_chains(slots: u32, rows: u32) -> u32 {
    if slots >= 32 && slots * rows >= 512 { 2 } else { 1 }
}

/// Threads of a block with more items than it can have threads: as many as make its
/// passes over them alike. The family's own choice would leave a short last pass.
fn threads_of_like_passes(items: u32) -> Option<u32> {
    (items > MOST_THREADS).then(|| items.div_ceil(items.div_ceil(MOST_THREADS)).next_multiple_of(32))
}

/// Threads of a block with few chains: as many as fetch its activations early, twelve
/// pieces of four each, and no fewer than two warps a scheduler. Those without a chain
/// fetch all the same.
fn threads_that_fetch(items: u32, activations: u32) -> Option<u32> {
    let least = (activations / 4).div_ceil(12).next_multiple_of(32);
    let least = least.clamp(256, MOST_THREADS);
    (items.next_multiple_of(32) < least).then_some(least)
}

/// What `jitc tune` tries: the product of these lists, or of `given` where it names
/// the constant. Combinations that the family forbids are the caller's to drop.
#[must_use]
pub fn space(
    format: WoFormat,
    accumulate: &str,
    tokens: usize,
    given: &[(String, Vec<String>)],
) -> Vec<Geometry> {
    if format == WoFormat::Fp8 {
        return combinations(&fp8::space(accumulate == "mma", tokens), given);
    }
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
    use crate::engine::request::spec::KernelSpec;
    use crate::engine::request::template::Registry;
    use crate::measure::models::MODELS;
    use crate::measure::tune::tests::{gpu, problem};

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

    fn of_shape(shape: [u32; 4], split: u32, accumulate: &str) -> Geometry {
        let mut asked = problem(split, 1);
        let names = ["hidden", "num_q_heads", "num_kv_heads", "head_dim"];
        for (name, value) in names.into_iter().zip(shape) {
            asked.constants.insert(name.into(), value.to_string());
        }
        asked.constants.insert("accumulate".into(), accumulate.into());
        heuristic(&gpu(132), &asked)
    }

    #[test]
    fn by_rule_slots_that_are_not_whole_runs_of_64_get_as_many_rows_as_others() {
        let rows = |shape, split| of_shape(shape, split, "fma")["rows_per_cta"].clone();
        for split in [1, 2, 4, 8] {
            assert_eq!(rows([5120, 40, 8, 128], split), "40", "split {split}");
            assert_eq!(rows([7168, 40, 8, 128], split), "56", "split {split}");
        }
        // With two rows a thread, by eight or ten: 28 would make two groups.
        let small = [1, 2, 4, 8].map(|split| rows([3584, 28, 4, 128], split));
        assert_eq!(small, ["28", "28", "28", "32"]);
        assert_eq!(rows([5376, 32, 16, 128], 8), "48");
        assert!(of_shape([72, 3, 1, 16], 1, "fma").is_empty(), "rows of 24 bytes");
    }

    #[test]
    fn by_rule_tensor_cores_take_such_slots_and_leave_those_that_are_not_whole_scale_groups() {
        for split in [1, 2, 4, 8] {
            let rows = of_shape([5120, 40, 8, 128], split, "mma")["mma_rows"].clone();
            assert_eq!(rows, "40", "split {split}");
        }
        assert!(of_shape([4544, 71, 1, 64], 1, "mma").contains_key("rows_per_cta"));
        let exact = of_shape([2048, 16, 4, 96], 8, "fma");
        assert_eq!(of_shape([2048, 16, 4, 96], 4, "mma")["mma_rows"], "8");
        assert_eq!(
            of_shape([72, 8, 4, 96], 8, "mma"),
            of_shape([72, 8, 4, 96], 8, "fma")
        );
        assert!(exact.contains_key("rows_per_cta"));
    }

    /// Whatever the rule chooses is legal, for every public model at every split.
    #[test]
    fn by_rule_every_public_model_fits_at_every_split_whatever_the_mode_layout_and_tokens() {
        let registry = Registry::load(None).expect("families");
        let family = registry.get(FAMILY).expect("family");
        let arch = "sm_90a".parse().expect("arch");
        for (model, split) in MODELS.iter().flat_map(|m| [1, 2, 4, 8].map(|split| (m, split))) {
            for (mode, layout, format) in [
                ("fma", "nvfp4", "nvfp4"),
                ("fma", "packed", "nvfp4"),
                ("mma", "nvfp4", "nvfp4"),
                ("mma", "packed", "nvfp4"),
                ("fma", "nvfp4", "fp8"),
                ("mma", "nvfp4", "fp8"),
            ] {
                for (tokens, memory) in [1, 2, 4, 8, 32]
                    .into_iter()
                    .flat_map(|t| [(t, 232_448), (t, 101_376)])
                {
                    let mut asked = problem(split, tokens);
                    for (name, value) in model.attention_constants() {
                        asked.constants.insert(name.into(), value.to_string());
                    }
                    asked.constants.insert("accumulate".into(), mode.into());
                    asked.constants.insert("weight_layout".into(), layout.into());
                    asked.constants.insert("wo_format".into(), format.into());
                    let device = Gpu {
                        shared_mem_per_block: memory,
                        ..gpu(132)
                    };
                    let chosen = heuristic(&device, &asked);
                    let set = asked.constants.iter().chain(&chosen);
                    let spec = KernelSpec::new(family, set.map(|(n, v)| (n.as_str(), v.as_str())), arch);
                    let label = format!(
                        "{} split {split} {mode} {layout} {format} {tokens}: {chosen:?}",
                        model.name
                    );
                    let spec = spec.unwrap_or_else(|error| panic!("{label}: {error}"));
                    let bytes = spec.number("shared_bytes").expect("bytes");
                    assert!(bytes <= memory, "{label}: {bytes} bytes");
                    assert_eq!(spec.number("by_mma"), Some(u32::from(mode == "mma")), "{label}");
                }
            }
        }
    }

    #[test]
    fn by_rule_a_block_that_has_a_multiprocessor_to_itself_takes_more_than_half_of_its_memory() {
        let least = |shape, split, mode| {
            let chosen = of_shape(shape, split, mode);
            chosen.get("min_shared_bytes").map(|bytes| bytes.parse::<u32>())
        };
        let more_than_half = Some(Ok(232_448 / 2 + 1024));
        // 128 blocks of 32 rows, of which two would fit.
        assert_eq!(least([4096, 32, 8, 128], 1, "fma"), more_than_half);
        assert_eq!(least([4096, 32, 8, 128], 1, "mma"), more_than_half);
        // Tiles of 40 rows have no room beside them; 366 blocks go in turns, two at a time.
        assert_eq!(least([5120, 24, 4, 256], 8, "fma"), None);
        assert_eq!(least([128_000, 32, 8, 128], 1, "fma"), None);
    }

    #[test]
    fn by_rule_a_tile_that_does_not_fit_is_halved_and_passes_over_items_are_alike() {
        assert_eq!(of_shape([8192, 64, 8, 128], 1, "fma")["rows_per_cta"], "32");
        let threads = |shape, split| of_shape(shape, split, "fma").get("num_threads").cloned();
        assert_eq!(threads([8192, 64, 8, 128], 8).as_deref(), Some("512"));
        assert_eq!(threads([5120, 40, 8, 128], 8).as_deref(), Some("640"));
        assert_eq!(threads([5120, 40, 8, 128], 4), None);
        // Fewer chains than it takes threads to fetch the activations.
        assert_eq!(threads([4096, 32, 2, 128], 1).as_deref(), Some("256"));
        assert_eq!(threads_that_fetch(160, 2 * 8192), Some(352));
    }

    #[test]
    fn a_space_is_a_product_and_a_list_given_replaces_the_declared_one() {
        let declared = space(WoFormat::Nvfp4, "fma", 1, &[]);
        let given = [("rows_per_cta".to_owned(), vec!["40".to_owned()])];
        let narrowed = space(WoFormat::Nvfp4, "fma", 1, &given);
        assert!(declared.len() > narrowed.len() && !narrowed.is_empty());
        assert!(
            narrowed
                .iter()
                .all(|g| g["rows_per_cta"] == "40" && declared.contains(g))
        );
        assert!(
            space(WoFormat::Nvfp4, "mma", 1, &[])
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
