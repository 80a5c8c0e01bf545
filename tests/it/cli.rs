//! The program as a person uses it.

use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

pub(crate) use crate::command::{events, jitc, succeeded};

fn keys(cache: &Path, args: &[&str]) -> Vec<String> {
    let output = jitc(cache)
        .args(["key", "--json"])
        .args(args)
        .output()
        .expect("ran");
    succeeded(&output);
    String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            value["key"].as_str().expect("key").to_owned()
        })
        .collect()
}

#[test]
fn a_second_warm_builds_nothing_and_no_variant_spills() {
    let dir = tempfile::tempdir().expect("tempdir");
    let args = [
        "warm",
        "wo_gemv",
        "--wo-split",
        "1,8",
        "--arch",
        "sm_80,sm_90a",
        "--json",
    ];
    let first = jitc(dir.path()).args(args).output().expect("ran");
    succeeded(&first);
    let first = events(&first);
    assert_eq!(first.len(), 5);
    for event in &first[..4] {
        assert_eq!(event["provenance"], "built");
        assert_eq!(event["spill_bytes"], 0, "{event}");
        assert!(event["cubin_bytes"].as_u64().expect("bytes") > 0);
    }
    assert_eq!(first[4]["built"], 4);
    let second = events(&jitc(dir.path()).args(args).output().expect("ran"));
    assert_eq!(second[4]["hit"], 4);
    assert_eq!(second[4]["built"], 0);
    let keys = |events: &[serde_json::Value]| {
        let mut keys: Vec<_> = events[..4].iter().map(|e| e["key"].to_string()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&first), keys(&second));
}

#[test]
fn every_constant_is_settable_by_flag_variable_and_file_to_the_same_key() {
    let dir = tempfile::tempdir().expect("tempdir");
    let arch = ["wo_gemv", "--arch", "sm_90a"];
    let by_flag = keys(dir.path(), &[&arch[..], &["--wo-split", "8"]].concat());
    let by_set = keys(dir.path(), &[&arch[..], &["--set", "wo_split=8"]].concat());
    assert_eq!(by_flag, by_set);
    let file = dir.path().join("ENV");
    fs_err::write(&file, "CUTE_WO_SPLIT=8\nUNDECLARED=1\n").expect("write");
    let by_file = keys(dir.path(), &[&arch[..], &["--env-file", "ENV"]].concat());
    assert_eq!(by_flag, by_file);
    assert_ne!(by_flag, keys(dir.path(), &arch));
}

#[test]
fn the_key_does_not_depend_on_the_folder_or_the_cache() {
    let (a, b) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    let args = ["wo_gemv", "--wo-split", "4"];
    assert_eq!(keys(a.path(), &args), keys(b.path(), &args));
}

#[test]
fn bad_input_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let refused = |args: &[&str], words: &str| {
        jitc(dir.path())
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(words));
    };
    refused(
        &["warm", "wo_gemv", "--wo-split", "3"],
        "wo_gemv: wo_split (flag --wo-split): `3` is not legal: expected one of 1, 2, 4, 8",
    );
    refused(
        &["warm", "--set", "wo_splt=8"],
        "unknown constant `wo_splt` (flag --set) (did you mean `wo_split`?)",
    );
    refused(&["warm", "--set", "wo_split"], "expected NAME=VALUE");
    refused(
        &["warm", "wo_gem"],
        "unknown family `wo_gem` (did you mean `wo_gemv`?)",
    );
    refused(
        &["warm", "wo_gemv", "--arch", "sm_75"],
        "wo_gemv: sm_75 is too old: expected sm_80 or newer",
    );
    refused(&["warm", "--arch", "sm_9"], "`sm_9` is not a GPU architecture");
    refused(
        &["warm", "--env-file", "missing"],
        "environment file (flag --env-file): ",
    );
    refused(
        &["warm", "--jobs", "0"],
        "jobs = `0` (flag --jobs): expected a whole number from 1",
    );
    refused(&["warm", "--nvrtc", "/nonexistent"], "no NVRTC in /nonexistent");
    jitc(dir.path())
        .args(["key", "wo_gemv"])
        .env("CUTE_WO_SPLIT", "5")
        .assert()
        .code(2)
        .stderr(contains(
            "wo_split (environment variable CUTE_WO_SPLIT): `5` is not legal",
        ));
}

#[test]
fn a_family_of_ones_own_compiles_without_touching_rust() {
    let dir = tempfile::tempdir().expect("tempdir");
    let family = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/family");
    let output = jitc(dir.path())
        .args([
            "warm",
            "scale",
            "--arch",
            "sm_90a",
            "--factor",
            "3.5",
            "--json",
            "--templates",
        ])
        .arg(&family)
        .output()
        .expect("ran");
    let events = events(&output);
    assert_eq!(
        events[0]["provenance"],
        "built",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(events[0]["constants"]["factor"], 3.5);
}

#[test]
fn the_example_on_the_families_page_is_the_one_that_is_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs_err::read_to_string(root.join("docs/FAMILIES.md")).expect("page");
    let toml = fs_err::read_to_string(root.join("examples/family/scale.toml")).expect("family");
    assert!(page.contains(toml.trim()));
}

