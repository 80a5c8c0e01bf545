//! The layer as kernels of their own, one after another: attention as separate launches have
//! it, `wo_gemv`, and `gemv` for gate and up together and for down. Norm, activation
//! and requantization are left out, so a complete layer of separate kernels takes longer.
//!
//! Invariant: weights are as many copies in turn as the layer's are.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream};

use super::super::reference::LayerInputs;
use super::super::{BoundLayer, LayerDims};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::Family;
use crate::engine::run::bind::BoundKernel;
use crate::engine::run::bind_error::BindError;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::families::gemv::{self, GemvConfig};
use crate::families::wo_gemv::{self, geometry::heuristic};
use crate::measure::MeasureError;
use crate::measure::bench::BenchSession;
use crate::measure::timing::{Plan, sample};
use crate::measure::tune::{Geometry, Problem, Sizes, choose};

/// Kernels of separate launches that are attention.
const ATTENTION: std::ops::Range<usize> = 0..2;

/// Codes and scales of `W_O`, of gate and up, of down.
type Copy = [(CudaSlice<u8>, CudaSlice<u8>); 3];

pub(super) struct OwnKernels {
    stream: Arc<CudaStream>,
    dims: LayerDims,
    copies: Vec<Copy>,
    x: CudaSlice<u16>,
    global: CudaSlice<f32>,
    out: CudaSlice<f32>,
    partials: CudaSlice<f32>,
    counters: CudaSlice<u32>,
}

/// What runs after attention.
pub(super) struct Kernels {
    wo: (KernelSpec, Arc<LoadedKernel>),
    gate_up: (KernelSpec, Arc<LoadedKernel>),
    down: (KernelSpec, Arc<LoadedKernel>),
    /// Tokens that share a decode of gate and up, and of down.
    decodes: [usize; 2],
}

impl Kernels {
    pub(super) fn specs(&self) -> impl Iterator<Item = &KernelSpec> {
        [&self.wo.0, &self.gate_up.0, &self.down.0].into_iter()
    }

    pub(super) fn decodes(&self) -> [usize; 2] {
        self.decodes
    }
}

impl OwnKernels {
    pub(super) fn new(
        session: &BenchSession<'_>,
        dims: &LayerDims,
        inputs: &LayerInputs,
        count: usize,
    ) -> Result<Self, MeasureError> {
        let stream = session.context.cuda().default_stream();
        let widest = dims.k().max(dims.intermediate).max(dims.hidden);
        let both = |a: &[u8], b: &[u8]| [a, b].concat();
        let gate_up = (
            both(&inputs.gate_proj.codes, &inputs.up_proj.codes),
            both(&inputs.gate_proj.scales, &inputs.up_proj.scales),
        );
        let mut copies = Vec::new();
        for _ in 0..count {
            copies.push([
                (
                    stream.clone_htod(&inputs.wo.codes)?,
                    stream.clone_htod(&inputs.wo.scales)?,
                ),
                (stream.clone_htod(&gate_up.0)?, stream.clone_htod(&gate_up.1)?),
                (
                    stream.clone_htod(&inputs.down_proj.codes)?,
                    stream.clone_htod(&inputs.down_proj.scales)?,
                ),
            ]);
        }
        let row: Vec<u16> = inputs
            .query
            .iter()
            .cycle()
            .take(inputs.num_tokens * widest)
            .map(|v| v.to_bits())
            .collect();
        Ok(Self {
            x: stream.clone_htod(&row)?,
            global: stream.clone_htod(&[inputs.wo_global])?,
            out: stream.alloc_zeros(inputs.num_tokens * 2 * widest)?,
            partials: stream.alloc_zeros(inputs.num_tokens * dims.slots * dims.hidden)?,
            counters: stream.alloc_zeros(1024 * inputs.num_tokens)?,
            copies,
            dims: *dims,
            stream,
        })
    }

    /// The kernels after attention, for so many tokens.
    pub(super) fn kernels(
        &self,
        session: &BenchSession<'_>,
        spec: &KernelSpec,
        num_tokens: u32,
    ) -> Result<Kernels, MeasureError> {
        let d = &self.dims;
        let loaded = |spec: KernelSpec| -> Result<_, MeasureError> {
            let kernel = session.jit.load(&spec, &session.context)?;
            Ok((spec, kernel))
        };
        let gate_up = gemv_spec(session, 2 * d.intermediate, d.hidden, num_tokens)?;
        let down = gemv_spec(session, d.hidden, d.intermediate, num_tokens)?;
        let tokens = |spec| GemvConfig::try_from(spec).map(|config| config.tokens_per_pass);
        Ok(Kernels {
            decodes: [tokens(&gate_up)?, tokens(&down)?],
            wo: loaded(Self::wo(session, spec, num_tokens)?)?,
            gate_up: loaded(gate_up)?,
            down: loaded(down)?,
        })
    }

    /// All kernels in order, a launch after another.
    pub(super) fn sample(
        &self,
        session: &BenchSession<'_>,
        plan: &Plan,
        attention: &[BoundLayer],
        kernels: &Kernels,
        num_tokens: u32,
    ) -> Result<Vec<f64>, MeasureError> {
        let bound = (self.copies.iter())
            .map(|copy| self.bind(kernels, copy, num_tokens))
            .collect::<Result<Vec<_>, _>>()?;
        sample(&session.context, plan, &mut |i, stream| {
            // SAFETY: as in `copies::launch`.
            unsafe { attention[i % attention.len()].launch_entries(ATTENTION, num_tokens, stream) }?;
            for kernel in &bound[i % bound.len()] {
                // SAFETY: these buffers are alive, and launches follow each other.
                unsafe { kernel.launch(&[num_tokens], stream) }?;
            }
            Ok(())
        })
    }

