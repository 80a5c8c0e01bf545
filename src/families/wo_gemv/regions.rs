//! `wo_gemv` by regions on a GPU: a launch is timed behind a copy over L2.
//!
//! Invariant: what a launch with regions writes is the reference's to the bit, or nothing
//! is timed.

use cudarc::driver::CudaSlice;

use super::FAMILY;
use super::config::{Accumulate, WoConfig};
use super::problem::WoProblem;
use super::reference::{WoInputs, WoShape, split_order};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::device::Context;
use crate::measure::MeasureError;
use crate::measure::compare::compare;
use crate::measure::region::live::{
    LiveRun, buffer, chosen, geometry, measure, requested, source, with_regions,
};
use crate::measure::region::{Table, Ticks};

/// Written before each launch, so that nothing of the last one is in L2.
const FLUSH_BYTES: usize = 256 << 20;

/// Times launches of so many tokens, of every variant that the settings ask for.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU, [`MeasureError::Refused`] where a result is not
/// the reference's; those of making and launching kernels.
pub fn live(jit: &Jit, tokens: u32) -> Result<Vec<LiveRun>, MeasureError> {
    requested(jit, FAMILY, None)?;
    let context = Context::new(0)?;
    let device = context.device();
    let here = Arch::of_device(device.major, device.minor);
    let stream = context.cuda().default_stream();
    let mut problem: Option<(WoShape, WoInputs, WoProblem)> = None;
    let mut scratch: CudaSlice<u8> = stream.alloc_zeros(FLUSH_BYTES)?;
    let mut runs = Vec::new();
    for spec in requested(jit, FAMILY, Some(here))? {
        let shape = WoConfig::try_from(&spec)?.shape();
        // Weights do not depend on the split: most variants share them.
        let same = |p: &(WoShape, WoInputs, WoProblem)| p.0.hidden == shape.hidden && p.0.k == shape.k;
        let (_, inputs, problem) = match &mut problem {
            Some(kept) if same(kept) => kept,
            slot => {
                let inputs = WoInputs::random(&shape, tokens as usize, 1.0, 4242);
                let most_slots = 8 * shape.num_kv_heads.max(4);
                let there = WoProblem::new(&stream, &shape, most_slots, &inputs)?;
                slot.insert((shape, inputs, there))
            }
        };
        runs.push(one(jit, &context, &spec, (inputs, problem), &mut scratch)?);
    }
    Ok(runs)
}

fn one(
    jit: &Jit,
    context: &Context,
    spec: &KernelSpec,
    (inputs, problem): (&WoInputs, &mut WoProblem),
    scratch: &mut CudaSlice<u8>,
) -> Result<LiveRun, MeasureError> {
    let off = with_regions(spec, 0)?;
    let count = chosen(spec);
    let on = with_regions(spec, count)?;
    let config = WoConfig::try_from(&on)?;
    let shape = config.shape();
    let (on_kernel, off_kernel) = (jit.load(&on, context)?, jit.load(&off, context)?);
    let table = Table::of(&on.family.name, count)?;
    let nat = inputs.nat;
    let geometry = geometry(&on, &on_kernel, nat);
    let stream = context.cuda().default_stream();
    let (words, timing) = buffer(&stream, &on, count, geometry)?;

    let expected = split_order(&shape, inputs, config.accumulate == Accumulate::Fma);
    let actual = problem.run_timed(&on_kernel, nat, shape.num_slots(), timing)?;
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
        problem.bind(&off_kernel, nat, 0)?,
        problem.bind(&on_kernel, nat, timing)?,
    ];
    let account = |words: &[u64]| Ticks::from_words(table, geometry, source(&on), words);
    measure(
        context,
        &mut || Ok(stream.memset_zeros(scratch)?),
        &words,
        &off,
        against,
        &account,
        &mut |regions| Ok(problem.launch(&bound[usize::from(regions)], nat)?),
    )
}
