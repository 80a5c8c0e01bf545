//! `jitc regions` and `jitc extract` as a person uses them.

use std::path::Path;
use std::process::Output;

use jitc::engine::request::template::Registry;
use jitc::families::decode_layer::regions::synthetic;
use jitc::measure::region::{Array, COLUMNS, Geometry, npy};
use predicates::str::contains;
use serde_json::Value;

use crate::cli::jitc;

fn out(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{words}");
    text
}

/// A bare buffer as nvllm's tools write it: nothing beside it.
fn bare(dir: &Path, name: &str, wo_split: u32, count: u32) -> String {
    let registry = Registry::load(None).expect("families");
    let ticks = synthetic(&registry, &Geometry::default(), wo_split, count).expect("ticks");
    let array = Array {
        shape: vec![64, count as usize, 2],
        data: ticks.pairs.iter().copied().flatten().collect(),
    };
    let path = dir.join(name);
    npy::write(&path, &array).expect("written");
    path.display().to_string()
}

#[test]
fn a_bare_buffer_is_reduced_by_its_shape_and_the_flags() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = bare(dir.path(), "split8.npy", 8, 13);
    let args = [
        "regions",
        &file,
        "--wo-split",
        "8",
        "--launch-us",
        "27000",
        "--csv",
        "c.csv",
        "--trace",
        "t.json",
        "--json",
    ];
    let text = out(&jitc(dir.path()).args(args).output().expect("ran"));
    let account: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(account["schema"], "jitc.regions.v1");
    assert_eq!(account["regions"][11]["n_active_ctas"], 28);
    assert_eq!(account["regions"][2]["n_active_ctas"], 32);
    assert_eq!(account["regions"][4]["frac_of_kernel"], Value::Null);
    let csv = fs_err::read_to_string(dir.path().join("c.csv")).expect("csv");
    assert_eq!(csv.lines().next().expect("heading"), COLUMNS.join(","));
    assert_eq!(csv.lines().count(), 14);
    let trace: Value =
        serde_json::from_slice(&fs_err::read(dir.path().join("t.json")).expect("trace")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let tracks = events.iter().filter(|e| e["name"] == "thread_name").count();
    assert_eq!(tracks, 64);
    assert!(
        events
            .iter()
            .any(|e| e["name"] == "phase1_wo_gemv" && e["ph"] == "X" && e["tid"] == 8)
    );
    // Without the split the same rows are not active.
    let text = out(&jitc(dir.path())
        .args(["regions", &file, "--json"])
        .output()
        .expect("ran"));
    let account: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(account["regions"][11]["n_active_ctas"], 0);
    assert_eq!(account["regions"][2]["median_us"], Value::Null);
}

#[test]
fn what_is_printed_has_just_the_keys_that_the_schema_names() {
    let dir = tempfile::tempdir().expect("tempdir");
    let args = ["regions", "--synthetic", "8", "--json"];
    let text = out(&jitc(dir.path()).args(args).output().expect("ran"));
    let account: Value = serde_json::from_str(&text).expect("JSON");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/regions.schema.json");
    let schema: Value = serde_json::from_slice(&fs_err::read(schema).expect("schema")).expect("JSON");
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().expect("object").keys().cloned().collect();
        keys.sort();
        keys
    };
    let properties = &schema["properties"];
    assert_eq!(keys(&account), keys(properties));
    assert_eq!(
        keys(&account["geometry"]),
        keys(&properties["geometry"]["properties"])
    );
    assert_eq!(
        keys(&account["account"]),
        keys(&properties["account"]["properties"])
    );
    let row = &properties["regions"]["items"]["properties"];
    for region in account["regions"].as_array().expect("rows") {
        assert_eq!(keys(region), keys(row));
    }
    assert_eq!(
        schema["required"].as_array().map(Vec::len),
        Some(keys(properties).len())
    );
}

#[test]
fn saved_buffers_are_compared_with_all_that_was_known_of_them() {
    let dir = tempfile::tempdir().expect("tempdir");
    out(&jitc(dir.path())
        .args(["regions", "--synthetic", "1,8", "--save", "s"])
        .output()
        .expect("ran"));
    let files = ["s/synthetic-wo_split-1.npy", "s/synthetic-wo_split-8.npy"];
    let diff = |more: &[&str]| {
        let args = [&["regions", "diff", files[0], files[1]], more].concat();
        out(&jitc(dir.path()).args(args).output().expect("ran"))
    };
    let text = diff(&[]);
    assert!(
        text.contains("4 -> 32") && text.contains("phase1_pre_wo_wait is new"),
        "{text}"
    );
    let value: Value = serde_json::from_str(&diff(&["--json"])).expect("JSON");
    assert_eq!(value["before"], "synthetic, wo_split 1");
    let cluster = &value["cluster"];
    let ratio = cluster["before"].as_f64().expect("us") / cluster["after"].as_f64().expect("us");
    assert!((cluster["ratio"].as_f64().expect("ratio") - ratio).abs() < 1e-12);
    // A file that says what it is takes no flags that say it again.
    jitc(dir.path())
        .args(["regions", files[1], "--wo-split", "1"])
        .assert()
        .code(2)
        .stderr(contains("or say --no-sidecar"));
    jitc(dir.path())
        .args(["regions", "diff", files[0]])
        .assert()
        .code(2)
        .stderr(contains("takes two buffers"));
}

