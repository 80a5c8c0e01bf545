//! The store: hits, misses, healing, ownership, what lies on disk.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use jitc::engine::cache::{Cache, Fault, FindError, Load, Provenance, Store};

use crate::cache_support::{Root, artifact, build, never, subject};

fn hit(tier: &str) -> impl Fn(&Provenance) -> bool {
    move |p| matches!(p, Provenance::Hit(name) if name.as_str() == tier)
}

#[test]
fn a_first_request_is_built_and_a_second_is_a_verified_hit() {
    let root = Root::new();
    let first = root.cache().get_or_build(&subject(1), || build(1));
    let first = first.expect("built");
    assert_eq!(first.provenance, Provenance::Built);
    // Another cache, so that nothing is held in memory.
    let second = root.cache().get_or_build(&subject(1), never).expect("hit");
    assert!(hit("user")(&second.provenance));
    assert_eq!(*second.artifact, artifact(1));
    assert_eq!(first.artifact, second.artifact);
}

#[test]
fn what_the_process_still_holds_is_a_hit_in_memory() {
    let root = Root::new();
    let cache = root.cache();
    let held = cache.get_or_build(&subject(1), || build(1)).expect("built");
    let again = cache.get_or_build(&subject(1), never).expect("hit");
    assert!(hit("memory")(&again.provenance));
    drop((held, again));
    let from_disk = cache.lookup(subject(1).key()).expect("hit");
    assert!(hit("user")(&from_disk.provenance));
}

#[test]
fn opening_and_looking_touch_no_disk() {
    let root = Root::new();
    let cache = root.cache();
    assert!(cache.lookup(subject(1).key()).is_none());
    assert!(!root.path().exists());
}

#[test]
fn a_failed_build_is_the_callers_error_and_leaves_nothing() {
    let root = Root::new();
    let cache = root.cache();
    let failed = cache.get_or_build(&subject(1), || Err("no such header"));
    assert_eq!(failed.err(), Some("no such header"));
    let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(built.provenance, Provenance::Built);
}

#[test]
fn a_publish_leaves_no_lock_and_no_staging_folder() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    for folder in [".locks", ".staging"] {
        let left: Vec<_> = fs_err::read_dir(root.path().join("v1").join(folder))
            .expect("the folder")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(!root.path().join("v1/.quarantine").exists());
}

#[test]
fn an_entry_is_five_readable_files_in_a_private_root() {
    let root = Root::new();
    let subject = subject(1);
    root.cache().get_or_build(&subject, || build(1)).expect("built");
    let mode = fs_err::metadata(root.path()).expect("root").permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    let hex = subject.key().hex();
    let entry = root.path().join("v1").join(&hex[..2]).join(&hex);
    assert_eq!(root.store().entry_path(subject.key()), entry);
    let mut names: Vec<_> = fs_err::read_dir(&entry)
        .expect("entry")
        .map(|e| e.expect("name").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    let expected = [
        "compile.log",
        "headers.json",
        "kernel.cu",
        "kernel.cubin",
        "manifest.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        fs_err::read(entry.join("kernel.cubin")).expect("cubin"),
        artifact(1).cubin
    );
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs_err::read(entry.join("manifest.json")).expect("manifest")).expect("JSON");
    assert_eq!(manifest["key"], hex);
    assert_eq!(manifest["resources"][0]["registers"], 40);
}

/// Harms the entry of `subject(1)` and sees it found, moved away and rebuilt.
fn is_healed(harm: impl FnOnce(&Path), expected: impl FnOnce(&Fault) -> bool) {
    let root = Root::new();
    let subject = subject(1);
    root.cache().get_or_build(&subject, || build(1)).expect("built");
    harm(&root.store().entry_path(subject.key()));
    match root.store().load(subject.key()) {
        Load::Bad(fault) => assert!(expected(&fault), "{fault:?}"),
        other => panic!("{other:?}"),
    }
    let cache = root.cache();
    let again = cache.get_or_build(&subject, || build(1)).expect("rebuilt");
    assert_eq!(again.provenance, Provenance::Built);
    assert_eq!(cache.counters().healed, 1);
    let hit = root.cache().get_or_build(&subject, never).expect("hit");
    assert_eq!(*hit.artifact, artifact(1));
    let quarantined = fs_err::read_dir(root.path().join("v1/.quarantine")).expect("folder");
    assert_eq!(quarantined.count(), 1);
}

