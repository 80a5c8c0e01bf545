//! A `W_O` problem on the GPU.
//!
//! Invariant: the sets of weights together are many times the L2, so a launch that takes
//! the next one finds nothing of it there.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DriverError, sys};

use super::super::reference::{WoInputs, WoOutput, WoShape};
use crate::engine::run::device::Context;
use crate::engine::run::launch::{Arguments, LaunchError, Order, launch};
use crate::engine::run::load::EntryPoint;
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
    nat: usize,
    order: Order,
    sets: Vec<CudaSlice<u8>>,
    set_addresses: Vec<sys::CUdeviceptr>,
    weight_len: u64,
    set_len: u64,
    attn: sys::CUdeviceptr,
    global_scale: CudaSlice<f32>,
    global_address: sys::CUdeviceptr,
    partials: CudaSlice<f32>,
    partials_address: sys::CUdeviceptr,
    output: CudaSlice<f32>,
    output_address: sys::CUdeviceptr,
    counters: sys::CUdeviceptr,
    _kept: (CudaSlice<u16>, CudaSlice<u32>),
}

/// Where a slice lies. Everything here runs on one stream or after it was waited
/// for, so nothing has to be recorded.
fn address<T>(slice: &CudaSlice<T>, stream: &CudaStream) -> sys::CUdeviceptr {
    slice.device_ptr(stream).0
}

impl Buffers {
    /// Uploads. `inputs` become the first set; the others are drawn from later
    /// seeds. `most_slots`: of all variants that will run.
    pub(super) fn new(
        context: &Context,
        shape: &WoShape,
        inputs: &WoInputs,
        seed: u64,
        layout: Layout,
        most_slots: usize,
    ) -> Result<Self, MeasureError> {
        let stream = context.cuda().default_stream();
        let set_len = inputs.weight.len() + inputs.scales.len();
        let count = if layout.cold {
            cold_sets(context.device().l2_bytes, set_len)
        } else {
            1
        };
        let mut sets = Vec::with_capacity(count);
        for i in 0..count {
            if i >= DISTINCT {
                let again = stream.clone_dtod(&sets[i % DISTINCT])?;
                sets.push(again);
                continue;
            }
            let other;
            let from = if i == 0 {
                inputs
            } else {
                other = WoInputs::random(shape, 1, 1.0, seed.wrapping_add(i as u64));
                &other
            };
            let mut weight = from.plain();
            if layout.packed {
                weight = PACKED.pack(&weight, shape.hidden, shape.k)?;
            }
            weight.codes.extend_from_slice(&weight.scales);
            sets.push(stream.clone_htod(&weight.codes)?);
        }
        let attn_bits: Vec<u16> = inputs.attn.iter().map(|x| x.to_bits()).collect();
        let attn = stream.clone_htod(&attn_bits)?;
        let counters = stream.alloc_zeros::<u32>(1024 * inputs.nat)?;
        let global_scale = stream.clone_htod(&[inputs.global_scale])?;
        let partials = stream.alloc_zeros::<f32>(inputs.nat * most_slots * shape.hidden)?;
        let output = stream.alloc_zeros::<f32>(inputs.nat * shape.hidden)?;
        stream.synchronize()?;
        Ok(Self {
            set_addresses: sets.iter().map(|s| address(s, &stream)).collect(),
            sets,
            weight_len: inputs.weight.len() as u64,
            set_len: set_len as u64,
            attn: address(&attn, &stream),
            global_address: address(&global_scale, &stream),
            global_scale,
            partials_address: address(&partials, &stream),
            partials,
            output_address: address(&output, &stream),
            output,
            counters: address(&counters, &stream),
            _kept: (attn, counters),
            shape: *shape,
            nat: inputs.nat,
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

    /// Changes the global scale.
    pub(super) fn set_global_scale(&mut self, value: f32) -> Result<(), DriverError> {
        self.stream.memcpy_htod(&[value], &mut self.global_scale)?;
        self.stream.synchronize()
    }

    /// One launch of a `wo_gemv` entry point over set `number` modulo their count.
    pub(super) fn launch(
        &self,
        entry: &EntryPoint,
        number: usize,
        nat: u32,
        stream: sys::CUstream,
    ) -> Result<(), LaunchError> {
        assert!(nat as usize <= self.nat, "buffers hold {} tokens", self.nat);
        let set = self.set_addresses[number % self.set_addresses.len()];
        let mut arguments = Arguments::<9>::new()
            .pointer(self.attn)
            .pointer(set)
            .pointer(set + self.weight_len)
            .pointer(self.global_address)
            .pointer(self.partials_address)
            .pointer(self.output_address)
            .pointer(self.counters)
            .pointer(0)
            .u32(nat);
        // SAFETY: the arguments are those of `wo_gemv`, and the buffers are of the
        // sizes that its family's page gives for this shape and no more tokens.
        unsafe { launch(entry, nat, self.order, stream, &mut arguments) }
    }

    /// Microseconds to read a set's bytes, the next set each launch.
    pub(super) fn floor(&self, session: &BenchSession<'_>, plan: &Plan) -> Result<f64, MeasureError> {
        let sets = &self.set_addresses;
        // SAFETY: every set has these bytes, and the counters 1024 words a token.
        unsafe { session.floor(plan, sets, self.set_len, self.counters) }
    }

    /// Launches, the first set last, with outputs of NaN before it, and reads them.
    pub(super) fn run(
        &mut self,
        entry: &EntryPoint,
        shape: &WoShape,
        nat: u32,
    ) -> Result<WoOutput, MeasureError> {
        let tokens = nat as usize;
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
            self.launch(entry, number, nat, self.stream.cu_stream())?;
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
