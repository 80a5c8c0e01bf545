//! What every measurement has, whatever is measured: a GPU, the record of tuned
//! geometries, how often to launch, and the kernel that floors are taken with.
//!
//! Invariant: nothing here reads a family's constants; what they ask for is settled by
//! who measures, before a GPU is looked for.

use std::sync::Arc;

use clap::ArgMatches;

use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::measure::MeasureError;
use crate::measure::timing::{Method, Plan};
use crate::measure::tune::{Gpu, Record};

/// Launches of a graph, or more where the sets of weights are more.
const PER_GRAPH: usize = 24;

/// What stays the same over a run, of whatever family.
pub(in crate::cli) struct Session<'a> {
    pub(super) jit: &'a Jit,
    pub(super) context: Context,
    pub(super) record: Record,
    pub(super) plan: Plan,
    pub(super) seed: u64,
}

impl<'a> Session<'a> {
    /// Opens the first GPU.
    pub(super) fn open(jit: &'a Jit, matches: &ArgMatches) -> Result<Self, MeasureError> {
        Ok(Self {
            context: Context::new(0)?,
            record: jit
                .config()
                .cache_dir()
                .map_or_else(Record::default, |dir| Record::load(&Record::path(&dir))),
            plan: plan(matches),
            seed: matches.get_one::<u64>("seed").copied().unwrap_or(4242),
            jit,
        })
    }

    /// The facts of its GPU that geometry depends on.
    pub(in crate::cli) fn gpu(&self) -> Gpu {
        Gpu::from(self.context.device())
    }

    pub(super) fn arch(&self) -> Arch {
        let device = self.context.device();
        Arch::of_device(device.major, device.minor)
    }

    /// The kernel that only reads: every floor is its time.
    pub(super) fn stream_kernel(&self) -> Result<Arc<LoadedKernel>, MeasureError> {
        let ctas = (8 * self.context.device().sm_count).to_string();
        let set = [("num_ctas", ctas.as_str()), ("num_threads", "256")];
        let family = self.jit.registry().get("stream")?;
        let spec = KernelSpec::new(family, set, self.arch())?;
        Ok(self.jit.load(&spec, &self.context)?)
    }
}

fn plan(matches: &ArgMatches) -> Plan {
    let samples = matches.get_one::<usize>("launches").copied().unwrap_or(50);
    let events = matches.get_one::<String>("method").is_some_and(|m| m == "events");
    Plan {
        method: if events { Method::Events } else { Method::Graph },
        launches_per_graph: PER_GRAPH,
        warmups: 3,
        samples,
    }
}
