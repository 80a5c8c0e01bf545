//! What a person is told of a source that does not compile.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::command::{events, jitc};

const TOML: &str = "summary = 's'\n[constants]\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n";

/// Warms a family of this source and this header below include/.
fn warm(dir: &Path, source: &str, header: &str, flags: &[&str]) -> Output {
    let templates = dir.join("own");
    fs_err::create_dir_all(templates.join("include/own")).expect("folder");
    fs_err::write(templates.join("k.toml"), TOML).expect("written");
    fs_err::write(templates.join("k.cu.tera"), source).expect("written");
    fs_err::write(templates.join("include/own/h.cuh"), header).expect("written");
    jitc(dir)
        .args(["warm", "k", "--templates", "own", "--cache-dir", "cache"])
        .args(flags)
        .output()
        .expect("ran")
}

const THREE_ERRORS: &str = r#"#include <own/h.cuh>
extern "C" __global__ void k(float* p) {
  int unused;
  undefined_thing(3);
  p[0] = twice(also_bad);
}
"#;

#[test]
fn all_of_the_compilers_words_reach_the_user_in_the_terms_of_the_templates() {
    let dir = tempfile::tempdir().expect("tempdir");
    let header = "__device__ float twice(float x) { return x + in_header; }\n";
    let output = warm(dir.path(), THREE_ERRORS, header, &["--arch", "sm_90a", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    let (first, rest) = said.split_once('\n').expect("a line, then the log");
    let summary = "failed: k defaults sm_90a: own/include/own/h.cuh:1: error: identifier \"in_header\"";
    assert!(first.starts_with(summary), "{first}");
    for words in [
        "\n  own/k.cu.tera(4): error: identifier \"undefined_thing\" is undefined",
        "\n  own/k.cu.tera(5): error: identifier \"also_bad\" is undefined",
        "\n      undefined_thing(3);\n      ^\n",
        "\n  own/k.cu.tera(3): warning #177-D: variable \"unused\"",
    ] {
        assert!(rest.contains(words), "{words:?} in {said}");
    }

    let failure = events(&output).into_iter().find(|e| e["event"] == "failure");
    let failure = failure.expect("a failure");
    let log = failure["log"].as_str().expect("a log");
    let indented = |line: &str| match line.trim_end() {
        "" => String::new(),
        line => format!("  {line}"),
    };
    let as_shown: Vec<String> = log.trim_matches('\n').lines().map(indented).collect();
    assert!(rest.contains(&as_shown.join("\n")), "whole: {said}");

    let kept = PathBuf::from(first.rsplit_once("; source and log: ").expect("a place").1);
    let kept = dir.path().join(kept);
    assert_eq!(fs_err::read_to_string(kept.join("log.txt")).expect("log"), log);
    let source = fs_err::read_to_string(kept.join("source.cu")).expect("source");
    assert_eq!(source, THREE_ERRORS, "line by line the template's own");
}

#[test]
fn a_header_that_is_not_below_include_is_named_with_its_place_and_the_remedy() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::create_dir(dir.path().join("own")).expect("folder");
    fs_err::write(dir.path().join("own/v.h"), "int x;\n").expect("written");
    let source = |include: &str| format!("\n#include {include}\nextern \"C\" __global__ void k() {{}}\n");
    for (include, says) in [
        ("\"v.h\"", "move own/v.h to include/ (own/k.cu.tera:2)"),
        (
            "<cuda_fp16.h>",
            "a header of the CUDA toolkit, of which NVRTC has none",
        ),
        ("<vector>", "a header of the C++ library, of which NVRTC has none"),
    ] {
        let output = warm(dir.path(), &source(include), "", &["--arch", "sm_90a"]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        let hints: Vec<&str> = said.lines().filter(|line| line.starts_with("hint: ")).collect();
        assert_eq!(hints.len(), 1, "{said}");
        assert!(hints[0].contains(says), "{}", hints[0]);
    }
}

#[test]
fn variants_that_fail_alike_show_their_log_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let source = "extern \"C\" __global__ void k() { undefined_thing(3); }\n";
    let output = warm(dir.path(), source, "", &["--arch", "sm_80,sm_90a"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let logs = said.matches("error detected in the compilation").count();
    let alike = said.matches("the compiler says the same as above").count();
    assert_eq!((logs, alike), (1, 1), "{said}");
}
