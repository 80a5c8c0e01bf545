//! The files of a measurement, with the names and fields of nvllm's harness.
//!
//! Invariant: a field that has no meaning here is null, never a made-up value.

use serde_json::{Value, json};

use super::super::config::{Accumulate, LaunchGeometry, WoFormat};
use super::super::reference::WoShape;
use crate::measure::compare::{Comparison, Drift};
use crate::measure::run_files::{finite, git_sha, timing_csv};
use crate::measure::timing::Plan;

/// nvllm's tolerances; the exact modes are held to no difference at all.
const RTOL: f64 = 1e-3;
const ATOL: f64 = 1e-4;

const FORMULA_FP8: &str = "effective = payload + scratch; payload = 2BK + HK + 4 * scales + 4BH; \
                           scratch = partials written (4*B*H*slots)";
const FORMULA: &str = "effective = payload + scratch; payload = 2BK + HK/2 + ceil(H/128)*SKT*512 + 4 + 4BH; \
                       scratch = partials written (4*B*H*slots), and read once more where the gather \
                       reads them from memory (geometry = original)";

/// What was run.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Its shape, with the split.
    pub shape: WoShape,
    /// Query heads and elements of a head.
    pub heads: (usize, usize),
    /// How a slot is summed.
    pub accumulate: Accumulate,
    /// How a launch is laid out.
    pub geometry: LaunchGeometry,
    /// Tokens of a launch.
    pub num_tokens: usize,
    /// The global scale.
    pub global_scale: f32,
    /// Blocks along x in `geometry = original`.
    pub slice_ctas: usize,
    /// Whether weights are packed for tensor cores.
    pub packed: bool,
    /// How weights are written down.
    pub format: WoFormat,
    /// FP8: whether each row has a scale.
    pub row_scales: bool,
    /// Seed of the inputs.
    pub seed: u64,
}

impl Case {
    /// The folder of its files, below `--out`.
    pub(super) fn folder(&self) -> String {
        format!(
            "split{}-{}-{}-t{}-gs{}",
            self.shape.wo_split, self.accumulate, self.geometry, self.num_tokens, self.global_scale
        )
    }

    /// Bytes that any implementation moves.
    pub(super) fn payload_bytes(&self) -> usize {
        let (h, k, b) = (self.shape.hidden, self.shape.k, self.num_tokens);
        let weights = match self.format {
            WoFormat::Nvfp4 => h * k / 2 + h.div_ceil(128) * (k / 16).div_ceil(4) * 512 + 4,
            WoFormat::Fp8 => h * k + 4 * if self.row_scales { h } else { 1 },
        };
        2 * b * k + weights + 4 * b * h
    }

    /// Bytes of partial sums.
    pub(super) fn scratch_bytes(&self) -> usize {
        let written = 4 * self.num_tokens * self.shape.hidden * self.shape.num_slots();
        if self.geometry == LaunchGeometry::Original {
            2 * written
        } else {
            written
        }
    }

    /// `config.json`. `cache`: key and status, once known.
    pub(super) fn config(&self, plan: &Plan, ncu: bool, cache: Option<(&str, &str)>) -> Value {
        let shape = &self.shape;
        let is_fp8 = self.format == WoFormat::Fp8;
        let original = self.geometry == LaunchGeometry::Original;
        let active = shape.num_slots();
        let grid = self.slice_ctas * shape.num_kv_heads;
        json!({
            "git_sha": git_sha(), "wo_split": shape.wo_split, "total_wo_ctas": active,
            "slice_ctas": original.then_some(self.slice_ctas), "gather_ctas": original.then_some(grid),
            "total_grid_ctas_per_seq": original.then_some(grid), "active_wo_ctas": original.then_some(active),
            "hidden_size": shape.hidden, "num_kv_heads": shape.num_kv_heads, "num_q_heads": self.heads.0,
            "head_dim": self.heads.1, "K": shape.k, "num_k_groups": (!is_fp8).then_some(shape.k / 16),
            "num_k_tiles": (!is_fp8).then_some((shape.k / 16).div_ceil(4)), "num_active_tokens": self.num_tokens, "seed": self.seed,
            "launches": plan.samples, "cooperative": original, "ncu": ncu, "warmup_launches": plan.warmups,
            "dtypes": {"attn": "bf16", "weight": if is_fp8 { "e4m3" } else { "e2m1" },
                       "scales": (!is_fp8).then_some("e4m3"), "global_scale": "f32",
                       "partials": "f32", "output": "f32"},
            "cache_key": cache.map(|c| c.0), "cache_status_first_event": cache.map(|c| c.1),
            "diagnostic_no_cooperative": false, "image_id": null, "torch_version": null,
            "python_version": null, "effective_bytes_formula": if is_fp8 { FORMULA_FP8 } else { FORMULA },
            "wo_format": self.format.name(), "row_scales": is_fp8.then_some(self.row_scales),
            "weight_layout": if self.packed { "packed" } else { "nvfp4" }, "accumulate": self.accumulate.name(), "geometry": self.geometry.name(), "global_scale": self.global_scale,
            "method": plan.method, "launches_per_sample": plan.launches_per_graph,
        })
    }

