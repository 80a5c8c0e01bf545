//! What would run, of all variants that the settings ask for, and why.
//!
//! Invariant: with a GPU that is not here nothing is asked of a driver, and what does not
//! fit is a candidate all the same, with nothing resident. Nothing is compiled or written
//! unless the caller says so.

use std::sync::Arc;

use super::{Choice, Kind, Layers, Path, Policy, Problem, Reason, Variant, select};
use crate::engine::build::artifact::Artifact;
use crate::engine::cache::{Drift, Judged};
use crate::engine::config::Config;
use crate::engine::jit::Jit;
use crate::engine::refused::Refused;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::{Context, Device};
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::occupancy::{KNOWN_DEVICES, capacity, known_device};
use crate::families::decode_layer::tune::{lay_out, set_geometry};
use crate::families::decode_layer::{FAMILY, LayerConfig, asked_launches};
use crate::measure::MeasureError;
use crate::measure::tune::Origin;

/// A GPU, and a hold on it if it is here.
pub struct Target {
    device: Device,
    context: Option<Context>,
}

impl Target {
    /// A GPU by its ordinal, or one of [`KNOWN_DEVICES`], which need not be here.
    ///
    /// # Errors
    /// [`MeasureError::Device`] where there is none of that ordinal.
    pub fn named(name: &str) -> Result<Self, MeasureError> {
        if let Some(device) = known_device(name) {
            return Ok(Self {
                device,
                context: None,
            });
        }
        let Ok(ordinal) = name.parse() else {
            return Err(MeasureError::Request(format!(
                "device `{name}`: expected an ordinal or one of {}",
                KNOWN_DEVICES.join(", ")
            )));
        };
        let context = Context::new(ordinal)?;
        Ok(Self {
            device: context.device().clone(),
            context: Some(context),
        })
    }

    /// What it is.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Blocks of a kernel that are resident at once; the driver's own number where the
    /// GPU is here. `None`: that depends on the kernel, which there is not.
    fn resident(&self, spec: &KernelSpec, kernel: Option<&Artifact>) -> Result<Option<u32>, MeasureError> {
        let number = |name: &str| spec.number(name).unwrap_or(0);
        let shared = number("shared_bytes");
        if shared > self.device.shared_mem_per_block {
            return Ok(Some(0));
        }
        let Some(kernel) = kernel else { return Ok(None) };
        Ok(Some(match &self.context {
            // Not by the facade, which would mark the entry as used.
            Some(context) => {
                let loaded = LoadedKernel::load(context, spec, kernel);
                loaded.map_err(crate::engine::jit::Error::from)?.entries()[0].capacity
            }
            None => capacity(&self.device, kernel.registers(), number("launch_threads"), shared),
        }))
    }
}

impl Policy {
    /// The policy of the settings: what is not given here is read from the variables
    /// `JITC_PATH` and `JITC_LAYERS`, or those of nvllm.
    pub fn of(
        config: &Config,
        path: Option<&str>,
        layers: Option<&str>,
        max_tokens: u32,
    ) -> Result<Self, MeasureError> {
        let text = |given: Option<&str>, names: [&str; 2]| {
            let given = given.map(str::to_owned);
            given.or_else(|| config.variable(&names).map(|s| s.value))
        };
        let wrong = |refused: Refused| MeasureError::Request(refused.into());
        let path = match text(path, ["JITC_PATH", "CUTE_PHASE_E_PATH"]) {
            Some(path) => path.parse().map_err(wrong)?,
            None => Path::Auto,
        };
        let layers = text(layers, ["JITC_LAYERS", "CUTE_PHASE_E_LAYERS"]);
        let layers = Layers::parse(layers.as_deref().unwrap_or_default());
        Ok(Self {
            path,
            layers: layers.map_err(wrong)?,
            max_tokens,
        })
    }
}

/// What becomes of a variant whose kernel the cache lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Its registers and its capacity stay unknown.
    Report,
    /// It is compiled, and kept.
    Compile,
}