#[test]
fn a_file_that_is_no_buffer_is_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().expect("tempdir");
    let whole = bare(dir.path(), "whole.npy", 1, 13);
    let bytes = fs_err::read(&whole).expect("bytes");
    fs_err::write(dir.path().join("short.npy"), &bytes[..bytes.len() - 8]).expect("written");
    for (name, old, new) in [
        ("swapped.npy", "(64, 13, 2)", "(13, 64, 2)"),
        ("fortran.npy", "False", "True "),
        ("float.npy", "<i8", "<f8"),
    ] {
        let at = bytes
            .windows(old.len())
            .position(|w| w == old.as_bytes())
            .expect("in the header");
        let mut other = bytes.clone();
        other[at..at + old.len()].copy_from_slice(new.as_bytes());
        fs_err::write(dir.path().join(name), other).expect("written");
    }
    for (args, words) in [
        (
            vec!["short.npy"],
            "short.npy: 13304 bytes of data: shape (64, 13, 2) of int64 takes 13312",
        ),
        (
            vec!["whole.npy", "--tokens", "2"],
            "whole.npy has 64 rows: the grid has 128 blocks",
        ),
        (
            vec!["whole.npy", "--family", "wo_gemv"],
            "family `wo_gemv` has no set of 13 regions",
        ),
        (
            vec!["whole.npy", "--wo-split", "3"],
            "geometry: wo_split 3: expected 1, 2, 4 or 8",
        ),
        (
            vec![
                "whole.npy",
                "--slice-ctas",
                "4",
                "--num-k-tiles",
                "16",
                "--wo-split",
                "8",
            ],
            "geometry: wo_split 8 and grid_x 4: a kv head has a block a slot",
        ),
        (vec!["swapped.npy"], " decode_layer 11, 13, 16, 20, 21"),
        (
            vec!["fortran.npy"],
            "fortran.npy: Fortran order: expected C order",
        ),
        (vec!["float.npy"], "float.npy: dtype '<f8': expected int64"),
        (vec!["none.npy"], "none.npy"),
        (vec![], "nothing to read"),
        (
            vec!["whole.npy", "--tick-source", "hours"],
            "expected globaltimer or clock64",
        ),
    ] {
        let output = jitc(dir.path()).arg("regions").args(&args).output().expect("ran");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            said.contains(words) && said.lines().count() == 1,
            "{args:?}: {said}"
        );
    }
}

#[test]
fn buffers_of_nvllms_earlier_sets_reduce_like_those_of_its_later_ones() {
    let dir = tempfile::tempdir().expect("tempdir");
    let rows = |count: u32| -> Vec<String> {
        let file = bare(dir.path(), "b.npy", 8, count);
        let args = ["--wo-split", "8", "--launch-us", "27000", "--csv", "c.csv"];
        out(&jitc(dir.path())
            .args(["regions", &file])
            .args(args)
            .output()
            .expect("ran"));
        let csv = fs_err::read_to_string(dir.path().join("c.csv")).expect("csv");
        csv.lines().map(str::to_owned).collect()
    };
    let (first, second, between, last) = (rows(11), rows(13), rows(16), rows(20));
    assert_eq!(first[0], COLUMNS.join(","));
    assert_eq!(first, second[..12]);
    assert_eq!(second, between[..14]);
    assert_eq!(between.len(), 17);
    // R9 ended after the loop before it was renamed; all else is the same to the digit.
    let other: Vec<usize> = (0..17).filter(|i| between[*i] != last[*i]).collect();
    assert_eq!(other, [10]);
    assert!(between[10].starts_with("9,phase3_3c_fc2_atomic,64,phase3,globaltimer,"));
    for (count, region) in [(11, 9), (16, 9)] {
        let file = bare(dir.path(), "b.npy", 1, count);
        let args = [
            "extract",
            "--buf",
            &file,
            "--out",
            "o.csv",
            "--kernel-mean-us",
            "40636",
            "--json",
        ];
        let found: Value =
            serde_json::from_str(&out(&jitc(dir.path()).args(args).output().expect("ran"))).expect("JSON");
        assert_eq!(found["account"]["num_regions"], count);
        let rows = &found["account"]["regions"];
        let share: f64 = [2, 7, region]
            .iter()
            .map(|i| rows[*i]["frac_of_kernel"].as_f64().expect("share"))
            .sum();
        assert!((found["share_along_k"].as_f64().expect("share") - share).abs() < 1e-12);
    }
    // No kernel is compiled with them.
    jitc(dir.path())
        .args(["render", "decode_layer", "--num-regions", "16"])
        .assert()
        .code(2)
        .stderr(contains("`16` is not legal: expected one of 0, 13, 20, 21"));
}

