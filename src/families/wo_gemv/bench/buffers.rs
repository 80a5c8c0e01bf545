//! A `W_O` problem on the GPU.
//!
//! Invariant: the sets of weights together are many times the L2, so a launch that takes
//! the next one finds nothing of it there.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, sys};

use super::super::reference::{WoInputs, WoOutput, WoShape};
use crate::engine::run::bind::BoundKernel;
use crate::engine::run::bind_error::BindError;
use crate::engine::run::device::Context;
use crate::engine::run::launch::{LaunchError, Order};
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::families::nvfp4::packed::PACKED;
use crate::measure::MeasureError;
use crate::measure::bench::BenchSession;
use crate::measure::timing::{Plan, cold_sets};

/// Sets that differ; further ones repeat them elsewhere. Where launches overlap, as many
/// follow each other before a result is read.
const DISTINCT: usize = 9;

/// How weights lie, and how many sets of them there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Sets take turns, so that none lies in L2.
    pub cold: bool,
    /// Packed for tensor cores.
    pub packed: bool,
}

/// Inputs, outputs and their addresses.
pub(super) struct Buffers {
    stream: Arc<CudaStream>,
    shape: WoShape,
    num_tokens: usize,
    order: Order,
    sets: Vec<CudaSlice<u8>>,
    set_addresses: Vec<sys::CUdeviceptr>,
    weight_len: u64,
    set_len: u64,
    attn: CudaSlice<u16>,
    /// One, or one a row.
    factors: CudaSlice<f32>,
    partials: CudaSlice<f32>,
    output: CudaSlice<f32>,
    counters: CudaSlice<u32>,
}

/// A set of weights as a launch reads it: codes, then scales.
struct SetBytes {
    bytes: Vec<u8>,
    codes: usize,
}

fn bytes_of(shape: &WoShape, inputs: &WoInputs, layout: Layout) -> Result<SetBytes, MeasureError> {
    let mut weight = inputs.plain();
    if layout.packed {
        weight = PACKED.pack(&weight, shape.hidden, shape.k)?;
    }
    let codes = weight.codes.len();
    weight.codes.extend_from_slice(&weight.scales);
    Ok(SetBytes {
        bytes: weight.codes,
        codes,
    })
}

/// Where a slice lies. Everything here runs on one stream or after it was waited
/// for, so nothing has to be recorded.
fn address<T>(slice: &CudaSlice<T>, stream: &CudaStream) -> sys::CUdeviceptr {
    slice.device_ptr(stream).0
}

impl Buffers {
    /// Uploads. `inputs` become the first set; the others are drawn by number. `most_slots`: of all variants that will run.
    pub(super) fn new(
        context: &Context,
        shape: &WoShape,
        inputs: &WoInputs,
        other: impl Fn(u64) -> WoInputs,
        layout: Layout,
        most_slots: usize,
    ) -> Result<Self, MeasureError> {
        let stream = context.cuda().default_stream();
        let first = bytes_of(shape, inputs, layout)?;
        let count = if layout.cold {
            cold_sets(context.device().l2_bytes, first.bytes.len())
        } else {
            1
        };
        let mut sets = vec![stream.clone_htod(&first.bytes)?];
        for i in 1..count {
            let set = if i < DISTINCT {
                stream.clone_htod(&bytes_of(shape, &other(i as u64), layout)?.bytes)?
            } else {
                stream.clone_dtod(&sets[i % DISTINCT])?
            };
            sets.push(set);
        }
        let attn_bits: Vec<u16> = inputs.attn.iter().map(|x| x.to_bits()).collect();
        let attn = stream.clone_htod(&attn_bits)?;
        let counters = stream.alloc_zeros::<u32>(1024 * inputs.num_tokens)?;
        let factors = stream.clone_htod(&inputs.factors())?;
        let partials = stream.alloc_zeros::<f32>(inputs.num_tokens * most_slots * shape.hidden)?;
        let output = stream.alloc_zeros::<f32>(inputs.num_tokens * shape.hidden)?;
        stream.synchronize()?;
        Ok(Self {
            set_addresses: sets.iter().map(|s| address(s, &stream)).collect(),
            sets,
            weight_len: first.codes as u64,
            set_len: first.bytes.len() as u64,
            attn,
            factors,
            partials,
            output,
            counters,
            shape: *shape,
            num_tokens: inputs.num_tokens,
            order: Order::Serial,
            stream,
        })
    }

    /// How many sets take turns.
    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// How later launches of `wo_gemv` relate to the one before.
    pub(super) fn set_order(&mut self, order: Order) {
        self.order = order;
    }

