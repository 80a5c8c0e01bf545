//! Standard input and output in the place of files, and a bundle or an entry by itself.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::cli::{events, jitc, succeeded};

fn run(cache: &Path, words: &[&str]) -> Output {
    jitc(cache).args(words).output().expect("ran")
}

fn fed(cache: &Path, words: &[&str], input: Vec<u8>) -> Output {
    jitc(cache).args(words).write_stdin(input).output().expect("ran")
}

/// A cache with two variants of `stream`, and their keys.
fn two(cache: &Path) -> Vec<String> {
    succeeded(&run(cache, &["warm", "stream", "--arch", "sm_80,sm_90a", "-q"]));
    keys(&run(cache, &["cache", "ls", "--json"]))
}

fn keys(output: &Output) -> Vec<String> {
    succeeded(output);
    let key = |event: &Value| event["key"].as_str().expect("key").to_owned();
    events(output).iter().map(key).collect()
}

#[test]
fn a_bundle_goes_through_pipes_and_is_listed_without_being_taken_in() {
    let (here, there) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    let all = two(here.path());
    let exported = run(here.path(), &["cache", "export", "--out", "-"]);
    succeeded(&exported);
    assert!(
        exported.stdout.starts_with(b"JITCBNDL"),
        "the bundle and nothing else"
    );
    assert!(String::from_utf8_lossy(&exported.stderr).contains("2 entries in"));

    let listed = fed(
        there.path(),
        &["cache", "ls", "--bundle", "-", "--json"],
        exported.stdout.clone(),
    );
    assert_eq!(keys(&listed), all);
    assert_eq!(events(&listed)[0]["created_unix_ms"], 0, "a bundle does not say");
    let one = ["cache", "ls", "--bundle", "-", "--json", "--arch", "sm_9*"];
    assert_eq!(keys(&fed(there.path(), &one, exported.stdout.clone())).len(), 1);
    assert!(
        keys(&run(there.path(), &["cache", "ls", "--json"])).is_empty(),
        "nothing was taken in"
    );

    let mut damaged = exported.stdout.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let refused = fed(there.path(), &["cache", "ls", "--bundle", "-"], damaged);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("error: -: the bundle"));

    succeeded(&fed(there.path(), &["cache", "import", "-"], exported.stdout));
    assert_eq!(keys(&run(there.path(), &["cache", "ls", "--json"])), all);
}

#[test]
fn a_matrix_and_a_trace_are_read_from_standard_input() {
    let dir = tempfile::tempdir().expect("tempdir");
    let matrix = b"[[warm]]\nfamilies = [\"stream\"]\narchs = [\"sm_80\", \"sm_90a\"]\n".to_vec();
    let checked = fed(
        dir.path(),
        &["warm", "--matrix", "-", "--check", "--json"],
        matrix,
    );
    assert_eq!(events(&checked).last().expect("a summary")["missing"], 2);
    let wrong = fed(
        dir.path(),
        &["warm", "--matrix", "-"],
        b"[[warm]]\nfamilys = []\n".to_vec(),
    );
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("line 2"));

    let trace = dir.path().join("trace");
    let warm = jitc(dir.path())
        .args(["warm", "stream", "--arch", "sm_80", "-q"])
        .env("JITC_TRACE", &trace)
        .output();
    succeeded(&warm.expect("ran"));
    let lines = fs_err::read(&trace).expect("trace");
    let hits = fed(dir.path(), &["warm", "--from-trace", "-", "--json"], lines);
    succeeded(&hits);
    assert_eq!(events(&hits).last().expect("a summary")["hit"], 1);
}

#[test]
fn where_all_fail_no_table_is_printed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let forbidden = jitc(dir.path())
        .args(["warm", "stream", "--arch", "sm_80"])
        .env("JITC_MISS", "forbid")
        .output();
    let forbidden = forbidden.expect("ran");
    assert_eq!(forbidden.status.code(), Some(2));
    let text = String::from_utf8_lossy(&forbidden.stdout);
    assert!(!text.contains("family") && text.contains("1 failed"), "{text}");
}

#[test]
fn one_entry_is_removed_by_its_first_digits() {
    let dir = tempfile::tempdir().expect("tempdir");
    let all = two(dir.path());
    let removed = run(dir.path(), &["cache", "rm", &all[0][..12]]);
    succeeded(&removed);
    assert_eq!(
        String::from_utf8_lossy(&removed.stdout),
        format!("{} removed\n", all[0])
    );
    assert_eq!(keys(&run(dir.path(), &["cache", "ls", "--json"])), all[1..]);
    assert_eq!(
        run(dir.path(), &["cache", "rm", &all[0]]).status.code(),
        Some(1),
        "it is gone"
    );
    assert_eq!(run(dir.path(), &["cache", "rm", "xyz"]).status.code(), Some(2));
}

#[test]
fn a_diff_says_what_two_entries_measure_and_compares_their_texts() {
    let dir = tempfile::tempdir().expect("tempdir");
    succeeded(&run(
        dir.path(),
        &["warm", "stream", "--arch", "sm_90a", "--unroll", "1,4", "-q"],
    ));
    let all = keys(&run(dir.path(), &["cache", "ls", "--json"]));
    let output = run(dir.path(), &["cache", "diff", &all[0], &all[1], "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let measures = &events(&output)[0]["measures"];
    let measures = measures.as_array().expect("a list");
    for what in [
        "registers",
        "spill_bytes",
        "stack_bytes",
        "shared_bytes",
        "code_bytes",
        "compile_us",
    ] {
        let one = measures.iter().find(|m| m["what"] == what).expect(what);
        assert!(one["here"].is_u64() && one["there"].is_u64(), "{one}");
    }
    let shown = run(dir.path(), &["cache", "diff", &all[0], &all[1], "--source"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("--- here\n+++ there\n@@ "), "{text}");
    assert!(text.contains("code_bytes"), "{text}");
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_left_is_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let Ok(full) = fs_err::OpenOptions::new().write(true).open("/dev/full") else {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skipped: there is no /dev/full");
        return;
    };
    let program = assert_cmd::cargo::cargo_bin("jitc");
    let mut command = std::process::Command::new(program);
    let command = command
        .args(["families", "--cache-dir"])
        .arg(dir.path())
        .stderr(Stdio::piped());
    let (full, _) = full.into_parts();
    let output = command
        .stdout(full)
        .spawn()
        .expect("ran")
        .wait_with_output()
        .expect("ended");
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.contains("error: standard output: ") && words.contains("No space left"),
        "{words}"
    );

    let mut child = command.stdout(Stdio::piped()).spawn().expect("ran");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
