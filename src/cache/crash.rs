//! Writers killed at every named step of publishing.

use std::process::Command;
use std::time::Duration;

use super::fault::{Step, hook};
use super::{Cache, Entry, EntryFiles, MANIFEST, Published, Store};
use crate::key::CacheKey;

const STEPS: [Step; 10] = [
    Step::Claimed,
    Step::Staged,
    Step::Written(1),
    Step::Written(2),
    Step::Written(3),
    Step::Written(4),
    Step::Written(5),
    Step::Synced,
    Step::Renamed,
    Step::Published,
];
const ROUNDS: usize = 30;

fn sample() -> (CacheKey, Entry) {
    let subject = super::sample::subject();
    let entry = Entry::new(&subject, &super::sample::artifact());
    (subject.key, entry)
}

/// Run by the test below in a process of its own, in a folder that says where to die.
#[test]
#[ignore = "the child of a_writer_killed_at_any_step_leaves_a_clean_cache"]
fn dying_writer() {
    let Ok(step) = fs_err::read_to_string("step") else {
        return;
    };
    hook::set(move |reached| {
        if format!("{reached:?}") == step {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    });
    let (key, entry) = sample();
    let store = Store::new("cache");
    let _claim = store.claim(&key, Duration::ZERO);
    let _ = store.publish(&entry);
}

#[test]
fn a_writer_killed_at_any_step_leaves_a_clean_cache() {
    let (key, entry) = sample();
    let program = std::env::current_exe().expect("this program");
    for step in STEPS.iter().cycle().take(STEPS.len() * ROUNDS) {
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::write(folder.path().join("step"), format!("{step:?}")).expect("write");
        let status = Command::new(&program)
            .args(["--exact", "cache::crash::dying_writer", "--ignored"])
            .current_dir(folder.path())
            .output()
            .expect("a child")
            .status;
        assert!(!status.success(), "{step:?} was not reached");
        let store = Store::new(folder.path().join("cache"));
        assert!(store.check(false).expect("checked").is_clean(), "{step:?}");
        let there = matches!(step, Step::Renamed | Step::Published);
        assert_eq!(store.read(&key).is_ok(), there, "{step:?}");
        // Nothing waits on the dead holder.
        let claim = store.claim(&key, Duration::ZERO);
        assert!(matches!(claim, super::Claim::Held(_)), "{step:?}");
        let expected = if there { Published::Theirs } else { Published::Ours };
        assert_eq!(store.publish(&entry).expect("published"), expected);
        drop(claim);
        store.clean().expect("cleaned");
        assert!(!folder.path().join("cache/v1").exists(), "{step:?}");
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    let (key, entry) = sample();
    let good = entry.files().clone();
    let mut n: u64 = 1;
    for round in 0..1500u32 {
        let mut files: EntryFiles = good.clone();
        let file = match round % 5 {
            0 => &mut files.manifest,
            k => &mut files.payload[k as usize - 1],
        };
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = usize::try_from(n >> 33).expect("an index") % file.len();
        if round % 3 == 0 {
            file.truncate(at);
        } else {
            file[at] ^= 1 << (round % 8);
        }
        assert!(Entry::verify(&key, files).is_err(), "{MANIFEST} {round}");
    }
    let cache = Cache::builder().build();
    assert!(cache.lookup(&key).is_none());
}
