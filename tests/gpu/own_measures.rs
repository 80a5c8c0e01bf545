//! A family of one's own verified, benchmarked and tuned by its declaration.

use std::path::Path;

use jitc::engine::jit::Jit;
use jitc::engine::request::dtype::Dtype;
use jitc::measure::MeasureError;
use jitc::measure::declared::HARNESS;
use jitc::measure::harness::{Event, Options, Session, Verb, Verdict};
use jitc::measure::npy::{self, Elements};
use serde_json::Value;

use crate::{gpu, jit_of};

fn jit(cache: &Path, constants: &[(&str, &str)]) -> Jit {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rms_norm");
    jit_of(cache, constants, Some(&folder))
}

fn options(verb: Verb, more: &[(&str, &str)]) -> Options {
    let all = Options::of(HARNESS.flags(verb).expect("offered"));
    more.iter().fold(all, |all, (name, value)| all.add(name, *value))
}

/// How a verb ended, and the objects that it told.
fn run(jit: &Jit, verb: Verb, more: &[(&str, &str)]) -> (Result<Verdict, MeasureError>, Vec<Value>) {
    let options = options(verb, more);
    let session = Session {
        jit,
        name: "rms_norm",
        options: &options,
    };
    let mut told = Vec::new();
    let mut sink = |event: Event| {
        if let Event::Object(object) = event {
            told.push(object);
        }
    };
    let verdict = match verb {
        Verb::Verify => HARNESS.verify(session, &mut sink),
        Verb::Bench => HARNESS.bench(session, &mut sink),
        _ => HARNESS.tune(session, &mut sink),
    };
    (verdict, told)
}

/// The reference: float64 throughout.
fn normalized(x: &[f32], weight: &[f32], epsilon: f64) -> Vec<u8> {
    let row = |row: &[f32]| -> Vec<u8> {
        let square: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let count = f64::from(u32::try_from(row.len()).expect("small"));
        let scale = (square / count + epsilon).sqrt().recip();
        let all = row.iter().zip(weight);
        all.flat_map(|(v, w)| (f64::from(*v) * scale * f64::from(*w)).to_le_bytes())
            .collect()
    };
    x.chunks(weight.len()).flat_map(row).collect()
}

fn numbers(elements: &Elements) -> Vec<f32> {
    let (words, _) = elements.bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn variants_agree_with_each_other_and_with_a_reference_and_a_wrong_one_is_told() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let variants = jit(dir.path(), &[("block", "64,256"), ("width", "1,4")]);
    let sizes = [("size", "rows=3,512"), ("size", "cols=1,1000,1023")];
    let against = [&[("against", "block=1024,width=1")], &sizes[..]].concat();
    let (verdict, told) = run(&variants, Verb::Verify, &against);
    assert_eq!(verdict.expect("verified"), Verdict::Good);
    assert_eq!(
        told.iter().filter(|object| object["event"] == "case").count(),
        4 * 6
    );

    let one = jit(dir.path(), &[]);
    let folder = dir.path().join("io").display().to_string();
    let sizes = [("size", "rows=64"), ("size", "cols=1000")];
    let (verdict, _) = run(
        &one,
        Verb::Verify,
        &[&[("save", folder.as_str())], &sizes[..]].concat(),
    );
    assert_eq!(verdict.expect("saved"), Verdict::Good);
    let read = |name: &str| npy::read(&dir.path().join("io").join(name), Dtype::F32).expect(name);
    let (x, weight) = (read("x.npy"), read("weight.npy"));
    let reference = dir.path().join("reference.npy");
    let expected = Elements {
        dtype: Dtype::F64,
        shape: vec![64, 1000],
        bytes: normalized(&numbers(&x), &numbers(&weight), 1e-6),
    };
    npy::write(&reference, &expected).expect("written");
    let file = format!("y={}", reference.display());
    let held = |more: &[(&str, &str)]| {
        let all = [&[("against", file.as_str())], &sizes[..], more].concat();
        run(&one, Verb::Verify, &all).0.expect("verified")
    };
    assert_eq!(held(&[]), Verdict::Good);
    assert_eq!(held(&[("value", "epsilon=0.1")]), Verdict::Wrong);
    assert_eq!(held(&[("seed", "7")]), Verdict::Wrong);
}

#[test]
fn what_is_tuned_is_what_the_next_benchmark_runs_where_it_won() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path(), &[]);
    let quick = [("size", "rows=64"), ("size", "cols=1024"), ("launches", "10")];
    let (verdict, told) = run(&jit, Verb::Bench, &quick);
    assert_eq!(verdict.expect("benchmarked"), Verdict::Good);
    let [by_rule] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (&by_rule["origin"], &by_rule["variant"]),
        (&"rule".into(), &"block=128 width=4".into())
    );
    assert!(by_rule["summary"]["median"].as_f64().is_some_and(|us| us > 0.0));
    let (verdict, told) = run(&jit, Verb::Tune, &quick);
    assert_eq!(verdict.expect("tuned"), Verdict::Good);
    let of = |event: &str| {
        told.iter()
            .filter(|object| object["event"] == event)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("candidate").len(), 14, "none differs from the rules' choice");
    let [race] = of("tuned")[..] else {
        panic!("{told:?}")
    };
    let (_, again) = run(&jit, Verb::Bench, &quick);
    let origin = if race["wins"] == true { "tuned" } else { "rule" };
    assert_eq!(again[0]["origin"], origin);
    let kept = jit.tuned();
    assert_eq!(kept.winners().len(), usize::from(race["wins"] == true));
    for winner in kept.winners() {
        let policy = winner.policy.as_ref().expect("how it was measured");
        assert!(winner.median_us <= policy.rule_us * (1.0 - policy.margin));
        assert_eq!((policy.method.as_str(), policy.cold), ("graph", true));
    }
}
