//! What was tuned, on its way with a pushed release.

use std::path::{Path, PathBuf};

use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::occupancy::known_device;
use jitc::engine::run::tuned::{Geometry, Gpu, Policy, Problem, Record, Sizes, Winner};

use crate::cache_support::{Root, build, subject};
use crate::command::{jitc, succeeded};
use crate::tier::Share;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rms_norm")
}

fn over(cache: &Path) -> Jit {
    let flags = Flags {
        templates: Some(example()),
        cache_dir: Some(cache.to_owned()),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families")
}

/// A winner for so many rows, as `jitc tune` would keep it; its machine code is that of a key.
fn winner(jit: &Jit, rows: u32, block: &str, key: String) -> Winner {
    let family = jit.registry().get("rms_norm").expect("family");
    let set = [("block", block), ("width", "4")];
    let spec = KernelSpec::new(family, set, "sm_90a".parse().expect("arch")).expect("legal");
    let geometry: Geometry = set
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let sizes: Sizes = [("rows".to_owned(), rows), ("cols".to_owned(), 4096)].into();
    Winner {
        gpu: Gpu::from(&known_device("h200").expect("known")),
        problem: Problem::of_sizes(&spec, &family.geometry(), sizes),
        geometry: geometry.clone(),
        median_us: 8.0,
        tried: 14,
        policy: Some(Policy {
            key,
            method: "graph".into(),
            cold: true,
            launches_per_graph: 24,
            samples: 50,
            seed: 4242,
            driver: "13.0".into(),
            clocks: None,
            rule: geometry,
            rule_us: 10.0,
            margin: 0.02,
        }),
    }
}

fn save(jit: &Jit, winners: impl IntoIterator<Item = Winner>) {
    let mut record = Record::default();
    winners.into_iter().for_each(|winner| record.put(winner));
    let folder = jit.config().cache_dir().expect("a cache");
    record.save(&Record::path(&folder)).expect("saved");
}

/// Rows and block of each winner that is known.
fn known(jit: &Jit) -> Vec<(u32, String)> {
    let record = jit.tuned();
    let all = record.winners().iter();
    let mut all: Vec<_> = all
        .map(|winner| (winner.problem.sizes["rows"], winner.geometry["block"].clone()))
        .collect();
    all.sort();
    all
}

/// What the program says; it ends well.
fn run(cache: &Path, words: &[&str]) -> String {
    let mut command = jitc(cache);
    let output = command.args(words).arg("--templates").arg(example()).output();
    let output = output.expect("run");
    succeeded(&output);
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    said.concat()
}

#[test]
fn a_pushed_release_carries_the_winners_of_its_kernels_and_an_own_one_stays() {
    let (share, first, second) = (Share::new(), Root::new(), Root::new());
    for n in 1..=2 {
        let built = first.cache().get_or_build(&subject(n), || build(n));
        built.expect("built");
    }
    fs_err::create_dir_all(second.path()).expect("a folder");
    let key = |n| subject(n).key().hex();
    let (here, there) = (over(&first.path()), over(&second.path()));
    // The third was never compiled here.
    let all = [(1, "64", key(1)), (2, "128", key(2)), (3, "512", key(3))];
    save(
        &here,
        all.map(|(rows, block, key)| winner(&here, rows, block, key)),
    );
    save(&there, [winner(&there, 2, "1024", key(9))]);
    let write = share.url("role=write");
    run(&first.path(), &["cache", "push", "rel", "--remote", &write]);
    let url = share.url("");
    let pull = ["cache", "pull", "rel", "--remote", &url];
    let said = run(&second.path(), &pull);
    assert!(
        said.contains("2 entries added") && said.contains("tuned variants taken in: 1\n"),
        "{said}"
    );
    assert_eq!(known(&there), [(1, "64".into()), (2, "1024".into())]);
    let again = run(&second.path(), &pull);
    assert!(!again.contains("tuned"), "{again}");
    // A release of some entries has their winners alone.
    run(
        &first.path(),
        &["cache", "push", "some", "--set", "n=2", "--remote", &write],
    );
    let third = Root::new();
    fs_err::create_dir_all(third.path()).expect("a folder");
    run(&third.path(), &["cache", "pull", "some", "--remote", &url]);
    assert_eq!(known(&over(&third.path())), [(2, "128".into())]);
}
