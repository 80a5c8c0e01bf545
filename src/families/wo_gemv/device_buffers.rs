//! A `W_O` problem in a GPU's memory: inputs put there once, outputs poisoned
//! before a launch and read back after it.
//!
//! Invariant: what is read back was written by the last launch; whatever it left
//! out is still NaN.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, DriverError, result, sys};

use crate::engine::run::bind::BoundKernel;
use crate::engine::run::bind_error::BindError;
use crate::engine::run::launch::LaunchError;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::families::wo_gemv::WoFormat;
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
    /// The memory is not what the kernel takes.
    #[error(transparent)]
    Bind(#[from] BindError),
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
pub struct WoBuffers {
    stream: Arc<CudaStream>,
    attn: CudaSlice<u16>,
    weight: CudaSlice<u8>,
    scales: Option<CudaSlice<u8>>,
    global_scale: CudaSlice<f32>,
    partials: CudaSlice<f32>,
    output: CudaSlice<f32>,
    counters: CudaSlice<u32>,
    hidden: usize,
    num_tokens: usize,
}

impl WoBuffers {
    /// Puts inputs into memory, with room for the partials of `max_slots` slots.
    ///
    /// `attn` is `[num_tokens, K]` bf16, `weight` `[H, K/2]` u8, of FP8 `[H, K]`, `scales`
    /// swizzled e4m3, of FP8 none, the global scale one f32 or one a row; `partials` `[num_tokens, slots, H]` and `output`
    /// `[num_tokens, H]` f32.
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
            scales: match inputs.format {
                WoFormat::Nvfp4 => Some(stream.clone_htod(&inputs.scales)?),
                WoFormat::Fp8 => None,
            },
            global_scale: stream.clone_htod(&inputs.factors())?,
            partials: stream.alloc_zeros(inputs.num_tokens * max_slots * shape.hidden)?,
            output: stream.alloc_zeros(inputs.num_tokens * shape.hidden)?,
            counters: stream.alloc_zeros(inputs.num_tokens * COUNTERS_PER_TOKEN)?,
            stream: Arc::clone(stream),
            hidden: shape.hidden,
            num_tokens: inputs.num_tokens,
        })
    }

    /// Another global scale, with all else as it is: not of weights with a scale a row.
    pub fn set_global_scale(&mut self, global_scale: f32) -> Result<(), ProblemError> {
        self.stream.memcpy_htod(&[global_scale], &mut self.global_scale)?;
        Ok(())
    }

    /// Runs a kernel once over the first `num_tokens` tokens, with outputs poisoned
    /// before, and returns partials `[num_tokens, slots, H]` and output `[num_tokens, H]`.
    ///
    /// # Panics
    ///
    /// If `num_tokens` tokens of `slots` slots are more than there is room for.
    pub fn run(
        &mut self,
        kernel: &Arc<LoadedKernel>,
        num_tokens: usize,
        slots: usize,
    ) -> Result<WoOutput, ProblemError> {
        self.run_timed(kernel, num_tokens, slots, 0)
    }

    /// As [`Self::run`], of a kernel that writes region timings to this address.
    ///
    /// # Panics
    ///
    /// As [`Self::run`].
    pub fn run_timed(
        &mut self,
        kernel: &Arc<LoadedKernel>,
        num_tokens: usize,
        slots: usize,
        region_timing: sys::CUdeviceptr,
    ) -> Result<WoOutput, ProblemError> {
        assert!(
            num_tokens <= self.num_tokens && num_tokens * slots * self.hidden <= self.partials.len(),
            "a problem set up for more than it is run with"
        );
        let bound = self.bind(kernel, num_tokens, region_timing)?;
        let mut partials = self.partials.slice_mut(..num_tokens * slots * self.hidden);
        let mut output = self.output.slice_mut(..num_tokens * self.hidden);
        for buffer in [&mut partials, &mut output] {
            let bytes = buffer.len() * size_of::<f32>();
            let (address, _written) = buffer.device_ptr_mut(&self.stream);
            // SAFETY: the buffer has that many bytes. All bits set is a NaN.
            unsafe { result::memset_d8_async(address, 0xff, bytes, self.stream.cu_stream()) }?;
        }
        self.launch(&bound, num_tokens)?;
        let out = WoOutput {
            partials: self
                .stream
                .clone_dtoh(&self.partials.slice(..num_tokens * slots * self.hidden))?,
            output: self
                .stream
                .clone_dtoh(&self.output.slice(..num_tokens * self.hidden))?,
        };
        self.stream.synchronize()?;
        let counters = self.stream.clone_dtoh(&self.counters)?;
        self.stream.synchronize()?;
        match counters.iter().position(|value| *value != 0) {
            None => Ok(out),
            Some(index) => Err(ProblemError::Counter {
                entry: kernel.entries()[0].name().to_owned(),
                index,
                value: counters[index],
            }),
        }
    }

    /// Binds a kernel to this memory, for up to `num_tokens` tokens; see
    /// [`crate::measure::region::argument`] for the address.
    pub fn bind(
        &self,
        kernel: &Arc<LoadedKernel>,
        num_tokens: usize,
        region_timing: sys::CUdeviceptr,
    ) -> Result<BoundKernel, ProblemError> {
        let s = &self.stream;
        let scales = match &self.scales {
            Some(scales) => Tensor::all_of(s, scales, Dtype::E4m3),
            None => Tensor::at(0, Dtype::E4m3),
        };
        let bound = (kernel.bind())
            .size("num_tokens", u32::try_from(num_tokens).unwrap_or(u32::MAX))
            .arg("attn", Tensor::all_of(s, &self.attn, Dtype::Bf16))
            .arg("weight", Tensor::all_of(s, &self.weight, Dtype::U8))
            .arg("scales", scales)
            .arg("global_scale", Tensor::all_of(s, &self.global_scale, Dtype::F32))
            .arg("partials", Tensor::all_of(s, &self.partials, Dtype::F32))
            .arg("output", Tensor::all_of(s, &self.output, Dtype::F32))
            .arg("counters", Tensor::all_of(s, &self.counters, Dtype::U32))
            .arg("region_timing", Tensor::at(region_timing, Dtype::U64))
            .finish()?;
        Ok(bound)
    }

    /// Queues a launch of a kernel that was [bound](Self::bind) to this memory, and
    /// nothing else.
    pub fn launch(&mut self, bound: &BoundKernel, num_tokens: usize) -> Result<(), ProblemError> {
        let num_tokens = u32::try_from(num_tokens).unwrap_or(u32::MAX);
        // SAFETY: `bind` checked this problem's memory, which lives as long as its stream
        // works on it.
        unsafe { bound.launch(&[num_tokens], self.stream.cu_stream()) }?;
        Ok(())
    }
}
