//! What an embedding program can do without the command line: this compiles, and runs,
//! with `--no-default-features`.

use std::path::Path;

use jitc::engine::config::{Config, Environment, FlagConstant, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::template::Registry;
use jitc::families::decode_layer::bench::{BenchPath, LayerBenchRequest};
use jitc::families::decode_layer::dispatch::{self, Kind, Policy, Problem, Target};
use jitc::families::{BUILT_IN, axpy, decode_layer, gemv, harness, wo_gemv};
use jitc::measure::MeasureError;
use jitc::measure::harness::{Event, Options, Session, Verb, Verdict};

fn jit(cache: &Path, constants: &[(&str, &str)]) -> Jit {
    let constant = |(name, value): &(&str, &str)| FlagConstant {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        flag: "--set".into(),
    };
    let flags = Flags {
        cache_dir: Some(cache.to_path_buf()),
        constants: constants.iter().map(constant).collect(),
        ..Flags::default()
    };
    let config = Config::load(flags, Environment::default()).expect("settings");
    Jit::new(config).expect("families")
}

fn gpu_is_here() -> bool {
    jitc::engine::run::device::list().is_ok_and(|devices| !devices.is_empty())
}

#[test]
fn without_a_gpu_every_verb_of_every_family_ends_in_the_typed_error_that_says_so() {
    if gpu_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path(), &[]);
    let mut ended = 0;
    for (harness, name) in BUILT_IN
        .iter()
        .flat_map(|h| h.names().iter().map(move |n| (h, n)))
    {
        for verb in [Verb::Verify, Verb::Bench, Verb::Tune, Verb::Regions] {
            let Some(flags) = harness.flags(verb) else {
                continue;
            };
            let options = Options::of(flags);
            let session = Session {
                jit: &jit,
                name,
                options: &options,
            };
            let mut events = Vec::new();
            let mut sink = |event: Event| events.push(event);
            let result = match verb {
                Verb::Verify => harness.verify(session, &mut sink).map(|_| ()),
                Verb::Bench => harness.bench(session, &mut sink).map(|_| ()),
                Verb::Tune => harness.tune(session, &mut sink).map(|_| ()),
                Verb::Regions => harness.live(session, 1).map(|_| ()),
            };
            let error = result.expect_err("there is no GPU");
            assert!(
                matches!(error, MeasureError::Device(_)),
                "{name} {}: {error}",
                verb.name()
            );
            assert!(events.is_empty(), "{name} {}: {events:?}", verb.name());
            ended += 1;
        }
    }
    assert!(ended >= 5, "only {ended} verbs are offered");
}

#[test]
fn typed_requests_are_validated_before_a_gpu_is_looked_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wrong = jit(dir.path(), &[("wo_split", "3")]);
    let options = Options::of(wo_gemv::bench::FLAGS);
    let error = wo_gemv::bench::BenchRequest::new(&wrong, &options).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "wo_gemv: wo_split (flag --set): `3` is not legal: expected one of 1, 2, 4, 8"
    );
    let never = jit(dir.path(), &[("slice_ctas", "4"), ("wo_split", "8")]);
    let error = wo_gemv::bench::BenchRequest::new(&never, &options).expect_err("refused");
    assert!(error.to_string().contains("wo_split <= slice_ctas"), "{error}");
    let options = Options::of(wo_gemv::verify::FLAGS).set("seeds", "0");
    let error = wo_gemv::verify::VerifyRequest::new(&options).expect_err("refused");
    assert!(error.to_string().starts_with("--seeds: `0`: expected"), "{error}");
}

#[test]
fn candidates_are_listed_through_the_library_as_objects_and_lines() {
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path(), &[("wo_split", "8")]);
    let options = Options::of(wo_gemv::tune::FLAGS)
        .set("dry-run", "")
        .add("space", "rows_per_cta=20,40");
    let request = wo_gemv::tune::TuneRequest::new(&jit, &options).expect("request");
    let mut events = Vec::new();
    let told = wo_gemv::tune::tune(&jit, &request, &mut |event| events.push(event));
    assert_eq!(told.expect("listed"), Verdict::Good);
    let objects = events.iter().filter_map(|event| match event {
        Event::Object(object) => Some(object),
        _ => None,
    });
    let rows: Vec<_> = objects.map(|o| o["constants"]["rows_per_cta"].clone()).collect();
    assert!(
        rows.contains(&"20".into()) && rows.contains(&"40".into()),
        "{rows:?}"
    );
    assert_eq!(events.len(), 2 * rows.len(), "a line beside each object");
}

#[test]
fn a_verb_that_is_not_offered_says_so_by_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path(), &[]);
    let options = Options::default();
    let session = Session {
        jit: &jit,
        name: gemv::FAMILY,
        options: &options,
    };
    let harness = harness(gemv::FAMILY).expect("harness");
    let error = harness.tune(session, &mut |_| {}).expect_err("refused");
    assert_eq!(error.to_string(), "gemv: tune is not offered for it");
}

