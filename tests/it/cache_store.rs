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
    assert_eq!(second.artifact.cubin, artifact(1).cubin);
    assert_eq!(first.artifact.resources, second.artifact.resources);
    assert_eq!(first.artifact.compile_us, second.artifact.compile_us);
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
fn a_publish_leaves_no_lock_and_nothing_staged() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    for folder in [".locks", ".staging"] {
        let left: Vec<_> = fs_err::read_dir(root.path().join("v2").join(folder))
            .expect("the folder")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(!root.path().join("v2/.quarantine").exists());
}

#[test]
fn an_entry_is_one_readable_file_in_a_private_root_and_headers_are_kept_once() {
    let root = Root::new();
    for n in 1..4 {
        root.cache()
            .get_or_build(&subject(n), || build(n))
            .expect("built");
    }
    let subject = subject(1);
    let mode = |path: &Path| fs_err::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&root.path()), 0o700);
    let hex = subject.key().hex();
    let entry = root.path().join("v2").join(&hex[..2]).join(format!("{hex}.jitc"));
    assert_eq!(root.store().entry_path(subject.key()), entry);
    assert_eq!(mode(&entry), 0o644);
    let bytes = fs_err::read(&entry).expect("the entry");
    let code = artifact(1).cubin;
    let at = bytes.windows(code.len()).position(|window| window == code);
    assert_eq!(at.expect("the code as it is") % 4096, 0);
    let texts: Vec<_> = fs_err::read_dir(root.path().join("v2/.texts"))
        .expect("texts")
        .map(|e| fs_err::read_to_string(e.expect("a text").path()).expect("read"))
        .collect();
    assert_eq!(texts, [&*subject.headers()[0].1]);
    let whole = root.store().read_whole(subject.key()).expect("whole");
    assert_eq!(whole.texts().headers, subject.headers());
    assert_eq!(whole.texts().source, subject.source());
    assert_eq!(whole.texts().log, artifact(1).compile_log);
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
    assert_eq!(hit.artifact.cubin, artifact(1).cubin);
    let quarantined = fs_err::read_dir(root.path().join("v2/.quarantine")).expect("folder");
    assert_eq!(quarantined.count(), 1);
}

#[test]
fn a_truncated_entry_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| {
            let file = fs_err::OpenOptions::new().write(true).open(entry).expect("open");
            file.set_len(5000).expect("cut");
        },
        |fault| matches!(fault, Fault::Length { found: 5000, .. }),
    );
}

#[test]
fn a_changed_manifest_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| {
            let mut bytes = fs_err::read(entry).expect("read");
            let text = b"\"registers\":40";
            let at = bytes.windows(text.len()).position(|w| w == text).expect("there");
            bytes[at + text.len() - 1] = b'1';
            fs_err::write(entry, bytes).expect("write");
        },
        |fault| matches!(fault, Fault::Digest { file } if file == "the manifest"),
    );
}

#[test]
fn changed_code_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| {
            let mut bytes = fs_err::read(entry).expect("read");
            bytes[9000] ^= 1;
            fs_err::write(entry, bytes).expect("write");
        },
        |fault| matches!(fault, Fault::Digest { file } if file == "the code"),
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
        |fault| *fault == Fault::NotRegular,
    );
}

#[test]
fn a_pipe_in_the_place_of_an_entry_does_not_hang() {
    is_healed(
        |entry| {
            fs_err::remove_file(entry).expect("remove");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                entry,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .expect("pipe");
        },
        |fault| *fault == Fault::NotRegular,
    );
}

#[test]
fn a_folder_in_the_place_of_an_entry_is_a_miss_and_is_repaired() {
    is_healed(
        |entry| {
            fs_err::remove_file(entry).expect("remove");
            fs_err::create_dir(entry).expect("create");
            fs_err::write(entry.join("notes.txt"), b"mine").expect("write");
        },
        |fault| *fault == Fault::NotRegular,
    );
}

#[test]
fn an_entry_that_others_may_write_to_is_not_loaded() {
    is_healed(
        |entry| {
            let open = std::fs::Permissions::from_mode(0o666);
            fs_err::set_permissions(entry, open).expect("chmod");
        },
        |fault| matches!(fault, Fault::Untrusted(_)),
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
    assert_eq!(fetched.artifact.cubin, artifact(2).cubin);
}

#[test]
fn an_unknown_format_is_a_miss_that_says_so() {
    let root = Root::new();
    let subject = subject(1);
    root.cache().get_or_build(&subject, || build(1)).expect("built");
    let store = root.store();
    let path = store.entry_path(subject.key());
    let mut bytes = fs_err::read(&path).expect("the entry");
    bytes[8] = 9;
    fs_err::write(path, bytes).expect("write");
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
    for obstacle in ["v2", "v2/.locks", "v2/.staging", "v2/.quarantine"] {
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
        let entry = jitc::engine::cache::Whole::new(&subject(1), &artifact(1));
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
    assert_eq!(store.tally().expect("tally").totals.entries, 20);
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
    let locks = root.path().join("v2/.locks");
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
