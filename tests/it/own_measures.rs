//! Families of one's own verified, benchmarked and tuned: what is checked before a GPU is
//! looked for, and what is said where there is none.

use std::path::Path;

use jitc::engine::request::dtype::Dtype;
use jitc::measure::npy::{self, Elements};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};

use crate::command::jitc;

/// What is said where everything else was right.
const NO_GPU: &str = "error: measuring takes a GPU, and there is none to use";

fn example() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("examples/rms_norm").to_string_lossy().into_owned()
}

fn refused(words: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path())
        .args(words)
        .args(["--templates", &example()])
        .output()
        .expect("ran");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words:?}: {errors}");
    assert!(output.stdout.is_empty());
    errors.lines().next().unwrap_or_default().to_owned()
}

#[expect(clippy::print_stderr, reason = "a skip says why")]
fn has_gpu() -> bool {
    let there = jitc::engine::run::device::here().is_ok_and(|devices| !devices.is_empty());
    if there {
        eprintln!("skipped: there is a GPU");
    }
    there
}

#[test]
fn what_is_right_needs_a_gpu_and_says_so() {
    if has_gpu() {
        return;
    }
    for words in [
        &["verify", "rms_norm", "--against", "block=64"][..],
        &[
            "verify",
            "rms_norm",
            "--block",
            "64,128",
            "--against",
            "defaults",
            "--rtol",
            "1e-4",
        ],
        &["bench", "rms_norm"],
        &[
            "bench",
            "rms_norm",
            "--size",
            "rows=1,8",
            "--size",
            "cols=63,64",
            "--warm",
        ],
        &[
            "bench",
            "rms_norm",
            "--fill",
            "x={ kind = 'uniform', range = [0, 1] }",
            "--value",
            "epsilon=0",
        ],
        &["tune", "rms_norm"],
        &["tune", "rms_norm", "--space", "width=2,4", "--margin", "0.05"],
        &[
            "verify",
            "axpy",
            "--against",
            "unroll=2",
            "--size",
            "n=1000",
            "--value",
            "a=2",
        ],
    ] {
        let line = refused(words);
        assert!(line.starts_with(NO_GPU), "{words:?}: {line}");
    }
}

