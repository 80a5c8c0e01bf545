//! The geometry of `axpy`: what there is to try, the rule, and the search for the fastest.

use serde_json::json;

use super::bench::{Clock, ELEMENTS, elements};
use super::{FAMILY, spec};
use crate::engine::jit::Jit;
use crate::engine::request::target::Arch;
use crate::measure::MeasureError;
use crate::measure::bench::{self, BenchOptions, BenchSession};
use crate::measure::harness::{Event, Flag, Options, Sink, Verdict};
use crate::measure::tune::{
    Geometry, Gpu, Problem, Record, Sizes, Space, Winner, combinations, empty_search_space, geometry_text,
    keep_faster, read_space, set_constants,
};

/// What tuning `axpy` takes.
pub const FLAGS: &[Flag] = &[
    bench::SPACE,
    bench::DRY_RUN,
    ELEMENTS,
    bench::METHOD,
    bench::COLD,
    bench::WARM,
    bench::LAUNCHES,
    bench::SEED,
];

/// The constants that are geometry, and the values to try of each.
pub(super) const GEOMETRY: [(&str, &[u32]); 2] =
    [("num_threads", &[128, 256, 512, 1024]), ("unroll", &[1, 2, 4, 8])];

/// A size as the record of tuned geometries knows it.
pub(super) fn problem(n: u32) -> Problem {
    Problem {
        family: FAMILY.into(),
        constants: [(ELEMENTS.name.to_owned(), n.to_string())].into(),
        tokens: 1,
        sizes: Sizes::new(),
    }
}

/// The values of the geometry that were set; any other constant is refused.
pub(super) fn set(jit: &Jit) -> Result<Space, MeasureError> {
    jit.registry().check_constants(&[FAMILY], jit.config())?;
    let family = jit.registry().get(FAMILY)?;
    set_constants(family, jit.config(), &GEOMETRY.map(|(name, _)| name))
}

/// The rule: as many elements per thread, up to four, as leave every multiprocessor eight
/// blocks.
#[must_use]
pub fn rule(gpu: &Gpu, problem: &Problem) -> Geometry {
    let n = problem.number(ELEMENTS.name).unwrap_or(0);
    let fills = |unroll: &u32| n / (256 * unroll) >= 8 * gpu.sm_count;
    let unroll = [4, 2].into_iter().find(fills).unwrap_or(1);
    [("num_threads", 256), ("unroll", unroll)]
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .into()
}

/// Times every candidate at every size, and keeps the fastest of each beside the cache.
/// Tells a `candidate` object each.
///
/// # Errors
/// [`MeasureError::Request`] of what is not legal; [`MeasureError::Device`] without a GPU;
/// those of making, launching and timing, and of the record.
pub fn tune(jit: &Jit, options: &Options, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let (sizes, read) = (elements(options)?, BenchOptions::read(options)?);
    let candidates = candidates(jit, options)?;
    if options.is_given(bench::DRY_RUN.name) {
        for n in sizes {
            for geometry in &candidates {
                tell(n, geometry, None, sink);
            }
        }
        return Ok(Verdict::Good);
    }
    let path = Record::beside_cache(jit)?;
    let session = BenchSession::open(jit, &read)?;
    let mut untuned = 0;
    for n in sizes {
        match fastest(&session, &read, n, &candidates, sink)? {
            Some(winner) => Record::keep(&path, jit.registry(), winner)?,
            None => untuned += 1,
        }
    }
    sink(Event::Line(format!("kept in {}", path.display())));
    Ok(Verdict::of(untuned))
}

/// What is left to try of the declared values by constants that were set, and by --space.
fn candidates(jit: &Jit, options: &Options) -> Result<Vec<Geometry>, MeasureError> {
    let mut given = set(jit)?;
    let family = jit.registry().get(FAMILY)?;
    given.extend(read_space(family, options.all(bench::SPACE.name))?);
    let is_geometry = |name: &String| GEOMETRY.iter().any(|(known, _)| known == name);
    if let Some((name, _)) = given.iter().find(|(name, _)| !is_geometry(name)) {
        return Err(MeasureError::Request(format!("--space {name}: is not geometry")));
    }
    let mut candidates = combinations(&GEOMETRY, &given);
    // Whether a geometry is legal does not depend on the arch.
    candidates.retain(|geometry| spec(jit, geometry, Arch::DEFAULTS[0]).is_ok());
    if candidates.is_empty() {
        return Err(empty_search_space(FAMILY));
    }
    Ok(candidates)
}

/// The fastest of the candidates that are right.
fn fastest(
    session: &BenchSession<'_>,
    options: &BenchOptions,
    n: u32,
    candidates: &[Geometry],
    sink: &mut Sink<'_>,
) -> Result<Option<Winner>, MeasureError> {
    let mut clock = Clock::new(session, options, n)?;
    let (mut winner, mut tried) = (None::<Winner>, 0);
    for geometry in candidates {
        let Some(median_us) = clock.time(geometry)?.median() else {
            let text = geometry_text(geometry);
            sink(Event::Failure(format!("{text}: differs from the reference")));
            continue;
        };
        tell(n, geometry, Some(median_us), sink);
        tried += 1;
        let found = Winner {
            gpu: session.gpu(),
            problem: problem(n),
            geometry: geometry.clone(),
            median_us,
            tried,
            policy: None,
        };
        keep_faster(&mut winner, found);
    }
    Ok(winner.map(|winner| Winner { tried, ..winner }))
}

fn tell(n: u32, geometry: &Geometry, median_us: Option<f64>, sink: &mut Sink<'_>) {
    let text = geometry_text(geometry);
    let median = median_us.map_or(String::new(), |us| format!("{us:8.2} us  "));
    sink(Event::Object(
        json!({"event": "candidate", "problem": problem(n).constants,
        "constants": geometry, "median_us": median_us}),
    ));
    sink(Event::Line(format!("{median}elements={n}  {text}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_gives_a_small_vector_fewer_elements_per_thread() {
        let gpu = Gpu {
            name: "NVIDIA H200".into(),
            compute_capability: "9.0".into(),
            sm_count: 132,
            shared_mem_per_block: 232_448,
        };
        let unroll = |n| rule(&gpu, &problem(n))["unroll"].clone();
        assert_eq!(
            [unroll(1 << 24), unroll(1 << 20), unroll(1 << 10)],
            ["4", "2", "1"]
        );
    }
}
