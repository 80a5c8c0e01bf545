//! Verifying and tuning without the command line.

use jitc::families::{axpy, decode_layer, gemv, wo_gemv};
use jitc::measure::harness::{Event, Options, Verdict};
use jitc::measure::tune::Record;

use crate::{gpu, jit_of};

/// A layer that compiles and runs fast.
const SMALL: [(&str, &str); 8] = [
    ("hidden", "256"),
    ("intermediate", "320"),
    ("num_q_heads", "4"),
    ("num_kv_heads", "2"),
    ("head_dim", "64"),
    ("page_size", "16"),
    ("num_ctas", "6"),
    ("wo_split", "2"),
];

#[test]
fn gemv_is_verified_through_the_library() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = crate::jit(dir.path());
    let request = wo_gemv::verify::VerifyRequest {
        seeds: 1,
        quick: true,
        format: None,
        device: 0,
    };
    let mut wrong = Vec::new();
    let mut sink = |event: Event| {
        if let Event::Note(line) | Event::Failure(line) = event {
            wrong.push(line);
        }
    };
    let verdict = gemv::verify::verify(&jit, &request, &mut sink).expect("verified");
    assert_eq!((verdict, wrong), (Verdict::Good, Vec::new()));
}

#[test]
fn a_tuned_geometry_is_kept_beside_the_cache_through_the_library() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit_of(dir.path(), &[("hidden", "320"), ("wo_split", "2")], None);
    let options = Options::of(wo_gemv::tune::FLAGS)
        .add("space", "rows_per_cta=20,40")
        .add("space", "rows_per_thread=1")
        .add("space", "row_groups=1")
        .set("launches", "3");
    let request = wo_gemv::tune::TuneRequest::new(&jit, &options).expect("request");
    let verdict = wo_gemv::tune::tune(&jit, &request, &mut |_| {}).expect("tuned");
    assert_eq!(verdict, Verdict::Good);
    let record = fs_err::read_to_string(Record::path(dir.path())).expect("a record");
    assert!(record.contains("\"rows_per_cta\""), "{record}");
}

#[test]
fn axpy_is_verified_then_tuned_and_benchmarked_in_the_tuned_geometry() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = crate::jit(dir.path());
    let verdict = axpy::verify::verify(&jit, &Options::of(axpy::verify::FLAGS), &mut |_| {});
    assert_eq!(verdict.expect("verified"), Verdict::Good);
    let options = |flags| {
        let options = Options::of(flags).set("elements", "100003");
        options.set("launches", "3").set("warm", "")
    };
    let tune = options(axpy::tune::FLAGS).add("space", "num_threads=96");
    let verdict = axpy::tune::tune(&jit, &tune, &mut |_| {}).expect("tuned");
    assert_eq!(verdict, Verdict::Good);
    let mut told = Vec::new();
    let verdict = axpy::bench::bench(&jit, &options(axpy::bench::FLAGS), &mut |event| {
        if let Event::Object(object) = event {
            let threads = object["constants"]["num_threads"].clone();
            told.push((object["origin"].clone(), threads, object["passes"].clone()));
        }
    });
    assert_eq!(verdict.expect("benchmarked"), Verdict::Good);
    assert_eq!(told, [("Tuned".into(), "96".into(), true.into())]);
}

#[test]
fn a_soak_of_the_small_layer_has_no_differing_bit() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = crate::jit(dir.path());
    let request = decode_layer::verify::VerifyRequest {
        launches: vec![decode_layer::Launch::Separate],
        quick: true,
        soak: Some(decode_layer::verify::Soak {
            launches: 500,
            streams: 2,
        }),
        device: 0,
    };
    let mut told = Vec::new();
    let verdict = decode_layer::verify::verify(&jit, &request, &mut |event| {
        if let Event::Object(object) = event {
            told.push((object["event"].clone(), object["differing"].clone()));
        }
    });
    assert_eq!(verdict.expect("soaked"), Verdict::Good);
    assert_eq!(told, [("replays".into(), 0.into()), ("soak".into(), 0.into())]);
}

#[test]
fn a_layer_is_tuned_and_benchmarked_through_the_library() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let out = dir.path().join("out");
    let jit = jit_of(dir.path(), &SMALL, None);
    let options = Options::of(decode_layer::tune::FLAGS)
        .set("context", "40")
        .set("launches", "3");
    let family = decode_layer::FAMILY;
    let request = decode_layer::tune::TuneRequest::new(&jit, family, &options).expect("request");
    let verdict = decode_layer::tune::tune(&jit, &request, &mut |_| {}).expect("tuned");
    assert_eq!(verdict, Verdict::Good);
    assert!(Record::path(dir.path()).is_file());

    let options = Options::of(decode_layer::bench::FLAGS)
        .set("context", "40")
        .set("tokens", "2")
        .set("path", "cooperative,separate")
        .set("launches", "3")
        .set("out", out.display().to_string());
    let request = decode_layer::bench::LayerBenchRequest::new(jit.registry(), family, &options);
    let request = request.expect("request");
    let mut paths = Vec::new();
    let verdict = decode_layer::bench::bench(&jit, &request, &mut |event| {
        if let Event::Object(object) = event {
            paths.push((object["path"].clone(), object["passes"].clone()));
        }
    });
    assert_eq!(verdict.expect("benchmarked"), Verdict::Good);
    assert_eq!(
        paths,
        [
            ("cooperative".into(), true.into()),
            ("separate".into(), true.into())
        ]
    );
    for name in ["summary.json", "points.csv", "plot.svg"] {
        assert!(out.join(name).is_file(), "{name}");
    }
}
