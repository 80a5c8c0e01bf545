//! What a decode step would run, and why, over a compiler that makes nothing: choosing asks
//! a kernel for its registers alone.

use std::path::Path;

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::config::{Config, Environment, FlagConstant, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::run::occupancy::known_device;
use jitc::families::decode_layer::FAMILY;
use jitc::families::decode_layer::dispatch::{
    Explanation, Kind, Missing, Policy, Problem, Reason, Target, explain,
};
use jitc::measure::tune::{self, Gpu, Origin, Record, Winner};

/// A shape that is laid out fast.
const SMALL: [(&str, &str); 5] = [
    ("hidden", "256"),
    ("intermediate", "192"),
    ("num_q_heads", "4"),
    ("num_kv_heads", "2"),
    ("head_dim", "64"),
];

struct Registers(u32);

impl Compiler for Registers {
    fn compile(&self, rendered: &RenderedSource, _cancel: &Cancel) -> Result<Artifact, CompileError> {
        Ok(Artifact {
            cubin: crate::cubin::of_source(rendered),
            resources: vec![Resources {
                entry: FAMILY.to_owned(),
                registers: self.0,
                ..Resources::default()
            }],
            compile_log: String::new(),
            compile_us: 1,
        })
    }
}

/// What an H200 that is not here would run for so many tokens.
fn step(
    cache: &Path,
    set: &[(&str, &str)],
    path: Option<&str>,
    layers: Option<&str>,
    num_tokens: u32,
) -> Explanation {
    asked(cache, set, path, layers, num_tokens, Missing::Compile)
}

fn asked(
    cache: &Path,
    set: &[(&str, &str)],
    path: Option<&str>,
    layers: Option<&str>,
    num_tokens: u32,
    missing: Missing,
) -> Explanation {
    let constant = |(name, value): &(&str, &str)| FlagConstant {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        flag: format!("--{}", name.replace('_', "-")),
    };
    let flags = Flags {
        cache_dir: Some(cache.to_owned()),
        constants: set.iter().map(constant).collect(),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::default()).expect("config");
    let jit = Jit::new(config)
        .expect("jit")
        .with_compiler(Box::new(Registers(96)));
    let policy = Policy::of(jit.config(), path, layers, 64).expect("policy");
    let problem = Problem {
        num_tokens,
        layer: 4,
        decode_only: true,
    };
    let target = Target::named("h200").expect("known");
    explain(&jit, target, &policy, problem, missing).expect("explained")
}

#[test]
fn dispatch_says_what_it_chose_and_why_without_a_gpu() {
    let dir = tempfile::tempdir().expect("tempdir");
    let split = ("wo_split", "8");
    let all = step(dir.path(), &[split], None, None, 4);
    let chosen = all.chosen().expect("chosen");
    assert_eq!(chosen.variant.kind, Kind::Cooperative);
    assert_eq!(all.choice.reason.to_string(), "its grid is resident at once");
    assert_eq!(chosen.variant.capacity, 132);
    assert_eq!(
        (chosen.spec.number("wo_split"), chosen.origin),
        (Some(8), Origin::Forced)
    );
    let wide = [split, ("num_ctas", "264")];
    let refused = step(dir.path(), &wide, Some("coop"), None, 4);
    assert!(refused.chosen().is_none());
    let reason = refused.choice.reason.to_string();
    assert!(reason.contains("264 blocks is over the 132"), "{reason}");
    let separate = step(dir.path(), &wide, None, None, 4);
    assert_eq!(separate.chosen().expect("chosen").variant.kind, Kind::Separate);
    let other_layers = step(dir.path(), &[split], None, Some("3,7"), 4);
    assert!(other_layers.chosen().is_none());
}

#[test]
fn the_split_is_what_was_set_else_what_was_tuned_else_by_rule() {
    let dir = tempfile::tempdir().expect("tempdir");
    let run = |set: &[(&str, &str)], num_tokens: u32| {
        let all: Vec<_> = SMALL.iter().chain(set).copied().collect();
        let explained = step(dir.path(), &all, Some("coop"), None, num_tokens);
        let chosen = explained.chosen().expect("chosen");
        (chosen.spec.number("wo_split").expect("a split"), chosen.origin)
    };
    assert_eq!(run(&[], 1), (8, Origin::Heuristic));
    let registry = jitc::engine::request::template::Registry::load(None).expect("registry");
    let arch: Arch = "sm_90a".parse().expect("arch");
    let spec = KernelSpec::new(registry.get(FAMILY).expect("family"), SMALL, arch).expect("legal");
    let mut record = Record::default();
    for (tokens, split) in [(1, "4"), (4, "1")] {
        record.put(Winner {
            gpu: Gpu::from(&known_device("h200").expect("known")),
            problem: tune::Problem::of_layer(&spec, tokens),
            geometry: [("wo_split".to_owned(), split.to_owned())].into(),
            median_us: 9.0,
            tried: 8,
            policy: None,
        });
    }
    record.save(&Record::path(dir.path())).expect("kept");
    assert_eq!(run(&[], 1), (4, Origin::Tuned));
    // What four tokens were tuned for holds for three.
    assert_eq!(run(&[], 3), (1, Origin::Tuned));
    assert_eq!(run(&[("wo_split", "2")], 1), (2, Origin::Forced));
}

#[test]
fn a_question_compiles_nothing_and_says_which_capacity_is_unknown() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("cache");
    let set = [("wo_split", "8")];
    let cold = asked(&root, &set, None, None, 4, Missing::Report);
    assert!(cold.chosen().is_none());
    assert_eq!(cold.choice.reason, Reason::CapacityUnknown);
    assert!(
        cold.candidates
            .iter()
            .all(|c| c.registers.is_none() && c.resident.is_none())
    );
    assert!(cold.lacking().count() > 0 && cold.lacking().all(|c| c.variant.kind == Kind::Cooperative));
    // Separate launches need no capacity: they are chosen, and their kernel is missing.
    let separate = asked(&root, &set, Some("lite"), None, 4, Missing::Report);
    assert_eq!(separate.chosen().expect("chosen").variant.kind, Kind::Separate);
    assert_eq!(separate.lacking().count(), 1);
    // A layer that takes no part is nothing, whatever is in the cache.
    let no_part = asked(&root, &set, None, Some("3,7"), 4, Missing::Report);
    assert_eq!(no_part.choice.reason, Reason::Layer);
    assert_eq!(no_part.lacking().count(), 0);
    assert!(!root.exists(), "a question writes nothing");
    let warmed = asked(&root, &set, None, None, 4, Missing::Compile);
    let again = asked(&root, &set, None, None, 4, Missing::Report);
    assert_eq!(again.choice, warmed.choice);
    let chosen = again.chosen().expect("chosen");
    assert_eq!((chosen.registers, chosen.resident), (Some(96), Some(132)));
    assert_eq!(again.lacking().count(), 0);
}