#[test]
fn a_truncated_cubin_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| fs_err::write(entry.join("kernel.cubin"), b"short").expect("write"),
        |fault| matches!(fault, Fault::Length { found: 5, .. }),
    );
}

#[test]
fn a_flipped_bit_of_the_manifest_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| {
            let path = entry.join("manifest.json");
            let text = fs_err::read_to_string(&path).expect("read");
            let text = text.replace("\"registers\": 40", "\"registers\": 41");
            fs_err::write(&path, text).expect("write");
        },
        |fault| *fault == Fault::Checksum,
    );
}

#[test]
fn a_missing_file_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| fs_err::remove_file(entry.join("compile.log")).expect("remove"),
        |fault| *fault == Fault::Missing("compile.log".into()),
    );
}

#[test]
fn a_foreign_file_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| fs_err::write(entry.join("notes.txt"), b"mine").expect("write"),
        |fault| *fault == Fault::Foreign("notes.txt".into()),
    );
}

#[test]
fn a_symlink_inside_an_entry_is_not_followed() {
    is_healed(
        |entry| {
            let cubin = entry.join("kernel.cubin");
            let away = entry.with_file_name("away");
            fs_err::rename(&cubin, &away).expect("rename");
            symlink(&away, &cubin).expect("symlink");
        },
        |fault| *fault == Fault::NotRegular("kernel.cubin".into()),
    );
}

#[test]
fn a_symlink_in_the_place_of_an_entry_is_not_followed() {
    is_healed(
        |entry| {
            let away = entry.with_file_name("away");
            fs_err::rename(entry, &away).expect("rename");
            symlink(&away, entry).expect("symlink");
        },
        |fault| *fault == Fault::NotAFolder,
    );
}

#[test]
fn a_pipe_in_the_place_of_a_file_does_not_hang() {
    is_healed(
        |entry| {
            let cubin = entry.join("kernel.cubin");
            fs_err::remove_file(&cubin).expect("remove");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &cubin,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .expect("pipe");
        },
        |fault| *fault == Fault::NotRegular("kernel.cubin".into()),
    );
}

#[test]
fn an_empty_folder_in_the_place_of_an_entry_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| {
            fs_err::remove_dir_all(entry).expect("remove");
            fs_err::create_dir(entry).expect("create");
        },
        |fault| *fault == Fault::Missing("manifest.json".into()),
    );
}

#[test]
fn an_entry_that_others_may_write_to_is_not_loaded() {
    is_healed(
        |entry| {
            let open = std::fs::Permissions::from_mode(0o666);
            fs_err::set_permissions(entry.join("kernel.cubin"), open).expect("chmod");
        },
        |fault| matches!(fault, Fault::Untrusted { .. }),
    );
}

#[test]
fn the_entry_of_another_key_is_a_miss() {
    let root = Root::new();
    let (one, two) = (subject(1), subject(2));
    root.cache().get_or_build(&one, || build(1)).expect("built");
    let store = root.store();
    let (from, to) = (store.entry_path(one.key()), store.entry_path(two.key()));
    fs_err::create_dir_all(to.parent().expect("shard")).expect("create");
    fs_err::rename(from, to).expect("rename");
    assert!(matches!(store.load(two.key()), Load::Bad(Fault::Key(k)) if k == *one.key()));
    let fetched = root.cache().get_or_build(&two, || build(2)).expect("built");
    assert_eq!(*fetched.artifact, artifact(2));
}

#[test]
fn an_unknown_format_is_a_miss_that_says_so() {
    let root = Root::new();
    let subject = subject(1);
    root.cache().get_or_build(&subject, || build(1)).expect("built");
    let store = root.store();
    let mut manifest = store.read(subject.key()).expect("entry").manifest().clone();
    manifest.format = 9;
    let path = store.entry_path(subject.key()).join("manifest.json");
    fs_err::write(path, manifest.to_bytes()).expect("write");
    assert!(matches!(store.load(subject.key()), Load::Bad(Fault::Format(9))));
}