    /// A `wo_gemv` kernel bound to each set.
    pub(super) fn bind(&self, kernel: &Arc<LoadedKernel>) -> Result<Vec<BoundKernel>, BindError> {
        let s = &self.stream;
        let (codes, scales) = (self.weight_len, self.set_len - self.weight_len);
        let count = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        // FP8 weights have none.
        let scales_of = |set: &sys::CUdeviceptr| match scales {
            0 => Tensor::at(0, Dtype::E4m3),
            _ => Tensor::flat(*set + codes, Dtype::E4m3, count(scales)),
        };
        let one = |set: &sys::CUdeviceptr| {
            (kernel.bind())
                .order(self.order)
                .size("num_tokens", u32::try_from(self.num_tokens).unwrap_or(u32::MAX))
                .arg("attn", Tensor::all_of(s, &self.attn, Dtype::Bf16))
                .arg("weight", Tensor::flat(*set, Dtype::U8, count(codes)))
                .arg("scales", scales_of(set))
                .arg("global_scale", Tensor::all_of(s, &self.factors, Dtype::F32))
                .arg("partials", Tensor::all_of(s, &self.partials, Dtype::F32))
                .arg("output", Tensor::all_of(s, &self.output, Dtype::F32))
                .arg("counters", Tensor::all_of(s, &self.counters, Dtype::U32))
                .finish()
        };
        self.set_addresses.iter().map(one).collect()
    }

    /// Microseconds to read a set's bytes, the next set each launch.
    pub(super) fn floor(&self, session: &BenchSession<'_>, plan: &Plan) -> Result<f64, MeasureError> {
        let bytes = usize::try_from(self.set_len).unwrap_or(usize::MAX);
        let read = |set: &sys::CUdeviceptr| Tensor::flat(*set, Dtype::U8, bytes);
        let sets: Vec<Tensor> = self.set_addresses.iter().map(read).collect();
        let result = Tensor::all_of(&self.stream, &self.counters, Dtype::U32);
        // SAFETY: the sets and the counters outlive the call.
        unsafe { session.floor(plan, &sets, result) }
    }

    /// One launch over set `number` modulo their count, of a kernel that was bound to
    /// each, with its launch sizes.
    pub(super) fn launch(
        bound: &[BoundKernel],
        number: usize,
        sizes: &[u32],
        stream: sys::CUstream,
    ) -> Result<(), LaunchError> {
        // SAFETY: the buffers are these, alive while the bench runs, and used by one
        // launch after another.
        unsafe { bound[number % bound.len()].launch(sizes, stream) }
    }

    /// Launches, the first set last, with outputs of NaN before it, and reads them.
    pub(super) fn run(
        &mut self,
        bound: &[BoundKernel],
        shape: &WoShape,
        num_tokens: u32,
    ) -> Result<WoOutput, MeasureError> {
        let tokens = num_tokens as usize;
        let poison = vec![f32::NAN; self.partials.len()];
        self.stream.memcpy_htod(&poison, &mut self.partials)?;
        self.stream
            .memcpy_htod(&poison[..self.output.len()], &mut self.output)?;
        self.stream.synchronize()?;
        // A launch that may overlap the one before has some of other sets before it.
        let before = if self.order == Order::Serial {
            0
        } else {
            DISTINCT - 1
        };
        for number in (0..=before).rev() {
            Self::launch(bound, number, &[num_tokens], self.stream.cu_stream())?;
        }
        self.stream.synchronize()?;
        let mut partials = self.stream.clone_dtoh(&self.partials)?;
        let mut output = self.stream.clone_dtoh(&self.output)?;
        self.stream.synchronize()?;
        partials.truncate(tokens * shape.num_slots() * self.shape.hidden);
        output.truncate(tokens * self.shape.hidden);
        Ok(WoOutput { partials, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_as_long_as_its_layout_makes_it() {
        let shape = WoShape {
            hidden: 72,
            k: 256,
            num_kv_heads: 1,
            wo_split: 1,
        };
        let inputs = WoInputs::random(&shape, 1, 1.0, 7);
        let len = |packed| {
            let layout = Layout { cold: false, packed };
            let set = bytes_of(&shape, &inputs, layout).expect("whole blocks");
            (set.codes, set.bytes.len() - set.codes)
        };
        // Rows are padded to 128 under swizzled scales, and not under packed ones.
        assert_eq!(len(false), (72 * 128, 128 * 16));
        assert_eq!(len(true), (72 * 128, 72 * 16));
        let fp8 = WoInputs::random_fp8(&shape, 1, 1.0, true, 7);
        let layout = Layout {
            cold: false,
            packed: false,
        };
        let set = bytes_of(&shape, &fp8, layout).expect("codes alone");
        assert_eq!((set.codes, set.bytes.len()), (72 * 256, 72 * 256));
    }
}
