//! Measured variants on their way with their machine code.

use std::path::Path;

use jitc::engine::cache::bundle;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Jit, JitBuilder};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::occupancy::known_device;
use jitc::engine::run::tuned::{Geometry, Gpu, Problem, Record, Sizes, Winner};
use jitc::engine::sign::TrustedKeys;

use crate::command::jitc;
use crate::own_tuning::policy;
use crate::signatures::key;

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rms_norm")
}

fn builder(cache: &Path) -> JitBuilder {
    let flags = Flags {
        templates: Some(example()),
        cache_dir: Some(cache.to_owned()),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::capture()).expect("settings");
    Jit::builder(config)
}

fn over(cache: &Path) -> Jit {
    builder(cache).build().expect("families")
}

/// A winner of this block, as `jitc tune` would keep it.
fn winner(jit: &Jit, rows: u32, block: &str) -> Winner {
    let family = jit.registry().get("rms_norm").expect("family");
    let arch = "sm_90a".parse().expect("arch");
    let set = [("block", block), ("width", "4")];
    let spec = KernelSpec::new(family, set, arch).expect("legal");
    let geometry = |block: &str| -> Geometry {
        [("block", block), ("width", "4")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    let sizes: Sizes = [("rows".to_owned(), rows), ("cols".to_owned(), 4096)].into();
    Winner {
        gpu: Gpu::from(&known_device("h200").expect("known")),
        problem: Problem::of_sizes(&spec, &family.geometry(), sizes),
        geometry: geometry(block),
        median_us: 8.0,
        tried: 14,
        policy: Some(policy(
            jit.describe(&spec).expect("a key").0.key().hex(),
            geometry("256"),
        )),
    }
}

fn save(jit: &Jit, winners: &[(u32, &str)]) {
    let mut record = Record::default();
    for (rows, block) in winners {
        record.put(winner(jit, *rows, block));
    }
    let path = Record::path(&jit.config().cache_dir().expect("a cache"));
    record.save(&path).expect("saved");
}

fn blocks(record: &Record) -> Vec<(u32, &str)> {
    let of = |winner: &'_ Winner| winner.problem.sizes["rows"];
    let mut all: Vec<(u32, &str)> = (record.winners().iter())
        .map(|winner| (of(winner), winner.geometry["block"].as_str()))
        .collect();
    all.sort_unstable();
    all
}

fn run(cache: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = jitc(cache)
        .args(words)
        .arg("--templates")
        .arg(example())
        .output()
        .expect("ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text + &errors)
}

#[test]
fn winners_travel_with_their_machine_code_and_an_own_one_stays() {
    let (from, to) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    let warm = [
        "warm", "rms_norm", "--arch", "sm_90a", "--width", "4", "--block", "64,128",
    ];
    assert_eq!(run(from.path(), &warm).0, Some(0));
    let here = over(from.path());
    // That of block 512 was never compiled here.
    save(&here, &[(1, "64"), (2, "128"), (3, "512")]);
    let file = from.path().join("bundle").to_string_lossy().into_owned();
    assert_eq!(run(from.path(), &["cache", "export", "--out", &file]).0, Some(0));
    let bytes: &'static [u8] = fs_err::read(&file).expect("exported").leak();

    let there = over(to.path());
    save(&there, &[(2, "1024")]);
    let (code, text) = run(to.path(), &["cache", "import", &file]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("2 entries added") && text.contains("tuned variants taken in: 1\n"),
        "{text}"
    );
    assert_eq!(blocks(&there.tuned()), [(1, "64"), (2, "1024")]);
    let (_, again) = run(to.path(), &["cache", "import", &file, "--json"]);
    assert!(!again.contains("tuned"), "{again}");

    // A program that carries the bundle knows them without any record of its own.
    let nowhere = tempfile::tempdir().expect("dir");
    let carrying = builder(nowhere.path()).embedded(bytes).build().expect("families");
    assert_eq!(blocks(&carrying.tuned()), [(1, "64"), (2, "128")]);
    assert!(!Record::path(nowhere.path()).exists(), "asking writes nothing");
    let held = carrying.tuned();
    let asked = KernelSpec::new(
        carrying.registry().get("rms_norm").expect("family"),
        [],
        "sm_90a".parse().expect("arch"),
    );
    let mut key = |spec: &KernelSpec| Some(carrying.describe(spec).ok()?.0.key().hex());
    for winner in held.winners() {
        winner
            .variant(asked.as_ref().expect("legal"), &mut key)
            .expect("what was timed is what would run");
    }
}

#[test]
fn a_bundle_without_winners_is_the_same_as_ever_and_signing_keeps_those_that_there_are() {
    let dir = tempfile::tempdir().expect("dir");
    let warm = [
        "warm", "rms_norm", "--arch", "sm_90a", "--width", "4", "--block", "64",
    ];
    assert_eq!(run(dir.path(), &warm).0, Some(0));
    let jit = over(dir.path());
    let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let export = |name: &str| {
        assert_eq!(
            run(dir.path(), &["cache", "export", "--out", &file(name)]).0,
            Some(0)
        );
        fs_err::read(file(name)).expect("exported")
    };
    let plain = export("plain");
    save(&jit, &[(1, "512")]);
    assert_eq!(export("other"), plain, "a winner whose kernel is not in it");
    save(&jit, &[(1, "64")]);
    let with_one = export("with-one");
    assert_ne!(with_one, plain);
    let notes = |bytes: &[u8]| bundle::notes(&mut { bytes }).expect("a bundle");
    assert_eq!((notes(&plain).len(), notes(&with_one).len()), (0, 1));
    assert_eq!(export("again"), with_one, "the same bytes again");
    let mut signed = Vec::new();
    let secret = key("fleet-1");
    jitc::engine::cache::sign_bundle(with_one.clone(), &secret, &mut signed).expect("signed");
    assert_eq!(notes(&signed), notes(&with_one));
    // Where bundles have to be signed, what nobody signed is not used, whoever signed the entries.
    let nowhere = tempfile::tempdir().expect("dir");
    let signed: &'static [u8] = signed.leak();
    let carried = |builder: JitBuilder| {
        let jit = builder.embedded(signed).build().expect("families");
        jit.tuned().winners().len()
    };
    assert_eq!(carried(builder(nowhere.path())), 1);
    let trusted = TrustedKeys::new(vec![secret.public()]).expect("keys");
    assert_eq!(carried(builder(nowhere.path()).trusted_keys(trusted)), 0);
    // A note that was changed is a damaged bundle.
    let mut damaged = with_one;
    damaged[80] ^= 1;
    assert!(bundle::notes(&mut damaged.as_slice()).is_err());
}