    fn wo(
        session: &BenchSession<'_>,
        spec: &KernelSpec,
        num_tokens: u32,
    ) -> Result<KernelSpec, MeasureError> {
        let names = [
            "hidden",
            "num_q_heads",
            "num_kv_heads",
            "head_dim",
            "wo_split",
            "accumulate",
        ];
        let mut constants: Geometry = names
            .iter()
            .map(|name| ((*name).to_owned(), spec.constants()[*name].to_string()))
            .collect();
        let problem = Problem {
            family: wo_gemv::FAMILY.into(),
            constants: constants.clone(),
            tokens: num_tokens,
            sizes: Sizes::new(),
        };
        constants.extend(
            choose(
                &session.record,
                &session.gpu(),
                &problem,
                &Geometry::new(),
                heuristic,
            )
            .geometry,
        );
        let family = session.jit.registry().get(wo_gemv::FAMILY)?;
        let set = constants.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        Ok(KernelSpec::new(family, set, session.arch())?)
    }

    /// The three kernels over one copy of the weights.
    fn bind(&self, kernels: &Kernels, copy: &Copy, num_tokens: u32) -> Result<[BoundKernel; 3], BindError> {
        let [wo, gate_up, down] = copy;
        let s = &self.stream;
        let common = |kernel: &Arc<LoadedKernel>, (codes, scales): &(CudaSlice<u8>, CudaSlice<u8>)| {
            (kernel.bind())
                .size("num_tokens", num_tokens)
                .arg("weight", Tensor::all_of(s, codes, Dtype::U8))
                .arg("scales", Tensor::all_of(s, scales, Dtype::E4m3))
                .arg("global_scale", Tensor::all_of(s, &self.global, Dtype::F32))
                .arg("output", Tensor::all_of(s, &self.out, Dtype::F32))
        };
        let x = Tensor::all_of(s, &self.x, Dtype::Bf16);
        let wo = common(&kernels.wo.1, wo)
            .arg("attn", x)
            .arg("partials", Tensor::all_of(s, &self.partials, Dtype::F32))
            .arg("counters", Tensor::all_of(s, &self.counters, Dtype::U32));
        Ok([
            wo.finish()?,
            common(&kernels.gate_up.1, gate_up).arg("x", x).finish()?,
            common(&kernels.down.1, down).arg("x", x).finish()?,
        ])
    }
}

/// With as many tokens to a decode as shared memory holds the activations of, be it with
/// fewer rows to a block.
fn gemv_spec(
    session: &BenchSession<'_>,
    rows: usize,
    k: usize,
    num_tokens: u32,
) -> Result<KernelSpec, MeasureError> {
    let family = session.jit.registry().get(gemv::FAMILY)?;
    let room = session.context.device().shared_mem_per_block;
    widest(
        family,
        session.arch(),
        room,
        rows,
        k,
        num_tokens.next_power_of_two().min(8),
    )
}

fn widest(
    family: &Arc<Family>,
    arch: Arch,
    room: u32,
    rows: usize,
    k: usize,
    most: u32,
) -> Result<KernelSpec, MeasureError> {
    let (rows, k) = (rows.to_string(), k.to_string());
    let with = |tokens: u32, num_ctas: &str| {
        let tokens = tokens.to_string();
        let set = [
            ("rows", rows.as_str()),
            ("k_total", k.as_str()),
            ("tokens_per_pass", tokens.as_str()),
            ("num_ctas", num_ctas),
        ];
        KernelSpec::new(family, set, arch)
    };
    let blocks = family.constants["num_ctas"].default.to_string();
    let times = |count: u32| blocks.parse().map_or(132 * count, |n: u32| n * count).to_string();
    let mut tokens = most;
    while tokens > 1 {
        for num_ctas in [1, 2, 3].map(times) {
            // One that does not fit breaks a constraint of the family.
            if let Ok(spec) = with(tokens, &num_ctas)
                && spec.number("shared_bytes").is_none_or(|bytes| bytes <= room)
            {
                return Ok(spec);
            }
        }
        tokens /= 2;
    }
    Ok(with(1, &blocks)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::template::Registry;

    #[test]
    fn a_decode_is_shared_by_as_many_tokens_as_fit() {
        let registry = Registry::load(None).expect("families");
        let family = registry.get(gemv::FAMILY).expect("family");
        let tokens = |room: u32, rows: usize, k: usize, most: u32| {
            let arch = "sm_90a".parse().expect("arch");
            let spec = widest(family, arch, room, rows, k, most).expect("legal");
            assert!(spec.number("shared_bytes") <= Some(room));
            spec.number("tokens_per_pass")
        };
        let (h200, l40s) = (232_448, 101_376);
        assert_eq!(tokens(h200, 34_816, 5120, 8), Some(8), "gate and up");
        assert_eq!(
            tokens(h200, 5120, 17_408, 8),
            Some(4),
            "down: 278 KB of activations"
        );
        assert_eq!(tokens(h200, 5120, 17_408, 1), Some(1));
        assert_eq!(tokens(l40s, 5120, 17_408, 8), Some(2));
    }
}
