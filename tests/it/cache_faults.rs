//! A full disk, and other limits: the kernel is returned all the same, with one
//! warning, and nothing half-written is ever served.
//!
//! Limits are set on a worker of its own, by a shell that then becomes it. What a
//! machine does not let a test do (mount in a user namespace) is skipped aloud.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jitc::engine::cache::Store;

use crate::cache_support::{build, subject};
use crate::worker::Worker;

/// A worker in a folder, behind a shell script that ends in `exec "$@"`.
fn under(folder: &Path, script: &str) -> Worker {
    Worker::start_under(folder, &["sh", "-c", &format!("{script}; exec \"$@\""), "sh"]).expect("a shell")
}

/// As [`under`], as root of a namespace of its own, so that the script may mount.
/// `None`, said aloud, where that is not allowed.
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn mounting(folder: &Path, script: &str) -> Option<Worker> {
    let tried = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs -o mode=700 none \"$1\"", "sh"])
        .arg(folder)
        .output();
    if !tried.as_ref().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: a test may not mount a tmpfs here: {tried:?}");
        return None;
    }
    let script = format!("{script} && exec \"$@\"");
    Some(Worker::start_under(folder, &["unshare", "-rm", "sh", "-c", &script, "sh"]).expect("a namespace"))
}

fn warnings(errors: &str) -> usize {
    errors.lines().filter(|line| line.contains("WARN")).count()
}

/// Asks for keys until one cannot be kept, then for all of them again.
fn fills_up(mut worker: Worker, reason: &str) {
    worker.ask("open cache");
    let mut kept = Vec::new();
    let mut uncached = 0;
    for n in 0..12 {
        let reply = worker.ask(&format!("request {n}"));
        match reply.as_str() {
            "built" => kept.push(n),
            reply if reply.starts_with("uncached ") && reply.contains(reason) => uncached += 1,
            other => panic!("{other}"),
        }
    }
    assert!(uncached > 0, "nothing ran out");
    for n in 0..12 {
        let expected = if kept.contains(&n) { "hit" } else { "miss" };
        assert_eq!(worker.ask(&format!("lookup {n}")), expected, "{n}");
    }
    assert_eq!(worker.ask("verify"), format!("clean {}", kept.len()));
    let errors = worker.end();
    assert_eq!(warnings(&errors), 1, "{errors}");
}

#[test]
fn on_a_full_disk_kernels_are_returned_and_nothing_half_written_is_served() {
    let folder = tempfile::tempdir().expect("folder");
    fs_err::create_dir(folder.path().join("cache")).expect("folder");
    let worker = mounting(folder.path(), "mount -t tmpfs -o size=160k,mode=700 none cache");
    if let Some(worker) = worker {
        fills_up(worker, "No space left on device");
    }
}

#[test]
fn beyond_the_limit_on_file_sizes_kernels_are_returned_and_nothing_half_written_is_served() {
    let folder = tempfile::tempdir().expect("folder");
    // 8 blocks of 512 bytes: a header's text fits and an entry does not.
    fills_up(
        under(folder.path(), "trap '' XFSZ; ulimit -f 8"),
        "File too large",
    );
}

#[test]
fn a_read_only_file_system_serves_what_it_has_and_the_rest_is_built() {
    let folder = tempfile::tempdir().expect("folder");
    let prepared = folder.path().join("prepared");
    let cache = jitc::engine::cache::Cache::builder().user(&prepared).build();
    cache.get_or_build(&subject(1), || build(1)).expect("built");
    fs_err::create_dir(folder.path().join("cache")).expect("folder");
    let script = "mount -t tmpfs -o mode=700 none cache && cp -a prepared/. cache && \
                  mount -o remount,ro cache";
    let Some(mut worker) = mounting(folder.path(), script) else {
        return;
    };
    worker.ask("open cache");
    assert_eq!(worker.ask("request 1"), "hit user");
    for n in 2..4 {
        let reply = worker.ask(&format!("request {n}"));
        assert!(
            reply.starts_with("uncached ") && reply.contains("Read-only file system"),
            "{reply}"
        );
    }
    let errors = worker.end();
    assert_eq!(warnings(&errors), 1, "{errors}");
}

#[test]
fn a_folder_without_the_right_to_write_serves_what_it_has_and_the_rest_is_built() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("cache");
    let cache = jitc::engine::cache::Cache::builder().user(&root).build();
    cache.get_or_build(&subject(1), || build(1)).expect("built");
    let mut folders = vec![root.clone(), root.join("v2")];
    let inner = fs_err::read_dir(root.join("v2")).expect("folder");
    folders.extend(inner.map(|e| e.expect("a name").path()));
    let set = |mode: u32| {
        for folder in &folders {
            let mode = std::fs::Permissions::from_mode(mode);
            fs_err::set_permissions(folder, mode).expect("chmod");
        }
    };
    set(0o500);
    // Rights do not bind root unless it gives up the capability to pass over them.
    let root_user = rustix::process::geteuid().is_root();
    let started = if root_user {
        let bounded = "--bounding-set=-dac_override,-dac_read_search";
        Worker::start_under(folder.path(), &["setpriv", bounded])
    } else {
        Worker::start_under(folder.path(), &[])
    };
    let mut worker = started.expect("setpriv, of util-linux, where root runs this test");
    worker.ask("open cache");
    assert_eq!(worker.ask("request 1"), "hit user");
    for n in 2..4 {
        let reply = worker.ask(&format!("request {n}"));
        assert!(
            reply.starts_with("uncached ") && reply.contains("Permission denied"),
            "{reply}"
        );
    }
    let errors = worker.end();
    assert_eq!(warnings(&errors), 1, "{errors}");
    set(0o700);
    assert!(Store::new(&root).check(false).expect("checked").is_clean());
}

#[test]
fn without_file_descriptors_kernels_are_returned_and_good_entries_stay() {
    let folder = tempfile::tempdir().expect("folder");
    let mut worker = under(folder.path(), "ulimit -n 64");
    worker.ask("open cache");
    assert_eq!(worker.ask("request 1"), "built");
    let mut uncached = 0;
    for left in 0..14 {
        worker.ask(&format!("starve {left}"));
        for n in [1, 100 + left] {
            let reply = worker.ask(&format!("request {n}"));
            let sound = ["built", "hit user"].contains(&reply.as_str());
            uncached += u32::from(!sound);
            assert!(
                sound || reply.contains("Too many open files"),
                "{left} left: {reply}"
            );
        }
        worker.ask("feed");
        assert_eq!(worker.ask("lookup 1"), "hit", "{left} left");
    }
    assert!(uncached > 0, "nothing ran out");
    assert!(worker.ask("verify").starts_with("clean "));
    assert!(
        !folder.path().join("cache/v2/.quarantine").exists(),
        "no evidence against an entry"
    );
    let errors = worker.end();
    assert_eq!(warnings(&errors), 1, "{errors}");
}
