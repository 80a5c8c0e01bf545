//! `jitc bench`: of families that are measured, and of the decode layer ([`layer`]).

mod layer;

use clap::ArgMatches;

use super::{Answer, args, measured};
use crate::engine::jit::Jit;
use crate::engine::request::template::Registry;
use crate::measure::MeasureError;
use crate::measure::bench::{self, BenchOptions, BenchSession as Session};
use crate::measure::harness::{Flag, Verb};
use crate::measure::{plot, run_files as files};

/// How rows end.
mod report {
    pub(super) use crate::measure::bench::Timed;
}

pub(super) fn command(registry: &Registry) -> clap::Command {
    let bench = measured::command(Verb::Bench, registry).mut_arg("family", |family| {
        family
            .value_parser(["wo_gemv", "layer"])
            .help("wo_gemv, or layer: beta_coop, beta_lite and separate kernels side by side")
    });
    layer::args(bench)
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let layer = matches.get_one::<String>("family").is_some_and(|f| f == "layer");
    let (what, others): (_, &[&str]) = if layer {
        ("layer", &["ncu", "warm", "global-scale"])
    } else {
        ("wo_gemv", &["context", "nat", "path"])
    };
    args::refuse(matches, others, what).map_err(MeasureError::Request)?;
    if layer {
        layer::measure(jit, matches, json)
    } else {
        measured::run(Verb::Bench, jit, matches, json)
    }
}

/// The layer's flags that say how to launch.
fn options(matches: &ArgMatches) -> Result<BenchOptions, MeasureError> {
    const FLAGS: &[Flag] = &[
        bench::METHOD,
        bench::COLD,
        bench::LAUNCHES,
        bench::SEED,
        bench::OUT,
    ];
    BenchOptions::read(&measured::given(FLAGS, matches))
}
