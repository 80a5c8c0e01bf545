//! Hostile sources through a server that answers other requests meanwhile.
//!
//!     cargo run --release --example hostile -- 1000 2026 target/release/jitc
//!
//! compiles so many of them from this seed, in workers of this program, and counts how
//! each ended. It panics if another request is not answered.
#![expect(clippy::print_stdout, reason = "an example prints what came of it")]

#[path = "../tests/support/hostile.rs"]
mod generator;

use jitc::engine::build::compile::WorkerChoice;

fn main() {
    let mut words = std::env::args().skip(1);
    let mut number = |usual| words.next().and_then(|w| w.parse().ok()).unwrap_or(usual);
    let (count, seed) = (number(1000), number(2026));
    let worker = words
        .next()
        .map_or(WorkerChoice::Found, |path| WorkerChoice::Program(path.into()));
    let folder = tempfile::tempdir().expect("a folder");
    let report = generator::serve(count, seed, worker, folder.path());
    for (outcome, times) in &report.outcomes {
        println!("{times:6} {outcome}");
    }
    println!("{:6} other requests answered, each twice", report.answered);
}
