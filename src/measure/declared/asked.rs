//! What was asked of a measurement, read before a GPU is looked for.
//!
//! Invariant: every name in it is one that the family has.

use std::collections::BTreeMap;

use super::judge::Tolerance;
use crate::engine::config::Source;
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::request::template::{Family, Fill, NamedFamily, ParameterKind};
use crate::engine::suggest::did_you_mean;
use crate::measure::MeasureError;
use crate::measure::harness::{Options, Session};
use crate::measure::tune::Sizes;

/// The most problems of one command.
const MAX_PROBLEMS: usize = 64;

/// A measurement of a family.
pub(super) struct Asked<'a> {
    pub(super) jit: &'a Jit,
    pub(super) named: NamedFamily,
    /// The one entry point to launch.
    pub(super) entry: Option<String>,
    /// Every combination of the sizes.
    pub(super) problems: Vec<Sizes>,
    /// Scalars by name, as people write them.
    pub(super) values: BTreeMap<String, String>,
    /// Fills by parameter, over the declared ones.
    pub(super) fills: BTreeMap<String, Fill>,
    pub(super) seed: u64,
    pub(super) tolerance: Tolerance,
}

/// A request that cannot be measured, of a family.
pub(super) fn refused(family: &str, reason: &str) -> MeasureError {
    MeasureError::Request(format!("{family}: {reason}"))
}

impl<'a> Asked<'a> {
    /// Reads the options that all verbs have.
    pub(super) fn read(session: Session<'a>, seed: u64) -> Result<Self, MeasureError> {
        let Session { jit, name, options } = session;
        jit.registry().check_constants(&[name], jit.config())?;
        let named = jit
            .registry()
            .named(name)
            .map_err(crate::engine::jit::Error::from)?;
        let family = named.family();
        if let Some(setting) = jit.config().arch()
            && matches!(setting.source, Source::Flag(_))
        {
            let reason = "what is measured is compiled for the GPU that it runs on";
            return Err(MeasureError::Request(format!(
                "--arch {}: {reason}",
                setting.value
            )));
        }
        let entry = options.text("entry").map(str::to_owned);
        if let Some(entry) = &entry
            && !family.entries.iter().any(|e| e.name == *entry)
        {
            let all = family.entries.iter().map(|e| e.name.as_str());
            let hint = did_you_mean(entry, all.clone());
            let known = all.collect::<Vec<_>>().join(", ");
            let reason =
                format!("--entry {entry}: there is no such entry point{hint}: expected one of {known}");
            return Err(refused(&family.name, &reason));
        }
        let fills = pairs(options, "fill")?.into_iter().map(|(name, text)| {
            is_parameter(family, "fill", &name)?;
            let fill = text.parse();
            let fill = fill.map_err(|e| MeasureError::Request(format!("--fill {name}={text}: {e}")))?;
            Ok((name, fill))
        });
        let fills = fills.collect::<Result<_, MeasureError>>()?;
        let values = pairs(options, "value")?;
        for name in values.keys() {
            is_parameter(family, "value", name)?;
        }
        let problems = problems(family, pairs(options, "size")?)?;
        let tolerance = Tolerance::read(options, &family.measured)?;
        Ok(Self {
            jit,
            named,
            entry,
            problems,
            values,
            fills,
            seed,
            tolerance,
        })
    }

    pub(super) fn family(&self) -> &Family {
        self.named.family()
    }

    /// Every variant that the settings ask for, on an arch.
    pub(super) fn specs(&self, arch: Arch) -> Result<Vec<KernelSpec>, MeasureError> {
        Ok(KernelSpec::expand(
            self.named.clone(),
            self.jit.config(),
            &[arch],
        )?)
    }

    /// An arch for which a request can be checked without a GPU.
    pub(super) fn some_arch(&self) -> Arch {
        let able = Arch::DEFAULTS.into_iter().find(|arch| self.family().does(*arch));
        able.unwrap_or(Arch::DEFAULTS[0])
    }

