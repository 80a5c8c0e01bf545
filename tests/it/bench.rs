//! Measuring, as far as it goes without a GPU.

use std::io::Write;

use predicates::str::contains;

use crate::cli::{events, jitc};

#[test]
fn bench_refuses_a_request_that_it_could_not_measure_before_it_looks_for_a_gpu() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (args, word) in [
        (["--tokens", "0"], "at least one token"),
        (["--tokens", "1,two"], "`two` is no number"),
        (["--hidden", "5120,1024"], "a run measures one value of it"),
        (["--global-scale", "1,x"], "`x` is no number"),
    ] {
        jitc(dir.path())
            .args(["bench", "wo_gemv"])
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(word));
    }
}

#[test]
fn bench_of_the_layer_names_the_flag_that_is_wrong() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (args, word) in [
        (
            ["--context", "4096,0"],
            "--context: `0` is no number of at least 1",
        ),
        (["--nat", "many"], "--nat: `many` is no number of at least 1"),
        (["--path", "coop,fast"], "`fast` is none of coop, lite, separate"),
        (
            ["--intermediate", "17408,8704"],
            "a run measures one shape; lists are for",
        ),
    ] {
        jitc(dir.path())
            .args(["bench", "layer"])
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(word));
    }
}

#[test]
fn bench_without_a_gpu_says_so() {
    if jitc::device::list().is_ok_and(|devices| !devices.is_empty()) {
        let _ = writeln!(std::io::stderr(), "skipped: there is a GPU here");
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    for family in ["wo_gemv", "layer"] {
        jitc(dir.path())
            .args(["bench", family, "--wo-split", "1,8"])
            .assert()
            .code(2)
            .stderr(contains("measuring takes a GPU"));
    }
}

#[test]
fn tune_lists_legal_candidates_without_a_gpu() {
    let dir = tempfile::tempdir().expect("tempdir");
    let list = |args: &[&str]| {
        let output = jitc(dir.path())
            .args(["tune", "wo_gemv", "--wo-split", "8", "--dry-run", "--json"])
            .args(args)
            .output()
            .expect("ran");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        events(&output)
    };
    let all = list(&[]);
    assert!(all.iter().any(|c| c["constants"]["rows_per_cta"] == "40"));
    assert!(all.iter().all(|c| c["problem"]["wo_split"] == "8"));
    let narrow = list(&["--space", "rows_per_cta=20,7"]);
    assert!(!narrow.is_empty() && narrow.len() < all.len());
    assert!(narrow.iter().all(|c| c["constants"]["rows_per_cta"] == "20"));
}

#[test]
fn packed_weights_are_another_problem_to_tune() {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path())
        .args([
            "tune",
            "wo_gemv",
            "--accumulate",
            "mma",
            "--weight-layout",
            "packed",
        ])
        .args(["--dry-run", "--json"])
        .output()
        .expect("ran");
    let all = events(&output);
    assert!(!all.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(all.iter().all(|c| c["problem"]["weight_layout"] == "packed"));
    assert!(all.iter().all(|c| c["constants"].get("weight_layout").is_none()));
}

#[test]
fn tune_refuses_what_it_could_not_try() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (args, word) in [
        (["--space", "rows=1"], "expected NAME=LIST"),
        (["--geometry", "original"], "only `tiled`"),
    ] {
        jitc(dir.path())
            .args(["tune", "wo_gemv"])
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(word));
    }
}

#[test]
fn shapes_that_nothing_divides_stay_legal() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (q_heads, head_dim) in [("8", "24"), ("16", "40"), ("16", "17")] {
        jitc(dir.path())
            .args(["key", "wo_gemv", "--hidden", "130", "--num-q-heads", q_heads])
            .args(["--head-dim", head_dim, "--num-kv-heads", "1,8"])
            .args(["--wo-split", "1,8", "--accumulate", "fma", "--arch", "sm_90a"])
            .assert()
            .success();
    }
}
