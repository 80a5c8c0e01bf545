//! Shapes of public models, for sweeps over what people run.
//!
//! Invariant: a shape is that of the checkpoint's `config.json`; the first is the one
//! that the families' defaults have, which others are measured beside.

/// A dense decoder as far as a decode step's kernels see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Model {
    /// Its name, as its publisher writes it.
    pub name: &'static str,
    /// Elements of the residual, H.
    pub hidden: u32,
    /// Elements of the MLP's middle, I.
    pub intermediate: u32,
    /// Query heads.
    pub num_q_heads: u32,
    /// Key/value heads.
    pub num_kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
}

const fn model(name: &'static str, [hidden, intermediate, q, kv, head_dim]: [u32; 5]) -> Model {
    Model {
        name,
        hidden,
        intermediate,
        num_q_heads: q,
        num_kv_heads: kv,
        head_dim,
    }
}

/// Twelve of them: one to sixteen heads of keys and values, heads of 128 and 256.
pub const MODELS: [Model; 12] = [
    model("Qwen3.6-27B", [5120, 17408, 24, 4, 256]),
    model("Llama-3.1-8B", [4096, 14336, 32, 8, 128]),
    model("Llama-3.1-70B", [8192, 28672, 64, 8, 128]),
    model("Qwen2.5-7B", [3584, 18944, 28, 4, 128]),
    model("Qwen3-14B", [5120, 17408, 40, 8, 128]),
    model("Qwen3-32B", [5120, 25600, 64, 8, 128]),
    model("Mistral-Small-24B", [5120, 32768, 32, 8, 128]),
    model("Gemma-3-12B", [3840, 15360, 16, 8, 256]),
    model("Gemma-3-27B", [5376, 21504, 32, 16, 128]),
    model("Yi-1.5-34B", [7168, 20480, 56, 8, 128]),
    model("InternLM2.5-20B", [6144, 16384, 48, 8, 128]),
    model("GLM-4-9B", [4096, 13696, 32, 2, 128]),
];

impl Model {
    /// The constants of the `W_O` families, by name.
    #[must_use]
    pub fn attention_constants(&self) -> [(&'static str, u32); 4] {
        [
            ("hidden", self.hidden),
            ("num_q_heads", self.num_q_heads),
            ("num_kv_heads", self.num_kv_heads),
            ("head_dim", self.head_dim),
        ]
    }

    /// Weights of a slot where a head of keys and values has `split` of them, if they are
    /// a whole number.
    #[must_use]
    pub fn slot_len(&self, split: u32) -> Option<u32> {
        let of_head = self.num_q_heads * self.head_dim / self.num_kv_heads;
        of_head.is_multiple_of(split).then(|| of_head / split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_have_names_of_their_own_and_heads_in_whole_groups() {
        for (at, model) in MODELS.iter().enumerate() {
            assert!(MODELS[..at].iter().all(|other| other.name != model.name));
            assert_eq!(model.num_q_heads % model.num_kv_heads, 0, "{}", model.name);
        }
    }

    #[test]
    fn among_their_slots_are_some_that_are_not_whole_runs_of_64() {
        let odd = |model: &Model| {
            let splits = [1, 2, 4, 8].into_iter();
            let lengths = splits.filter_map(|split| model.slot_len(split));
            lengths.filter(|len| len % 64 != 0).count()
        };
        assert_eq!(odd(&MODELS[0]), 0);
        assert!(MODELS.iter().filter(|model| odd(model) > 0).count() >= 4);
    }
}
