//! Which variant runs a problem where constants are left open: what was tuned, else what the
//! family's rules choose, else the defaults.

use super::asked::{Asked, refused};
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::Device;
use crate::engine::run::dispatch::Chosen;
use crate::engine::run::tuned::{Gpu, Record, Stale};
use crate::measure::MeasureError;
use crate::measure::harness::{Event, Sink};
use crate::measure::tune::Sizes;

/// A variant, and who chose it; nobody where there are no rules.
pub(super) struct Choice {
    pub(super) spec: KernelSpec,
    pub(super) chosen: Option<Chosen>,
}

impl Choice {
    /// For people and programs.
    pub(super) fn origin(&self, is_set: bool) -> &'static str {
        match self.chosen {
            Some(Chosen::Tuned) => "tuned",
            Some(Chosen::Rule) => "rule",
            Some(Chosen::Forced) => "set",
            None if is_set => "set",
            None => "default",
        }
    }
}

/// The sizes by which a problem is known: those of the rules, else of the launch.
pub(super) fn known_by(asked: &Asked<'_>, spec: &KernelSpec, sizes: &Sizes) -> Result<Sizes, MeasureError> {
    let family = asked.family();
    let names: Vec<&String> = match &family.dispatch {
        Some(dispatch) => dispatch.sizes.iter().collect(),
        None => spec.entries().flat_map(|entry| &entry.sizes).collect(),
    };
    let one = |name: &String| {
        let missing = || {
            let reason = format!(
                "the size `{name}` of [dispatch] is missing: give --size {name}=COUNT, or [measure.sizes] in its TOML"
            );
            refused(&family.name, &reason)
        };
        Ok((name.clone(), *sizes.get(name).ok_or_else(missing)?))
    };
    names.into_iter().map(one).collect()
}

/// What the rules alone choose for a problem.
pub(super) fn by_rule(
    asked: &Asked<'_>,
    device: &Device,
    spec: &KernelSpec,
    sizes: &Sizes,
) -> Result<Choice, MeasureError> {
    choose(asked, device, &Record::default(), spec, sizes, &mut |_| {})
}

/// What runs a problem: see the head of this file. Of the record what does not hold any more
/// is told as a note.
pub(super) fn choose(
    asked: &Asked<'_>,
    device: &Device,
    record: &Record,
    spec: &KernelSpec,
    sizes: &Sizes,
    sink: &mut Sink<'_>,
) -> Result<Choice, MeasureError> {
    let (family, forced) = (asked.family(), asked.forced());
    let known = known_by(asked, spec, sizes)?;
    let Some(dispatch) = &family.dispatch else {
        let mut key = |spec: &KernelSpec| {
            let (request, _) = asked.jit.describe(spec).ok()?;
            Some(request.key().to_string())
        };
        let gpu = Gpu::from(device);
        let mut winners = record.of(spec, &gpu, &forced);
        let winner = winners.find(|winner| winner.problem.sizes == known);
        return Ok(match winner.map(|winner| winner.variant(spec, &mut key)) {
            Some(Ok(spec)) => Choice {
                spec,
                chosen: Some(Chosen::Tuned),
            },
            stale => {
                if let Some(Err(reason)) = stale {
                    sink(Event::Note(format!(
                        "{}: what was tuned is not used: {reason}",
                        family.name
                    )));
                }
                Choice {
                    spec: spec.clone(),
                    chosen: None,
                }
            }
        });
    };
    let wrong = |reason: String| refused(&family.name, &reason);
    let told = &mut |stale: Stale| sink(Event::Note(stale.to_string()));
    let dispatcher = asked.jit.dispatcher(spec, device, &forced, record, told);
    let dispatcher = dispatcher.map_err(|e| wrong(e.to_string()))?;
    let selected = dispatcher.select(&dispatch.in_order(&known).map_err(|e| wrong(e.into()))?);
    let selected = selected.map_err(|e| wrong(e.to_string()))?;
    Ok(Choice {
        spec: dispatcher.variants()[selected.variant].clone(),
        chosen: Some(selected.chosen),
    })
}
