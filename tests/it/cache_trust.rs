//! Which folders are used, which are passed over, and what is said of those.

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jitc::engine::cache::{Cache, CacheError, Limits, Load, Store, passed_over};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::cache_support::{Root, artifact, build, subject};
use crate::command::jitc;

fn filled(root: &Root, count: u32) {
    let cache = root.cache();
    for n in 0..count {
        cache.get_or_build(&subject(n), || build(n)).expect("built");
    }
}

fn chmod(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_tier_that_anybody_may_write_to_is_explained_in_one_sentence() {
    let root = Root::new();
    filled(&root, 1);
    let key = *subject(0).key();
    let entry = root.store().entry_path(&key);
    let shard = entry.parent().expect("a shard").to_owned();
    for open in [root.path(), root.path().join("v2"), shard, entry] {
        let before = fs_err::metadata(&open).expect("there").mode();
        chmod(&open, 0o777);
        let cache = Cache::builder().read_only(root.path()).build();
        let said = passed_over(cache.tiers(), &key);
        assert_eq!(said.len(), 1, "{}: {said:?}", open.display());
        assert!(
            said[0].contains("is passed over") && said[0].contains("others may write to it"),
            "{said:?}"
        );
        assert!(
            said[0].contains("chmod -R go-w") && !said[0].contains('\n'),
            "{said:?}"
        );
        assert!(cache.lookup(&key).is_none());
        chmod(&open, before & 0o7777);
    }
    let cache = Cache::builder().read_only(root.path()).build();
    assert!(passed_over(cache.tiers(), &key).is_empty() && cache.lookup(&key).is_some());
}

#[test]
fn why_a_check_a_forbidden_miss_and_the_doctor_say_the_same_of_an_untrusted_tier() {
    let dir = tempfile::tempdir().expect("tempdir");
    let open = dir.path().join("open");
    for folder in [&open, &dir.path().join("own")] {
        fs_err::create_dir_all(folder.join("v2/.locks")).expect("create");
    }
    chmod(&open, 0o777);
    let run = |args: &[&str]| {
        let mut command = jitc(&dir.path().join("own"));
        command.args(args).arg("--cache-ro").arg(&open);
        command
    };
    let sentence = format!(
        "{} is not trusted: others may write to it (mode 777)",
        open.display()
    );
    let arch = ["stream", "--arch", "sm_90a"];
    let with = |verb: &[&'static str]| [verb, &arch].concat();
    let why = run(&with(&["why"])).assert().code(1);
    why.stdout(contains(&*sentence).and(contains("chmod -R go-w")));
    let check = run(&with(&["warm", "--check"])).assert().code(1);
    check.stderr(contains(&*sentence).and(contains("chmod -R go-w")));
    let forbidden = run(&with(&["warm"]))
        .env("JITC_MISS", "forbid")
        .assert()
        .failure();
    forbidden.stderr(contains("compiling is forbidden").and(contains(&*sentence)));
    let doctor = run(&["doctor"]).assert().code(1);
    doctor.stdout(contains(&*sentence).and(contains("chmod -R go-w")));
}

#[test]
fn a_stamp_from_the_future_is_renewed_by_a_hit_and_reached_by_a_prune() {
    let root = Root::new();
    filled(&root, 2);
    let store = root.store();
    let future = SystemTime::now() + Duration::from_hours(24 * 3650);
    let manifest = |n: u32| store.entry_path(subject(n).key());
    for n in 0..2 {
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(manifest(n))
            .expect("a manifest");
        file.file().set_modified(future).expect("stamped");
    }
    assert!(matches!(store.load(subject(0).key()), Load::Found(_)));
    let stamped = fs_err::metadata(manifest(0))
        .expect("there")
        .modified()
        .expect("a time");
    assert!(stamped < future - Duration::from_hours(24));
    let month = Limits {
        max_age: Some(Duration::from_hours(24 * 30)),
        ..Limits::NONE
    };
    let pruned = store.prune(&month, false).expect("pruned");
    assert_eq!(pruned.keys, [*subject(1).key()]);
}

#[test]
fn a_symlinked_version_folder_or_shard_is_followed_and_kept() {
    let hex = subject(0).key().hex();
    for place in ["v2".to_owned(), format!("v2/{}", &hex[..2])] {
        let root = Root::new();
        filled(&root, 1);
        let away = tempfile::tempdir().expect("tempdir");
        let (link, target) = (root.path().join(&place), away.path().join("moved"));
        fs_err::rename(&link, &target).expect("moved");
        symlink(&target, &link).expect("symlink");
        let store = root.store();
        assert!(matches!(store.load(subject(0).key()), Load::Found(_)), "{place}");
        assert_eq!(store.keys().expect("keys").len(), 1);
        root.cache()
            .get_or_build(&subject(1), || build(1))
            .expect("built");
        store.clean().expect("cleaned");
        assert!(fs_err::symlink_metadata(&link).expect("kept").is_symlink());
        assert!(store.keys().expect("keys").is_empty());
    }
}

#[test]
fn a_symlink_that_is_not_followed_is_refused_in_words_and_kept() {
    for (place, target) in [("v2", "gone"), ("v2/.locks", "."), ("v2/.staging", ".")] {
        let root = Root::new();
        let link = root.path().join(place);
        fs_err::create_dir_all(link.parent().expect("a parent")).expect("create");
        symlink(target, &link).expect("symlink");
        let reason = match root
            .cache()
            .get_or_build(&subject(0), || build(0))
            .expect("built")
            .provenance
        {
            jitc::engine::cache::Provenance::BuiltUncached(reason) => reason,
            // Without locks an entry can still be kept.
            other => {
                assert_eq!(place, "v2/.locks", "{other:?}");
                String::from("a symlink that is not followed")
            }
        };
        assert!(reason.contains("a symlink that is not followed"), "{reason}");
        assert!(
            fs_err::symlink_metadata(&link).expect("kept").is_symlink(),
            "{place}"
        );
    }
}

#[test]
fn an_entry_whose_lock_another_holds_is_read_without_it() {
    let root = Root::new();
    filled(&root, 1);
    let key = *subject(0).key();
    let folder = fs_err::File::open(root.store().entry_path(&key)).expect("opened");
    let alone = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(folder.file().as_fd(), alone).expect("locked");
    assert!(matches!(Store::read_only(root.path()).load(&key), Load::Found(_)));
    assert!(matches!(root.store().load(&key), Load::Found(_)));
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn an_entry_that_cannot_be_removed_ends_no_prune_and_is_counted() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let root = Root::new();
    filled(&root, 3);
    let store = root.store();
    let hex = subject(0).key().hex();
    let entry = fs_err::File::open(store.entry_path(subject(0).key())).expect("opened");
    let flags = ioctl_getflags(entry.file()).unwrap_or(IFlags::empty());
    if ioctl_setflags(entry.file(), flags | IFlags::IMMUTABLE).is_err() {
        eprintln!("skipped: no file can be made immutable here");
        return;
    }
    let none = Limits {
        max_entries: 0,
        ..Limits::NONE
    };
    let pruned = store.prune(&none, false).expect("pruned");
    assert_eq!((pruned.keys.len(), pruned.stuck), (2, 1), "{pruned:?}");
    assert!(pruned.stuck_reason.expect("a reason").contains(&hex));
    let cleaned = store.clean().expect("cleaned");
    assert_eq!((cleaned.stuck, cleaned.entries), (1, 0));
    ioctl_setflags(entry.file(), flags).expect("as it was");
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn a_group_fills_one_cache_where_that_is_meant_and_root_s_group_always_may() {
    let root = Root::new();
    fs_err::create_dir(root.path()).expect("create");
    if std::os::unix::fs::chown(root.path(), Some(65_534), None).is_err() {
        eprintln!("skipped: only root can give a folder to another user");
        return;
    }
    chmod(&root.path(), 0o2770);
    let group = root.store().with_trust(jitc::engine::config::CacheTrust::Group);
    let entry = jitc::engine::cache::Whole::new(&subject(0), &artifact(0));
    assert!(matches!(
        root.store().publish(&entry),
        Err(CacheError::Untrusted { .. })
    ));
    group.publish(&entry).expect("published");
    let made = fs_err::metadata(root.path().join("v2")).expect("made");
    assert_ne!(made.mode() & 0o2000, 0, "the group is inherited");
    assert_eq!(
        fs_err::metadata(root.path()).expect("root").mode() & 0o7777,
        0o2770
    );
    // Of root's own, its group may write to any part.
    std::os::unix::fs::chown(root.path(), Some(0), Some(0)).expect("chown");
    chmod(&group.entry_path(subject(0).key()), 0o664);
    assert!(matches!(root.store().load(subject(0).key()), Load::Found(_)));
}