const PROFILE: &str = "kernel_symbol,mean_us,total_ms\n\
    \"other<float, 4>\",1.0,900.0\n\
    \"cutlass_PhaseE_Beta_Kernel<a, b>\",27493.0,440.0\n\
    PhaseE_Beta_Kernel_small,10.0,1.0\n";

#[test]
fn extract_takes_nvllms_options_with_their_meaning() {
    let dir = tempfile::tempdir().expect("tempdir");
    let buffer = bare(dir.path(), "b.npy", 8, 20);
    fs_err::write(dir.path().join("k.csv"), PROFILE).expect("written");
    let run = |more: &[&str]| {
        let args = [
            &[
                "extract",
                "--buf",
                &buffer,
                "--out",
                "o.csv",
                "--slice-ctas",
                "8",
                "--num-k-tiles",
                "8",
                "--num-seqs",
                "1",
                "--wo-split",
                "8",
                "--num-kv-heads",
                "4",
                "--json",
            ],
            more,
        ]
        .concat();
        jitc(dir.path()).args(args).output().expect("ran")
    };
    let json = |output: &Output| -> Value { serde_json::from_str(&out(output)).expect("JSON") };
    // The largest match of the profile, whatever is larger and does not match.
    let found = json(&run(&["--kernels", "k.csv"]));
    assert_eq!(found["launch_us"], 27493.0);
    assert_eq!(found["kernel_symbol"], "cutlass_PhaseE_Beta_Kernel<a, b>");
    assert_eq!(found["of_launch"], true);
    assert_eq!(found["site"], "W_O GEMV");
    let rows = &found["account"]["regions"];
    let share: f64 = [2, 7, 9]
        .iter()
        .map(|i| rows[*i]["frac_of_kernel"].as_f64().expect("share"))
        .sum();
    assert!((found["share_along_k"].as_f64().expect("share") - share).abs() < 1e-12);
    let csv = fs_err::read_to_string(dir.path().join("o.csv")).expect("csv");
    assert_eq!(
        csv.lines().nth(10).expect("row").split(',').nth(1),
        Some("phase3_3c_fc2_last_iter")
    );
    // A time given goes before the profile; the verdict follows the share.
    for (us, words) in [
        ("5000", "strong go"),
        ("6500", "proceed"),
        ("9000", "conditional"),
        ("27493", "no-go"),
    ] {
        let found = json(&run(&["--kernels", "k.csv", "--kernel-mean-us", us]));
        assert!(
            found["verdict"].as_str().expect("verdict").starts_with(words),
            "{us}: {found}"
        );
    }
    // Cycles have no share of a launch: ticks over the ticks that do not wait.
    let found = json(&run(&["--kernel-mean-us", "27493", "--tick-source", "clock64"]));
    assert_eq!(found["of_launch"], false);
    assert_eq!(found["account"]["regions"][2]["median_us"], Value::Null);
    assert!(found["share_along_k"].as_f64().expect("share") > 0.05);
    for (more, words) in [
        (
            vec!["--kernels", "k.csv", "--kernel-symbol-regex", "nobody"],
            "no kernel_symbol matches nobody",
        ),
        (
            vec!["--kernels", "k.csv", "--kernel-symbol-regex", "("],
            "not a regular expression",
        ),
        (vec![], "the launch's time is missing"),
        (
            vec!["--kernel-mean-us", "0"],
            "expected microseconds, more than 0",
        ),
        (
            vec!["--kernel-mean-us", "-1"],
            "expected microseconds, more than 0",
        ),
        (
            vec!["--kernel-mean-us", "nan"],
            "expected microseconds, more than 0",
        ),
    ] {
        let output = run(&more);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(words),
            "{more:?}"
        );
    }
}

#[test]
fn what_no_launch_has_and_flags_that_would_change_nothing_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (args, words) in [
        (&["--synthetic", "3"][..], "wo_split 3: expected 1, 2, 4 or 8"),
        (
            &["--synthetic", "1", "--family", "wo_gemv"],
            "--family wo_gemv: --synthetic draws decode_layer alone",
        ),
        (
            &["--synthetic", "1", "--rows", "8"],
            "--rows: of use with --live alone",
        ),
        (
            &["a.npy", "--synthetic", "1"],
            "a.npy: buffers are read, or made with --live or --synthetic",
        ),
        (
            &["--live", "decode_layer", "--num-regions", "5"],
            "num_regions (flag --num-regions): `5` is not legal",
        ),
    ] {
        let output = jitc(dir.path()).arg("regions").args(args).output().expect("ran");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words), "{args:?}: {text}");
    }
}
