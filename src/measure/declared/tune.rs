//! The fastest variant of any family for a problem on this GPU, among those that its TOML, or
//! the command, says to try.
//!
//! Invariant: a candidate whose results differ from those of the rules' choice is never
//! timed; a winner beat that choice by a margin, in turn with it, and says how it was timed.

use serde_json::json;

use super::asked::{Asked, refused, sizes_text};
use super::bench::Clock;
use super::choose::{by_rule, known_by};
use super::judge::judge;
use super::plan::Plan;
use super::race::{Finish, ROUNDS, finish, median, samples_of_a_turn};
use super::verify::{Outputs, check};
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::driver_version;
use crate::engine::run::tuned::Policy;
use crate::measure::MeasureError;
use crate::measure::bench::{BenchOptions, BenchSession, DRY_RUN, SPACE};
use crate::measure::clocks::clocks;
use crate::measure::harness::{Event, Session, Sink, Verdict};
use crate::measure::timing::Method;
use crate::measure::tune::{
    Geometry, Problem, Record, Sizes, Space, Winner, combinations, empty_search_space, geometry_text,
    read_space,
};

/// What there is to try.
struct Search<'a> {
    asked: Asked<'a>,
    space: Space,
    margin: f64,
    options: BenchOptions,
}

/// Times every candidate at every problem, and keeps what beats the rules' choice beside the
/// cache. Tells a `candidate` object each, and a `tuned` one a problem.
///
/// # Errors
/// [`MeasureError::Request`] of what is not legal; [`MeasureError::Device`] without a GPU;
/// those of making, launching and timing kernels, and of the record.
pub(super) fn tune(session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let search = Search::read(session)?;
    let asked = &search.asked;
    let specs = asked.specs(asked.some_arch())?;
    let [spec] = specs.as_slice() else {
        let reason = format!(
            "{} variants are requested: values to try are given by --space",
            specs.len()
        );
        return Err(refused(&asked.family().name, &reason));
    };
    for sizes in &asked.problems {
        known_by(asked, spec, sizes)?;
        let plan = check(asked, &[], spec, sizes)?;
        if plan.outputs().next().is_none() {
            let reason = "nothing that it takes is declared with access = \"out\" or \"inout\": candidates could not be checked against anything";
            return Err(refused(&asked.family().name, reason));
        }
    }
    let candidates = search.candidates(spec)?;
    if session.options.is_given(DRY_RUN.name) {
        for sizes in &asked.problems {
            for candidate in &candidates {
                tell(sizes, &geometry_of(candidate), None, sink);
            }
        }
        return Ok(Verdict::Good);
    }
    let path = Record::beside_cache(asked.jit)?;
    let session = BenchSession::open(asked.jit, &search.options)?;
    let specs = asked.specs(session.arch())?;
    for sizes in &asked.problems {
        let rule = by_rule(asked, session.context.device(), &specs[0], sizes)?.spec;
        let (problem, winner) = search.fastest(&session, &rule, sizes, sink)?;
        let mut record = Record::load(&path, asked.jit.registry());
        match winner {
            Some(winner) => record.put(winner),
            // What won before was measured again.
            None => record.remove(&session.gpu(), &problem),
        }
        record.save(&path)?;
    }
    sink(Event::Line(format!("kept in {}", path.display())));
    Ok(Verdict::Good)
}