/// What is wrong, and how its line begins.
const WRONG: &[(&[&str], &str)] = &[
    (
        &["verify", "rms_norm"],
        "rms_norm: what its results are to be compared with is not said: expected --against",
    ),
    (
        &["verify", "rms_norm", "--against", "block"],
        "--against block: expected NAME=VALUE",
    ),
    (
        &["verify", "rms_norm", "--against", "block=65"],
        "--against block=65: rms_norm: block",
    ),
    (
        &["verify", "rms_norm", "--against", "z=w.npy"],
        "rms_norm: --against z: is not an output: expected one of y",
    ),
    (
        &["verify", "rms_norm", "--against", "defaults", "--rtol", "-1"],
        "--rtol: `-1`: expected a number from 0",
    ),
    (
        &["verify", "rms_norm", "--save", "s", "--size", "rows=1,2"],
        "rms_norm: --save: 2 launches are requested",
    ),
    (
        &["bench", "rms_norm", "--size", "rwos=1"],
        "rms_norm: --size rwos: is not a size of its launches or of [dispatch] (did you mean `rows`?)",
    ),
    (
        &["bench", "rms_norm", "--size", "rows=0"],
        "--size rows=0: expected whole numbers from 1",
    ),
    (
        &["bench", "rms_norm", "--size", "rows"],
        "--size rows: expected NAME=VALUE",
    ),
    (
        &["bench", "rms_norm", "--value", "cols=3"],
        "rms_norm: --value cols: is not a scalar that it takes",
    ),
    (
        &["bench", "rms_norm", "--value", "epsilon=small"],
        "rms_norm: parameter `epsilon`: `small` is not a value of f32",
    ),
    (
        &["bench", "rms_norm", "--fill", "y2=ones"],
        "rms_norm: --fill y2: is not memory that it takes",
    ),
    (
        &["bench", "rms_norm", "--fill", "x=nomral"],
        "--fill x=nomral: `nomral` is not a fill (did you mean `normal`?)",
    ),
    (
        &["bench", "rms_norm", "--fill", "x=gone.npy"],
        "rms_norm: parameter `x`: ",
    ),
    (
        &["bench", "rms_norm", "--entry", "rms"],
        "rms_norm: --entry rms: there is no such entry point",
    ),
    (
        &["bench", "rms_norm", "--arch", "sm_90a"],
        "--arch sm_90a: what is measured is compiled for the GPU",
    ),
    (
        &["bench", "rms_norm", "--elements", "8"],
        "--elements: rms_norm does not take it",
    ),
    (
        &["tune", "rms_norm", "--block", "64,128"],
        "rms_norm: 2 variants are requested: values to try are given by --space",
    ),
    (
        &["tune", "rms_norm", "--block", "64", "--space", "block=128"],
        "rms_norm: --space block: it is set as well",
    ),
    (
        &["tune", "rms_norm", "--block", "64", "--width", "1"],
        "rms_norm: every constant of its [tune] is set",
    ),
    (&["tune", "rms_norm", "--space", "width=3"], "--space width=3: "),
    (
        &["tune", "rms_norm", "--margin", "2"],
        "--margin: `2`: expected a number from 0 to 0.99",
    ),
    (
        &["tune", "stream"],
        "stream: there is no [tune] in its TOML: expected that",
    ),
    (
        &["bench", "stream"],
        "stream: parameter `num_bytes`: its value is missing: give --value num_bytes=NUMBER",
    ),
    (
        &["verify", "axpy", "--unroll", "2"],
        "--unroll: every variant of axpy that its reference knows is verified",
    ),
    (
        &["verify", "axpy", "--arch", "sm_80"],
        "--arch: every variant of axpy that its reference knows is verified",
    ),
    (
        &["verify", "--preset", "none"],
        "--preset: every variant of wo_gemv that its reference knows is verified",
    ),
];

#[test]
fn what_is_wrong_is_one_clear_line_before_a_gpu_is_looked_for() {
    for (words, expected) in WRONG {
        let line = refused(words);
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        assert!(line.starts_with(*expected), "{words:?}:\n{line}\n{expected}");
    }
}

#[test]
fn a_file_that_does_not_fit_is_refused_by_type_and_shape() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("w.npy");
    let text = path.to_string_lossy().into_owned();
    let save = |shape: &[usize]| {
        let bytes = vec![0; shape.iter().product::<usize>() * 4];
        let (dtype, shape) = (Dtype::F32, shape.to_vec());
        npy::write(&path, &Elements { dtype, shape, bytes }).expect("written");
    };
    let small = ["--size", "rows=2", "--size", "cols=4"];
    let fill = format!("x={text}");
    save(&[4, 2]);
    let line = refused(&[&["bench", "rms_norm", "--fill", &fill], &small[..]].concat());
    assert!(line.ends_with("shape [4, 2]: expected f32 [2, 4]"), "{line}");
    let against = refused(&[&["verify", "rms_norm", "--against", &text], &small[..]].concat());
    assert!(
        against.ends_with("shape [4, 2], and `y` is f32 [2, 4]"),
        "{against}"
    );
    fs_err::write(&path, b"PK").expect("written");
    let line = refused(&[&["bench", "rms_norm", "--fill", &fill], &small[..]].concat());
    assert!(line.contains("not a .npy file"), "{line}");
    save(&[2, 4]);
    if !has_gpu() {
        let line = refused(&[&["bench", "rms_norm", "--fill", &fill], &small[..]].concat());
        assert!(line.starts_with(NO_GPU), "{line}");
    }
}