/// A variant that could run, and what is known of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Candidate {
    /// Spec of the variant.
    pub spec: KernelSpec,
    /// Its constants.
    pub config: LayerConfig,
    /// Where its `wo_split` comes from.
    pub origin: Origin,
    /// What dispatch chooses by; its capacity is 0 where `resident` is unknown.
    pub variant: Variant,
    /// Registers a thread, the most of its kernels; `None` where the cache has no kernel
    /// that could be loaded.
    pub registers: Option<u32>,
    /// Blocks that are resident at once; `None` where that is unknown.
    pub resident: Option<u32>,
    /// Why the receipt that is required does not admit its kernel, if it does not.
    pub refused: Option<Drift>,
}

/// What a step would run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// The GPU.
    pub device: Device,
    /// The step.
    pub problem: Problem,
    /// Every variant that was looked at.
    pub candidates: Vec<Candidate>,
    /// Which one runs, and why.
    pub choice: Choice,
}

impl Explanation {
    /// The variant that runs.
    #[must_use]
    pub fn chosen(&self) -> Option<&Candidate> {
        self.choice.variant.map(|at| &self.candidates[at])
    }

    /// The candidates without which the step cannot be answered, or not be run: the
    /// chosen one if the cache lacks its kernel; where none could be chosen for that, all
    /// whose capacity is unknown.
    pub fn lacking(&self) -> impl Iterator<Item = &Candidate> {
        let undecided = self.choice.reason == Reason::CapacityUnknown;
        let all = self.candidates.iter().enumerate();
        all.filter(move |(at, c)| match self.choice.variant {
            Some(chosen) => chosen == *at && c.registers.is_none(),
            None => undecided && c.is_undecided(),
        })
        .map(|(_, candidate)| candidate)
    }
}

/// Chooses for a step among every variant that the settings ask for, laid out as was set,
/// measured, or by rule. Registers and capacity are those of the kernels that a load would
/// find in the cache; where the choice depends on one that is not there it is
/// [`Reason::CapacityUnknown`].
pub fn explain(
    jit: &Jit,
    target: Target,
    policy: &Policy,
    problem: Problem,
    missing: Missing,
) -> Result<Explanation, MeasureError> {
    let candidates = candidates(jit, &target, problem.num_tokens, missing)?;
    Ok(Explanation {
        choice: choose(&candidates, policy, &problem),
        device: target.device,
        problem,
        candidates,
    })
}

impl Candidate {
    fn is_undecided(&self) -> bool {
        self.variant.kind == Kind::Cooperative && self.resident.is_none()
    }
}

/// The choice that holds whatever the capacities are that are unknown, if one does.
fn choose(candidates: &[Candidate], policy: &Policy, problem: &Problem) -> Choice {
    let with_unknown = |capacity: u32| {
        let variants: Vec<Variant> = candidates
            .iter()
            .map(|c| Variant {
                capacity: c.resident.unwrap_or(capacity),
                ..c.variant
            })
            .collect();
        select(&variants, policy, problem)
    };
    let (least, most) = (with_unknown(0), with_unknown(u32::MAX));
    if least == most {
        return least;
    }
    Choice {
        variant: None,
        reason: Reason::CapacityUnknown,
    }
}

fn candidates(
    jit: &Jit,
    target: &Target,
    num_tokens: u32,
    missing: Missing,
) -> Result<Vec<Candidate>, MeasureError> {
    let device = &target.device;
    let arch = device.arch();
    let record = jit.tuned();
    let set = set_geometry(jit.config(), jit.registry().get(FAMILY)?);
    let mut all = Vec::new();
    for asked in asked_launches(jit, arch)? {
        let (spec, origin) = lay_out(&record, device, &asked, num_tokens, &set)?;
        let (kernel, refused) = match missing {
            // What is compiled is known even where it cannot be kept.
            Missing::Compile => (Some(jit.prepare(&spec)?.fetched.artifact), None),
            Missing::Report => match jit.judge(&spec)?.1 {
                Judged::Hit { entry, .. } => (Some(Arc::new(entry.into_artifact())), None),
                Judged::Refused(drift) => (None, Some(drift)),
                _ => (None, None),
            },
        };
        let resident = target.resident(&spec, kernel.as_deref())?;
        if let Some(variant) = Variant::of(&spec, resident.unwrap_or(0)) {
            all.push(Candidate {
                config: LayerConfig::try_from(&spec)?,
                spec,
                origin,
                variant,
                registers: kernel.as_deref().map(Artifact::registers),
                resident,
                refused,
            });
        }
    }
    Ok(all)
}