impl<'a> Search<'a> {
    fn read(session: Session<'a>) -> Result<Self, MeasureError> {
        let options = session.options;
        let read = BenchOptions::read(options)?;
        let asked = Asked::read(session, read.seed)?;
        let family = asked.named.family();
        let Some(declared) = &family.measured.search else {
            let reason =
                "there is no [tune] in its TOML: expected that, with the constants that may be chosen";
            return Err(refused(&family.name, reason));
        };
        let declared_space = declared.space.iter();
        let mut space: Space = declared_space
            .map(|(name, values)| (name.clone(), values.clone()))
            .collect();
        // A constant that somebody set is not tried with other values.
        let forced = asked.forced();
        space.retain(|(name, _)| !forced.contains(&name.as_str()));
        for (name, values) in read_space(family, options.all(SPACE.name))? {
            let why = if forced.contains(&name.as_str()) {
                "it is set as well: expected one of both".to_owned()
            } else if family.geometry().contains(&name.as_str()) {
                space.retain(|(known, _)| *known != name);
                space.push((name, values));
                continue;
            } else {
                let all = family.geometry().join(", ");
                format!("neither [tune] nor [dispatch] chooses it: expected one of {all}")
            };
            return Err(refused(&family.name, &format!("--space {name}: {why}")));
        }
        if space.is_empty() {
            let reason = "every constant of its [tune] is set: there is nothing to try";
            return Err(refused(&family.name, reason));
        }
        let margin = options.number("margin", 0.0..=0.99)?;
        Ok(Self {
            margin: margin.unwrap_or(declared.margin),
            space,
            asked,
            options: read,
        })
    }

    /// The variants to try, each of `base` with other values: those that the family takes and
    /// whose condition holds.
    fn candidates(&self, base: &KernelSpec) -> Result<Vec<KernelSpec>, MeasureError> {
        let family = &base.family().name;
        let count = self.space.iter().map(|(_, values)| values.len());
        let most = crate::engine::request::template::MAX_CANDIDATES;
        if count.fold(1_usize, usize::saturating_mul) > most {
            return Err(refused(
                family,
                &format!("--space: expected at most {most} candidates"),
            ));
        }
        let mut found: Vec<KernelSpec> = Vec::new();
        for geometry in combinations(&[], &self.space) {
            let set = geometry
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            // What a constraint forbids, or no GPU launches, is no candidate.
            let Ok(spec) = base.with(set) else { continue };
            let holds = (base.family().tries(spec.constants(), spec.derived()))
                .map_err(|e| refused(family, &format!("tune: when: {e}")))?;
            if holds && !found.iter().any(|known| known.id() == spec.id()) {
                found.push(spec);
            }
        }
        if found.is_empty() {
            return Err(empty_search_space(family));
        }
        Ok(found)
    }

    /// What beats the rules' choice for a problem; the problem as the record knows it.
    fn fastest(
        &self,
        session: &BenchSession<'_>,
        rule: &KernelSpec,
        sizes: &Sizes,
        sink: &mut Sink<'_>,
    ) -> Result<(Problem, Option<Winner>), MeasureError> {
        let asked = &self.asked;
        let problem = Problem::of_sizes(rule, &asked.family().geometry(), known_by(asked, rule, sizes)?);
        let mut candidates = self.candidates(rule)?;
        candidates.retain(|candidate| candidate.id() != rule.id());
        asked.jit.prepare_each(candidates.iter().chain([rule]))?;
        let mut clock = Clock::new(session, &self.options);
        let own = Plan::of(asked, rule, sizes)?;
        let expected = clock.outputs(&own)?;
        let samples = session.plan.samples;
        let (mut best, mut tried) = (None::<(f64, Plan)>, 1_u32);
        let rule_us = median(&clock.time(&own, samples)?);
        tell(sizes, &geometry_of(rule), Some(rule_us), sink);
        for candidate in &candidates {
            let plan = Plan::of(asked, candidate, sizes)?;
            if let Some(reason) = self.differs(&mut clock, &plan, &expected)? {
                sink(Event::Failure(format!("{}: {reason}", plan.label(sizes))));
                continue;
            }
            let us = median(&clock.time(&plan, samples)?);
            tell(sizes, &geometry_of(candidate), Some(us), sink);
            tried += 1;
            if best.as_ref().is_none_or(|(least, _)| us < *least) {
                best = Some((us, plan));
            }
        }
        let Some((_, plan)) = best else {
            sink(Event::Line(format!(
                "{}: the rules' choice is the only candidate",
                sizes_text(sizes)
            )));
            return Ok((problem, None));
        };
        let race = race(&mut clock, &plan, &own, samples, self.margin)?;
        let geometry = geometry_of(&plan.spec);
        told_race(sizes, &geometry, &geometry_of(rule), &race, self.margin, sink);
        if !race.wins {
            return Ok((problem, None));
        }
        let key = asked.jit.describe(&plan.spec)?.0.key().to_string();
        let events = session.plan.method == Method::Events;
        let per_graph = if events { 1 } else { clock.plan.launches_per_graph };
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let policy = Policy {
            key,
            method: if events { "events" } else { "graph" }.to_owned(),
            cold: self.options.cold,
            launches_per_graph: small(per_graph),
            samples: small(samples_of_a_turn(samples) * ROUNDS),
            seed: self.options.seed,
            driver: driver_version()?.to_string(),
            clocks: clocks(&session.context),
            rule: geometry_of(rule),
            rule_us: race.rule_us,
            margin: self.margin,
        };
        let winner = Winner {
            gpu: session.gpu(),
            problem: problem.clone(),
            geometry,
            median_us: race.candidate_us,
            tried,
            policy: Some(policy),
        };
        Ok((problem, Some(winner)))
    }

