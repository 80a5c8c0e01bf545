//! What a cache does not do: write when it is only read, trust what others could
//! have written, need locks.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jitc::engine::cache::{Cache, Load};

use crate::cache_support::{Root, artifact, build, never, subject};

/// Every path below a folder, with what a write would change.
fn snapshot(folder: &Path) -> Vec<(PathBuf, u64, i64, i64, i64, i64, u32)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let meta = fs_err::metadata(&folder).expect("a folder");
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        all.push((
            folder.clone(),
            meta.ino(),
            times.0,
            times.1,
            times.2,
            times.3,
            meta.mode(),
        ));
        if meta.is_dir() {
            let inner = fs_err::read_dir(&folder).expect("a folder");
            folders.extend(inner.map(|e| e.expect("a name").path()));
        }
    }
    all.sort();
    all
}

#[test]
fn opening_a_hit_and_a_miss_write_nothing() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let before = snapshot(&root.path());
    let cache = root.cache();
    cache.get_or_build(&subject(1), never).expect("a hit");
    assert!(cache.lookup(subject(2).key()).is_none());
    assert!(root.cache().peek(subject(1).key()).is_some());
    root.store().records().expect("records");
    assert_eq!(snapshot(&root.path()), before);
}

#[test]
fn a_hit_stamps_its_entry_at_most_once_an_hour() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    let manifest = root.store().entry_path(subject(1).key());
    let modified = || {
        fs_err::metadata(&manifest)
            .expect("a manifest")
            .modified()
            .expect("a time")
    };
    let backdate = |by: Duration| {
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(&manifest)
            .expect("a manifest");
        let then = std::time::SystemTime::now() - by;
        file.file().set_modified(then).expect("a time");
        modified()
    };
    let minutes_ago = backdate(Duration::from_mins(50));
    root.cache().get_or_build(&subject(1), never).expect("a hit");
    assert_eq!(modified(), minutes_ago);
    let hours_ago = backdate(Duration::from_hours(2));
    root.cache().get_or_build(&subject(1), never).expect("a hit");
    assert!(modified() > hours_ago + Duration::from_hours(1));
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn what_another_user_owns_is_not_loaded_and_the_message_says_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a folder to another user");
        return;
    }
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    std::os::unix::fs::chown(root.path(), Some(65_534), None).expect("chown");
    match root.store().load(subject(1).key()) {
        Load::Unavailable(error) => {
            let text = error.to_string();
            assert!(text.contains("it belongs to user 65534"), "{text}");
            assert!(text.contains("JITC_CACHE_TRUST="), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let built = root
        .cache()
        .get_or_build(&subject(1), || build(1))
        .expect("built");
    assert_eq!(built.provenance.label(), "built_uncached");
    // One entry of somebody else's in a root of one's own is no better.
    std::os::unix::fs::chown(root.path(), Some(0), None).expect("chown");
    std::os::unix::fs::chown(root.store().entry_path(subject(1).key()), Some(65_534), None).expect("chown");
    assert!(matches!(root.store().load(subject(1).key()), Load::Bad(_)));
    let trusting = Cache::builder().user(root.path()).trust(true).build();
    trusting.get_or_build(&subject(1), never).expect("a hit");
}

#[test]
fn where_there_are_no_locks_work_is_duplicated_and_nothing_fails() {
    let root = Root::new();
    root.cache()
        .get_or_build(&subject(0), || build(0))
        .expect("built");
    // A folder of locks that is not trusted gives none, as a file system without
    // flock gives none.
    let open = std::fs::Permissions::from_mode(0o777);
    fs_err::set_permissions(root.path().join("v2/.locks"), open).expect("chmod");
    let claim = root
        .store()
        .claim(subject(1).key(), &jitc::engine::cache::Wait::none());
    assert!(
        matches!(claim, jitc::engine::cache::Claim::Unsupported(_)),
        "{claim:?}"
    );
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // A cache of its own, as a process would have.
                let cache = root.cache();
                let slow = || {
                    std::thread::sleep(Duration::from_millis(20));
                    build(1)
                };
                let fetched = cache.get_or_build(&subject(1), slow).expect("fetched");
                assert_eq!(fetched.artifact.cubin, artifact(1).cubin);
                assert_ne!(fetched.provenance.label(), "built_uncached");
            });
        }
    });
    assert!(root.store().check(false).expect("checked").is_clean());
    root.cache().get_or_build(&subject(1), never).expect("a hit");
}