    /// `timing.csv`.
    pub(super) fn timing(&self, samples: &[f64]) -> String {
        timing_csv(self.payload_bytes(), self.scratch_bytes(), samples)
    }
}

/// `correctness_gate_split_order.json`.
pub(super) fn gate(passes: bool, against: &Comparison, exact: bool, wo_split: usize) -> Value {
    json!({"passes": passes, "max_abs": finite(against.max_abs), "max_rel": finite(against.max_rel),
        "rtol": if exact { 0.0 } else { RTOL }, "atol": if exact { 0.0 } else { ATOL },
        "mismatches": against.mismatches, "elements": against.elements,
        "ref_function": "split_order", "wo_split": wo_split, "kind": "AUTHORITATIVE"})
}

/// `correctness_vs_chained.json`.
pub(super) fn chained(against: &Comparison) -> Value {
    json!({"max_abs": finite(against.max_abs), "max_rel": finite(against.max_rel),
        "ref_function": "split_order(wo_split=1)", "kind": "DIAGNOSTIC"})
}

/// `correctness_vs_float64.json`. `exact`: the exact mode's own distance.
pub(super) fn float64(drift: &Drift, exact: &Drift) -> Value {
    json!({"max_abs": finite(drift.max_abs), "max_rel": finite(drift.max_rel),
        "relative_l2": finite(drift.relative_l2), "relative_l2_of_split_order": finite(exact.relative_l2),
        "ref_function": "matmul_f64", "kind": "DIAGNOSTIC"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::timing::Method;

    fn case() -> Case {
        Case {
            shape: WoShape {
                hidden: 5120,
                k: 6144,
                num_kv_heads: 4,
                wo_split: 8,
            },
            heads: (24, 256),
            accumulate: Accumulate::Fma,
            geometry: LaunchGeometry::Original,
            num_tokens: 1,
            global_scale: 1.0,
            slice_ctas: 8,
            packed: false,
            format: WoFormat::Nvfp4,
            row_scales: false,
            seed: 4242,
        }
    }

    #[test]
    fn payload_is_that_of_nvllm() {
        assert_eq!(case().payload_bytes(), 17_727_492);
        let fp8 = |row_scales| Case {
            format: WoFormat::Fp8,
            row_scales,
            ..case()
        };
        let read = 5120 * 6144 + 2 * 6144 + 4 * 5120;
        assert_eq!(fp8(false).payload_bytes(), read + 4);
        assert_eq!(fp8(true).payload_bytes(), read + 4 * 5120);
    }

    #[test]
    fn the_config_has_every_field_of_nvllms() {
        let plan = Plan {
            method: Method::Events,
            launches_per_graph: 1,
            warmups: 2,
            samples: 50,
        };
        let config = case().config(&plan, false, Some(("ab12", "hit")));
        for field in [
            "git_sha",
            "wo_split",
            "total_wo_ctas",
            "slice_ctas",
            "gather_ctas",
            "total_grid_ctas_per_seq",
            "active_wo_ctas",
            "hidden_size",
            "num_kv_heads",
            "num_q_heads",
            "head_dim",
            "K",
            "num_k_groups",
            "num_k_tiles",
            "num_active_tokens",
            "seed",
            "launches",
            "cooperative",
            "ncu",
            "warmup_launches",
            "dtypes",
            "cache_key",
            "cache_status_first_event",
            "diagnostic_no_cooperative",
            "image_id",
            "torch_version",
            "python_version",
            "effective_bytes_formula",
        ] {
            assert!(config.get(field).is_some(), "{field}");
        }
        assert_eq!(config["num_k_tiles"], 96);
        assert_eq!(config["total_wo_ctas"], 32);
    }

    #[test]
    fn a_row_of_the_timing_table_gives_bytes_over_time() {
        let text = case().timing(&[10.0]);
        let row: Vec<&str> = text.lines().nth(1).expect("row").split(',').collect();
        assert_eq!(row[2], "17727492");
        assert_eq!(row[3], "1310720");
        assert_eq!(row[5], "1903.821");
    }

    #[test]
    fn an_infinite_distance_is_written_as_a_word() {
        let against = crate::measure::compare::compare(&[1.0], &[f32::NAN]);
        assert_eq!(chained(&against)["max_abs"], "inf");
    }
}
