//! `jitc cache`, `jitc why`, and the contract of `jitc warm`.

use std::collections::BTreeSet;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;

use crate::cli::{events, jitc};

/// What a command printed, a JSON object a line; it must end with this code.
fn json(cache: &Path, args: &[&str], code: i32) -> Vec<Value> {
    let output = jitc(cache).args(args).arg("--json").output().expect("ran");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {words}");
    events(&output)
}

fn keys(events: &[Value]) -> Vec<String> {
    let keys = events.iter().filter_map(|e| e["key"].as_str());
    keys.map(str::to_owned).collect()
}

const TWO: [&str; 4] = ["warm", "stream", "--arch", "sm_80,sm_90a"];

#[test]
fn entries_are_listed_filtered_sorted_and_shown() {
    let dir = tempfile::tempdir().expect("tempdir");
    json(dir.path(), &TWO, 0);
    let all = keys(&json(dir.path(), &["cache", "ls"], 0));
    assert_eq!(all.len(), 2);
    assert!(all.is_sorted());
    for (filter, count) in [
        (&["--arch", "sm_9*"][..], 1),
        (&["--family", "str*"], 2),
        (&["--family", "wo_gemv"], 0),
        (&["--set", "unroll=*"], 2),
        (&["--set", "unroll=9"], 0),
        (&["--tier", "user"], 2),
        (&["--tier", "read-only*"], 0),
        (&["--newer-than", "1h"], 2),
        (&["--older-than", "1h"], 0),
        (&["--min-size", "1KiB"], 2),
        (&["--max-size", "1KiB"], 0),
        (&["--limit", "1"], 1),
    ] {
        let listed = json(dir.path(), &[&["cache", "ls"], filter].concat(), 0);
        assert_eq!(listed.len(), count, "{filter:?}");
    }
    let none = jitc(dir.path())
        .args(["cache", "ls", "--family", "strem"])
        .assert();
    none.success().stderr(contains(
        "none of 2 entries is meant; there are: stream sm_80, stream sm_90a",
    ));
    let empty = tempfile::tempdir().expect("tempdir");
    let none = jitc(empty.path()).args(["cache", "ls"]).assert();
    none.success().stderr(contains("no entries; `jitc cache dir`"));
    let sorted = json(dir.path(), &["cache", "ls", "--sort", "arch", "--reverse"], 0);
    assert_eq!(sorted[0]["arch"], "sm_90a");
    let key = sorted[0]["key"].as_str().expect("key");
    let shown = json(dir.path(), &["cache", "show", &key[..10]], 0);
    assert_eq!(shown[0]["manifest"]["key"], key);
    assert_eq!(shown[0]["tier"], "user");
    for name in ["created_unix_ms", "compile_us"] {
        assert!(shown[0]["notes"][name].is_u64(), "{name}");
    }
    for (thing, words) in [
        ("--source", "#include"),
        ("--headers", "#pragma once"),
        ("--log", "registers"),
        ("--preimage", "nvrtc_builtins"),
        ("--ptx", ".target sm_90a"),
    ] {
        let show = jitc(dir.path())
            .args(["cache", "show", key, thing])
            .assert()
            .success();
        show.stdout(contains(words));
    }
    // Plain numbers, since this is no terminal.
    let size = sorted[0]["bytes"].to_string();
    let table = jitc(dir.path()).args(["cache", "ls"]).assert().success();
    table.stdout(contains(size));
    // Without the vendor's tools there is a hint.
    let show = jitc(dir.path())
        .args(["cache", "show", key, "--sass"])
        .env("PATH", "")
        .assert();
    show.code(2).stderr(contains("nvdisasm"));
    let stats = json(dir.path(), &["cache", "stats"], 0);
    assert_eq!(stats[0]["totals"]["entries"], 2);
    let diff = json(dir.path(), &["cache", "diff", &all[0], &all[1]], 1);
    let differences = diff[0]["differences"].as_array().expect("a list");
    let components: Vec<_> = differences.iter().map(|d| &d["component"]).collect();
    assert!(components.contains(&&Value::from("arch")), "{components:?}");
    json(dir.path(), &["cache", "diff", &all[0], &all[0]], 0);
}

