//! Results of any family held to another variant of it, or to files.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::asked::{Asked, refused};
use super::judge::{Judged, judge};
use super::memory::Memory;
use super::plan::Plan;
use crate::engine::request::constant::split_values;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::Context;
use crate::measure::MeasureError;
use crate::measure::bench::BenchOptions;
use crate::measure::harness::{Event, Options, Session, Sink, Verdict};
use crate::measure::npy::{self, Elements, NpyError};
use crate::measure::run_files::finite;
use crate::measure::tune::Sizes;

/// What results are held to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Against {
    /// The same variant with these constants; of none, the defaults of all.
    Constants(String, Vec<(String, String)>),
    /// An output's file.
    File(Option<String>, PathBuf),
}

/// Outputs of a launch, by name.
pub(super) type Outputs = Vec<(String, Elements)>;

impl Against {
    pub(super) fn read(options: &Options) -> Result<Vec<Self>, MeasureError> {
        options.all("against").map(Self::one).collect()
    }

    fn one(text: &str) -> Result<Self, MeasureError> {
        if Path::new(text).extension().is_some_and(|end| end == "npy") {
            return Ok(match text.split_once('=') {
                Some((output, file)) => Self::File(Some(output.to_owned()), file.into()),
                None => Self::File(None, text.into()),
            });
        }
        if text == "defaults" {
            return Ok(Self::Constants(text.to_owned(), Vec::new()));
        }
        let pair = |pair: &str| {
            let (name, value) = pair.trim().split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        let set: Option<Vec<_>> = split_values(text).into_iter().map(pair).collect();
        set.map(|set| Self::Constants(text.to_owned(), set))
            .ok_or_else(|| {
                MeasureError::Request(format!(
                    "--against {text}: expected NAME=VALUE,.. of constants, `defaults`, or [OUTPUT=]FILE.npy"
                ))
            })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Constants(text, _) => text.clone(),
            Self::File(_, path) => path.display().to_string(),
        }
    }

    /// The variant that it names.
    fn spec(&self, of: &KernelSpec) -> Result<Option<KernelSpec>, MeasureError> {
        let Self::Constants(_, set) = self else {
            return Ok(None);
        };
        if set.is_empty() {
            let none: [(&str, &str); 0] = [];
            return Ok(Some(KernelSpec::new(of.family(), none, of.arch())?));
        }
        let set = set.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let spec = of.with(set);
        let spec = spec.map_err(|e| MeasureError::Request(format!("--against {}: {e}", self.text())))?;
        Ok(Some(spec))
    }

    /// The output that it names, with its elements.
    fn file(&self, plan: &Plan) -> Result<Option<(String, Elements)>, MeasureError> {
        let Self::File(name, path) = self else {
            return Ok(None);
        };
        let outputs: Vec<_> = plan.outputs().collect();
        let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        let family = &plan.spec.family().name;
        let output = match (name, outputs.as_slice()) {
            (None, [one]) => one,
            (None, _) => {
                let reason = format!(
                    "--against {}: which output it is of is not said: expected {}={}",
                    path.display(),
                    known.join("=.. or "),
                    path.display()
                );
                return Err(refused(family, &reason));
            }
            (Some(name), _) => {
                let found = outputs.iter().find(|output| output.name == *name);
                let hint = crate::engine::suggest::did_you_mean(name, known.iter().copied());
                found.ok_or_else(|| {
                    let all = known.join(", ");
                    refused(
                        family,
                        &format!("--against {name}: is not an output{hint}: expected one of {all}"),
                    )
                })?
            }
        };
        let wrong = |e: NpyError| MeasureError::Request(format!("--against {e}"));
        let read = npy::read(path, output.dtype).map_err(wrong)?;
        if read.shape != output.shape {
            let (name, file) = (&output.name, path.display());
            let reason = format!(
                "--against {file}: shape {:?}, and `{name}` is {} {:?}",
                read.shape, output.dtype, output.shape
            );
            return Err(refused(family, &reason));
        }
        Ok(Some((output.name.clone(), read)))
    }
}

/// What one variant's results are held to, checked without a GPU.
pub(super) fn check(
    asked: &Asked<'_>,
    all: &[Against],
    spec: &KernelSpec,
    sizes: &Sizes,
) -> Result<Plan, MeasureError> {
    let plan = Plan::of(asked, spec, sizes)?;
    if plan.outputs().next().is_none() && !all.is_empty() {
        let reason = "nothing that it takes is declared with access = \"out\" or \"inout\": there is nothing to compare";
        return Err(refused(&spec.family().name, reason));
    }
    for against in all {
        if let Some(other) = against.spec(spec)? {
            Plan::of(asked, &other, sizes)?;
        }
        against.file(&plan)?;
    }
    Ok(plan)
}

/// Holds the outputs of a variant to everything that was asked. Tells a `case` object each;
/// returns how many differ.
pub(super) fn hold(
    asked: &Asked<'_>,
    context: &Context,
    all: &[Against],
    (plan, outputs): (&Plan, &Outputs),
    sizes: &Sizes,
    sink: &mut Sink<'_>,
) -> Result<usize, MeasureError> {
    let mut wrong = 0;
    for against in all {
        let expected: Outputs = match (against.spec(&plan.spec)?, against.file(plan)?) {
            (Some(other), _) => run(asked, context, &Plan::of(asked, &other, sizes)?)?,
            (None, Some(file)) => vec![file],
            (None, None) => Vec::new(),
        };
        for (name, expected) in &expected {
            let label = format!("{}: `{name}` against {}", plan.label(sizes), against.text());
            let Some((_, actual)) = outputs.iter().find(|(own, _)| own == name) else {
                return Err(MeasureError::Refused(format!(
                    "{label}: it is not an output of this variant"
                )));
            };
            let judged = judge(expected, actual, asked.tolerance);
            let judged = judged.map_err(|e| MeasureError::Refused(format!("{label}: {e}")))?;
            tell(plan, sizes, against, name, &judged, sink);
            if let Some(first) = &judged.first {
                let (differing, of) = (judged.differing, judged.elements);
                sink(Event::Failure(format!(
                    "{label}: {differing} of {of} elements differ: {name}{first}"
                )));
                wrong += 1;
            }
        }
    }
    Ok(wrong)
}

