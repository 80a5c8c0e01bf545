//! Warming for GPUs that are not here, and for just what their dispatchers can select.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::run::device::Device;
use jitc::engine::run::dispatch::Dispatcher;
use jitc::engine::run::occupancy::known_devices;
use jitc::engine::run::tuned::{self, Gpu, Record, Winner};
use jitc::families::decode_layer::dispatch::{
    Layers, Missing, Path as Route, Policy, Problem, Target, explain,
};
use jitc::families::dispatched;

use crate::command::jitc;
use crate::own_family::SOURCE;

const TOML: &str = r#"
summary = "s"
[constants.block]
type = "u32"
values = [64, 128, 256]
default = 64
help = "threads"
[constants.width]
type = "u32"
values = [1, 2, 4]
default = 1
help = "elements of a load"
[constants.half]
type = "bool"
default = false
help = "16 bits"
[[entries]]
name = "k"
grid = [1, 1, 1]
block = "block"
[dispatch]
sizes = ["n"]
[[dispatch.rules]]
when = "sm_count >= 100 and n % 4 == 0"
set = { width = 4, block = { of = "n", up_to = [1024], values = [128, 256] } }
[[dispatch.rules]]
set = { width = 2 }
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("tempdir");
    fs_err::write(folder.path().join("k.toml"), TOML).expect("toml");
    fs_err::write(folder.path().join("k.cu.tera"), SOURCE).expect("source");
    folder
}

