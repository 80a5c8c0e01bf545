//! What was measured: for a problem on a GPU, the geometry that was the fastest.
//!
//! Invariant: a winner holds for its GPU and its problem alone, and only as long as its
//! family takes it: what does not hold any more is told, and the rules decide instead.

mod record;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::device::Device;
use super::dispatch::Dispatcher;
use crate::engine::refused::Refused;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::Registry;

pub use record::Record;

/// Constants that change how a kernel is laid out over the GPU and nothing else.
pub type Geometry = BTreeMap<String, String>;

/// Sizes of a problem by name.
pub type Sizes = BTreeMap<String, u32>;

/// What a measurement of geometry holds for, on the side of the hardware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gpu {
    /// Its name, as the driver gives it.
    pub name: String,
    /// Compute capability, `9.0`.
    pub compute_capability: String,
    /// Multiprocessors: a part of a GPU is another GPU.
    pub sm_count: u32,
    /// Shared memory that one block can have, bytes.
    pub shared_mem_per_block: u32,
}

impl From<&Device> for Gpu {
    fn from(device: &Device) -> Self {
        Self {
            name: device.name.clone(),
            compute_capability: format!("{}.{}", device.major, device.minor),
            sm_count: device.sm_count,
            shared_mem_per_block: device.shared_mem_per_block,
        }
    }
}

/// The same, on the side of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The family.
    pub family: String,
    /// Its constants that are no geometry, `wo_split=8` and so on.
    pub constants: Geometry,
    /// Tokens of a launch; 1 of a family that is measured by its declaration.
    pub tokens: u32,
    /// Of a family that is measured by its declaration: the problem's sizes by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: Sizes,
}

impl Problem {
    /// A problem of a family that is measured by its declaration: the constants of `asked`
    /// but for those that are `geometry`, and sizes by name.
    #[must_use]
    pub fn of_sizes(asked: &KernelSpec, geometry: &[&str], sizes: Sizes) -> Self {
        let constants = asked.constants().iter();
        let constants = constants.filter(|(name, _)| !geometry.contains(&name.as_str()));
        Self {
            family: asked.family().name.clone(),
            constants: constants
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect(),
            tokens: 1,
            sizes,
        }
    }

    /// Calls a family by its present name: a former one stands for constants too, which
    /// a problem of that name does not have. What is not renamed would no longer be found,
    /// and a decode layer's tuned `wo_split`, and with it its bits, would change.
    fn rename(&mut self, registry: &Registry) {
        let Some((family, former)) = registry.formerly(&self.family) else {
            return;
        };
        for (name, value) in &former.constants {
            self.constants
                .entry(name.clone())
                .or_insert_with(|| value.to_string());
        }
        self.family.clone_from(&family.name);
    }

    /// A constant of the problem as a number; `None` where it is absent or is not one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        self.constants.get(name)?.parse().ok()
    }
}

/// The fastest geometry found for a problem on a GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// The GPU.
    pub gpu: Gpu,
    /// The problem.
    pub problem: Problem,
    /// The geometry.
    pub geometry: Geometry,
    /// Its median, microseconds a launch.
    pub median_us: f64,
    /// Geometries that were timed.
    pub tried: u32,
    /// How it was measured; `None` of a family with a search of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// How a winner was measured, and what it won against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Key of the machine code that was timed, as hex.
    pub key: String,
    /// What stood between two events: `graph` or `events`.
    pub method: String,
    /// Whether sets of inputs took turns, so that none lay in L2.
    pub cold: bool,
    /// Launches of a graph; 1 of `events`.
    pub launches_per_graph: u32,
    /// Samples of its median.
    pub samples: u32,
    /// Seed of the inputs.
    pub seed: u64,
    /// The most CUDA that the driver knows, `13.0`.
    pub driver: String,
    /// Clocks right behind the last sample; `None` where nobody says them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<Clocks>,
    /// What the rules choose, which ran in turn with it.
    pub rule: Geometry,
    /// Median of that in the same run, microseconds a launch.
    pub rule_us: f64,
    /// By what part of the rule's time it had to be faster.
    pub margin: f64,
}

/// Clocks of a GPU, MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Clocks {
    /// Of its multiprocessors.
    pub sm_mhz: u32,
    /// Of its memory.
    pub memory_mhz: u32,
}