#[test]
fn a_compile_error_names_the_header_and_its_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let family = dir.path().join("family");
    fs_err::create_dir_all(family.join("include")).expect("folder");
    let toml = "summary = 's'\n[constants.n]\ntype = 'u32'\nrange = [1, 9]\ndefault = 3\nhelp = 'h'\n[[entries]]\nname = 'bad'\ngrid = [1, 1, 1]\nblock = 32\n";
    fs_err::write(family.join("bad.toml"), toml).expect("write");
    let source = "#include <bad.cuh>\nextern \"C\" __global__ void bad() { broken<{{ n }}>(); }\n";
    fs_err::write(family.join("bad.cu.tera"), source).expect("write");
    let header = "#pragma once\ntemplate <unsigned n> __device__ void broken() {\n  missing = n;\n}\n";
    fs_err::write(family.join("include/bad.cuh"), header).expect("write");
    jitc(dir.path())
        .args(["warm", "bad", "--arch", "sm_90a", "--n", "4", "--templates"])
        .arg(&family)
        .assert()
        .code(2)
        .stderr(contains(format!(
            "{}:3: error: identifier \"missing\" is undefined",
            family.join("include/bad.cuh").display()
        )))
        .stderr(contains("n=4"))
        .stderr(contains("source and log: "));
}

#[test]
fn a_source_that_uses_an_undeclared_name_is_refused_before_rendering() {
    let dir = tempfile::tempdir().expect("tempdir");
    let family = dir.path().join("family");
    fs_err::create_dir_all(&family).expect("folder");
    let toml = "summary = 's'\n[constants.rows]\ntype = 'u32'\nrange = [1, 9]\ndefault = 3\nhelp = 'h'\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n";
    fs_err::write(family.join("k.toml"), toml).expect("write");
    fs_err::write(family.join("k.cu.tera"), "// one\nint x = {{ row }};\n").expect("write");
    jitc(dir.path())
        .args(["families", "--templates"])
        .arg(&family)
        .assert()
        .code(2)
        .stderr(contains(
            "k.cu.tera: line 2 uses `row`, which k.toml does not declare (did you mean `rows`?)",
        ));
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn offline_without_nvrtc_says_what_to_do_instead() {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path())
        .args(["warm", "wo_gemv", "--arch", "sm_90a", "--offline"])
        .env("XDG_DATA_HOME", dir.path())
        .env_remove("CUDA_HOME")
        .env_remove("CUDA_PATH")
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("VIRTUAL_ENV")
        .env_remove("CONDA_PREFIX")
        .output()
        .expect("ran");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    // A machine with CUDA on the loader's path has an NVRTC without fetching one.
    if output.status.success() {
        eprintln!("skipped: this machine has an NVRTC on the loader's path");
        return;
    }
    assert!(
        text.contains("no NVRTC found, and --offline (JITC_OFFLINE) forbids fetching it"),
        "{text}"
    );
}

#[test]
fn an_nvrtc_that_cannot_be_opened_is_named_and_not_taken_for_a_failed_fetch() {
    let dir = tempfile::tempdir().expect("tempdir");
    for name in ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"] {
        fs_err::write(dir.path().join(name), "no library").expect("write");
    }
    jitc(dir.path())
        .args(["warm", "stream", "--arch", "sm_90a", "--nvrtc"])
        .arg(dir.path())
        .assert()
        .code(2)
        .stderr(contains(format!(
            "the NVRTC at {} cannot be opened: ",
            dir.path().join("libnvrtc.so.13").display()
        )))
        .stderr(contains("pip download").not());
}

#[test]
fn cache_show_finds_an_entry_by_the_first_digits_of_its_key() {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path())
        .args(["warm", "stream", "--arch", "sm_80", "--json"])
        .output()
        .expect("ran");
    let key = events(&output)[0]["key"].as_str().expect("key").to_owned();
    jitc(dir.path())
        .args(["cache", "show", &key[..8]])
        .assert()
        .success()
        .stdout(contains(&key));
    jitc(dir.path())
        .args(["cache", "show", "0000000000"])
        .assert()
        .code(1);
    jitc(dir.path()).args(["cache", "verify"]).assert().success();
    jitc(dir.path())
        .args(["cache", "clean"])
        .assert()
        .success()
        .stdout(contains("1 entries removed"));
}

#[test]
fn a_warm_that_could_keep_nothing_has_failed_and_says_why() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::write(dir.path().join("file"), "").expect("written");
    let output = jitc(dir.path())
        .args(["warm", "stream", "--arch", "sm_90a", "--json"])
        .args(["--cache-dir", "file/cache"])
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(2));
    let summary = events(&output).pop().expect("a summary");
    assert_eq!((&summary["built"], &summary["not_kept"]), (&1.into(), &1.into()));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("error: 1 built and not kept: cannot create"),
        "{text}"
    );
}