/// `jitc WORDS` over the folder and a cache below it.
fn run(folder: &Path, words: &str) -> (Option<i32>, String, String) {
    let mut command = jitc(folder);
    command
        .args(words.split_whitespace())
        .arg("--templates")
        .arg(folder);
    command.arg("--cache-dir").arg(folder.join("cache"));
    let output = command.output().expect("run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What `warm --check --json` lists as missing, as `block width half arch`.
fn gaps(text: &str) -> BTreeSet<String> {
    let objects = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"));
    let gaps = objects.filter(|object: &serde_json::Value| object["event"] == "gap");
    gaps.map(|gap| {
        let constants = ["block", "width", "half"].map(|name| gap["constants"][name].to_string());
        format!(
            "{} {}",
            constants.join(" "),
            gap["arch"].as_str().expect("an arch")
        )
    })
    .collect()
}

fn set<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.map(str::to_owned).into()
}

#[test]
fn for_dispatch_is_requested_exactly_what_those_gpus_rules_come_to() {
    let folder = folder();
    let check = |words: &str| {
        let (code, out, error) = run(
            folder.path(),
            &format!("warm k --check --json --for-dispatch {words}"),
        );
        assert_eq!(code, Some(1), "{error}");
        gaps(&out)
    };
    let wide = set(["128 4 false sm_90a", "256 4 false sm_90a", "64 2 false sm_90a"]);
    assert_eq!(check("--gpu h200"), wide);
    assert_eq!(check("--gpu h100,H200"), wide, "each once");
    // A rule that holds for no problem on a GPU asks for nothing there.
    let mut both = wide.clone();
    both.insert("64 2 false sm_121a".into());
    assert_eq!(check("--gpu h200,gb10"), both);
    // What somebody sets stays, and lists make products.
    assert_eq!(
        check("--gpu l40s --set width=1 --set half=true,false"),
        set([
            "128 1 true sm_89",
            "256 1 true sm_89",
            "64 1 true sm_89",
            "128 1 false sm_89",
            "256 1 false sm_89",
            "64 1 false sm_89",
        ])
    );
    assert!(!folder.path().join("cache").exists(), "checking writes nothing");
}

#[test]
fn a_gpu_names_its_arch_whatever_the_environment_says() {
    let folder = folder();
    let mut command = jitc(folder.path());
    let words = "warm k --gpu l40s,b200,h100,h200 --check --json --templates";
    command
        .args(words.split(' '))
        .arg(folder.path())
        .arg("--cache-dir")
        .arg(folder.path().join("cache"));
    let output = command.env("JITC_ARCH", "sm_80").output().expect("run");
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(
        gaps(&out),
        set(["64 1 false sm_100a", "64 1 false sm_89", "64 1 false sm_90a"])
    );
}

#[test]
fn once_warmed_for_its_dispatcher_every_selection_of_a_gpu_is_a_hit() {
    let folder = folder();
    let (code, out, error) = run(folder.path(), "warm k --gpu h200 --for-dispatch");
    assert_eq!(code, Some(0), "{out}{error}");
    let (code, out, _) = run(folder.path(), "warm k --gpu h200 --for-dispatch --check");
    assert_eq!((code, out.trim()), (Some(0), "3 requested, 0 missing"));
    for n in ["4", "2048", "7"] {
        let (code, out, error) = run(folder.path(), &format!("dispatch k --device h200 --size n={n}"));
        assert_eq!(code, Some(0), "{out}{error}");
    }
    let (code, ..) = run(folder.path(), "dispatch k --device l40s --size n=4");
    assert_eq!(code, Some(1), "for another arch nothing was made");
}

/// Writes a winner for `n = 4` on an H200 beside the cache: 64 threads of width 1.
fn tune(folder: &Path, key: impl FnOnce(&Jit, &KernelSpec) -> String) {
    let flags = Flags {
        templates: Some(folder.to_owned()),
        cache_dir: Some(folder.join("cache")),
        ..Flags::default()
    };
    let jit = Jit::new(Config::load(flags, Environment::default()).expect("settings")).expect("families");
    let family = jit.registry().get("k").expect("family");
    let asked = KernelSpec::new(family, [], "sm_90a".parse().expect("arch")).expect("legal");
    let geometry = |block: &str, width: &str| {
        BTreeMap::from([("block", block), ("width", width)].map(|(n, v)| (n.to_owned(), v.to_owned())))
    };
    let sizes = BTreeMap::from([("n".to_owned(), 4)]);
    let winner = Winner {
        gpu: Gpu::from(&gpus("h200")[0]),
        problem: tuned::Problem::of_sizes(&asked, &["block", "width"], sizes),
        geometry: geometry("64", "1"),
        median_us: 8.0,
        tried: 9,
        policy: Some(tuned::Policy {
            key: key(&jit, &asked),
            method: "graph".into(),
            cold: true,
            launches_per_graph: 24,
            samples: 50,
            seed: 1,
            driver: "13.0".into(),
            clocks: None,
            rule: geometry("128", "4"),
            rule_us: 10.0,
            margin: 0.02,
        }),
    };
    Record::keep(&Record::path(&folder.join("cache")), jit.registry(), winner).expect("kept");
}

#[test]
fn what_was_tuned_on_such_a_gpu_holds_over_the_rules_and_is_warmed_for_it() {
    let folder = folder();
    tune(folder.path(), |jit, spec| {
        jit.describe(spec).expect("described").0.key().hex()
    });
    let (code, out, error) = run(folder.path(), "dispatch k --device h200 --size n=4");
    assert_eq!(code, Some(1), "it is not in the cache: {error}");
    assert!(out.contains("NVIDIA H200, n = 4: k defaults: tuned"), "{out}");
    let (_, out, _) = run(folder.path(), "dispatch k --device h200 --size n=4 --json");
    let choice: serde_json::Value = serde_json::from_str(out.trim()).expect("one object");
    assert_eq!(
        (&choice["origin"], &choice["rule"]),
        (&"tuned".into(), &serde_json::Value::Null)
    );
    // Another problem and another GPU have their rules.
    for words in ["--device h200 --size n=8", "--device h100 --size n=4"] {
        let (_, out, _) = run(folder.path(), &format!("dispatch k {words}"));
        assert!(out.contains("block=128 width=4: by rule 1"), "{out}");
    }
    // What somebody sets stays.
    let (_, out, _) = run(
        folder.path(),
        "dispatch k --device h200 --size n=4 --set block=256",
    );
    assert!(out.contains("block=256 width=4: set, and by rule 1"), "{out}");
    let check = |gpu: &str| {
        let words = format!("warm k --check --json --for-dispatch --gpu {gpu}");
        gaps(&run(folder.path(), &words).1)
    };
    let by_rule = ["128 4 false sm_90a", "256 4 false sm_90a", "64 2 false sm_90a"];
    let mut all = set(by_rule);
    assert_eq!(check("h100"), all);
    all.insert("64 1 false sm_90a".into());
    assert_eq!(check("h200"), all);
}

#[test]
fn what_was_tuned_with_other_machine_code_is_told_and_the_rules_decide() {
    let folder = folder();
    tune(folder.path(), |_, _| "0".repeat(64));
    let (_, out, error) = run(folder.path(), "dispatch k --device h200 --size n=4");
    assert!(out.contains("block=128 width=4: by rule 1"), "{out}");
    assert!(
        error.contains("its machine code is not what was timed: tune it again"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_warmed_for_gpus_is_said_in_one_line() {
    let folder = folder();
    for (words, says) in [
        (
            "warm k --gpu h300",
            "--gpu: `h300` is not a known GPU: expected names of a100",
        ),
        ("warm k --gpu h200 --arch sm_90a", "--arch beside --gpu"),
        (
            "warm stream --gpu h200 --for-dispatch",
            "`stream` has no dispatcher",
        ),
        (
            "warm k --for-dispatch --gpu h200 --set width=3",
            "`3` is not legal",
        ),
    ] {
        let (code, _, error) = run(folder.path(), words);
        assert_eq!(code, Some(2), "{words}: {error}");
        assert!(error.contains(says), "{words}: {error}");
        let hints = error
            .trim()
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("hint: "));
        assert_eq!(hints.count(), 1, "{error}");
    }
}

fn jit(cache: &Path) -> Jit {
    let flags = Flags {
        cache_dir: Some(cache.to_owned()),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, Environment::default()).expect("settings")).expect("families")
}

fn gpus(list: &str) -> Vec<Device> {
    known_devices(list).expect("known")
}

#[test]
fn whatever_a_decode_layer_is_dispatched_to_is_warmed_for_its_gpu() {
    let cache = tempfile::tempdir().expect("tempdir");
    let jit = jit(cache.path());
    let policy = Policy {
        path: Route::Auto,
        layers: Layers::all(),
        max_tokens: 64,
    };
    for name in ["h200", "gb10", "b200"] {
        let all = dispatched(&jit, &["decode_layer".into()], &gpus(name)).expect("a dispatcher");
        let mut selected = BTreeSet::new();
        for num_tokens in 1..=17 {
            let problem = Problem {
                num_tokens,
                layer: 0,
                decode_only: true,
            };
            let target = Target::named(name).expect("known");
            let explained = explain(&jit, target, &policy, problem, Missing::Report).expect("explained");
            for candidate in &explained.candidates {
                assert!(
                    all.specs.iter().any(|spec| spec.id() == candidate.spec.id()),
                    "{name}, {num_tokens} tokens: {}",
                    candidate.spec.variant()
                );
                selected.insert(candidate.spec.variant());
            }
        }
        let warmed: BTreeSet<String> = all.specs.iter().map(KernelSpec::variant).collect();
        assert_eq!(warmed, selected, "{name}: and nothing else");
    }
}

#[test]
fn without_a_name_every_family_with_a_dispatcher_is_warmed_and_what_cannot_is_told() {
    let folder = folder();
    let flags = Flags {
        templates: Some(folder.path().to_owned()),
        ..Flags::default()
    };
    let jit = Jit::new(Config::load(flags, Environment::default()).expect("settings")).expect("families");
    let all = dispatched(&jit, &[], &gpus("h200")).expect("dispatchers");
    let families: BTreeSet<&str> = all.specs.iter().map(|spec| spec.family().name.as_str()).collect();
    assert_eq!(families, ["decode_layer", "k"].into());
    let family = jit.registry().named("k").expect("family");
    let own = jit.dispatchers(&family, &gpus("h200")[0]).expect("rules");
    let variants: Vec<&KernelSpec> = own.iter().flat_map(Dispatcher::variants).collect();
    let of_k = all.specs.iter().filter(|spec| spec.family().name == "k");
    assert!(of_k.map(KernelSpec::id).eq(variants.iter().map(|spec| spec.id())));
}
