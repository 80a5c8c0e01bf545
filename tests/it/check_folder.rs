//! `jitc check FOLDER`: what it finds, and that it is silent about what is right.

use std::path::Path;
use std::process::Output;

use crate::cli::{events, jitc, succeeded};

fn check(folder: &Path, more: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("tempdir");
    let mut command = jitc(home.path());
    command.arg("check").arg(folder).args(more).output().expect("ran")
}

/// A folder with a family `k` of these declarations and this source.
fn family(lines: &str, source: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    let toml = format!("summary = 's'\n{lines}\n[[entries]]\nname = 'k'\ngrid = 1\nblock = 'block'\n");
    fs_err::write(dir.path().join("k.toml"), toml).expect("written");
    fs_err::write(dir.path().join("k.cu.tera"), source).expect("written");
    dir
}

const BLOCK: &str = "[constants.block]\ntype = 'u32'\nvalues = [32, 2048]\ndefault = 32\nhelp = 'h'\n";
const SOURCE: &str = "extern \"C\" __global__ void k() {}\n";

#[test]
fn a_folder_that_is_right_has_no_findings_and_the_example_is_one() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/family");
    let output = check(&example, &["--arch", "sm_80,sm_90a"]);
    succeeded(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with(", findings: 0\n"), "{text}");
    let output = check(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("templates"),
        &["--help"],
    );
    succeeded(&output);
}

#[test]
fn what_is_probably_not_meant_is_found_with_its_place() {
    let lines = format!(
        "{BLOCK}[constants.idle]\ntype = 'bool'\ndefault = false\nhelp = 'h'\n\
         [constants.wide]\ntype = 'bool'\ndefault = true\nhelp = 'h'\n\
         [constants.listed]\ntype = 'list'\nof = 'u32'\nvalues = [[1, 2]]\ndefault = [1, 2]\nhelp = 'h'\n\
         [[derived]]\nname = 'twice'\nvalue = 'block * 2'\n\
         [[constraints]]\nrule = 'block % 32'\nbecause = 'b'\n\
         [[constraints]]\nrule = 'wide or listed[0] > 0'\nbecause = 'b'\n"
    );
    let dir = family(&lines, SOURCE);
    let output = check(dir.path(), &["--json"]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut events = events(&output);
    assert_eq!(
        events.pop(),
        Some(serde_json::json!({"event": "summary", "families": 1, "findings": 4}))
    );
    let findings: Vec<&str> = events
        .iter()
        .filter_map(|event| event["finding"].as_str())
        .collect();
    // The rest of 32 / 32 is 0, which Tera takes for false.
    assert_eq!(
        findings[..3],
        [
            "constant `idle`: nothing uses it",
            "derived `twice`: nothing uses it",
            "constraint `block % 32`: it is not a condition, and whatever is not 0 or empty counts as true",
        ]
    );
    assert!(
        findings[3].starts_with("with its defaults: constraint `block % 32` does not hold"),
        "{findings:?}"
    );
}

#[test]
fn a_value_that_no_gpu_launches_and_an_entry_that_is_not_there_are_found() {
    let dir = family(BLOCK, SOURCE);
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text(&check(dir.path(), &[]));
    assert_eq!(
        found,
        "k: block = 2048: entry `k`: a block of 2048 x 1 x 1 is 2048 threads: a GPU takes at most 1024\n\
         families checked: 1, findings: 1\n"
    );
    let dir = family(&BLOCK.replace("32, 2048", "32"), "__global__ void k() {}\n");
    let found = text(&check(dir.path(), &[]));
    assert!(
        found.contains("k: the source defines no kernel `k`, but `_Z1kv`: write extern \"C\""),
        "{found}"
    );
    let dir = family(BLOCK, "extern \"C\" __global__ void k() { undeclared(); }\n");
    let found = text(&check(dir.path(), &[]));
    assert!(
        found.contains("k.cu.tera:1: error: identifier \"undeclared\" is undefined"),
        "{found}"
    );
    let dir = family("[constants.block]\ntype = 'u33'\n", SOURCE);
    let found = text(&check(dir.path(), &[]));
    assert!(
        found.starts_with("k.toml: line 3: unknown variant `u33`"),
        "{found}"
    );
}

#[test]
fn a_folder_without_families_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (folder, words) in [
        (
            dir.path().to_owned(),
            "no family is in it: expected NAME.toml with NAME.cu.tera",
        ),
        (dir.path().join("none"), "is not a folder"),
    ] {
        let output = check(&folder, &[]);
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_new_family_is_right_from_the_start_and_is_the_example() {
    let dir = tempfile::tempdir().expect("tempdir");
    let new = |words: &[&str]| {
        let mut command = jitc(dir.path());
        command
            .current_dir(dir.path())
            .arg("new")
            .args(words)
            .output()
            .expect("ran")
    };
    succeeded(&new(&["my_scale"]));
    let folder = dir.path().join("my_scale");
    for (file, word) in [
        ("my_scale.toml", "name = \"my_scale\""),
        (
            "my_scale.cu.tera",
            "void __launch_bounds__(block) my_scale(const float* x",
        ),
        ("include/my_scale.cuh", "multiply"),
        ("main.rs", ".templates(\"my_scale\")"),
    ] {
        let text = fs_err::read_to_string(folder.join(file)).expect(file);
        assert!(text.contains(word) && !text.contains("hello"), "{file}: {text}");
    }
    succeeded(&check(&folder, &["--arch", "sm_80,sm_90a"]));
    // The program is the example, which the suite compiles.
    succeeded(&new(&["hello", "--in", "examples"]));
    let program = fs_err::read_to_string(dir.path().join("examples/main.rs")).expect("written");
    let example = include_str!("../../examples/hello/main.rs");
    assert_eq!(program, example.replace("examples/hello", "examples"));
    let body = example.split_once("fn main()").expect("a program").1;
    let statements = body
        .lines()
        .filter(|line| line.trim_end().ends_with([';', '?']))
        .count();
    assert!(statements <= 15, "{statements}");
    for (words, expected) in [
        (
            &["My-Scale"][..],
            "is not a name: expected small letters, digits and `_`",
        ),
        (&["float"], "is a keyword of C++: choose another name"),
        (&["wo_gemv"], "there is a family of this name: choose another"),
        (&["my_scale"], "File exists"),
    ] {
        let output = new(words);
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(expected), "{text}");
    }
}