#[test]
fn what_the_driver_rejects_is_moved_away_and_built_again() {
    let root = Root::new();
    let cache = root.cache();
    let first = cache.get_or_build(&subject(1), || build(1)).expect("built");
    cache.reject(subject(1).key(), "CUDA_ERROR_INVALID_IMAGE");
    assert_eq!(cache.counters().healed, 1);
    let again = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(again.provenance, Provenance::Built);
    drop(first);
}

#[test]
fn a_file_where_a_folder_of_the_cache_belongs_heals_by_itself() {
    for obstacle in ["v1", "v1/.locks", "v1/.staging", "v1/.quarantine"] {
        let root = Root::new();
        let path = root.path().join(obstacle);
        fs_err::create_dir_all(path.parent().expect("parent")).expect("create");
        fs_err::write(&path, b"in the way").expect("write");
        let built = root.cache().get_or_build(&subject(1), || build(1));
        assert_eq!(built.expect("built").provenance, Provenance::Built);
    }
}

#[test]
fn a_root_that_others_may_write_to_is_refused_unless_trusted() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let open = std::fs::Permissions::from_mode(0o777);
    fs_err::set_permissions(root.path(), open).expect("chmod");
    let refused = root.cache().get_or_build(&subject(1), || build(1));
    match refused.expect("built").provenance {
        Provenance::BuiltUncached(reason) => {
            assert!(reason.contains("others may write"), "{reason}");
            assert!(reason.contains("chmod -R go-w"), "{reason}");
            assert!(!reason.contains('\n'));
        }
        other => panic!("{other:?}"),
    }
    let trusting = Cache::builder().user(root.path()).trust(true).build();
    assert!(trusting.lookup(subject(1).key()).is_some());
}

#[test]
fn a_cache_without_a_writable_tier_still_builds() {
    let cache = Cache::builder().read_only("/nonexistent/cache").build();
    let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(built.provenance.label(), "built_uncached");
}

#[test]
fn a_root_that_cannot_be_made_still_builds() {
    let root = Root::new();
    fs_err::write(root.path(), b"a file").expect("write");
    let cache = root.cache();
    let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(built.provenance.label(), "built_uncached");
    assert_eq!(cache.counters().not_published, 1);
}

#[test]
fn threads_on_one_cold_key_build_once() {
    for writable in [true, false] {
        let root = Root::new();
        if !writable {
            fs_err::write(root.path(), b"a file").expect("write");
        }
        let cache = root.cache();
        let builds = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let ask = || {
                let fetched = cache.get_or_build(&subject(1), || {
                    builds.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                    build(1)
                });
                assert_eq!(*fetched.expect("fetched").artifact, artifact(1));
            };
            for _ in 0..64 {
                scope.spawn(ask);
            }
        });
        assert_eq!(builds.into_inner(), 1);
    }
}

#[test]
fn a_leader_that_fails_or_panics_hands_over() {
    let root = Root::new();
    let cache = root.cache();
    let tries = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let turn = || {
                    std::thread::sleep(Duration::from_millis(5));
                    match tries.fetch_add(1, Ordering::Relaxed) {
                        0 => Err("failed"),
                        1 => panic!("on purpose"),
                        _ => Ok(artifact(1)),
                    }
                };
                let ask = std::panic::AssertUnwindSafe(|| cache.get_or_build(&subject(1), turn));
                let _ = std::panic::catch_unwind(ask);
            });
        }
    });
    assert_eq!(tries.into_inner(), 3);
}

#[test]
fn a_wait_is_bounded_and_then_compiles_anyway() {
    let root = Root::new();
    let cache = Cache::builder()
        .user(root.path())
        .lock_timeout(Duration::from_millis(30))
        .build();
    let claim = root
        .store()
        .claim(subject(1).key(), &jitc::engine::cache::Wait::none());
    let built = cache.get_or_build(&subject(1), || build(1));
    assert_eq!(built.expect("built").provenance, Provenance::Built);
    assert_eq!(cache.counters().lock_timeouts, 1);
    drop(claim);
}

