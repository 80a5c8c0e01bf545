//! `wo_gemv` by regions on a GPU: a launch is timed behind a copy over L2.
//!
//! Invariant: what a launch with regions writes is the reference's to the bit, or nothing
//! is timed.

use cudarc::driver::CudaSlice;

use super::FAMILY;
use super::config::{Accumulate, LaunchGeometry, WoConfig, WoFormat};
use super::device_buffers::WoBuffers;
use super::reference::{WoInputs, WoShape, split_order};
use crate::engine::jit::Jit;
use crate::engine::run::device::Context;
use crate::measure::MeasureError;
use crate::measure::compare::compare;
use crate::measure::region::live::{Pair, buffer, geometry, measure, requested_pairs};
use crate::measure::region::{Layout, Run, TickSource, Ticks};

/// Written before each launch, so that nothing of the last one is in L2.
const FLUSH_BYTES: usize = 256 << 20;

/// Times launches of so many tokens, of every variant that the settings ask for.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU, [`MeasureError::Refused`] where a result is not
/// the reference's; those of making and launching kernels.
pub fn live(jit: &Jit, tokens: u32) -> Result<Vec<Run>, MeasureError> {
    requested_pairs(jit, FAMILY, None)?;
    let context = Context::new(0)?;
    let device = context.device();
    let here = device.arch();
    let stream = context.cuda().default_stream();
    let mut problem: Option<(WoShape, WoInputs, WoBuffers)> = None;
    let mut scratch: CudaSlice<u8> = stream.alloc_zeros(FLUSH_BYTES)?;
    let mut runs = Vec::new();
    for pair in requested_pairs(jit, FAMILY, Some(here))? {
        let config = WoConfig::try_from(&pair.on)?;
        let shape = config.shape();
        // Weights do not depend on the split: most variants share them.
        let same = |p: &(WoShape, WoInputs, WoBuffers)| {
            let rows = !p.1.row_scales.is_empty();
            (p.0.hidden, p.0.k) == (shape.hidden, shape.k)
                && (p.1.format, rows) == (config.format, config.row_scales)
        };
        let (_, inputs, problem) = match &mut problem {
            Some(kept) if same(kept) => kept,
            slot => {
                let tokens = tokens as usize;
                let inputs = match config.format {
                    WoFormat::Nvfp4 => WoInputs::random(&shape, tokens, 1.0, 4242),
                    WoFormat::Fp8 => WoInputs::random_fp8(&shape, tokens, 1.0, config.row_scales, 4242),
                };
                let most_slots = 8 * shape.num_kv_heads.max(4);
                let there = WoBuffers::new(&stream, &shape, most_slots, &inputs)?;
                slot.insert((shape, inputs, there))
            }
        };
        runs.push(one(jit, &context, &pair, (inputs, problem), &mut scratch)?);
    }
    Ok(runs)
}

fn one(
    jit: &Jit,
    context: &Context,
    pair: &Pair,
    (inputs, problem): (&WoInputs, &mut WoBuffers),
    scratch: &mut CudaSlice<u8>,
) -> Result<Run, MeasureError> {
    let (on, off) = (&pair.on, &pair.off);
    let config = WoConfig::try_from(on)?;
    let shape = config.shape();
    let (on_kernel, off_kernel) = (jit.load(on, context)?, jit.load(off, context)?);
    let num_tokens = inputs.num_tokens;
    let layout = match config.geometry {
        LaunchGeometry::Original => Layout::Slots,
        LaunchGeometry::Tiled => Layout::Tiles,
    };
    let tokens = u32::try_from(num_tokens).unwrap_or(u32::MAX);
    let geometry = geometry(pair, &on_kernel, &[tokens], layout);
    let stream = context.cuda().default_stream();
    let (words, timing) = buffer(&stream, pair, &geometry)?;

    let expected = split_order(&shape, inputs, config.accumulate == Accumulate::Fma);
    let actual = problem.run_timed(&on_kernel, num_tokens, shape.num_slots(), timing)?;
    for (what, compared) in [
        ("partials", compare(&expected.partials, &actual.partials)),
        ("output", compare(&expected.output, &actual.output)),
    ] {
        if let Some(first) = compared.first_mismatch {
            return Err(MeasureError::Refused(format!(
                "{}: {what}[{}] differs from the reference, and {} more: nothing was timed",
                on.variant(),
                first.index,
                compared.mismatches - 1
            )));
        }
    }

    let against = "equal to the reference in every bit";
    let bound = [
        problem.bind(&off_kernel, num_tokens, 0)?,
        problem.bind(&on_kernel, num_tokens, timing)?,
    ];
    let account = |words: &[u64]| {
        let (table, source) = (pair.table.clone(), TickSource::of_spec(on));
        Ticks::from_words(table, geometry.clone(), source, words)
    };
    measure(
        context,
        &mut || Ok(stream.memset_zeros(scratch)?),
        &words,
        off,
        against,
        &account,
        &mut |regions| Ok(problem.launch(&bound[usize::from(regions)], num_tokens)?),
    )
}
