//! What would run, of all variants that the settings ask for, and why.
//!
//! Invariant: with a GPU that is not here nothing is asked of a driver, and what does not
//! fit is a candidate all the same, with nothing resident. Nothing is written or compiled
//! unless that is asked for, and nothing is made up of what the cache does not have.

use std::sync::Arc;

use super::{Choice, Layers, Path, Policy, Problem, Reason, Variant, select};
use crate::engine::build::artifact::Artifact;
use crate::engine::cache::Judged;
use crate::engine::config::Config;
use crate::engine::jit::{Error, Jit};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::device::{Context, Device};
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::occupancy::{KNOWN_DEVICES, capacity, known_device};
use crate::families::decode_layer::tune::{lay_out, set_geometry};
use crate::families::decode_layer::{FAMILY, asked_launches};
use crate::measure::MeasureError;
use crate::measure::tune::{Origin, Record};

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

    /// Blocks of a kernel that are resident at once; the driver's own number where the
    /// GPU is here. `None` where there is no artifact to tell.
    fn resident(&self, spec: &KernelSpec, artifact: Option<&Artifact>) -> Result<Option<u32>, MeasureError> {
        let number = |name: &str| spec.number(name).unwrap_or(0);
        let shared = number("shared_bytes");
        Ok(match (&self.context, artifact) {
            _ if shared > self.device.shared_mem_per_block => Some(0),
            (_, None) => None,
            (Some(context), Some(artifact)) => {
                let kernel = LoadedKernel::load(context, spec, artifact).map_err(Error::Load)?;
                kernel.entries().first().map(|entry| entry.capacity)
            }
            (None, Some(artifact)) => Some(capacity(
                &self.device,
                artifact.registers(),
                number("launch_threads"),
                shared,
            )),
        })
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
        let path = match text(path, ["JITC_PATH", "CUTE_PHASE_E_PATH"]) {
            Some(path) => path.parse().map_err(MeasureError::Request)?,
            None => Path::Auto,
        };
        let layers = text(layers, ["JITC_LAYERS", "CUTE_PHASE_E_LAYERS"]);
        let layers = Layers::parse(layers.as_deref().unwrap_or_default());
        Ok(Self {
            path,
            layers: layers.map_err(MeasureError::Request)?,
            max_tokens,
        })
    }
}

/// A variant that could run, and what is known of it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Spec of the variant.
    pub spec: KernelSpec,
    /// Where its `wo_split` comes from.
    pub origin: Origin,
    /// What dispatch chooses by; its capacity is 0 where it is unknown.
    pub variant: Variant,
    /// Blocks that are resident on the whole GPU at once; `None` where the cache does not
    /// have the variant.
    pub resident: Option<u32>,
    /// Registers a thread, the most of its kernels; `None` where the cache does not have it.
    pub registers: Option<u32>,
}

/// What a step would run.
#[derive(Debug, Clone)]
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

    /// Whether a variant was chosen that a load would find.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.chosen().is_some_and(|c| c.registers.is_some())
    }
}

/// Chooses for a step among every variant that the settings ask for, laid out as was set,
/// measured, or by rule. Registers and capacity are those of the artifacts that a load
/// would find; `compile` makes the others, else the choice is [`Reason::Unknown`] where it
/// depends on one of them.
///
/// # Errors
/// Reading settings, laying out, and with `compile` whatever [`Jit::prepare`] says.
pub fn explain(
    jit: &Jit,
    target: Target,
    policy: &Policy,
    problem: Problem,
    compile: bool,
) -> Result<Explanation, MeasureError> {
    let candidates = candidates(jit, &target, problem.num_tokens, compile)?;
    Ok(Explanation {
        choice: choice(&candidates, policy, &problem),
        device: target.device,
        problem,
        candidates,
    })
}

/// What is chosen whatever the unknown capacities are, if one choice is.
fn choice(candidates: &[Candidate], policy: &Policy, problem: &Problem) -> Choice {
    let with = |unknown: u32| {
        let variants = candidates.iter().map(|c| Variant {
            capacity: c.resident.unwrap_or(unknown),
            ..c.variant
        });
        select(&variants.collect::<Vec<_>>(), policy, problem)
    };
    let (none, all) = (with(0), with(u32::MAX));
    if none == all {
        return none;
    }
    Choice {
        variant: None,
        reason: Reason::Unknown {
            missing: candidates.iter().filter(|c| c.resident.is_none()).count(),
            of: candidates.len(),
        },
    }
}

fn candidates(
    jit: &Jit,
    target: &Target,
    num_tokens: u32,
    compile: bool,
) -> Result<Vec<Candidate>, MeasureError> {
    let device = &target.device;
    let arch = Arch::of_device(device.major, device.minor);
    let record = jit.config().cache_dir();
    let record = record.map_or_else(Record::default, |dir| {
        Record::load(&Record::path(&dir), jit.registry())
    });
    let set = set_geometry(jit.config(), jit.registry().get(FAMILY)?);
    let mut all = Vec::new();
    for asked in asked_launches(jit, arch)? {
        let (spec, origin) = lay_out(&record, device, &asked, num_tokens, &set)?;
        let artifact = if compile {
            Some(jit.prepare(&spec)?.fetched.artifact)
        } else {
            match jit.judge(&spec)?.1 {
                Judged::Hit { entry, .. } => Some(Arc::new(entry.into_artifact())),
                _ => None,
            }
        };
        let resident = target.resident(&spec, artifact.as_deref())?;
        if let Some(variant) = Variant::of(&spec, resident.unwrap_or(0)) {
            all.push(Candidate {
                spec,
                origin,
                variant,
                resident,
                registers: artifact.map(|artifact| artifact.registers()),
            });
        }
    }
    Ok(all)
}
