//! What was measured of a family of one's own: which winners a dispatcher takes, and which
//! do not hold any more.

use std::collections::BTreeMap;

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Registry;
use jitc::engine::run::device::Device;
use jitc::engine::run::dispatch::{Chosen, Dispatcher};
use jitc::engine::run::occupancy::known_device;
use jitc::engine::run::tuned::{Geometry, Gpu, Policy, Problem, Record, Sizes, Stale, Winner};

use crate::own_family::family_of;

const TOML: &str = r#"
summary = "s"
[constants.block]
type = "u32"
values = [64, 128, 256]
default = 128
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
[[constraints]]
rule = "not half or width >= 2"
because = "halves are loaded in pairs"
[dispatch]
sizes = ["n"]
[[dispatch.rules]]
set = { block = 128, width = 2 }
[[entries]]
name = "k"
grid = [1, 1, 1]
block = "block"
"#;

fn asked(set: &[(&str, &str)]) -> KernelSpec {
    KernelSpec::new(
        &family_of(TOML).expect("family"),
        set.iter().copied(),
        "sm_90a".parse().expect("arch"),
    )
    .expect("legal")
}

fn device() -> Device {
    known_device("h200").expect("known")
}

fn geometry(block: u32, width: u32) -> Geometry {
    let all = [("block", block), ("width", width)];
    all.map(|(name, value)| (name.to_owned(), value.to_string()))
        .into()
}

fn sizes(n: u32) -> Sizes {
    BTreeMap::from([("n".to_owned(), n)])
}

fn winner(n: u32, (block, width): (u32, u32)) -> Winner {
    Winner {
        gpu: Gpu::from(&device()),
        problem: Problem::of_sizes(&asked(&[]), &["block", "width"], sizes(n)),
        geometry: geometry(block, width),
        median_us: 8.0,
        tried: 9,
        policy: Some(policy(
            key_of(&asked(&[
                ("block", &block.to_string()),
                ("width", &width.to_string()),
            ])),
            geometry(128, 2),
        )),
    }
}

/// How something was measured that beat this geometry, which took 10 us.
pub(crate) fn policy(key: String, rule: Geometry) -> Policy {
    Policy {
        key,
        method: "graph".into(),
        cold: true,
        launches_per_graph: 24,
        samples: 50,
        seed: 4242,
        driver: "13.0".into(),
        clocks: None,
        rule,
        rule_us: 10.0,
        margin: 0.02,
    }
}

/// Stands for the key: a family's constants are all that differs here.
fn key_of(spec: &KernelSpec) -> String {
    format!("key of {}", spec.variant())
}

fn record(winners: Vec<Winner>) -> Record {
    let mut record = Record::default();
    for winner in winners {
        record.put(winner);
    }
    record
}

/// What a problem gets, and what of the record does not hold.
fn select(record: &Record, asked: &KernelSpec, forced: &[&str], n: u32) -> (Chosen, String, Vec<Stale>) {
    let device = device();
    let mut dispatcher = Dispatcher::new(asked, &device, forced).expect("rules");
    let stale = dispatcher.tune_by(record, asked, &Gpu::from(&device), forced, &mut |spec| {
        Some(key_of(spec))
    });
    let selected = dispatcher.select(&[n]).expect("selected");
    let variant = dispatcher.variants()[selected.variant].variant();
    (selected.chosen, variant, stale)
}

#[test]
fn a_winner_holds_for_its_sizes_its_constants_and_its_gpu() {
    let record = record(vec![winner(1000, (256, 4))]);
    let none = Vec::new();
    let by_rule = (Chosen::Rule, "width=2".to_owned(), none.clone());
    let tuned = (Chosen::Tuned, "block=256 width=4".to_owned(), none.clone());
    assert_eq!(select(&record, &asked(&[]), &[], 1000), tuned);
    assert_eq!(select(&record, &asked(&[]), &[], 1001), by_rule, "other sizes");
    let half = asked(&[("half", "true"), ("width", "2")]);
    let other = (Chosen::Rule, "width=2 half=true".to_owned(), none.clone());
    assert_eq!(select(&record, &half, &[], 1000), other, "other constants");
    let mut elsewhere = winner(1000, (256, 4));
    elsewhere.gpu.sm_count = 66;
    let elsewhere = self::record(vec![elsewhere]);
    assert_eq!(select(&elsewhere, &asked(&[]), &[], 1000), by_rule, "another GPU");
}

