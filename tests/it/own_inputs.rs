//! Inputs of every kind of parameter, made from its declaration and from what was given.

use std::path::Path;

use jitc::engine::request::dtype::Dtype;
use jitc::measure::npy::{self, Elements};

use crate::command::jitc;

const TOML: &str = r#"
summary = "s"
[constants.element]
type = "enum"
cxx_type = "E"
values = ["f16", "i32"]
default = "f16"
help = "type"
[constants.with_bias]
type = "bool"
default = false
help = "bias"
[[entries]]
name = "first"
grid = [1]
block = [32]
sizes = ["n"]
[[entries.parameters]]
name = "count"
type = "i8"
fill = 2
[[entries.parameters]]
name = "flag"
type = "bool"
[[entries.parameters]]
name = "scale"
type = "f16"
[[entries.parameters]]
name = "x"
type = "element"
shape = ["count", "n"]
[[entries.parameters]]
name = "bias"
type = "f32"
shape = ["n"]
optional = "not with_bias"
[[entries.parameters]]
name = "any"
type = "e4m3"
shape = ["*", 2]
[[entries.parameters]]
name = "params"
type = "struct"
bytes = 8
alignment = 4
[[entries.parameters]]
name = "y"
type = "u64"
shape = ["n"]
access = "inout"
[[entries]]
name = "second"
grid = [1]
block = [32]
[[entries.parameters]]
name = "map"
type = "tensor_map"
"#;

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |name: &str, text: &str| fs_err::write(dir.path().join(name), text).expect("written");
        write("k.toml", TOML);
        write(
            "k.cu.tera",
            "enum class E { f16, i32 };\n// {{ element }} {{ with_bias }}\n",
        );
        Self(dir)
    }

    fn file(&self, name: &str, dtype: Dtype, shape: &[usize]) {
        let bytes = vec![1; shape.iter().product::<usize>() * dtype.bytes()];
        let shape = shape.to_vec();
        let path = self.0.path().join(name);
        npy::write(&path, &Elements { dtype, shape, bytes }).expect("written");
    }

    fn saved(&self, name: &str, dtype: Dtype) -> Elements {
        npy::read(&self.0.path().join("out").join(name), dtype).expect(name)
    }

    /// The last line of what was said, and whether it got as far as looking for a GPU.
    fn bench(&self, more: &[&str]) -> (bool, String) {
        let output = jitc(&self.0.path().join("cache"))
            .current_dir(self.0.path())
            .args(["verify", "k", "--templates", ".", "--save", "out"])
            .args(more)
            .output()
            .expect("ran");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().next().unwrap_or_default().to_owned();
        assert_eq!(output.status.code(), Some(2), "{line}");
        (line.starts_with("error: measuring takes a GPU"), line)
    }
}

const ALL: [&str; 13] = [
    "--entry",
    "first",
    "--size",
    "n=3",
    "--value",
    "flag=true",
    "--value",
    "scale=0.5",
    "--fill",
    "any=any.npy",
    "--fill",
    "params=params.npy",
    "--seed=1",
];

