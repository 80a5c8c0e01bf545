//! Asking is judged as a load would be, and writes nothing; and under which compiler's
//! identity a load asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use jitc::engine::cache::{Entry, Judged, Load, Receipt, Store, Whole, Why};
use jitc::engine::config::ToolchainChoice;
use jitc::engine::jit::Error;

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

/// A folder that holds an NVRTC of these bytes, which nobody opens.
fn nvrtc(dir: &Path, bytes: &str) -> String {
    let folder = dir.join(bytes);
    fs_err::create_dir_all(&folder).expect("a folder");
    for file in ["libnvrtc.so.13", "libnvrtc-builtins.so.13.2"] {
        fs_err::write(folder.join(file), bytes).expect("written");
    }
    folder.to_str().expect("a path").to_owned()
}

#[test]
fn another_nvrtc_turns_no_hit_into_a_miss_where_nothing_may_be_compiled() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("cache");
    let (pinned, _) = counted(builder(&root, &[]).toolchain(ToolchainChoice::Pinned));
    let (request, rendered) = pinned.describe(&spec(&pinned, "8")).expect("described");
    let (scratch, _) = counted(builder(
        &dir.path().join("scratch"),
        &[("JITC_NVRTC", &nvrtc(dir.path(), "a"))],
    ));
    let artifact = scratch
        .prepare(&spec(&scratch, "8"))
        .expect("built")
        .fetched
        .artifact;
    assert_eq!(artifact.cubin, crate::cubin::of_source(&rendered));
    Store::new(&root)
        .publish(&Whole::new(&request, &artifact))
        .expect("published");

    let other = nvrtc(dir.path(), "b");
    let facade = |settings: &[(&str, &str)]| {
        let here = ("JITC_NVRTC", other.as_str());
        let all: Vec<_> = settings.iter().copied().chain([here]).collect();
        counted(builder(&root, &all))
    };
    let forbid = ("JITC_MISS", "forbid");
    for settings in [
        &[forbid][..],
        &[forbid, ("JITC_TOOLCHAIN", "pinned")],
        &[forbid, ("JITC_TOOLCHAIN", "bundle")],
        &[forbid, ("JITC_TOOLCHAIN", "13.0.88")],
        &[("JITC_TOOLCHAIN", "pinned")],
    ] {
        let (jit, count) = facade(settings);
        let asked = spec(&jit, "8");
        let (judged, verdict) = jit.judge(&asked).expect("judged");
        assert!(
            verdict.is_hit() && judged.toolchain() == request.toolchain(),
            "{settings:?}"
        );
        let hit = jit.prepare(&asked).expect("a hit");
        assert_eq!(hit.request.key(), request.key(), "{settings:?}");
        assert_eq!(count.load(Ordering::Relaxed), 0, "{settings:?}");
        let told = jit.cache().counters();
        assert_eq!((told.hits, told.misses), (1, 0), "{settings:?}");
    }
    // Who asks for the found one alone is answered under it alone, and told what is there.
    let (jit, _) = facade(&[forbid, ("JITC_TOOLCHAIN", "found")]);
    let asked = spec(&jit, "8");
    assert!(matches!(jit.prepare(&asked), Err(Error::Forbidden { .. })));
    let told = jit.cache().counters();
    assert_eq!((told.hits, told.misses), (0, 1));
    let (_, why) = jit.why(&asked).expect("explained");
    let Why::Miss(Some(nearest)) = why else {
        panic!("{why:?}");
    };
    assert!(nearest.differs_in_compiler_alone());
    assert_eq!(nearest.made_by, *request.toolchain());
    // A miss that may compile does so under the found one, and is a hit under it after that.
    let (jit, count) = facade(&[]);
    let built = jit.prepare(&spec(&jit, "8")).expect("built");
    assert_ne!(built.request.toolchain(), request.toolchain());
    assert_eq!(count.load(Ordering::Relaxed), 1);
    let (jit, _) = facade(&[forbid, ("JITC_TOOLCHAIN", "found")]);
    jit.prepare(&spec(&jit, "8")).expect("a hit");
    let (jit, _) = facade(&[("JITC_TOOLCHAIN", "9.9")]);
    let error = jit
        .prepare(&spec(&jit, "8"))
        .expect_err("no such version")
        .to_string();
    assert!(
        error.starts_with("toolchain = `9.9` (environment variable JITC_TOOLCHAIN): "),
        "{error}"
    );
    let error = builder(&root, &[("JITC_TOOLCHAIN", "newest")])
        .build()
        .err()
        .expect("refused");
    assert!(
        error
            .to_string()
            .contains("expected found, pinned, bundle or a version"),
        "{error}"
    );
}

#[test]
fn a_receipt_and_a_bundle_say_under_whose_identity_they_are_asked() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("cache");
    let maker = nvrtc(dir.path(), "maker");
    let (warming, _) = counted(builder(&root, &[("JITC_NVRTC", &maker)]));
    let made = warming.prepare(&spec(&warming, "8")).expect("built");
    let mut receipt = Receipt::new(Vec::new());
    receipt.add(warming.cache(), &made.request, &made.fetched.provenance);
    let receipt = Receipt::from_bytes(&receipt.to_bytes()).expect("read back");
    let other = nvrtc(dir.path(), "other");
    let here = [("JITC_NVRTC", other.as_str())];
    let (jit, _) = counted(builder(&root, &here).require_receipt(receipt));
    let hit = jit.prepare(&spec(&jit, "8")).expect("listed");
    assert_eq!(hit.request.key(), made.request.key());

    let mut bytes = Vec::new();
    let keys = Store::new(&root).keys().expect("keys");
    jitc::engine::cache::bundle::export(&Store::new(&root), &keys, &mut bytes).expect("exported");
    let empty = dir.path().join("empty");
    let (jit, count) = counted(builder(&empty, &here).embedded(bytes.leak()));
    let hit = jit.prepare(&spec(&jit, "8")).expect("embedded");
    assert_eq!(
        (hit.request.key(), count.load(Ordering::Relaxed)),
        (made.request.key(), 0)
    );
    // What the bundle does not have is compiled by the one that is here.
    let built = jit.prepare(&spec(&jit, "4")).expect("built");
    assert_ne!(built.request.toolchain(), made.request.toolchain());
    assert_eq!(count.load(Ordering::Relaxed), 1);
}