#[test]
fn the_inputs_of_a_seed_are_saved_before_a_gpu_is_looked_for_and_are_the_same_again() {
    if has_gpu() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let saved = |folder: &str, more: &[&str]| {
        let folder = dir.path().join(folder);
        let to = folder.to_string_lossy();
        let words = [
            "verify", "rms_norm", "--save", &to, "--size", "rows=2", "--size", "cols=8",
        ];
        refused(&[&words[..], more].concat());
        ["x", "weight"].map(|name| npy::read(&folder.join(format!("{name}.npy")), Dtype::F32).expect(name))
    };
    let first = saved("a", &[]);
    assert_eq!(first[0].shape, [2, 8]);
    assert_eq!(first, saved("b", &[]));
    let other = saved("c", &["--seed", "7"]);
    assert_ne!(first[0], other[0]);
    let filled = saved("d", &["--fill", "weight=2"]);
    assert_eq!(
        (&filled[0], &filled[1].bytes[..4]),
        (&first[0], &2_f32.to_le_bytes()[..])
    );
}

#[test]
fn candidates_are_what_the_toml_says_without_what_its_condition_leaves_out() {
    let dir = tempfile::tempdir().expect("tempdir");
    let run = |more: &[&str]| {
        let output = jitc(dir.path())
            .args([
                "tune",
                "rms_norm",
                "--dry-run",
                "--json",
                "--templates",
                &example(),
            ])
            .args(more)
            .output()
            .expect("ran");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    // 5 blocks by 3 widths, without 1024 by 4.
    assert_eq!(run(&[]), 14);
    assert_eq!(run(&["--block", "64"]), 3);
    assert_eq!(run(&["--space", "block=64,1024", "--size", "rows=1,2"]), 10);
}

#[test]
fn a_constant_that_the_family_gives_nobody_to_choose_is_not_tried() {
    let dir = tempfile::tempdir().expect("tempdir");
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
    jitc(dir.path())
        .args([
            "tune",
            "hello",
            "--dry-run",
            "--space",
            "factor=1,2",
            "--templates",
        ])
        .arg(hello)
        .assert()
        .code(2)
        .stderr(contains(
            "hello: --space factor: neither [tune] nor [dispatch] chooses it: expected one of block",
        ));
}

#[test]
fn a_declaration_that_cannot_be_is_refused_when_the_family_is_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    let toml = fs_err::read_to_string(Path::new(&example()).join("rms_norm.toml")).expect("read");
    let source = fs_err::read_to_string(Path::new(&example()).join("rms_norm.cu.tera")).expect("read");
    fs_err::write(dir.path().join("f.cu.tera"), source).expect("written");
    for (was, is, expected) in [
        (
            "fill = 1e-6",
            "fill = 'normal'",
            "entry `rms_norm`: parameter `epsilon`: fill: a scalar is a number",
        ),
        (
            "value = \"cols\"",
            "value = \"cols\"\nfill = 3",
            "parameter `cols`: fill: a launch size is what the launch says",
        ),
        (
            "mean = 1.0, ",
            "range = [0, 1], ",
            "parameter `weight`: fill: `range` is of kind = \"uniform\"",
        ),
        (
            "sizes = { rows = 4096",
            "sizes = { rwos = 4096",
            "measure: sizes: `rwos` is not a size of a launch or of [dispatch]",
        ),
        (
            "rtol = 1e-5",
            "rtol = -1",
            "measure: rtol: expected a finite number from 0",
        ),
        (
            "block = \"all\"",
            "blok = \"all\"",
            "tune: space: nobody declares `blok` (did you mean `block`?)",
        ),
        ("block = \"all\"", "block = [65]", "tune: space: `block`: "),
        (
            "block = \"all\"",
            "block = [64, 64]",
            "tune: space: `block`: `64` is there twice",
        ),
        (
            "margin = 0.02",
            "margin = 1",
            "tune: margin: 1: expected a part from 0 to below 1",
        ),
        (
            "when = \"block * width",
            "when = \"blok * width",
            "tune: when uses `blok`, which nobody declares",
        ),
    ] {
        assert!(toml.contains(was), "{was}");
        fs_err::write(dir.path().join("f.toml"), toml.replace(was, is)).expect("written");
        jitc(dir.path())
            .args(["families", "--templates"])
            .arg(dir.path())
            .assert()
            .code(2)
            .stdout(is_empty())
            .stderr(contains(expected).and(contains("f.toml")));
    }
}
