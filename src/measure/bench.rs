//! What every benchmark has, whatever is measured: a GPU, the record of tuned
//! geometries, how often to launch, and the floor that times stand beside.
//!
//! Invariant: nothing here reads a family's constants; what they ask for is settled by
//! who measures, before a GPU is looked for.

use std::path::PathBuf;
use std::sync::Arc;

use super::MeasureError;
use super::harness::{Flag, Options};
use super::timing::{Method, Plan, Summary, sample};
use super::tune::{Gpu, Record};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::device::Context;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::Tensor;

/// How launches are timed.
pub const METHOD: Flag = Flag::new(
    "method",
    "METHOD",
    Some("graph"),
    "Time replays of a graph of launches, or each launch between two events: graph or events",
);
/// Sets of weights take turns, which is the default.
pub const COLD: Flag = Flag::switch(
    "cold",
    "Another set of weights each launch, so that none lies in L2 [the default]",
);
/// One set of weights.
pub const WARM: Flag = Flag::switch("warm", "The same weights each launch");
/// Tokens of a launch, a measurement each; what it is where it is not given, the family says.
pub const TOKENS: Flag = Flag::new(
    "tokens",
    "LIST",
    None,
    "Tokens of a launch [default: 1; bench layer: 1,2,4,8]",
);

/// Samples of a time.
pub const LAUNCHES: Flag = Flag::new("launches", "COUNT", Some("50"), "Samples");
/// Seed of the inputs.
pub const SEED: Flag = Flag::new("seed", "SEED", Some("4242"), "Of the inputs");
/// Where files go.
pub const OUT: Flag = Flag::new(
    "out",
    "DIR",
    None,
    "Folder for summary.json and plot.svg, and one a variant for config.json, timing.csv, correctness_*.json",
);
/// Of tuning: values to try; read by [`read_space`](super::tune::read_space).
pub const SPACE: Flag = Flag::repeated(
    "space",
    "NAME=LIST",
    "Values of a constant to try, instead of the declared ones",
);
/// Of tuning: whether candidates are listed, and none is timed.
pub const DRY_RUN: Flag = Flag::switch("dry-run", "List the candidates; needs no GPU");

/// Launches of a graph, or more where the sets of weights are more.
const PER_GRAPH: usize = 24;

/// How to launch and how often, of whatever family.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BenchOptions {
    /// How often, and what stands between two events.
    pub plan: Plan,
    /// Whether sets of weights take turns, so that none lies in L2.
    pub cold: bool,
    /// Seed of the inputs.
    pub seed: u64,
    /// Where files go; without it there are none.
    pub out: Option<PathBuf>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            plan: Plan {
                method: Method::Graph,
                launches_per_graph: PER_GRAPH,
                warmups: 3,
                samples: 50,
            },
            cold: true,
            seed: 4242,
            out: None,
        }
    }
}

impl BenchOptions {
    /// Reads the flags of this module, those of them that a family takes.
    ///
    /// # Errors
    /// A value that is none, by the flag's name.
    pub fn read(options: &Options) -> Result<Self, MeasureError> {
        let mut read = Self::default();
        if options.choice("method", &["graph", "events"])? == Some("events") {
            read.plan.method = Method::Events;
        }
        if let Some(samples) = options.count("launches")? {
            read.plan.samples = samples;
        }
        if options.is_given("warm") && options.is_given("cold") {
            return Err(MeasureError::Request("--warm: cannot be used with --cold".into()));
        }
        read.cold = !options.is_given("warm");
        if let Some(seed) = options.number("seed", 0..=u64::MAX)? {
            read.seed = seed;
        }
        read.out = options.text("out").map(PathBuf::from);
        Ok(read)
    }
}

/// What stays the same over a run, of whatever family.
#[non_exhaustive]
pub struct BenchSession<'a> {
    /// Makes and loads the kernels.
    pub jit: &'a Jit,
    /// The GPU.
    pub context: Context,
    /// Geometries that were tuned before.
    pub record: Record,
    /// How often to launch.
    pub plan: Plan,
    /// Seed of the inputs.
    pub seed: u64,
}

impl<'a> BenchSession<'a> {
    /// Opens the first GPU, and reads the record beside the cache.
    ///
    /// # Errors
    /// [`MeasureError::Device`] where there is no GPU.
    pub fn open(jit: &'a Jit, options: &BenchOptions) -> Result<Self, MeasureError> {
        Ok(Self {
            context: Context::new(0)?,
            record: jit.tuned(),
            plan: options.plan,
            seed: options.seed,
            jit,
        })
    }

    /// The facts of its GPU that geometry depends on.
    #[must_use]
    pub fn gpu(&self) -> Gpu {
        Gpu::from(self.context.device())
    }