#[test]
fn entries_are_compiled_again_and_compared() {
    let dir = tempfile::tempdir().expect("tempdir");
    json(dir.path(), &TWO, 0);
    let said = json(dir.path(), &["cache", "verify", "--rebuild", "all"], 0);
    let summary = said.last().expect("a summary");
    assert_eq!(
        (&summary["alike"], &summary["differ"], &summary["skipped"]),
        (&2.into(), &0.into(), &0.into())
    );
    let one = json(dir.path(), &["cache", "verify", "--rebuild", "1"], 0);
    assert_eq!(one.last().expect("a summary")["alike"], 1);
    // An honest key and a consistent entry over the machine code of another.
    let store = jitc::engine::cache::Store::new(dir.path());
    let keys = store.keys().expect("keys");
    let whole = |n: usize| match store.whole(&keys[n]) {
        jitc::engine::cache::Load::Found(whole) => whole,
        other => panic!("{other:?}"),
    };
    let (own, other) = (whole(0), whole(1));
    let mut manifest = own.entry().manifest().clone();
    manifest.code = other.entry().manifest().code.clone();
    let mut parts = own.parts();
    (parts.manifest, parts.code) = (manifest.to_bytes(), other.entry().code().to_vec());
    let mut headers = own.texts().headers.iter();
    let text = |_: &_| Ok(headers.next().expect("a header").1.clone());
    let forged = jitc::engine::cache::Whole::verify(&keys[0], parts, text).expect("consistent");
    store.expel(&keys[0]).expect("expelled");
    store.publish(&forged).expect("published");
    json(dir.path(), &["cache", "verify"], 0);
    let said = json(dir.path(), &["cache", "verify", "--rebuild", "all"], 1);
    let differs = said
        .iter()
        .find(|line| line["answer"] == "differs")
        .expect("one differs");
    assert_eq!(differs["key"], keys[0].to_string());
    let refused = jitc(dir.path())
        .args(["cache", "verify", "--rebuild", "0"])
        .assert();
    refused
        .code(2)
        .stderr(contains("expected a number from 1, or all"));
}

