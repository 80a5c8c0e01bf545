//! A cold `warm` of 32 variants: jitc's own part a variant (all but NVRTC), and
//! what a second job brings on a machine with two cores.
//!
//! No criterion here: a sample takes seconds, and what counts is the ratio of two
//! runs beside each other. `JITC_NVRTC` and the like are read as by the program.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jitc::engine::config::{Config, Environment, FlagConstant, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;

const ROUNDS: usize = 5;

/// One cold run with this many jobs: wall time, and own time of each variant, us.
fn cold(jobs: usize) -> (Duration, Vec<u64>) {
    let dir = tempfile::tempdir().expect("tempdir");
    let constant = |name: &str, value: &str| FlagConstant {
        name: name.into(),
        value: value.into(),
        flag: "bench".into(),
    };
    let flags = Flags {
        cache_dir: Some(dir.path().join("cache")),
        constants: vec![
            constant("wo_split", "1,2,4,8"),
            constant("accumulate", "fma,mul_add"),
        ],
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::capture()).expect("settings");
    let jit = Jit::new(config).expect("families");
    let family = jit.registry().get("wo_gemv").expect("family");
    let specs = KernelSpec::expand(family, jit.config(), &Arch::DEFAULTS).expect("specs");
    assert!(specs.len() >= 32, "{} variants", specs.len());
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let own = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| {
                    let mut own = Vec::new();
                    while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        own.push(jit.prepare(spec).expect("compiled").own_us);
                    }
                    own
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|w| w.join().expect("worker"))
            .collect()
    });
    (started.elapsed(), own)
}

fn main() {
    let mut ratios = Vec::new();
    println!("round  jobs  wall ms  own us: mean  median  most");
    for round in 0..ROUNDS {
        let mut walls = [Duration::ZERO; 2];
        for jobs in [1, 2] {
            let (wall, mut own) = cold(jobs);
            own.sort_unstable();
            let mean = own.iter().sum::<u64>() / own.len() as u64;
            let (median, most) = (own[own.len() / 2], own[own.len() - 1]);
            println!(
                "{round:<6} {jobs:<5} {:<8} {:>12} {median:>7} {most:>5}",
                wall.as_millis(),
                mean
            );
            walls[jobs - 1] = wall;
        }
        ratios.push(walls[0].as_secs_f64() / walls[1].as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "two jobs are {:.2} times one (median of {ROUNDS}; {:.2} to {:.2})",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
}