#[test]
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn every_kind_of_parameter_is_filled_by_its_declaration_or_by_what_was_given() {
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("skipped: there may be a GPU, and the kernel of this test does not exist");
        return;
    }
    let desk = Desk::new();
    desk.file("any.npy", Dtype::U8, &[5, 2]);
    desk.file("params.npy", Dtype::U8, &[8]);
    let (found, line) = desk.bench(&ALL);
    assert!(found, "{line}");
    let x = desk.saved("x.npy", Dtype::F16);
    assert_eq!(
        (x.dtype, x.shape),
        (Dtype::F16, vec![2, 3]),
        "a scalar and a size in its shape"
    );
    assert_eq!(desk.saved("any.npy", Dtype::E4m3).shape, [5, 2]);
    let y = desk.saved("y.before.npy", Dtype::U64);
    assert_eq!(y.bytes, [0; 24], "whole numbers may be indices");
    assert!(!desk.0.path().join("out/bias.npy").exists(), "null, as it may be");
    // Another type, another shape, and memory that may not be null.
    let (found, line) = desk.bench(
        &[
            &ALL[..],
            &[
                "--set",
                "element=i32",
                "--value",
                "count=3",
                "--set",
                "with_bias=true",
            ],
        ]
        .concat(),
    );
    assert!(found, "{line}");
    let x = desk.saved("x.npy", Dtype::I32);
    assert_eq!((x.dtype, x.shape, x.bytes), (Dtype::I32, vec![3, 3], vec![0; 36]));
    assert_eq!(desk.saved("bias.npy", Dtype::F32).shape, [3]);
    let (found, line) = desk.bench(&[&ALL[..], &["--value", "count=-1"]].concat());
    assert!(found, "{line}");
    assert_eq!(
        desk.saved("x.npy", Dtype::F16).shape,
        [0, 3],
        "a negative number is no length"
    );
    // What may be null is not where something fills it.
    let (found, line) = desk.bench(&[&ALL[..], &["--fill", "bias=iota"]].concat());
    assert!(found, "{line}");
    assert_eq!(
        desk.saved("bias.npy", Dtype::F32).bytes[4..8],
        1_f32.to_le_bytes()
    );
    // A file of another type of numbers is rounded.
    desk.file("x.npy", Dtype::F64, &[2, 3]);
    let (found, line) = desk.bench(&[&ALL[..], &["--fill", "x=x.npy"]].concat());
    assert!(found, "{line}");
    let tiny = f64::from_bits(0x0101_0101_0101_0101);
    assert!(tiny < 1e-300 && desk.saved("x.npy", Dtype::F16).bytes == [0; 12]);
}

#[test]
fn what_a_parameter_cannot_be_is_said_by_its_name() {
    let desk = Desk::new();
    desk.file("any.npy", Dtype::U8, &[5, 2]);
    desk.file("three.npy", Dtype::U8, &[5, 3]);
    desk.file("params.npy", Dtype::U8, &[8]);
    desk.file("nine.npy", Dtype::U8, &[9]);
    let without = |name: &str| -> Vec<&str> {
        let at = ALL.iter().position(|word| word.starts_with(name)).expect(name);
        let mut left = ALL.to_vec();
        left.drain(at - 1..=at);
        left
    };
    let with = |more: &[&'static str]| [&ALL[..], more].concat();
    for (words, expected) in [
        (
            without("first"),
            "k: `first` and `second` take different lists: --entry chooses one",
        ),
        (
            without("n=3"),
            "k: the launch size `n` is missing: give --size n=COUNT, or [measure.sizes]",
        ),
        (
            without("flag"),
            "k: parameter `flag`: its value is missing: give --value flag=NUMBER",
        ),
        (
            without("any"),
            "k: parameter `any`: its length is not declared: give --fill any=FILE.npy",
        ),
        (
            without("params"),
            "k: parameter `params`: is passed by value, and made by a program: give --fill params=",
        ),
        (
            with(&["--value", "count=128"]),
            "k: parameter `count`: 128 is beyond i8, -128 to 127",
        ),
        (
            with(&["--value", "count=1.5"]),
            "k: parameter `count`: `1.5` is not a value of i8",
        ),
        (
            with(&["--fill", "y=normal"]),
            "k: parameter `y`: u64 has no normal numbers",
        ),
        (
            with(&["--fill", "y=0.5"]),
            "k: parameter `y`: 0.5 is not a whole number",
        ),
        (
            with(&["--value", "n=3"]),
            "k: --value n: is not a scalar that it takes",
        ),
        (
            vec!["--entry", "second"],
            "k: parameter `map`: is passed by value, and made by a program",
        ),
    ] {
        let (found, line) = desk.bench(&words);
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        assert!(
            !found && line.starts_with(expected),
            "{words:?}:\n{line}\n{expected}"
        );
    }
    let given = |fill: &'static str| {
        let mut words = without("any");
        words.extend(["--fill", fill]);
        desk.bench(&words).1
    };
    assert!(given("any=three.npy").ends_with("three.npy: shape [5, 3]: expected e4m3 [*, 2]"));
    assert!(given("any=gone.npy").contains("gone.npy"));
    let mut words = without("params");
    words.extend(["--fill", "params=nine.npy"]);
    assert!(
        desk.bench(&words)
            .1
            .ends_with("nine.npy: 9 bytes of u8: expected 8 of u8")
    );
}