    /// The architecture of its GPU.
    #[must_use]
    pub fn arch(&self) -> Arch {
        let device = self.context.device();
        device.arch()
    }

    /// The kernel that only reads: every floor is its time.
    ///
    /// # Errors
    /// Those of making and loading it.
    pub fn stream_kernel(&self) -> Result<Arc<LoadedKernel>, MeasureError> {
        let ctas = (8 * self.context.device().sm_count).to_string();
        let set = [("num_ctas", ctas.as_str()), ("num_threads", "256")];
        let family = self.jit.registry().get("stream")?;
        let spec = KernelSpec::new(family, set, self.arch())?;
        Ok(self.jit.load(&spec, &self.context)?)
    }

    /// The floor: the median time, microseconds, that the streaming kernel takes to read
    /// one of these tensors after another, all of one length.
    ///
    /// # Errors
    /// Those of making, binding, launching and timing it.
    ///
    /// # Safety
    /// The memory of every tensor is alive until this returns, and nobody else writes it.
    pub unsafe fn floor(&self, plan: &Plan, data: &[Tensor], result: Tensor) -> Result<f64, MeasureError> {
        let kernel = self.stream_kernel()?;
        let bound = (data.iter())
            .map(|data| {
                (kernel.bind())
                    .arg("data", *data)
                    .arg("num_bytes", data.elements().unwrap_or(0) as u64)
                    .arg("sink", result)
                    .finish()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let samples = sample(&self.context, plan, &mut |i, stream| {
            // SAFETY: the caller answers for the memory.
            unsafe { bound[i % bound.len()].launch(&[], stream) }.map_err(MeasureError::from)
        })?;
        Ok(Summary::of(&samples).map_or(f64::NAN, |s| s.median))
    }
}

/// What the gate and the clock said of a variant.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Timed {
    /// Whether its reference let it through.
    pub passes: bool,
    /// Its time; none, where it was refused.
    pub summary: Option<Summary>,
    /// Bytes that a launch has to move.
    pub bytes: usize,
    /// The streaming kernel over them, microseconds.
    pub floor: f64,
}

impl Timed {
    /// Titles of [`cells`](Self::cells).
    pub const TITLES: [&str; 7] = ["gate", "median us", "p5", "p95", "GB/s", "stream us", "x stream"];

    /// Its median, microseconds a launch.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        self.summary.map(|s| s.median)
    }

    /// Bytes over the median, GB/s.
    #[must_use]
    pub fn gbps(&self) -> Option<f64> {
        self.median().map(|us| gigabytes_per_second(self.bytes, us))
    }

    /// The median over the floor.
    #[must_use]
    pub fn over_stream(&self) -> Option<f64> {
        self.median().map(|us| us / self.floor)
    }

    /// The end of a row of a table.
    #[must_use]
    pub fn cells(&self) -> [String; 7] {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        [
            if self.passes { "passes" } else { "FAILS" }.into(),
            number(self.median(), 2),
            number(self.summary.map(|s| s.p5), 2),
            number(self.summary.map(|s| s.p95), 2),
            number(self.gbps(), 0),
            number(Some(self.floor), 2),
            number(self.over_stream(), 2),
        ]
    }
}

/// Bytes over microseconds.
#[must_use]
pub fn gigabytes_per_second(bytes: usize, us: f64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / us / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[METHOD, COLD, WARM, LAUNCHES, SEED, OUT];

    #[test]
    fn options_that_were_not_given_are_the_defaults() {
        let read = BenchOptions::read(&Options::of(FLAGS)).expect("read");
        assert_eq!(read, BenchOptions::default());
        let given = Options::of(FLAGS).set("method", "events").set("warm", "");
        let read = BenchOptions::read(&given.set("out", "here").set("seed", "7")).expect("read");
        assert_eq!(read.plan.method, Method::Events);
        assert_eq!((read.cold, read.seed), (false, 7));
        assert_eq!(read.out, Some(PathBuf::from("here")));
    }

    #[test]
    fn options_that_are_wrong_are_told_by_name() {
        let error = |options: Options| BenchOptions::read(&options).expect_err("refused").to_string();
        let given = Options::of(FLAGS);
        assert_eq!(
            error(given.clone().set("launches", "0")),
            "--launches: `0`: expected a whole number from 1"
        );
        assert_eq!(
            error(given.clone().set("method", "graf")),
            "--method: `graf`: expected one of graph, events"
        );
        assert_eq!(
            error(given.set("warm", "").set("cold", "")),
            "--warm: cannot be used with --cold"
        );
    }

    #[test]
    fn a_refused_variant_has_no_time_and_a_floor() {
        let timed = Timed {
            passes: false,
            summary: None,
            bytes: 1000,
            floor: 2.5,
        };
        assert_eq!(timed.cells(), ["FAILS", "-", "-", "-", "-", "2.50", "-"]);
    }
}