fn tell(plan: &Plan, sizes: &Sizes, against: &Against, output: &str, judged: &Judged, sink: &mut Sink<'_>) {
    sink(Event::Object(
        json!({"event": "case", "family": plan.spec.family().name,
        "variant": plan.spec.variant(), "sizes": sizes, "against": against.text(), "output": output,
        "elements": judged.elements, "mismatches": judged.differing,
        "max_abs": finite(judged.max_abs), "max_rel": finite(judged.max_rel)}),
    ));
    if judged.passes() {
        let far = if judged.max_abs == 0.0 {
            String::new()
        } else {
            format!(", at most {:.3e} apart", judged.max_abs)
        };
        let label = plan.label(sizes);
        sink(Event::Line(format!(
            "{label}: `{output}` against {}: {} elements{far}",
            against.text(),
            judged.elements
        )));
    }
}

/// What one launch of a plan writes.
pub(super) fn run(asked: &Asked<'_>, context: &Context, plan: &Plan) -> Result<Outputs, MeasureError> {
    let mut memory = Memory::new(context, plan, 1)?;
    let bound = memory.bind(&asked.jit.load(&plan.spec, context)?, plan)?;
    memory.outputs(&bound)
}

/// Compares every variant that is asked for, at every problem. Tells a `case` object a
/// comparison, and a `summary`.
///
/// # Errors
/// [`MeasureError::Request`] of what is not legal; [`MeasureError::Device`] without a GPU;
/// those of making and launching kernels.
pub(super) fn verify(session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let options = session.options;
    let asked = Asked::read(session, BenchOptions::read(options)?.seed)?;
    let (all, save) = (Against::read(options)?, options.text("save").map(PathBuf::from));
    let family = asked.family().name.clone();
    if all.is_empty() && save.is_none() {
        let reason = "what its results are to be compared with is not said: expected --against with constants or a FILE.npy, or --save DIR";
        return Err(refused(&family, reason));
    }
    let specs = asked.specs(asked.some_arch())?;
    let launches = specs.len() * asked.problems.len();
    if save.is_some() && launches != 1 {
        let reason =
            format!("--save: {launches} launches are requested: expected one variant and one problem");
        return Err(refused(&family, &reason));
    }
    for (spec, sizes) in each(&specs, &asked.problems) {
        let plan = check(&asked, &all, spec, sizes)?;
        if let Some(folder) = &save {
            save_inputs(folder, &plan)?;
        }
    }
    let context = Context::new(0)?;
    let device = context.device();
    let specs = asked.specs(device.arch())?;
    let mut others = Vec::new();
    for spec in &specs {
        for against in &all {
            others.extend(against.spec(spec)?);
        }
    }
    asked.jit.prepare_each(specs.iter().chain(&others))?;
    let (mut cases, mut wrong) = (0, 0);
    for (spec, sizes) in each(&specs, &asked.problems) {
        let plan = Plan::of(&asked, spec, sizes)?;
        let outputs = run(&asked, &context, &plan)?;
        if let Some(folder) = &save {
            save_all(folder, &outputs)?;
        }
        wrong += hold(&asked, &context, &all, (&plan, &outputs), sizes, sink)?;
        cases += all.len();
    }
    let (device, tolerance) = (&device.name, asked.tolerance.text());
    sink(Event::Object(
        json!({"event": "summary", "device": device, "family": family,
        "cases": cases, "wrong": wrong, "tolerance": tolerance}),
    ));
    sink(Event::Line(format!(
        "{device}: {family}: {cases} cases, {wrong} differ, {tolerance}"
    )));
    if let Some(folder) = &save {
        sink(Event::Line(format!(
            "inputs and outputs are in {}",
            folder.display()
        )));
    }
    Ok(Verdict::of(wrong))
}

/// Every variant at every problem.
pub(super) fn each<'a>(
    specs: &'a [KernelSpec],
    problems: &'a [Sizes],
) -> impl Iterator<Item = (&'a KernelSpec, &'a Sizes)> {
    specs
        .iter()
        .flat_map(move |spec| problems.iter().map(move |sizes| (spec, sizes)))
}

fn save_inputs(folder: &Path, plan: &Plan) -> Result<(), MeasureError> {
    let inputs = plan.buffers.iter().filter(|buffer| buffer.is_input());
    let inputs = inputs.map(|buffer| {
        let name = if buffer.is_output() {
            format!("{}.before", buffer.name)
        } else {
            buffer.name.clone()
        };
        let elements = Elements {
            dtype: buffer.dtype,
            shape: buffer.shape.clone(),
            bytes: buffer.image(),
        };
        (name, elements)
    });
    save_all(folder, &inputs.collect())
}

fn save_all(folder: &Path, all: &Outputs) -> Result<(), MeasureError> {
    fs_err::create_dir_all(folder)?;
    for (name, elements) in all {
        let path = folder.join(format!("{name}.npy"));
        npy::write(&path, elements).map_err(|e| MeasureError::Request(format!("--save: {e}")))?;
    }
    Ok(())
}