#[test]
fn requests_of_the_layer_are_validated_before_a_gpu_is_looked_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    let options = |name: &str, value: &str| Options::of(decode_layer::verify::FLAGS).set(name, value);
    let registry = Registry::load(None).expect("families");
    let verify = |options: &Options| {
        let request = decode_layer::verify::VerifyRequest::new(&registry, "beta_lite", options);
        request.expect_err("refused").to_string()
    };
    assert_eq!(
        verify(&options("soak", "0")),
        "--soak: `0`: expected a whole number from 1"
    );
    assert_eq!(
        verify(&options("streams", "2")),
        "--streams: of use with --soak alone"
    );
    assert_eq!(
        verify(&options("launch", "lite")),
        "--launch: `lite`: expected cooperative or separate"
    );
    let many = options("soak", "10").set("streams", "65");
    assert_eq!(verify(&many), "--streams: `65`: expected a number from 1 to 64");

    let never = jit(dir.path(), &[("num_regions", "20")]);
    let options = Options::of(decode_layer::bench::FLAGS);
    let request =
        |name, options| LayerBenchRequest::new(never.registry(), name, options).map_err(|e| e.to_string());
    let named = |name| request(name, &options).expect("request").paths;
    assert_eq!(named("beta_coop"), [BenchPath::Cooperative]);
    assert_eq!(named("beta_lite"), [BenchPath::Separate]);
    let other = options.clone().set("path", "cooperative");
    let refused = request("beta_lite", &other).expect_err("refused");
    assert_eq!(
        refused,
        "--path contradicts `beta_lite`, which stands for `separate`: name the family `decode_layer`"
    );
    let request = request(decode_layer::FAMILY, &options).expect("request");
    assert_eq!(request.paths.len(), 3);
    assert_eq!(request.token_counts, [1, 2, 4, 8]);
    let error = decode_layer::bench::bench(&never, &request, &mut |_| {}).expect_err("refused");
    assert!(error.to_string().starts_with("num_regions: a layer"), "{error}");
}

#[test]
fn a_layers_candidates_are_listed_through_the_library() {
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path(), &[]);
    let options = Options::of(decode_layer::tune::FLAGS)
        .set("dry-run", "")
        .add("space", "wo_split=4,8")
        .add("space", "num_ctas=132");
    let family = decode_layer::FAMILY;
    let request = decode_layer::tune::TuneRequest::new(&jit, family, &options).expect("request");
    let mut splits = Vec::new();
    let told = decode_layer::tune::tune(&jit, &request, &mut |event| {
        if let Event::Object(object) = event {
            splits.push(object["constants"]["wo_split"].clone());
        }
    });
    assert_eq!(told.expect("listed"), Verdict::Good);
    assert_eq!(splits, ["4", "8"]);
}

#[test]
fn the_candidates_of_axpy_are_its_declared_geometries_or_those_that_are_set() {
    let dir = tempfile::tempdir().expect("tempdir");
    let listed = |constants: &[(&str, &str)], space: &[&str]| {
        let jit = jit(dir.path(), constants);
        let mut options = Options::of(axpy::tune::FLAGS).set("dry-run", "");
        for text in space {
            options = options.add("space", *text);
        }
        let mut geometries = Vec::new();
        axpy::tune::tune(&jit, &options, &mut |event| {
            if let Event::Object(object) = event {
                assert_eq!(object["problem"]["elements"], "16777216");
                let constant = |name: &str| object["constants"][name].as_str().map(str::to_owned);
                geometries.push((constant("num_threads"), constant("unroll")));
            }
        })
        .map(|_| geometries)
        .map_err(|error| error.to_string())
    };
    assert_eq!(listed(&[], &[]).expect("listed").len(), 16);
    let narrowed = listed(&[("unroll", "2")], &["num_threads=64,96"]).expect("listed");
    let expected = ["64", "96"].map(|threads| (Some(threads.into()), Some("2".into())));
    assert_eq!(narrowed, expected);
    let regions = listed(&[], &["num_regions=0,2"]).expect_err("refused");
    assert_eq!(regions, "--space num_regions: is not geometry");
    let illegal = listed(&[("unroll", "3")], &[]).expect_err("refused");
    assert!(
        illegal.contains("unroll (flag --set): `3` is not legal"),
        "{illegal}"
    );
}

#[test]
fn dispatch_names_a_gpu_that_need_not_be_here_or_says_that_there_is_none() {
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit(dir.path(), &[]);
    let unknown = Target::named("h2000").err().expect("refused").to_string();
    assert!(
        unknown.starts_with("device `h2000`: expected an ordinal or one of a100"),
        "{unknown}"
    );
    if !gpu_is_here() {
        let absent = Target::named("0").err().expect("refused");
        assert!(matches!(absent, MeasureError::Device(_)), "{absent}");
    }
    let policy = Policy::of(jit.config(), Some("lite"), Some("3,7"), 8).expect("policy");
    assert_eq!(policy.path, dispatch::Path::Separate);
    let variants = [Kind::Cooperative, Kind::Separate].map(|kind| dispatch::Variant {
        kind,
        tokens_per_pass: 1,
        blocks: 132,
        per_token: false,
        capacity: 132,
    });
    let step = Problem {
        num_tokens: 1,
        layer: 7,
        decode_only: true,
    };
    assert_eq!(dispatch::select(&variants, &policy, &step).variant, Some(1));
}
