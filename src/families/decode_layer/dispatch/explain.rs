//! What would run, of all variants that the settings ask for, and why.
//!
//! Invariant: with a GPU that is not here nothing is asked of a driver, and what does not
//! fit is a candidate all the same, with nothing resident.

use super::{Choice, Layers, Path, Policy, Problem, Variant, select};
use crate::engine::config::Config;
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::device::{Context, Device};
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
    /// GPU is here.
    fn resident(&self, jit: &Jit, spec: &KernelSpec, registers: u32) -> Result<u32, MeasureError> {
        let number = |name: &str| spec.number(name).unwrap_or(0);
        let shared = number("shared_bytes");
        Ok(match &self.context {
            _ if shared > self.device.shared_mem_per_block => 0,
            Some(context) => jit.load(spec, context)?.entries()[0].capacity,
            None => capacity(&self.device, registers, number("launch_threads"), shared),
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
    /// What dispatch chooses by.
    pub variant: Variant,
    /// Registers a thread, the most of its kernels.
    pub registers: u32,
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
}

/// Chooses for a step among every variant that the settings ask for, laid out as was set,
/// measured, or by rule. Compiles what the cache lacks, for the registers that they use.
pub fn explain(
    jit: &Jit,
    target: Target,
    policy: &Policy,
    problem: Problem,
) -> Result<Explanation, MeasureError> {
    let candidates = candidates(jit, &target, problem.num_tokens)?;
    let variants: Vec<Variant> = candidates.iter().map(|c| c.variant).collect();
    Ok(Explanation {
        choice: select(&variants, policy, &problem),
        device: target.device,
        problem,
        candidates,
    })
}

fn candidates(jit: &Jit, target: &Target, num_tokens: u32) -> Result<Vec<Candidate>, MeasureError> {
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
        let registers = jit.prepare(&spec)?.fetched.artifact.registers();
        let resident = target.resident(jit, &spec, registers)?;
        if let Some(variant) = Variant::of(&spec, resident) {
            all.push(Candidate {
                spec,
                origin,
                variant,
                registers,
            });
        }
    }
    Ok(all)
}