#[test]
fn dispatch_answers_from_the_cache_alone_where_compiling_is_forbidden() {
    let dir = tempfile::tempdir().expect("tempdir");
    let small = SMALL.map(|(name, value)| format!("{name}={value}"));
    let ask = |more: &[&str]| {
        let set = small.iter().flat_map(|set| ["--set", set.as_str()]);
        crate::command::jitc(dir.path())
            .env("JITC_MISS", "forbid")
            .args(["dispatch", "--device", "h200"])
            .args(set)
            .args(more)
            .output()
            .expect("ran")
    };
    let answer = ask(&[]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, noted) = (text(&answer.stdout), text(&answer.stderr));
    assert_eq!(answer.status.code(), Some(1), "{said}{noted}");
    assert!(said.contains("nothing: capacity unknown"), "{said}");
    assert!(
        noted.contains("would warm it") && noted.contains("--compile"),
        "{noted}"
    );
    let table = text(&ask(&["--explain"]).stdout);
    assert!(table.contains("unknown") && !table.contains(" no\n"), "{table}");
    assert_eq!(
        crate::judged_alike::written(dir.path()),
        [""; 0],
        "a question writes nothing"
    );
    let event = text(&ask(&["--json"]).stdout);
    let event: serde_json::Value = serde_json::from_str(&event).expect("JSON");
    assert!(event["variant"].is_null() && event["cached"].is_null(), "{event}");
    // Told to compile, it is refused as any other compile.
    assert_eq!(ask(&["--compile"]).status.code(), Some(2));
}