#[test]
fn stats_show_what_was_counted_since_when_and_the_limits() {
    let dir = tempfile::tempdir().expect("tempdir");
    json(dir.path(), &TWO, 0);
    json(dir.path(), &TWO, 0);
    let stats = json(dir.path(), &["cache", "stats"], 0);
    assert_eq!(stats[0]["limits"]["entries"], 50_000);
    assert_eq!(stats[0]["limits"]["bytes"], 4_u64 << 30);
    let usage = stats.iter().find(|line| line["event"] == "usage").expect("usage");
    let usage = &usage["usage"];
    assert_eq!(
        (&usage["hits"], &usage["misses"]),
        (&2.into(), &2.into()),
        "{usage}"
    );
    assert_eq!(usage["built"], 2);
    // What two compiles took is what two hits on them saved.
    assert!(
        usage["saved_us"].as_u64() > Some(0) && usage["saved_us"] == usage["compile_us"],
        "{usage}"
    );
    assert!(
        usage["since_unix_ms"].as_u64() > Some(1_700_000_000_000),
        "{usage}"
    );
    let shown = jitc(dir.path()).args(["cache", "stats"]).assert().success();
    shown.stdout(contains("2 hits (0 more in memory), 2 misses, 2 compiles"));
    jitc(dir.path())
        .args(["cache", "stats", "--zero"])
        .assert()
        .success();
    let stats = json(dir.path(), &["cache", "stats"], 0);
    let usage = stats.iter().find(|line| line["event"] == "usage").expect("usage");
    assert_eq!(
        (&usage["usage"]["hits"], &usage["usage"]["built"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn an_exported_bundle_is_imported_elsewhere_and_a_bad_one_changes_nothing() {
    let (dir, other) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    json(dir.path(), &TWO, 0);
    let bundle = dir.path().join("two.jitc");
    let bundle = bundle.to_str().expect("a path");
    let exported = json(dir.path(), &["cache", "export", "--out", bundle], 0);
    assert_eq!(exported[0]["exported"]["entries"], 2);
    let bytes = fs_err::read(bundle).expect("read");
    json(dir.path(), &["cache", "embed", "--out", bundle], 0);
    assert_eq!(
        fs_err::read(bundle).expect("read"),
        bytes,
        "equal entries, equal bytes"
    );
    let imported = json(other.path(), &["cache", "import", bundle], 0);
    assert_eq!(imported[0]["added"], 2);
    let warmed = json(other.path(), &TWO, 0);
    assert_eq!(warmed[2]["hit"], 2);
    json(other.path(), &["cache", "clean"], 0);
    fs_err::write(bundle, &bytes[..bytes.len() - 9]).expect("write");
    let refused = jitc(other.path()).args(["cache", "import", bundle]).assert();
    refused.code(2).stderr(contains("nothing was changed"));
    assert!(json(other.path(), &["cache", "ls"], 0).is_empty());
    // A filter that nothing fits is a negative answer.
    json(
        dir.path(),
        &["cache", "export", "--out", bundle, "--arch", "sm_100a"],
        1,
    );
}

#[test]
fn prune_says_what_it_would_do_and_then_does_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    json(dir.path(), &TWO, 0);
    let prune = ["cache", "prune", "--max-entries", "1", "--dry-run"];
    let would = json(dir.path(), &prune, 0);
    assert_eq!(would[0]["pruned"]["keys"].as_array().expect("keys").len(), 1);
    assert_eq!(json(dir.path(), &["cache", "ls"], 0).len(), 2);
    let pruned = json(dir.path(), &prune[..4], 0);
    assert_eq!(pruned[0]["pruned"]["keys"], would[0]["pruned"]["keys"]);
    assert_eq!(json(dir.path(), &["cache", "ls"], 0).len(), 1);
    json(dir.path(), &["cache", "prune", "--max-size", "0"], 0);
    assert!(json(dir.path(), &["cache", "ls"], 0).is_empty());
}

#[test]
fn verify_lists_what_is_bad_and_repair_puts_it_right() {
    let dir = tempfile::tempdir().expect("tempdir");
    let key = keys(&json(dir.path(), &["warm", "stream", "--arch", "sm_80"], 0)).remove(0);
    let entry = dir.path().join("v2").join(&key[..2]).join(format!("{key}.jitc"));
    fs_err::write(&entry, b"short").expect("write");
    let bad = json(dir.path(), &["cache", "verify"], 1);
    assert_eq!(bad[0]["event"], "bad");
    assert_eq!(bad[0]["key"], key.as_str());
    let repaired = json(dir.path(), &["cache", "verify", "--repair"], 0);
    assert_eq!(repaired[0]["repaired"], true);
    assert!(!entry.exists());
    json(dir.path(), &["cache", "verify"], 0);
}

#[test]
fn why_names_what_differs_from_the_nearest_entry_and_the_tier_of_a_hit() {
    let (dir, other) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    let asked = ["why", "stream", "--arch", "sm_80"];
    assert_eq!(json(dir.path(), &asked, 1)[0]["nearest"], Value::Null);
    json(dir.path(), &["warm", "stream", "--arch", "sm_80"], 0);
    assert_eq!(json(dir.path(), &asked, 0)[0]["tier"], "user");
    let miss = json(
        dir.path(),
        &["why", "stream", "--arch", "sm_80", "--unroll", "8"],
        1,
    );
    let first = &miss[0]["nearest"]["differences"][0];
    assert_eq!(
        (&first["component"], &first["name"]),
        (&"constant".into(), &"unroll".into())
    );
    assert_eq!((&first["here"], &first["there"]), (&"8u".into(), &"4u".into()));
    // The same explanation is in the log of a miss, at debug level.
    let logged = jitc(dir.path())
        .args(["warm", "stream", "--arch", "sm_80", "--unroll", "8", "-vvv"])
        .assert();
    let words = "constant unroll: 8u here, 4u there";
    logged
        .success()
        .stderr(contains("why it missed").and(contains(words)));
    // A read-only folder is a tier, by flag and by variable; writes go elsewhere.
    let ro = dir.path().to_str().expect("a path");
    let hit = json(other.path(), &[&asked[..], &["--cache-ro", ro]].concat(), 0);
    assert_eq!(hit[0]["tier"], format!("read-only {ro}"));
    let output = jitc(other.path())
        .args(TWO)
        .arg("--json")
        .env("JITC_CACHE_RO", ro)
        .output();
    let warmed = events(&output.expect("ran"));
    assert_eq!((&warmed[2]["hit"], &warmed[2]["built"]), (&1.into(), &1.into()));
    assert_eq!(json(other.path(), &["cache", "ls"], 0).len(), 1);
}

#[test]
fn a_check_compiles_nothing_and_shards_are_disjoint_and_complete() {
    let dir = tempfile::tempdir().expect("tempdir");
    let matrix = dir.path().join("matrix.toml");
    let text = "[[warm]]\nfamilies = 'strea?'\narchs = ['sm_80', 'sm_90a']\n[warm.constants]\nunroll = '*'\n";
    fs_err::write(&matrix, text).expect("write");
    let check = ["warm", "--check", "--matrix", matrix.to_str().expect("a path")];
    let gaps = json(dir.path(), &check, 1);
    let all: BTreeSet<_> = keys(&gaps).into_iter().collect();
    assert_eq!(all.len(), 8);
    assert!(!dir.path().join("v2").exists(), "a check writes nothing");
    let mut dealt = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        dealt.extend(keys(&json(
            dir.path(),
            &[&check[..], &["--shard", shard]].concat(),
            1,
        )));
    }
    assert_eq!(dealt.len(), 8);
    assert_eq!(dealt.into_iter().collect::<BTreeSet<_>>(), all);
    jitc(dir.path()).args(["warm", "--shard", "4/3"]).assert().code(2);
    json(dir.path(), &["warm", "stream", "--arch", "sm_80"], 0);
    json(dir.path(), &["warm", "stream", "--arch", "sm_80", "--check"], 0);
    assert_eq!(json(dir.path(), &check, 1).last().expect("summary")["missing"], 7);
}

#[test]
fn a_receipt_is_written_held_to_and_enforced() {
    let dir = tempfile::tempdir().expect("tempdir");
    let receipt = dir.path().join("receipt.json");
    let receipt = receipt.to_str().expect("a path");
    let warm = ["warm", "stream", "--arch", "sm_80"];
    let warmed = json(dir.path(), &[&warm[..], &["--receipt", receipt]].concat(), 0);
    let key = warmed[0]["key"].as_str().expect("key");
    let text = fs_err::read_to_string(receipt).expect("receipt");
    assert!(text.contains(key) && text.contains("\"code\""), "{text}");
    json(dir.path(), &["cache", "verify", "--against", receipt], 0);
    let ask = |args: &[&str]| {
        let mut command = jitc(dir.path());
        command.args(args).env("JITC_REQUIRE_RECEIPT", receipt);
        command.assert()
    };
    ask(&warm).success();
    ask(&["warm", "stream", "--arch", "sm_90a"])
        .code(2)
        .stderr(contains("is not in the receipt"));
    // The same kernel built again is the same entry: nothing of it says when, or how long.
    json(dir.path(), &["cache", "clean"], 0);
    json(dir.path(), &warm, 0);
    json(dir.path(), &["cache", "verify", "--against", receipt], 0);
    // Another entry than the one that is listed is refused.
    let listed = fs_err::read_to_string(receipt).expect("receipt");
    let at = listed.find("\"code\": \"").expect("a digest") + "\"code\": \"".len();
    let mut other = listed.clone();
    other.replace_range(at..at + 64, &"0".repeat(64));
    fs_err::write(receipt, other).expect("write");
    let drift = json(dir.path(), &["cache", "verify", "--against", receipt], 1);
    assert_eq!(drift[0]["file"], "code");
    ask(&warm).code(2).stderr(contains(format!("code of {key}")));
}

#[test]
fn what_had_to_be_compiled_is_recorded_and_warmed_from_the_record() {
    let (dir, other) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    let trace = dir.path().join("trace.jsonl");
    jitc(dir.path())
        .args(TWO)
        .env("JITC_TRACE", &trace)
        .assert()
        .success();
    let trace = trace.to_str().expect("a path");
    let warmed = json(other.path(), &["warm", "--from-trace", trace], 0);
    assert_eq!(warmed[2]["built"], 2);
    let again = json(other.path(), &TWO, 0);
    assert_eq!(again[2]["hit"], 2);
    let forbidden = jitc(dir.path())
        .args(["warm", "stream", "--arch", "sm_86"])
        .env("JITC_MISS", "forbid")
        .assert();
    forbidden
        .code(2)
        .stderr(contains("`jitc warm stream --arch sm_86` would warm it"));
}
