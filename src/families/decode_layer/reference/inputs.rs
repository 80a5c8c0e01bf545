//! Random inputs of a layer.
//!
//! Invariant: pages are shuffled, and every slot of the cache that no sequence
//! uses holds NaN, so a kernel that lets one in cannot pass.

use half::bf16;

use super::LayerShape;
use crate::families::nvfp4::packed::{PACKED64, Weight};
use crate::families::nvfp4::{e4m3, fp4, swizzle};
use crate::measure::rng::Rng;

/// How the scales of the MLP's matrices lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleLayout {
    /// In tiles of 128 rows by 4 groups.
    Swizzled,
    /// Row by row.
    Linear,
}

/// What queries and cache hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kv {
    /// Normal deviates.
    Random,
    /// Queries are zero, so all scores are equal; V varies.
    EqualScores,
    /// Queries are zero and V is one number a head: attention is exact.
    ConstantV,
}

/// Positions of each token's sequence.
#[derive(Debug, Clone)]
pub struct Lengths(pub Vec<usize>);

/// An NVFP4 matrix.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Matrix {
    /// Codes, `[rows, k/2]`: even k in the low nibble.
    pub codes: Vec<u8>,
    /// Scales, as `layout` says.
    pub scales: Vec<u8>,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
    /// How the scales lie.
    pub layout: ScaleLayout,
    /// The same weights packed, where [`LayerInputs::pack`] was called.
    pub packed: Option<Weight>,
}

impl Matrix {
    fn random(rows: usize, k: usize, layout: ScaleLayout, rng: &mut Rng) -> Self {
        let groups = k / 16;
        // Magnitudes from 2^-4 to 2: scales that all differ, and sums that stay small.
        let linear: Vec<u8> = rng
            .bytes(rows * groups)
            .iter()
            .map(|byte| 0x18 + byte % 0x28)
            .collect();
        Self {
            codes: rng.bytes(rows * k / 2),
            scales: match layout {
                ScaleLayout::Linear => linear,
                ScaleLayout::Swizzled => swizzle::swizzle(&linear, rows, groups),
            },
            rows,
            k,
            layout,
            packed: None,
        }
    }

    fn pack(&mut self) {
        let scales = match self.layout {
            ScaleLayout::Linear => swizzle::swizzle(&self.scales, self.rows, self.k / 16),
            ScaleLayout::Swizzled => self.scales.clone(),
        };
        let plain = Weight {
            codes: std::mem::take(&mut self.codes),
            scales,
        };
        let packed = PACKED64.pack(&plain, self.rows, self.k);
        self.packed = Some(packed.expect("a layer's matrices are whole blocks"));
        self.codes = plain.codes;
    }

    /// A row's weights, exact in f32 and without the global scale.
    #[must_use]
    pub fn row(&self, row: usize) -> Vec<f32> {
        let (groups, tiles) = (self.k / 16, swizzle::group_tiles(self.k / 16));
        let mut out = Vec::with_capacity(self.k);
        for group in 0..groups {
            let at = match self.layout {
                ScaleLayout::Linear => row * groups + group,
                ScaleLayout::Swizzled => swizzle::offset(row, group, tiles),
            };
            let scale = e4m3::decode(self.scales[at]);
            let from = row * (self.k / 2) + group * 8;
            for byte in &self.codes[from..from + 8] {
                out.extend(fp4::unpack(*byte).map(|code| fp4::decode(code) * scale));
            }
        }
        out
    }
}

/// Inputs of a layer, as the kernel takes them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LayerInputs {
    /// Tokens.
    pub num_tokens: usize,
    /// `[num_tokens, q_heads, D]`.
    pub query: Vec<bf16>,
    /// `[pages, 2, page_size, kv_heads, D]`, E4M3.
    pub kv_cache: Vec<u8>,
    /// `[num_tokens, max_pages]`.
    pub page_table: Vec<i32>,
    /// Pages of a row of `page_table`.
    pub max_pages: usize,
    /// `[num_tokens]`.
    pub seq_lens: Vec<i32>,
    /// `[num_tokens, K]`, before the sigmoid.
    pub gate: Vec<bf16>,
    /// `[H, K]`, scales swizzled.
    pub wo: Matrix,
    /// Global scale of `wo`, multiplied.
    pub wo_global: f32,
    /// `[num_tokens, H]`.
    pub hidden_in: Vec<bf16>,
    /// `[num_tokens, H]`.
    pub residual_in: Vec<bf16>,
    /// `[H]`, used as 1 + gamma.
    pub input_gamma: Vec<bf16>,
    /// `[H]`, used as 1 + gamma.
    pub post_gamma: Vec<bf16>,
    /// `[I, H]`.
    pub gate_proj: Matrix,
    /// `[I, H]`.
    pub up_proj: Matrix,
    /// `[H, I]`.
    pub down_proj: Matrix,
    /// Of gate and up.
    pub gate_up_global: f32,
    /// Of down.
    pub down_global: f32,
    /// 1 / sqrt(D) as a rule.
    pub softmax_scale: f32,
    /// Of the cache's keys.
    pub k_scale: f32,
    /// Of the cache's values.
    pub v_scale: f32,
    /// Of both norms.
    pub rms_eps: f32,
}

