//! docs/COMMANDS.md is what `--help` says, and what else is made from the same description.

use std::path::Path;

use crate::command::{jitc, succeeded};
use crate::published::verbs_of;

const HEAD: &str = "# Command line

Made from `--help`; do not edit. After a change: `just commands`. Constants and what measuring a
family takes are left out: `jitc families` lists the ones, and the help of a verb with the name
of a family the others.

";

fn help_of(verb: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path()).args(verb).arg("--help").output().expect("ran");
    succeeded(&output);
    String::from_utf8(output.stdout).expect("text")
}

/// The sections of a help: what stands between blank lines.
fn sections(help: &str) -> impl Iterator<Item = &str> {
    help.trim_end().split("\n\n")
}

/// The help of a verb and of every verb below it, as the page has it.
fn put(verb: &[&str], page: &mut String) {
    let help = help_of(verb);
    // What measuring takes changes with every family.
    let measures = ["verify", "bench", "tune"].contains(verb.first().unwrap_or(&""));
    let starts =
        |section: &str, headings: &[&str]| headings.iter().any(|heading| section.starts_with(heading));
    let is_shown = |section: &&str| {
        let of_families = measures && starts(section, &["Arguments:", "Options:"]);
        !of_families && !starts(section, &["Global options:", "Constants"])
    };
    let shown: Vec<&str> = sections(&help).filter(is_shown).collect();
    let name = ["jitc"].iter().chain(verb).copied().collect::<Vec<_>>().join(" ");
    let level = "#".repeat((verb.len() + 1).max(2));
    page.push_str(
        &[
            &level,
            " ",
            &name,
            "\n\n```text\n",
            &shown.join("\n\n"),
            "\n```\n\n",
        ]
        .concat(),
    );
    for below in verbs_of(&help) {
        put(&[verb, &[below]].concat(), page);
    }
}

#[test]
fn the_page_of_commands_is_what_help_says() {
    let mut page = HEAD.to_owned();
    put(&[], &mut page);
    let key = help_of(&["key"]);
    let global = sections(&key).find(|section| section.starts_with("Global options:"));
    page.push_str("## Global options\n\nEvery verb takes them, before it or after it.\n\n```text\n");
    page.push_str(global.expect("global options"));
    page.push_str("\n```\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/COMMANDS.md");
    if std::env::vars_os().any(|(name, value)| name == "JITC_BLESS" && value == "1") {
        fs_err::write(&path, &page).expect("written");
    }
    let found = fs_err::read_to_string(&path).expect("docs/COMMANDS.md");
    let differs = page
        .lines()
        .zip(found.lines())
        .find(|(made, found)| made != found);
    assert!(
        page == found,
        "docs/COMMANDS.md is out of date (`just commands` makes it anew); first difference: {differs:?}"
    );
}

#[test]
fn every_verb_is_listed_once_with_what_it_does_and_says_what_its_exit_codes_mean() {
    let help = help_of(&[]);
    let verbs = verbs_of(&help);
    assert!(verbs.len() >= 20, "{verbs:?}");
    for verb in &verbs {
        let listed = help
            .lines()
            .filter(|line| line.split_whitespace().next() == Some(verb));
        assert_eq!(listed.count(), 1, "{verb}");
        let own = help_of(&[verb]);
        assert!(own.contains("Exit codes: 0 done"), "{verb}");
        assert!(
            own.contains("--cache-dir <PATH>") && own.contains("[env: JITC_CACHE_DIR]"),
            "{verb}"
        );
    }
}

#[test]
fn what_every_verb_takes_may_stand_before_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let cache = dir.path().join("warm");
    let said = |words: &[&str]| {
        let output = jitc(dir.path()).args(words).output().expect("ran");
        succeeded(&output);
        String::from_utf8(output.stdout).expect("text")
    };
    let folder = cache.to_str().expect("text");
    let after = said(&["cache", "dir", "--cache-dir", folder]);
    // A value may be the name of a verb.
    assert_eq!(said(&["--cache-dir", folder, "-q", "cache", "dir"]), after);
    assert_eq!(after.trim(), folder);
    assert_eq!(
        said(&["--json", "key", "axpy", "--arch", "sm_90a"]),
        said(&["key", "axpy", "--json", "--arch", "sm_90a"])
    );
    let slip = jitc(dir.path())
        .args(["--jsn", "key", "axpy"])
        .output()
        .expect("ran");
    assert_eq!(slip.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&slip.stderr).contains("--jsn"));
}

#[test]
fn completions_know_families_presets_values_and_gpus() {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path())
        .args(["completions", "bash"])
        .output()
        .expect("ran");
    succeeded(&output);
    let script = String::from_utf8(output.stdout).expect("text");
    for word in [
        "wo_gemv",
        "decode_layer",
        "a100",
        "gb10",
        "sm_121a",
        "mul_add",
        "packed64",
    ] {
        assert!(script.contains(word), "{word}");
    }
    // They are for the script alone: a slip is still said in one line of the program's own.
    let slip = jitc(dir.path()).args(["key", "wo_gemm"]).output().expect("ran");
    let text = String::from_utf8_lossy(&slip.stderr).into_owned();
    assert!(
        text.contains("wo_gemv") && !text.contains("[possible values"),
        "{text}"
    );
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = dir.path().join("man");
    let output = jitc(dir.path())
        .args(["man", "--out"])
        .arg(&out)
        .output()
        .expect("ran");
    succeeded(&output);
    for (page, word) in [
        ("jitc.1", "verified disk cache"),
        ("jitc-warm.1", "matrix"),
        ("jitc-cache-ls.1", "family"),
    ] {
        let text = fs_err::read_to_string(out.join(page)).expect(page);
        assert!(text.contains(word), "{page}");
    }
}

#[test]
fn the_version_is_one_line_and_verbose_says_what_a_report_needs() {
    let dir = tempfile::tempdir().expect("tempdir");
    let said = |words: &[&str]| {
        let output = jitc(dir.path()).arg("version").args(words).output().expect("ran");
        succeeded(&output);
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(said(&[]), format!("jitc {}\n", env!("CARGO_PKG_VERSION")));
    let verbose: serde_json::Value = serde_json::from_str(&said(&["--verbose", "--json"])).expect("JSON");
    for name in [
        "jitc", "build", "key", "entry", "pinned", "compiler", "driver", "host",
    ] {
        assert!(
            verbose[name].as_str().is_some_and(|text| !text.is_empty()),
            "{name}: {verbose}"
        );
    }
}