#[test]
fn what_somebody_set_is_never_overruled_by_what_was_measured() {
    let record = record(vec![winner(1000, (256, 4))]);
    let set = asked(&[("block", "64")]);
    let (chosen, variant, stale) = select(&record, &set, &["block"], 1000);
    assert_eq!((chosen, variant.as_str()), (Chosen::Forced, "block=64 width=2"));
    assert_eq!(stale, []);
    let same = asked(&[("block", "256")]);
    assert_eq!(
        select(&record, &same, &["block"], 1000).0,
        Chosen::Tuned,
        "set alike"
    );
}

#[test]
fn a_winner_that_does_not_hold_any_more_is_told_with_why_and_the_rules_decide() {
    let base = winner(1000, (256, 4));
    let policy = base.policy.clone().expect("a policy");
    let cases: Vec<(Winner, &str)> = vec![
        (
            Winner {
                geometry: geometry(512, 4),
                ..base.clone()
            },
            "expected one of 64, 128, 256",
        ),
        (
            Winner {
                geometry: [geometry(256, 4), [("half".to_owned(), "true".to_owned())].into()]
                    .into_iter()
                    .flatten()
                    .collect(),
                problem: Problem {
                    constants: Geometry::new(),
                    ..base.problem.clone()
                },
                ..base.clone()
            },
            "neither [tune] nor [dispatch] chooses `half`",
        ),
        (
            Winner {
                policy: None,
                ..base.clone()
            },
            "it does not say how it was measured",
        ),
        (
            Winner {
                median_us: f64::NAN,
                ..base.clone()
            },
            "its times are none",
        ),
        (
            Winner {
                median_us: -1.0,
                ..base.clone()
            },
            "its times are none",
        ),
        (
            Winner {
                median_us: 9.9,
                ..base.clone()
            },
            "it did not win by its margin",
        ),
        (
            Winner {
                policy: Some(Policy {
                    key: "another".into(),
                    ..policy
                }),
                ..base.clone()
            },
            "its machine code is not what was timed: tune it again",
        ),
    ];
    for (winner, words) in cases {
        let record = record(vec![winner]);
        let (chosen, _, stale) = select(&record, &asked(&[]), &[], 1000);
        assert_eq!(chosen, Chosen::Rule, "{words}");
        let [stale] = &stale[..] else {
            panic!("{words}: {stale:?}")
        };
        let line = stale.to_string();
        assert!(
            line.contains(words) && line.starts_with("k n=1000: tuned block="),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    // One of another set of constants than the family has today is nobody's.
    let mut fewer = base;
    fewer.problem.constants.remove("half");
    let (chosen, _, stale) = select(&record(vec![fewer]), &asked(&[]), &[], 1000);
    assert_eq!((chosen, stale), (Chosen::Rule, Vec::new()));
}

#[test]
fn a_record_is_the_same_as_text_and_the_own_winner_stays_before_a_carried_one() {
    let registry = Registry::load(None).expect("families");
    let mut own = record(vec![winner(1000, (256, 4))]);
    let text = own.to_text().expect("text");
    assert_eq!(
        Record::parse(&text, &registry).expect("read").winners(),
        own.winners()
    );
    let carried = record(vec![winner(1000, (64, 1)), winner(2000, (64, 1))]);
    own.fill_from(carried);
    let blocks: Vec<&str> = own
        .winners()
        .iter()
        .map(|w| w.geometry["block"].as_str())
        .collect();
    assert_eq!(blocks, ["256", "64"]);
    own.remove(&Gpu::from(&device()), &winner(1000, (256, 4)).problem);
    assert_eq!(own.winners().len(), 1);
    for (text, words) in [
        ("{", "EOF"),
        ("{\"format\": 7, \"winners\": []}", "it is of format 7"),
    ] {
        let error = Record::parse(text, &registry).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    }
}
