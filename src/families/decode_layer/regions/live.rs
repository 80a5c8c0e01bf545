//! The decode layer by regions on a GPU.
//!
//! Invariant: what a launch with regions writes is what one without them writes, to the
//! bit, or nothing is timed; verifying is what holds the latter to the references. A
//! launch is timed right behind some over other memory, as in a stream of layers.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::engine::jit::Jit;
use crate::engine::run::device::Context;
use crate::families::decode_layer::config::{LayerConfig, LayerGeometry};
use crate::families::decode_layer::copies::Copies;
use crate::families::decode_layer::reference::Kv;
use crate::families::decode_layer::{BoundLayer, Layer, WorkspaceError};
use crate::measure::MeasureError;
use crate::measure::region::live::{Pair, buffer, geometry, measure, requested_pairs};
use crate::measure::region::{Layout, Run, TickSource, Ticks};

/// Positions of each sequence's context.
const CONTEXT: usize = 4096;

/// Times launches of so many tokens, of every variant that the settings ask for.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU, [`MeasureError::Refused`] where regions change a
/// result; those of making and launching kernels.
pub fn live(jit: &Jit, family: &str, tokens: u32) -> Result<Vec<Run>, MeasureError> {
    requested_pairs(jit, family, None)?;
    let context = Context::new(0)?;
    let device = context.device();
    let here = device.arch();
    let pairs = requested_pairs(jit, family, Some(here))?;
    let each = pairs.iter().map(|pair| one(jit, &context, pair, tokens));
    each.collect()
}

fn one(jit: &Jit, context: &Context, pair: &Pair, num_tokens: u32) -> Result<Run, MeasureError> {
    let stream = context.cuda().default_stream();
    let (on, off) = (&pair.on, &pair.off);
    let layer_on = Layer::new(on, jit.load(on, context)?)?;
    let off_kernel = jit.load(off, context)?;
    let layer_off = Layer::new(off, Arc::clone(&off_kernel))?;
    let layout = match LayerConfig::try_from(on)?.geometry {
        LayerGeometry::Original => Layout::Slots,
        LayerGeometry::Spread => Layout::Tiles,
    };
    let geometry = geometry(pair, &off_kernel, &[num_tokens], layout);
    let dims = layer_on.dims();
    let inputs = dims.inputs(&vec![CONTEXT; num_tokens as usize], Kv::Random, 4242);
    let mut copies = Copies::new(context, dims, &inputs)?;
    let [memory, others @ ..] = copies.0.as_mut_slice() else {
        unreachable!("cold sets are two at least")
    };
    let before = (others.iter())
        .map(|copy| copy.bind(&layer_off))
        .collect::<Result<Vec<_>, _>>()?;
    let (words, timing) = buffer(&stream, pair, &geometry)?;
    let (bound_on, bound_off) = (memory.bind_timed(&layer_on, timing)?, memory.bind(&layer_off)?);

    let mut written = |bound: &BoundLayer| {
        memory.poison()?;
        launch(bound, num_tokens, &stream)?;
        memory.read(num_tokens as usize, dims.slots)
    };
    if written(&bound_off)? != written(&bound_on)? {
        let reason = "what a launch with regions writes differs from what one without writes";
        return Err(MeasureError::Refused(format!(
            "{}: {reason}: nothing was timed",
            on.variant()
        )));
    }

    let against = "equal to the kernel without regions in every bit";
    let account = |words: &[u64]| {
        let (table, source) = (pair.table.clone(), TickSource::of_spec(on));
        Ticks::from_words(table, geometry.clone(), source, words)
    };
    measure(
        context,
        &mut || {
            Ok(before
                .iter()
                .try_for_each(|bound| launch(bound, num_tokens, &stream))?)
        },
        &words,
        off,
        against,
        &account,
        &mut |regions| {
            let bound = if regions { &bound_on } else { &bound_off };
            Ok(launch(bound, num_tokens, &stream)?)
        },
    )
}

fn launch(bound: &BoundLayer, num_tokens: u32, stream: &CudaStream) -> Result<(), WorkspaceError> {
    // SAFETY: the caller keeps the memory that it was bound to and waits for the
    // stream; its lengths and pages come from `LayerInputs`, which keeps them inside.
    unsafe { bound.launch(num_tokens, stream.cu_stream()) }
}
