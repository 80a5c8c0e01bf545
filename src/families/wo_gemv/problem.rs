//! A `W_O` problem in a GPU's memory: inputs put there once, outputs poisoned
//! before a launch and read back after it.
//!
//! Invariant: what is read back was written by the last launch; whatever it left
//! out is still NaN.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError, result, sys};

use crate::engine::run::launch::{Arguments, LaunchError, Order, launch};
use crate::engine::run::load::{EntryPoint, LoadedKernel};
use crate::families::wo_gemv::reference::WoInputs;
use crate::families::wo_gemv::reference::WoOutput;
use crate::families::wo_gemv::reference::WoShape;

/// Why a problem could not be set up, run or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// The driver said no.
    #[error("the CUDA driver said {0:?}")]
    Driver(#[from] DriverError),
    /// The launch did not happen.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The kernel left a counter that the next launch expects to be zero.
    #[error("`{entry}` left counter {index} at {value}: the next launch would not wait for it")]
    Counter {
        /// The entry point.
        entry: String,
        /// Which one.
        index: usize,
        /// What it holds.
        value: u32,
    },
}

/// Counters that a token may use, far more than any geometry does.
const COUNTERS_PER_TOKEN: usize = 64;

/// Inputs and outputs of `wo_gemv` in device memory.
#[derive(Debug)]
pub struct WoProblem {
    stream: Arc<CudaStream>,
    attn: CudaSlice<u16>,
    weight: CudaSlice<u8>,
    scales: CudaSlice<u8>,
    global_scale: CudaSlice<f32>,
    partials: CudaSlice<f32>,
    output: CudaSlice<f32>,
    counters: CudaSlice<u32>,
    hidden: usize,
    nat: usize,
}

impl WoProblem {
    /// Puts inputs into memory, with room for the partials of `max_slots` slots.
    ///
    /// `attn` is `[nat, K]` bf16, `weight` `[H, K/2]` u8, `scales` swizzled e4m3,
    /// the global scale one f32; `partials` `[nat, slots, H]` and `output`
    /// `[nat, H]` f32.
    pub fn new(
        stream: &Arc<CudaStream>,
        shape: &WoShape,
        max_slots: usize,
        inputs: &WoInputs,
    ) -> Result<Self, ProblemError> {
        let attn: Vec<u16> = inputs.attn.iter().map(|x| x.to_bits()).collect();
        Ok(Self {
            attn: stream.clone_htod(&attn)?,
            weight: stream.clone_htod(&inputs.weight)?,
            scales: stream.clone_htod(&inputs.scales)?,
            global_scale: stream.clone_htod(&[inputs.global_scale])?,
            partials: stream.alloc_zeros(inputs.nat * max_slots * shape.hidden)?,
            output: stream.alloc_zeros(inputs.nat * shape.hidden)?,
            counters: stream.alloc_zeros(inputs.nat * COUNTERS_PER_TOKEN)?,
            stream: Arc::clone(stream),
            hidden: shape.hidden,
            nat: inputs.nat,
        })
    }

    /// Another global scale, with all else as it is.
    pub fn set_global_scale(&mut self, global_scale: f32) -> Result<(), ProblemError> {
        self.stream.memcpy_htod(&[global_scale], &mut self.global_scale)?;
        Ok(())
    }

    /// Runs a kernel once over the first `nat` tokens, with outputs poisoned
    /// before, and returns partials `[nat, slots, H]` and output `[nat, H]`.
    ///
    /// # Panics
    ///
    /// If `nat` tokens of `slots` slots are more than there is room for.
    pub fn run(&mut self, kernel: &LoadedKernel, nat: usize, slots: usize) -> Result<WoOutput, ProblemError> {
        self.run_timed(kernel, nat, slots, 0)
    }

    /// As [`Self::run`], of a kernel that writes region timings to this address.
    ///
    /// # Panics
    ///
    /// As [`Self::run`].
    pub fn run_timed(
        &mut self,
        kernel: &LoadedKernel,
        nat: usize,
        slots: usize,
        region_timing: sys::CUdeviceptr,
    ) -> Result<WoOutput, ProblemError> {
        assert!(
            nat <= self.nat && nat * slots * self.hidden <= self.partials.len(),
            "a problem set up for more than it is run with"
        );
        let entry = &kernel.entries()[0];
        let mut partials = self.partials.slice_mut(..nat * slots * self.hidden);
        let mut output = self.output.slice_mut(..nat * self.hidden);
        for buffer in [&mut partials, &mut output] {
            let bytes = buffer.len() * size_of::<f32>();
            let (address, _written) = buffer.device_ptr_mut(&self.stream);
            // SAFETY: the buffer has that many bytes. All bits set is a NaN.
            unsafe { result::memset_d8_async(address, 0xff, bytes, self.stream.cu_stream()) }?;
        }
        self.launch(entry, nat, region_timing)?;
        let out = WoOutput {
            partials: self
                .stream
                .clone_dtoh(&self.partials.slice(..nat * slots * self.hidden))?,
            output: self.stream.clone_dtoh(&self.output.slice(..nat * self.hidden))?,
        };
        self.stream.synchronize()?;
        let counters = self.stream.clone_dtoh(&self.counters)?;
        self.stream.synchronize()?;
        match counters.iter().position(|value| *value != 0) {
            None => Ok(out),
            Some(index) => Err(ProblemError::Counter {
                entry: entry.name().to_owned(),
                index,
                value: counters[index],
            }),
        }
    }

    /// Queues a launch and nothing else; see [`crate::measure::region::argument`] for the address.
    pub fn launch(
        &mut self,
        entry: &EntryPoint,
        nat: usize,
        region_timing: sys::CUdeviceptr,
    ) -> Result<(), ProblemError> {
        let stream = &self.stream;
        let (attn, _a) = self.attn.device_ptr(stream);
        let (weight, _w) = self.weight.device_ptr(stream);
        let (scales, _s) = self.scales.device_ptr(stream);
        let (global_scale, _g) = self.global_scale.device_ptr(stream);
        let (partials, _p) = self.partials.device_ptr_mut(stream);
        let (output, _o) = self.output.device_ptr_mut(stream);
        let (counters, _c) = self.counters.device_ptr_mut(stream);
        let nat = u32::try_from(nat).unwrap_or(u32::MAX);
        let mut arguments = Arguments::<9>::new()
            .pointer(attn)
            .pointer(weight)
            .pointer(scales)
            .pointer(global_scale)
            .pointer(partials)
            .pointer(output)
            .pointer(counters)
            .pointer(region_timing)
            .u32(nat);
        // SAFETY: these are the parameters of the family's entry point, in order,
        // and `new` gave each buffer the size that its page asks for.
        unsafe { launch(entry, nat, Order::Serial, stream.cu_stream(), &mut arguments) }?;
        Ok(())
    }
}
