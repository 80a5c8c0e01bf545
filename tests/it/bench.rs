//! Measuring, as far as it goes without a GPU.

use std::io::Write;

use predicates::str::contains;

use crate::cli::{events, jitc, succeeded};

#[test]
fn bench_refuses_a_request_that_it_could_not_measure_before_it_looks_for_a_gpu() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (args, word) in [
        (["--tokens", "0"], "at least one token"),
        (["--tokens", "1,two"], "`two` is not a number"),
        (["--hidden", "5120,1024"], "a run measures one value of it"),
        (["--global-scale", "1,x"], "`x` is not a number"),
        (
            ["--wo-split", "8,3"],
            "wo_gemv: wo_split (flag --wo-split): `3` is not legal: expected one of 1, 2, 4, 8",
        ),
        (["--context", "4096"], "--context: wo_gemv does not take it"),
        (["--tile-s", "64"], "unknown constant `tile_s` (flag --tile-s)"),
        (
            ["--models", "--hidden=4096"],
            "--models: every model has its own hidden, and it is set (flag --hidden)",
        ),
        (["--models", "--ncu"], "--models: cannot be used with --ncu"),
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
            "--context: `0`: expected whole numbers from 1 to 1048576, such as 1,4",
        ),
        (
            ["--tokens", "many"],
            "--tokens: `many`: expected whole numbers from 1 to 64",
        ),
        (["--context", "5000000000"], "`5000000000`: expected"),
        (
            ["--global-scale", "0.5"],
            "--global-scale: layer does not take it",
        ),
        (
            ["--num-regions", "20"],
            "num_regions: a layer is timed without regions",
        ),
        (["--rows", "8"], "unknown constant `rows` (flag --rows)"),
        (["--launches", "0"], "expected a whole number from 1"),
        (
            ["--path", "cooperative,fast"],
            "`fast`: expected one of cooperative, separate, kernels",
        ),
        (
            ["--path", "coop,lite,separate"],
            "what `separate` was is called `kernels`",
        ),
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
    if jitc::engine::run::device::list().is_ok_and(|devices| !devices.is_empty()) {
        let _ = writeln!(std::io::stderr(), "skipped: there is a GPU here");
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    for args in [
        "bench wo_gemv --wo-split 1,8",
        "bench layer --wo-split 1,8",
        "bench decode_layer --wo-split 1,8",
        "bench beta_coop",
        "bench layer --path cooperative,separate,kernels",
        "bench beta_lite --path lite",
        "bench layer --weight-layout packed64 --accumulate mma --wo-split 1 --tokens 1,2 --path coop,lite",
        "bench layer --preset h200-packed-batch8 --tokens 8",
        "tune wo_gemv --accumulate mma --weight-layout packed",
        "tune decode_layer --weight-layout packed64 --accumulate mma",
        "regions --live decode_layer --weight-layout packed64 --accumulate mma",
        "verify decode_layer --launch separate --soak 10",
        "dispatch --weight-layout packed64 --accumulate mma",
    ] {
        jitc(dir.path())
            .args(args.split(' '))
            .assert()
            .code(2)
            .stderr(contains("measuring takes a GPU, and there is none to use: "));
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
        succeeded(&output);
        events(&output)
    };
    let all = list(&[]);
    assert!(all.iter().any(|c| c["constants"]["rows_per_cta"] == "40"));
    assert!(all.iter().all(|c| c["problem"]["wo_split"] == "8"));
    let narrow = list(&["--space", "rows_per_cta=20"]);
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
        (
            ["--space", "rows_per_cta=20,x"],
            "--space rows_per_cta=20,x: `x` is not legal: expected",
        ),
        (["--geometry", "original"], "only `tiled`"),
        (["--context", "4096"], "--context: wo_gemv does not take it"),
        (["--tile-s", "64"], "unknown constant `tile_s` (flag --tile-s)"),
    ] {
        jitc(dir.path())
            .args(["tune", "wo_gemv", "--dry-run"])
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(word));
    }
    for (args, word) in [
        (
            ["--space", "wo_split=3"],
            "`3` is not legal: expected one of 1, 2, 4, 8",
        ),
        (["--space", "stages=32"], "no candidate is legal"),
        (["--seed", "1"], "--seed: decode_layer does not take it"),
        (["--context", "0"], "expected a whole number from 1"),
        (["--rows", "8"], "unknown constant `rows` (flag --rows)"),
    ] {
        jitc(dir.path())
            .args(["tune", "decode_layer", "--dry-run"])
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