    /// How a candidate's results differ from what the rules' choice writes, if they do.
    fn differs(
        &self,
        clock: &mut Clock<'_>,
        plan: &Plan,
        expected: &Outputs,
    ) -> Result<Option<String>, MeasureError> {
        let outputs = match clock.outputs(plan) {
            Err(MeasureError::Refused(reason)) => return Ok(Some(reason)),
            other => other?,
        };
        for (name, expected) in expected {
            let Some((_, actual)) = outputs.iter().find(|(own, _)| own == name) else {
                return Ok(Some(format!("it does not write `{name}`")));
            };
            match judge(expected, actual, self.asked.tolerance) {
                Ok(judged) if judged.passes() => {}
                Ok(judged) => {
                    let first = judged.first.unwrap_or_default();
                    return Ok(Some(format!("differs from the rules' choice: {name}{first}")));
                }
                Err(reason) => return Ok(Some(format!("`{name}`: {reason}"))),
            }
        }
        Ok(None)
    }
}

/// What may be chosen, as a variant has it.
fn geometry_of(spec: &KernelSpec) -> Geometry {
    let value = |name: &str| Some((name.to_owned(), spec.constants().get(name)?.to_string()));
    let names = spec.family().geometry().into_iter();
    names.filter_map(value).collect()
}

/// Times two plans in turn.
fn race(
    clock: &mut Clock<'_>,
    candidate: &Plan,
    rule: &Plan,
    samples: usize,
    margin: f64,
) -> Result<Finish, MeasureError> {
    let turn = samples_of_a_turn(samples);
    let (mut candidates, mut rules) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rules.push(clock.time(rule, turn)?);
        candidates.push(clock.time(candidate, turn)?);
    }
    Ok(finish(&candidates, &rules, margin))
}

fn tell(sizes: &Sizes, geometry: &Geometry, median_us: Option<f64>, sink: &mut Sink<'_>) {
    let (text, at) = (geometry_text(geometry), sizes_text(sizes));
    let median = median_us.map_or(String::new(), |us| format!("{us:8.2} us  "));
    sink(Event::Object(
        json!({"event": "candidate", "sizes": sizes, "constants": geometry,
        "median_us": median_us}),
    ));
    sink(Event::Line(format!("{median}{at}  {text}")));
}

fn told_race(
    sizes: &Sizes,
    geometry: &Geometry,
    rule: &Geometry,
    race: &Finish,
    margin: f64,
    sink: &mut Sink<'_>,
) {
    sink(Event::Object(
        json!({"event": "tuned", "sizes": sizes, "constants": geometry,
        "median_us": race.candidate_us, "rule": rule, "rule_us": race.rule_us, "margin": margin,
        "wins": race.wins}),
    ));
    let (at, text, rule) = (sizes_text(sizes), geometry_text(geometry), geometry_text(rule));
    let (us, rule_us) = (race.candidate_us, race.rule_us);
    let end = if race.wins {
        "is kept".to_owned()
    } else {
        format!("does not win by {} %: the rules' choice stays", margin * 100.0)
    };
    sink(Event::Line(format!(
        "{at}: {text} {us:.2} us, by rule {rule} {rule_us:.2} us: {end}"
    )));
}