    /// Constants that somebody set.
    pub(super) fn forced(&self) -> Vec<&str> {
        self.named.forced(self.jit.config())
    }
}

/// The values of an option that is given as `NAME=VALUE`, each name once.
pub(super) fn pairs(options: &Options, option: &str) -> Result<BTreeMap<String, String>, MeasureError> {
    let mut all = BTreeMap::new();
    for text in options.all(option) {
        let pair = text
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty());
        let Some((name, value)) = pair else {
            return Err(MeasureError::Request(format!(
                "--{option} {text}: expected NAME=VALUE"
            )));
        };
        if all
            .insert(name.trim().to_owned(), value.trim().to_owned())
            .is_some()
        {
            return Err(MeasureError::Request(format!(
                "--{option} {text}: `{name}` was given already"
            )));
        }
    }
    Ok(all)
}

/// Refuses a name that no entry point takes.
fn is_parameter(family: &Family, option: &str, name: &str) -> Result<(), MeasureError> {
    let lists = family
        .entries
        .iter()
        .filter_map(|entry| entry.parameters.as_ref());
    let all: Vec<_> = lists.flat_map(|list| &list.parameters).collect();
    let scalar = |kind: &ParameterKind| matches!(kind, ParameterKind::Scalar { value: None, .. });
    let wanted = |kind: &ParameterKind| (option == "value") == scalar(kind);
    if all.iter().any(|p| p.name == name && wanted(&p.kind)) {
        return Ok(());
    }
    let names = all.iter().filter(|p| wanted(&p.kind)).map(|p| p.name.as_str());
    let hint = did_you_mean(name, names);
    let what = if option == "value" {
        "is not a scalar that it takes"
    } else {
        "is not memory that it takes"
    };
    Err(refused(&family.name, &format!("--{option} {name}: {what}{hint}")))
}

/// Every combination of the sizes that are given, the others as the family declares them.
fn problems(family: &Family, given: BTreeMap<String, String>) -> Result<Vec<Sizes>, MeasureError> {
    let mut lists: BTreeMap<String, Vec<u32>> = (family.measured.sizes.iter())
        .map(|(name, values)| (name.clone(), values.clone()))
        .collect();
    let launch = family.entries.iter().flat_map(|entry| &entry.sizes);
    let known = launch.chain(family.dispatch.iter().flat_map(|dispatch| &dispatch.sizes));
    let known: Vec<&str> = known.map(String::as_str).collect();
    for (name, text) in given {
        if !known.contains(&name.as_str()) {
            let hint = did_you_mean(&name, known.iter().copied());
            let reason = format!("--size {name}: is not a size of its launches or of [dispatch]{hint}");
            return Err(refused(&family.name, &reason));
        }
        let read = text
            .split(',')
            .map(|part| part.trim().parse().ok().filter(|size| *size > 0));
        let values: Option<Vec<u32>> = read.collect();
        let values = values.ok_or_else(|| {
            MeasureError::Request(format!("--size {name}={text}: expected whole numbers from 1"))
        })?;
        lists.insert(name, values);
    }
    let mut all = vec![Sizes::new()];
    for (name, values) in lists {
        let with = |sizes: &Sizes, value: u32| {
            let mut sizes = sizes.clone();
            sizes.insert(name.clone(), value);
            sizes
        };
        all = (values.iter())
            .flat_map(|value| all.iter().map(move |sizes| (sizes, *value)))
            .map(|(sizes, value)| with(sizes, value))
            .collect();
        if all.len() > MAX_PROBLEMS {
            let reason = format!(
                "{} combinations of sizes: expected at most {MAX_PROBLEMS}",
                all.len()
            );
            return Err(refused(&family.name, &reason));
        }
    }
    Ok(all)
}

/// Sizes for people: `n=4096 m=2`.
pub(super) fn sizes_text(sizes: &Sizes) -> String {
    let all: Vec<String> = sizes
        .iter()
        .map(|(name, size)| format!("{name}={size}"))
        .collect();
    all.join(" ")
}
