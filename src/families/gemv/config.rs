//! Constants of `gemv`, typed.
//!
//! Invariant: what reads a constant of a spec by its name is here.

use crate::engine::request::constant::Value;
use crate::engine::request::spec::KernelSpec;
use crate::families::config::ConstantError;

/// What a variant of `gemv` was specialized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GemvConfig {
    /// Rows of W.
    pub rows: usize,
    /// Columns of W.
    pub k: usize,
    /// Parts of a row that are summed by themselves.
    pub parts: usize,
    /// Tokens that share one decode of the weights.
    pub tokens_per_pass: usize,
    /// Whether the output is bf16, and not f32.
    pub is_bf16: bool,
    /// Whether weights are packed for tensor cores.
    pub is_packed: bool,
}

impl GemvConfig {
    /// Which of the two orders it sums in: up to two tokens a decode, or more.
    #[must_use]
    pub fn mma_order(&self) -> usize {
        usize::from(self.tokens_per_pass > 2)
    }
}

impl TryFrom<&KernelSpec> for GemvConfig {
    type Error = ConstantError;

    fn try_from(spec: &KernelSpec) -> Result<Self, ConstantError> {
        let missing = |name: &str| ConstantError::new(spec, name);
        let size = |name: &str| spec.number(name).map(|n| n as usize).ok_or_else(|| missing(name));
        let is = |name: &str, word: &str| {
            let value = spec.constants().get(name).and_then(Value::as_name);
            value.map(|value| value == word).ok_or_else(|| missing(name))
        };
        Ok(Self {
            rows: size("rows")?,
            k: size("k_total")?,
            parts: size("parts")?,
            tokens_per_pass: size("tokens_per_pass")?,
            is_bf16: is("output", "bf16")?,
            is_packed: is("weight_layout", "packed")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::template::Registry;

    #[test]
    fn a_spec_becomes_its_typed_constants() {
        let registry = Registry::load(None).expect("families");
        let family = registry.get("gemv").expect("family");
        let set = [
            ("tokens_per_pass", "4"),
            ("output", "bf16"),
            ("weight_layout", "packed"),
        ];
        let spec = KernelSpec::new(family, set, "sm_90a".parse().expect("arch")).expect("legal");
        let config = GemvConfig::try_from(&spec).expect("config");
        assert_eq!((config.rows, config.k), (34_816, 5120));
        assert!(config.is_bf16 && config.is_packed && config.mma_order() == 1);
        assert!(config.parts > 0 && config.k.is_multiple_of(config.parts));
    }
}
