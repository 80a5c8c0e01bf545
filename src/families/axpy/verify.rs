//! `axpy` verified on a GPU: every geometry, over sizes that no block divides, bit for bit.

use serde_json::json;

use super::spec;
use super::tune::GEOMETRY;
use super::vectors::Vectors;
use crate::engine::jit::Jit;
use crate::engine::run::device::Context;
use crate::measure::MeasureError;
use crate::measure::bench::{BenchOptions, SEED};
use crate::measure::harness::{Event, Flag, Options, Sink, Verdict};
use crate::measure::tune::combinations;

/// What verifying `axpy` takes.
pub const FLAGS: &[Flag] = &[SEED];

/// Elements: less than a warp, around a block and around several, and many.
const SIZES: [u32; 8] = [1, 31, 256, 257, 4095, 8193, 65_537, 1_000_003];

/// Compares every geometry at every size with the reference. Tells a `case` object a
/// launch, and a `summary`.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU; those of making and launching kernels.
pub fn verify(jit: &Jit, options: &Options, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let seed = BenchOptions::read(options)?.seed;
    let context = Context::new(0)?;
    let device = context.device();
    let arch = device.arch();
    let geometries = combinations(&GEOMETRY, &[]).into_iter();
    let specs: Result<Vec<_>, _> = geometries.map(|geometry| spec(jit, &geometry, arch)).collect();
    let specs = specs?;
    jit.prepare_each(&specs)?;
    let stream = context.cuda().default_stream();
    let (mut cases, mut wrong) = (0, 0);
    for n in SIZES {
        let mut vectors = Vectors::new(&stream, n, 1, seed)?;
        for spec in &specs {
            let bound = vectors.bind(&jit.load(spec, &context)?)?;
            let compared = vectors.check(&bound)?;
            let (variant, mismatches) = (spec.variant(), compared.mismatches);
            sink(Event::Object(
                json!({"event": "case", "variant": variant, "n": n, "mismatches": mismatches}),
            ));
            if !compared.is_exact() {
                sink(Event::Failure(format!(
                    "{variant} n={n}: {mismatches} elements differ"
                )));
            }
            cases += 1;
            wrong += usize::from(!compared.is_exact());
        }
    }
    let device = &device.name;
    sink(Event::Object(
        json!({"event": "summary", "device": device, "cases": cases, "wrong": wrong}),
    ));
    sink(Event::Line(format!(
        "{device}: axpy: {cases} cases, {wrong} with a differing bit"
    )));
    Ok(Verdict::of(wrong))
}
