//! Writers killed at every named step of publishing.

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::crash_points::{Step, hook};
use super::entry::Whole;
use super::lock::{Claim, Wait};
use super::prune::Limits;
use super::read::Load;
use super::{Published, Store};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::Cache;

const STEPS: [Step; 7] = [
    Step::Claimed,
    Step::Texts,
    Step::Staged,
    Step::Written,
    Step::Synced,
    Step::Renamed,
    Step::Published,
];
/// In every run of the suite: 252 at the named steps and 75 at random.
const ROUNDS: usize = 36;
const RANDOM_KILLS: usize = 75;
/// Keys that the writers killed at random work on.
const KEYS: u32 = 6;

fn sample() -> (CacheKey, Whole) {
    sample_of(0)
}

fn sample_of(n: u32) -> (CacheKey, Whole) {
    let request = super::test_fixtures::subject_of(n);
    let entry = Whole::new(&request, &super::test_fixtures::artifact());
    (*request.key(), entry)
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
    let _claim = store.claim(&key, &Wait::none());
    let _ = store.publish(&entry);
}

/// A child that publishes, expels and prunes without end.
#[test]
#[ignore = "the child of a_writer_killed_at_random_leaves_a_clean_cache"]
fn restless_writer() {
    if !Path::new("restless").exists() {
        return;
    }
    let store = Store::new("cache");
    let begun = std::io::stdout();
    let born = Instant::now();
    // Ends by itself if nobody kills it.
    for n in (0..KEYS)
        .cycle()
        .take_while(|_| born.elapsed() < Duration::from_secs(20))
    {
        let (key, entry) = sample_of(n);
        let claim = store.claim(&key, &Wait::none());
        let _ = store.publish(&entry);
        drop(claim);
        if n == 1 {
            // The parent waits for this, whatever the harness prints before it.
            let mut out = begun.lock();
            let _ = out.write_all(b"\0").and_then(|()| out.flush());
        }
        if n == 3 {
            let _ = store.expel(&key);
        }
        if n == 5 {
            let limits = Limits {
                max_entries: 2,
                ..Limits::NONE
            };
            let _ = store.prune(&limits, false);
        }
    }
}

#[test]
fn a_writer_killed_at_any_step_leaves_a_clean_cache() {
    kill_at_named_steps(ROUNDS);
}

#[test]
fn a_writer_killed_at_random_leaves_a_clean_cache() {
    kill_at_random(RANDOM_KILLS);
}

#[test]
#[ignore = "minutes: `just crash` runs it"]
fn three_thousand_killed_writers_leave_a_clean_cache() {
    kill_at_named_steps(286);
    kill_at_random(1000);
}

fn folder() -> tempfile::TempDir {
    // In memory where that is possible: a kill is no power cut.
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| tempfile::tempdir().expect("a folder"))
}

fn kill_at_random(kills: usize) {
    let program = std::env::current_exe().expect("this program");
    let folder = folder();
    fs_err::write(folder.path().join("restless"), b"").expect("write");
    let store = Store::new(folder.path().join("cache"));
    let mut random: u64 = 7;
    for kill in 0..kills {
        let mut child = Command::new(&program)
            .args([
                "--exact",
                "engine::cache::store::crash::restless_writer",
                "--ignored",
                "--nocapture",
            ])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut bytes = BufReader::new(child.stdout.take().expect("a pipe")).bytes();
        assert!(bytes.any(|byte| byte.is_ok_and(|b| b == 0)), "the child began");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros((random >> 33) % 4_000));
        child.kill().expect("killed");
        assert!(!child.wait().expect("ended").success());
        let checked = store.check(false).expect("checked");
        assert!(checked.is_clean(), "kill {kill}: {checked:?}");
        for n in 0..KEYS {
            let (key, _) = sample_of(n);
            let claim = store.claim(&key, &Wait::none());
            assert!(matches!(claim, Claim::Held(_)), "kill {kill}: {claim:?}");
        }
    }
    for n in 0..KEYS {
        store.publish(&sample_of(n).1).expect("published");
    }
    assert_eq!(store.check(false).expect("checked").good, u64::from(KEYS));
    store.clean().expect("cleaned");
    assert!(
        !folder.path().join("cache/v2").exists(),
        "nothing of the dead is left"
    );
}

fn kill_at_named_steps(rounds: usize) {
    let (key, entry) = sample();
    let program = std::env::current_exe().expect("this program");
    for step in STEPS.iter().cycle().take(STEPS.len() * rounds) {
        let folder = folder();
        fs_err::write(folder.path().join("step"), format!("{step:?}")).expect("write");
        let status = Command::new(&program)
            .args([
                "--exact",
                "engine::cache::store::crash::dying_writer",
                "--ignored",
            ])
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
        let claim = store.claim(&key, &Wait::none());
        assert!(matches!(claim, Claim::Held(_)), "{step:?}");
        let expected = if there { Published::Theirs } else { Published::Ours };
        assert_eq!(store.publish(&entry).expect("published"), expected);
        drop(claim);
        store.clean().expect("cleaned");
        assert!(!folder.path().join("cache/v2").exists(), "{step:?}");
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    let (key, whole) = sample();
    let folder = folder();
    let store = Store::new(folder.path().join("cache"));
    store.publish(&whole).expect("published");
    let path = store.entry_path(&key);
    let good = fs_err::read(&path).expect("the entry");
    let mut n: u64 = 1;
    for round in 0..1500u32 {
        let mut bytes = good.clone();
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = usize::try_from(n >> 33).expect("an index") % bytes.len();
        if round % 3 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << (round % 8);
        }
        fs_err::write(&path, &bytes).expect("harmed");
        let texts = good.len() - whole.texts().source.len() - whole.texts().log.len();
        // What a hit does not read is found by whoever reads it.
        assert!(
            matches!(store.whole(&key), Load::Bad(_)),
            "round {round}, byte {at}"
        );
        if bytes.len() < good.len() || at < texts {
            assert!(
                matches!(store.peek(&key), Load::Bad(_)),
                "round {round}, byte {at}"
            );
        }
    }
    let cache = Cache::builder().build();
    assert!(cache.lookup(&key).is_none());
}
