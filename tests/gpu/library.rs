//! Verifying and tuning without the command line.

use jitc::engine::config::{Config, Environment, FlagConstant, Flags};
use jitc::engine::jit::Jit;
use jitc::families::{gemv, wo_gemv};
use jitc::measure::harness::{Event, Options, Verdict};
use jitc::measure::tune::Record;

use crate::gpu;

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
    let constant = |(name, value): (&str, &str)| FlagConstant {
        name: name.to_owned(),
        value: value.to_owned(),
        flag: "--set".into(),
    };
    let flags = Flags {
        cache_dir: Some(dir.path().to_path_buf()),
        constants: [("hidden", "320"), ("wo_split", "2")].map(constant).to_vec(),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::capture(), dir.path()).expect("settings");
    let jit = Jit::new(config).expect("families");
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
