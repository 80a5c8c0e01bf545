//! The decode layer: attention, `W_O`, norm and the NVFP4 MLP, a stage at a time.
//!
//! Invariant: each stage's reference starts from what the kernel itself wrote
//! before it, so an error shows in the stage that made it. Attention, norm and
//! MLP are float64, judged by tolerance; requantization is exact to the bit.

mod attention;
mod inputs;
mod mlp;
mod quantize;

pub use attention::attention_f64;
pub use inputs::{Kv, LayerInputs, Lengths, Matrix, ScaleLayout};
pub use mlp::{middle_f64, norm_f64, output_f64};
pub use quantize::{Blocks, dequantize, quantize, quantize_block};

/// Shape of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// Elements of a row of hidden state, H.
    pub hidden: usize,
    /// Elements of the MLP's middle, I.
    pub intermediate: usize,
    /// Query heads.
    pub num_q_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions of a page.
    pub page_size: usize,
}

impl LayerShape {
    /// K, the elements of attention's result.
    #[must_use]
    pub fn k(&self) -> usize {
        self.num_q_heads * self.head_dim
    }
}

/// How far a tensor lies from float64: quantiles of `|error| / (atol + rtol |x|)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Errors {
    /// Half of the elements are nearer.
    pub median: f64,
    /// 99 of 100 elements are nearer.
    pub p99: f64,
    /// The farthest; above 1 the tensor is wrong, and a NaN is infinitely far.
    pub max: f64,
    /// Where the farthest is.
    pub worst: usize,
}

impl Errors {
    /// Measures `actual` against `reference`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    #[must_use]
    pub fn of(actual: impl ExactSizeIterator<Item = f64>, reference: &[f64], rtol: f64, atol: f64) -> Self {
        assert_eq!(actual.len(), reference.len(), "tensors of one shape");
        let mut all: Vec<(f64, usize)> = actual
            .zip(reference)
            .enumerate()
            .map(|(at, (a, r))| {
                let ratio = (a - r).abs() / (atol + rtol * r.abs());
                (if ratio.is_nan() { f64::INFINITY } else { ratio }, at)
            })
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |per_cent: usize| {
            all.get(all.len().saturating_sub(1) * per_cent / 100)
                .map_or(0.0, |x| x.0)
        };
        Self {
            median: at(50),
            p99: at(99),
            max: at(100),
            worst: all.last().map_or(0, |x| x.1),
        }
    }

    /// Whether every element is within its tolerance.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.max <= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_quantiles_of_the_tolerance_and_a_nan_is_infinitely_far() {
        let reference = [1.0, 2.0, 4.0];
        let near = Errors::of([1.0, 2.1, 4.0].into_iter(), &reference, 0.1, 0.0);
        assert!(near.is_within());
        assert_eq!(near.worst, 1);
        assert!((near.max - 0.5).abs() < 1e-9);
        let far = Errors::of([1.0, f64::NAN, 4.0].into_iter(), &reference, 0.1, 0.0);
        assert!(!far.is_within());
        assert_eq!(far.worst, 1);
    }
}