impl LayerInputs {
    /// Random inputs with swizzled scales. Every tensor has a stream of its own.
    #[must_use]
    pub fn random(shape: &LayerShape, lengths: &Lengths, kv: Kv, seed: u64) -> Self {
        Self::with_layout(shape, lengths, kv, ScaleLayout::Swizzled, seed)
    }

    /// Packs all matrices for tensor cores, beside the plain ones.
    #[must_use]
    pub fn pack(mut self) -> Self {
        for matrix in [
            &mut self.wo,
            &mut self.gate_proj,
            &mut self.up_proj,
            &mut self.down_proj,
        ] {
            matrix.pack();
        }
        self
    }

    /// As [`LayerInputs::random`], the MLP's scales laid out as asked for.
    #[must_use]
    pub fn with_layout(
        shape: &LayerShape,
        lengths: &Lengths,
        kv: Kv,
        layout: ScaleLayout,
        seed: u64,
    ) -> Self {
        let lengths = &lengths.0;
        let (num_tokens, hidden) = (lengths.len(), shape.hidden);
        let rng = |stream| Rng::stream(seed, stream);
        let normal = |stream, count, scale: f32| -> Vec<bf16> {
            let mut rng = rng(stream);
            (0..count)
                .map(|_| bf16::from_f32(rng.normal_f32() * scale))
                .collect()
        };
        let query_scale = if kv == Kv::Random { 1.0 } else { 0.0 };
        let (kv_cache, page_table, max_pages) = cache(shape, lengths, kv, &mut rng(2));
        #[expect(clippy::cast_precision_loss, reason = "head_dim is at most 256")]
        let softmax_scale = 1.0 / (shape.head_dim as f32).sqrt();
        Self {
            num_tokens,
            query: normal(1, num_tokens * shape.k(), query_scale),
            kv_cache,
            page_table,
            max_pages,
            seq_lens: lengths.iter().map(|l| small(*l)).collect(),
            gate: normal(3, num_tokens * shape.k(), 1.0),
            wo: Matrix::random(hidden, shape.k(), ScaleLayout::Swizzled, &mut rng(4)),
            wo_global: 0.0123,
            hidden_in: normal(5, num_tokens * hidden, 1.0),
            residual_in: normal(6, num_tokens * hidden, 1.0),
            input_gamma: normal(7, hidden, 0.2),
            post_gamma: normal(8, hidden, 0.2),
            gate_proj: Matrix::random(shape.intermediate, hidden, layout, &mut rng(9)),
            up_proj: Matrix::random(shape.intermediate, hidden, layout, &mut rng(10)),
            down_proj: Matrix::random(hidden, shape.intermediate, layout, &mut rng(11)),
            gate_up_global: 0.0021,
            down_global: 0.037,
            softmax_scale,
            k_scale: 0.7,
            v_scale: if kv == Kv::Random { 1.3 } else { 1.0 },
            rms_eps: 1e-6,
        }
    }

    /// Positions of a token's sequence.
    #[must_use]
    pub fn seq_len(&self, token: usize) -> usize {
        usize::try_from(self.seq_lens[token]).unwrap_or(0)
    }

    /// The D bytes of a position's key, or value, of a kv head.
    #[must_use]
    pub fn kv_row(
        &self,
        shape: &LayerShape,
        token: usize,
        position: usize,
        value: bool,
        head: usize,
    ) -> &[u8] {
        let (page, slot) = (position / shape.page_size, position % shape.page_size);
        let page = usize::try_from(self.page_table[token * self.max_pages + page]).unwrap_or(0);
        let row = ((page * 2 + usize::from(value)) * shape.page_size + slot) * shape.num_kv_heads + head;
        &self.kv_cache[row * shape.head_dim..(row + 1) * shape.head_dim]
    }
}

fn small(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The cache, the page table, and the pages of a row of it.
fn cache(shape: &LayerShape, lengths: &[usize], kv: Kv, rng: &mut Rng) -> (Vec<u8>, Vec<i32>, usize) {
    let used: Vec<usize> = lengths.iter().map(|l| l.div_ceil(shape.page_size)).collect();
    let max_pages = used.iter().copied().max().unwrap_or(0).max(1);
    let pages = used.iter().sum::<usize>() + 3;
    let mut order: Vec<usize> = (0..pages).collect();
    for at in (1..pages).rev() {
        let other = usize::try_from(rng.next_u64() % (at as u64 + 1)).unwrap_or(0);
        order.swap(at, other);
    }
    let row = shape.num_kv_heads * shape.head_dim;
    let half = shape.page_size * row;
    let mut bytes = vec![0x7f; pages * 2 * half];
    let mut table = vec![0; lengths.len() * max_pages];
    let mut free = order.into_iter();
    for (token, length) in lengths.iter().enumerate() {
        for page in 0..used[token] {
            let at = free.next().unwrap_or(0);
            table[token * max_pages + page] = small(at);
            let live = (length - page * shape.page_size).min(shape.page_size);
            for value in [0, 1] {
                let from = (at * 2 + value) * half;
                for (i, byte) in bytes[from..from + live * row].iter_mut().enumerate() {
                    *byte = if value == 1 && kv == Kv::ConstantV {
                        [0x38, 0xb4, 0x41, 0x3c][i / shape.head_dim % shape.num_kv_heads % 4]
                    } else {
                        e4m3::encode(rng.normal_f32())
                    };
                }
            }
        }
    }
    (bytes, table, max_pages)
}
