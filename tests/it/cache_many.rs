//! A folder of a hundred thousand entries.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use jitc::engine::build::artifact::Artifact;
use jitc::engine::cache::{Cache, Limits, Store, Whole};

use crate::cache_support::{artifact, fast_folder, subject};
use crate::command::{events, jitc, succeeded};

const MANY: u32 = 100_000;

/// Entries as a publish leaves them, without its trips to the disk.
fn fill(store: &Store) {
    let small = Artifact {
        cubin: vec![7; 64],
        ..artifact(0)
    };
    for n in 0..MANY {
        let subject = subject(n);
        let path = store.entry_path(subject.key());
        if let Some(shard) = path.parent().filter(|shard| !shard.exists()) {
            fs_err::create_dir_all(shard).expect("a folder");
        }
        let whole = Whole::new(&subject, &small);
        fs_err::write(path, whole.to_bytes()).expect("a file");
    }
}

/// In memory where there is room for them.
fn folder() -> tempfile::TempDir {
    let room = rustix::fs::statvfs("/dev/shm").map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    if room > 4 << 30 {
        return fast_folder();
    }
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_hundred_thousand_entries_are_found_listed_counted_and_pruned() {
    let folder = folder();
    let store = Store::new(folder.path().join("cache"));
    fill(&store);
    let cache = Cache::builder().user(store.root()).build();
    assert!(cache.lookup(subject(7).key()).is_some());
    assert!(cache.lookup(subject(MANY).key()).is_none());

    // The first lines come before the last shard was read: whoever reads ten, and goes,
    // has them.
    let mut ls = std::process::Command::new(env!("CARGO_BIN_EXE_jitc"))
        .args(["cache", "ls", "--json", "--cache-dir"])
        .arg(store.root())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(ls.stdout.take().expect("a pipe")).lines().take(10);
    let objects =
        lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.expect("a line")).expect("JSON"));
    let keys: Vec<String> = objects
        .map(|object| object["key"].as_str().expect("a key").to_owned())
        .collect();
    assert!(keys.is_sorted() && keys.len() == 10, "{keys:?}");
    let _ = ls.kill();
    let _ = ls.wait();

    let stats = || {
        let output = jitc(store.root())
            .args(["cache", "stats", "--json"])
            .output()
            .expect("ran");
        succeeded(&output);
        events(&output)[0]["totals"]["entries"]
            .as_u64()
            .expect("a number")
    };
    assert_eq!(stats(), u64::from(MANY));

    let limits = Limits {
        max_entries: u64::from(MANY) - 1000,
        ..Limits::NONE
    };
    let pruned = store.prune(&limits, false).expect("pruned");
    assert_eq!(
        (pruned.keys.len(), pruned.kept_entries),
        (1000, limits.max_entries)
    );
    assert_eq!(stats(), limits.max_entries);
}