/// A winner that does not hold any more.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{problem}: tuned {geometry} is not used: {reason}")]
#[non_exhaustive]
pub struct Stale {
    /// The family and the sizes.
    pub problem: String,
    /// The geometry, as people write it.
    pub geometry: String,
    /// Why not.
    pub reason: String,
}

impl Winner {
    /// The variant that it names, of what was `asked`; the text says why it does not hold.
    /// `key` says the key of a variant as it would be looked up now.
    ///
    /// # Errors
    /// Constants that the family does not have or take any more, times that are none, and
    /// machine code that is not what was timed.
    pub fn variant(
        &self,
        asked: &KernelSpec,
        key: &mut dyn FnMut(&KernelSpec) -> Option<String>,
    ) -> Result<KernelSpec, Refused> {
        let Some(policy) = &self.policy else {
            return Err("it does not say how it was measured".into());
        };
        let times = [self.median_us, policy.rule_us];
        if !times.iter().all(|us| us.is_finite() && *us > 0.0) || !(0.0..1.0).contains(&policy.margin) {
            return Err("its times are none".into());
        }
        if self.median_us > policy.rule_us * (1.0 - policy.margin) {
            return Err("it did not win by its margin".into());
        }
        let geometry = asked.family().geometry();
        if let Some(name) = self
            .geometry
            .keys()
            .find(|name| !geometry.contains(&name.as_str()))
        {
            return Err(format!("neither [tune] nor [dispatch] chooses `{name}`").into());
        }
        let set = self.geometry.iter();
        let spec = asked.with(set.map(|(name, value)| (name.as_str(), value.as_str())));
        let spec = spec.map_err(|error| error.to_string())?;
        match key(&spec) {
            Some(now) if now == policy.key => Ok(spec),
            _ => Err("its machine code is not what was timed: tune it again".into()),
        }
    }

    fn stale(&self, reason: String) -> Stale {
        let words = |map: &mut dyn Iterator<Item = String>| map.collect::<Vec<_>>().join(" ");
        let problem = &self.problem;
        Stale {
            problem: words(
                &mut std::iter::once(problem.family.clone())
                    .chain(problem.sizes.iter().map(|(name, size)| format!("{name}={size}"))),
            ),
            geometry: words(&mut self.geometry.iter().map(|(n, v)| format!("{n}={v}"))),
            reason,
        }
    }
}

impl Record {
    /// The winners for what was `asked` on a GPU, by the problem's sizes; constants in
    /// `forced` stay as they are, so a winner that sets one of them otherwise is not among
    /// them.
    pub fn of<'r>(
        &'r self,
        asked: &'r KernelSpec,
        gpu: &'r Gpu,
        forced: &'r [&'r str],
    ) -> impl Iterator<Item = &'r Winner> {
        let text = |name: &String| asked.constants().get(name).map(ToString::to_string);
        let is_asked = move |winner: &&Winner| {
            let problem = &winner.problem;
            let all = problem.constants.len() + winner.geometry.len() == asked.constants().len();
            let same = |(name, value): (&String, &String)| text(name).as_ref() == Some(value);
            let free =
                |(name, value): (&String, &String)| !forced.contains(&name.as_str()) || same((name, value));
            winner.gpu == *gpu
                && problem.family == asked.family().name
                // Other searches know their problems by constants and tokens.
                && (winner.policy.is_some() || !problem.sizes.is_empty())
                && all
                && problem.constants.iter().all(same)
                && winner.geometry.iter().all(free)
        };
        self.winners().iter().filter(is_asked)
    }
}

impl Dispatcher {
    /// Notes every winner of a record that holds for what was `asked` on this GPU: see
    /// [`Winner::variant`]. Returns those that do not hold any more.
    pub fn tune_by(
        &mut self,
        record: &Record,
        asked: &KernelSpec,
        gpu: &Gpu,
        forced: &[&str],
        key: &mut dyn FnMut(&KernelSpec) -> Option<String>,
    ) -> Vec<Stale> {
        let mut stale = Vec::new();
        for winner in record.of(asked, gpu, forced) {
            let Some(dispatch) = &asked.family().dispatch else {
                break;
            };
            let noted = (dispatch.in_order(&winner.problem.sizes))
                .and_then(|sizes| Ok((sizes, winner.variant(asked, key)?)))
                .and_then(|(sizes, spec)| self.tune(&sizes, spec).map_err(Refused::new));
            stale.extend(noted.err().map(|reason| winner.stale(reason.into())));
        }
        stale
    }
}
