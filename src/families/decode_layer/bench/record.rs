//! The files of a point: what was run, what the gate said, every sample.
//!
//! Invariant: the names and fields that `wo_gemv`'s files have mean the same here; a
//! comparison that was not made is null.

use serde_json::{Value, json};

use super::super::LayerConfig;
use super::super::verify::Gate;
use super::GATE_LENGTH;
use super::request::BenchPath as Path;
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::measure::MeasureError;
use crate::measure::run_files;
use crate::measure::timing::Plan;

const FORMULA: &str = "codes and scales of W_O, gate, up and down, once; \
                       2 * num_kv_heads * head_dim a position of every sequence";

/// Where a point lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) context: usize,
    pub(super) num_tokens: usize,
    /// Copies of weights and cache that take turns.
    pub(super) copies: usize,
    pub(super) plan: Plan,
    pub(super) bytes: usize,
    /// Microseconds to stream them.
    pub(super) floor: f64,
}

/// Comparisons of what launches wrote; none, where the references already refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bits {
    /// Of two launches.
    pub(super) repeat: Option<bool>,
    /// With separate launches.
    pub(super) as_separate: Option<bool>,
}

impl Bits {
    pub(super) fn are_good(self) -> bool {
        self.repeat == Some(true) && self.as_separate != Some(false)
    }

    pub(super) fn wrong(self) -> Option<&'static str> {
        if self.repeat == Some(false) {
            Some("a second launch wrote other bits")
        } else if self.as_separate == Some(false) {
            Some("other bits than separate launches'")
        } else {
            None
        }
    }
}

/// The folder of a point's files, below `--out`.
pub(super) fn folder(path: Path, spec: &KernelSpec, at: &At) -> String {
    let variant = spec.variant().replace(' ', "-").replace('=', "_");
    format!("c{}-t{}-{}-{variant}", at.context, at.num_tokens, path.name())
}

/// A kernel of a point, with its key and where it came from.
pub(super) fn known(jit: &Jit, spec: &KernelSpec) -> Result<Value, MeasureError> {
    let prepared = jit.prepare(spec)?;
    let constants: serde_json::Map<String, Value> = (spec.constants().iter())
        .map(|(name, value)| (name.clone(), json!(value.to_string())))
        .collect();
    Ok(
        json!({"family": spec.family().name, "arch": spec.arch().to_string(), "constants": constants,
        "cache_key": prepared.request.key().to_string(),
        "cache_status_first_event": prepared.fetched.provenance.label()}),
    )
}

/// `config.json`.
pub(super) fn config(path: Path, at: &At, seed: u64, kernels: &[Value]) -> Value {
    let plan = &at.plan;
    json!({
        "git_sha": run_files::git_sha(), "path": path.name(), "cooperative": path == Path::Cooperative,
        "context": at.context, "copies": at.copies, "num_active_tokens": at.num_tokens, "seed": seed,
        "launches": plan.samples, "warmup_launches": plan.warmups, "method": plan.method,
        "launches_per_sample": plan.launches_per_graph, "kernels": kernels,
        "payload_bytes": at.bytes, "stream_us": at.floor, "effective_bytes_formula": FORMULA,
    })
}

/// `correctness_gate_layer.json`.
pub(super) fn gate(passes: bool, gate: &Gate, bits: Bits, judged: &KernelSpec, path: Path) -> Value {
    let skipped = (path == Path::Kernels).then_some("wo_gemv and gemv: `jitc verify` checks them");
    json!({"passes": passes, "kind": "AUTHORITATIVE", "ref_function": "verify decode_layer",
        "judged": judged.variant(), "positions": GATE_LENGTH, "tokens": LayerConfig::try_from(judged).ok().map(|c| c.tokens_per_pass),
        "stages": gate.stages(), "same_bits_in_a_second_launch": bits.repeat,
        "same_bits_as_separate_launches": bits.as_separate,
        "skipped": skipped,
        // Its former name, for one release.
        "left_out": skipped})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_were_not_compared_are_no_pass() {
        let bits = |repeat, as_separate| Bits { repeat, as_separate };
        assert!(!Bits::default().are_good() && Bits::default().wrong().is_none());
        assert!(bits(Some(true), Some(true)).are_good());
        assert!(bits(Some(true), None).are_good(), "nvllm's geometry");
        assert_eq!(
            bits(Some(false), Some(true)).wrong(),
            Some("a second launch wrote other bits")
        );
        assert_eq!(
            bits(Some(true), Some(false)).wrong(),
            Some("other bits than separate launches'")
        );
    }
}
