//! Asking is judged as a load would be, and writes nothing; and under which compiler's
//! identity a load asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use jitc::engine::cache::{Entry, Judged, Load, Receipt, Store, Whole, Why};

use crate::policy::{builder, counted, spec};

/// Every file of a folder, with its bytes and the time of its last change.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let files = walkdir(dir);
    let read = |path: PathBuf| {
        let modified = fs_err::metadata(&path)
            .and_then(|m| m.modified())
            .expect("a time");
        let bytes = fs_err::read(&path).expect("read");
        (path, (bytes, modified))
    };
    files.into_iter().map(read).collect()
}

fn walkdir(dir: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => walkdir(&path),
            path => vec![path],
        })
        .collect()
}

/// What makes of a good, listed entry something else.
type Spoil = fn(&Path, &Entry);

fn damage(root: &Path, entry: &Entry) {
    let hex = entry.manifest().key.hex();
    let ours = |path: &PathBuf| path.to_string_lossy().contains(&hex);
    let file = walkdir(root).into_iter().find(ours).expect("an entry");
    fs_err::write(file, b"damaged").expect("written");
}

#[test]
fn asking_judges_every_state_as_a_load_does_and_writes_nothing() {
    let states: [(&str, Spoil); 5] = [
        ("as it was", |_, _| {}),
        ("gone", |root, entry| {
            Store::new(root).expel(&entry.manifest().key).expect("expelled");
        }),
        ("damaged", damage),
        ("built with another log", |root, entry| {
            let store = Store::new(root);
            store.expel(&entry.manifest().key).expect("expelled");
            let (jit, _) = counted(builder(root, &[]));
            let (request, _) = jit.describe(&spec(&jit, "8")).expect("described");
            let mut artifact = entry.clone().into_artifact();
            artifact.compile_log.push_str("another log");
            store
                .publish(&Whole::new(&request, &artifact))
                .expect("published");
        }),
        ("damaged in the first tier, good in the second", |root, entry| {
            let first = root.with_file_name("first");
            let Load::Found(whole) = Store::new(root).whole(&entry.manifest().key) else {
                panic!("no entry");
            };
            Store::new(&first).publish(&whole).expect("published");
            damage(&first, entry);
        }),
    ];
    for (state, spoil) in states {
        for (split, required) in [("8", false), ("8", true), ("4", false), ("4", true)] {
            let dir = tempfile::tempdir().expect("tempdir");
            let root = dir.path().join("cache");
            let (warming, _) = counted(builder(&root, &[]));
            let mut receipt = Receipt::new(Vec::new());
            let listed = warming.prepare(&spec(&warming, "8")).expect("built");
            receipt.add(warming.cache(), &listed.request, &listed.fetched.provenance);
            warming
                .prepare(&spec(&warming, "4"))
                .expect("built, and not listed");
            let entry = warming.cache().peek(listed.request.key()).expect("an entry");
            spoil(&root, &entry);
            let path = dir.path().join("receipt.json");
            fs_err::write(&path, receipt.to_bytes()).expect("written");
            let policy = if required {
                ("JITC_REQUIRE_RECEIPT", path.to_str().expect("a path"))
            } else {
                ("JITC_MISS", "forbid")
            };
            let first = dir.path().join("first");
            let first = ("JITC_CACHE_RO", first.to_str().expect("a path"));
            let (jit, count) = counted(builder(&root, &[policy, first]));
            let asked = spec(&jit, split);
            let before = snapshot(dir.path());
            let (_, judged) = jit.judge(&asked).expect("judged");
            let (_, why) = jit.why(&asked).expect("explained");
            assert_eq!(before, snapshot(dir.path()), "{state}: asking wrote");
            assert_eq!(judged.is_hit(), matches!(why, Why::Hit(_)), "{state}");
            let loaded = jit.prepare(&asked);
            assert_eq!(
                judged.is_hit(),
                loaded.is_ok(),
                "{state}, {split}, {required}: {judged:?}"
            );
            assert_eq!(
                matches!(judged, Judged::Refused(_)) || (required && matches!(judged, Judged::Bad { .. })),
                required && loaded.is_err(),
                "{state}, {split}"
            );
            assert_eq!(count.load(Ordering::Relaxed), 0, "{state}");
        }
    }
}