#[test]
fn the_loser_of_a_rename_leaves_the_winners_entry() {
    let root = Root::new();
    let built = root.cache().get_or_build(&subject(1), || {
        // Somebody without locks publishes while this build runs.
        let other = Store::new(root.path());
        let entry = jitc::engine::cache::Entry::new(&subject(1), &artifact(1));
        other.publish(&entry).expect("published");
        build(1)
    });
    assert_eq!(built.expect("built").provenance, Provenance::Built);
    assert_eq!(root.store().keys().expect("keys"), [*subject(1).key()]);
}

#[test]
fn an_entry_is_found_by_a_prefix_of_its_key() {
    let root = Root::new();
    let cache = root.cache();
    for n in 0..20 {
        cache.get_or_build(&subject(n), || build(n)).expect("built");
    }
    let store = root.store();
    let key = *subject(3).key();
    assert_eq!(store.find(&key.hex()).expect("found"), key);
    assert_eq!(store.find(&key.short()).expect("found"), key);
    assert!(matches!(store.find("XYZ"), Err(FindError::NotAPrefix(_))));
    assert!(matches!(store.find(&"0".repeat(64)), Err(FindError::None(_))));
    let ambiguous = (0..16).any(|digit| {
        let found = store.find(&format!("{digit:x}"));
        matches!(found, Err(FindError::Ambiguous { keys, .. }) if keys.len() > 1)
    });
    assert!(ambiguous, "20 keys on 16 first digits");
    assert_eq!(store.totals().expect("totals").entries, 20);
}

#[test]
fn clean_removes_what_jitc_made_and_nothing_else() {
    let root = Root::new();
    let cache = root.cache();
    for n in 0..5 {
        cache.get_or_build(&subject(n), || build(n)).expect("built");
    }
    fs_err::write(root.path().join("README.md"), b"kept").expect("write");
    let store = root.store();
    let claim = store.claim(subject(4).key(), &jitc::engine::cache::Wait::none());
    let cleaned = store.clean().expect("cleaned");
    assert_eq!((cleaned.entries, cleaned.in_use), (4, 1));
    drop(claim);
    let cleaned = store.clean().expect("cleaned");
    assert_eq!((cleaned.entries, cleaned.in_use), (1, 0));
    let mut left: Vec<_> = fs_err::read_dir(root.path())
        .expect("root")
        .map(|e| e.expect("name").file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["CACHEDIR.TAG", "README.md"]);
}

#[test]
fn of_many_who_wait_for_a_holder_that_hangs_one_takes_over_and_the_others_use_what_it_makes() {
    let root = Root::new();
    let hangs = root
        .store()
        .claim(subject(1).key(), &jitc::engine::cache::Wait::none());
    let (builds, at_once) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            // A cache each, as processes have.
            scope.spawn(|| {
                let cache = Cache::builder()
                    .user(root.path())
                    .lock_timeout(Duration::from_millis(200))
                    .build();
                let fetched = cache.get_or_build(&subject(1), || {
                    builds.fetch_add(1, Ordering::SeqCst);
                    at_once.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(100));
                    assert_eq!(at_once.fetch_sub(1, Ordering::SeqCst), 1, "a herd");
                    build(1)
                });
                fetched.expect("built or found");
            });
        }
    });
    assert_eq!(builds.into_inner(), 1);
    drop(hangs);
    // The late holder has not taken the lock of those after it away, and has left none.
    let locks = root.path().join("v1/.locks");
    let left = fs_err::read_dir(locks).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn a_holder_is_waited_for_as_long_as_it_says_that_it_may_build() {
    let root = Root::new();
    let promise = jitc::engine::cache::Wait {
        promise: Duration::from_mins(5),
        ..jitc::engine::cache::Wait::none()
    };
    let held = root.store().claim(subject(1).key(), &promise);
    let built = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // Its own builds may take no time at all: that says nothing about the other's.
            let cache = Cache::builder()
                .user(root.path())
                .build_timeout(Duration::ZERO)
                .build();
            let fetched = cache.get_or_build(&subject(1), || {
                built.fetch_add(1, Ordering::SeqCst);
                build(1)
            });
            fetched.expect("built")
        });
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(built.load(Ordering::SeqCst), 0, "it waits");
        drop(held);
        assert_eq!(waiting.join().expect("no panic").provenance, Provenance::Built);
    });
}
