//! Many processes on several machines, which share one store.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jitc::engine::cache::{Cache, Event};
use jitc::engine::config::Environment;

use crate::cache_support::{Root, artifact, build, fast_folder, never, subject};
use crate::events::{Told, store};
use crate::server::{Mood, Server};
use crate::tier::Share;

/// A process that wants keys, and says `hit` or `built` of each.
struct Node {
    child: Child,
    replies: BufReader<ChildStdout>,
}

/// What a node is told, by variables of its own.
const CACHE: &str = "TEST_NODE_CACHE";
const STORE: &str = "TEST_NODE_STORE";
const KEYS: &str = "TEST_NODE_KEYS";
const LOG: &str = "TEST_NODE_LOG";

impl Node {
    fn start(cache: &Path, store: &str, log: &Path, keys: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "herd::node",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CACHE, cache)
            .env(STORE, store)
            .env(LOG, log)
            .env(KEYS, keys.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let replies = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, replies }
    }

    /// Waits until it is up.
    fn ready(&mut self) {
        self.until("ready");
    }

    fn go(&mut self) {
        let orders = self.child.stdin.as_mut().expect("a pipe");
        writeln!(orders, "go").expect("told");
    }

    /// How many were hits of a store, and how many were wrong.
    fn done(mut self) -> String {
        let line = self.until("done");
        self.child.wait().expect("ended");
        line
    }

    fn until(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.replies.read_line(&mut line).expect("a reply") > 0,
                "it died before it said {word}"
            );
            if let Some((_, rest)) = line.split_once(&format!("> {word}")) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "started by the tests of several processes"]
fn node() {
    let environment = Environment::capture();
    let said = |name: &str| environment.bytes(name).map(ToOwned::to_owned);
    let (Some(folder), Some(url)) = (said(CACHE), said(STORE)) else {
        return;
    };
    let log = PathBuf::from(said(LOG).expect("a log"));
    let keys: u32 = environment.get(KEYS).expect("keys").parse().expect("a number");
    let told = Told::default();
    let remote = store(url.to_str().expect("text"));
    let cache = told.by(Cache::builder().user(PathBuf::from(folder)).remote(remote));
    let say = |line: &str| writeln!(std::io::stdout().lock(), "> {line}").expect("said");
    say("ready");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("told");
    let mut wrong = 0;
    for n in 0..keys {
        // Each node begins elsewhere.
        let n = (n + std::process::id() * 13) % keys;
        let fetched = cache.get_or_build(&subject(n), || {
            let mut log = fs_err::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .expect("a log");
            log.write_all(format!("{n}\n").as_bytes()).expect("noted");
            // What a quick compile takes.
            std::thread::sleep(Duration::from_millis(30));
            build(n)
        });
        wrong += u32::from(fetched.expect("an artifact").artifact.cubin != artifact(n).cubin);
    }
    drop(cache);
    let unreachable = told.count(|e| matches!(e, Event::TierUnavailable { .. }));
    say(&format!(
        "done wrong={wrong} unreachable={}",
        u32::from(unreachable > 0)
    ));
}

/// How often each key was compiled.
pub(crate) fn compiles(log: &Path) -> BTreeMap<u32, usize> {
    let text = fs_err::read_to_string(log).unwrap_or_default();
    let mut counted = BTreeMap::new();
    for line in text.lines() {
        *counted.entry(line.parse().expect("a number")).or_default() += 1;
    }
    counted
}

/// Starts processes on machines of their own, all at once; what each said at its end.
pub(crate) fn fleet(folder: &Path, machines: usize, processes: usize, keys: u32, url: &str) -> Vec<String> {
    let log = folder.join("compiles");
    let mut nodes: Vec<Node> = (0..machines * processes)
        .map(|n| Node::start(&folder.join(format!("machine-{}", n % machines)), url, &log, keys))
        .collect();
    nodes.iter_mut().for_each(Node::ready);
    nodes.iter_mut().for_each(Node::go);
    nodes.into_iter().map(Node::done).collect()
}

#[test]
fn a_cold_fleet_compiles_each_key_about_once_and_a_warm_one_nothing() {
    let (folder, share) = (fast_folder(), Share::new());
    let url = share.url("role=read-write");
    let ends = fleet(folder.path(), 16, 4, 100, &url);
    assert!(ends.iter().all(|end| end == "wrong=0 unreachable=0"), "{ends:?}");
    let counted = compiles(&folder.path().join("compiles"));
    assert_eq!(counted.len(), 100);
    let all: usize = counted.values().sum();
    assert!(all <= 110, "{all} compiles of 100 keys: {counted:?}");
    // Other machines, which come later.
    let later = fast_folder();
    let ends = fleet(later.path(), 8, 2, 100, &url);
    assert!(ends.iter().all(|end| end == "wrong=0 unreachable=0"), "{ends:?}");
    assert_eq!(compiles(&later.path().join("compiles")).len(), 0);
    let leases = fs_err::read_dir(share.path().join("v2/leases"))
        .expect("a folder")
        .count();
    assert_eq!(leases, 0, "none is left");
}

#[test]
fn a_fleet_over_a_server_that_honors_conditional_puts_compiles_each_key_about_once() {
    let (folder, server) = (fast_folder(), Server::start());
    let ends = fleet(
        folder.path(),
        6,
        1,
        30,
        &server.url("role=read-write&timeout=10s"),
    );
    assert!(ends.iter().all(|end| end == "wrong=0 unreachable=0"), "{ends:?}");
    let counted = compiles(&folder.path().join("compiles"));
    let all: usize = counted.values().sum();
    assert!(counted.len() == 30 && all <= 33, "{counted:?}");
}

#[test]
fn with_the_store_down_or_lying_every_process_starts_and_no_byte_is_wrong() {
    let folder = fast_folder();
    // Nobody listens there.
    let ends = fleet(
        folder.path(),
        4,
        2,
        10,
        "http://127.0.0.1:1/fleet?role=read-write",
    );
    // A process that finds everything in the folder that it shares asks nobody.
    let not_reached = ends.iter().filter(|end| *end == "wrong=0 unreachable=1");
    assert!(not_reached.count() >= 4, "{ends:?}");
    assert!(ends.iter().all(|end| end.starts_with("wrong=0 ")), "{ends:?}");
    assert_eq!(
        compiles(&folder.path().join("compiles")).values().sum::<usize>(),
        40
    );
    let (folder, server) = (fast_folder(), Server::start());
    server.set(Mood::Unreliable);
    let url = server.url("role=read-write&timeout=300ms&cool_down=50ms");
    let ends = fleet(folder.path(), 4, 2, 30, &url);
    assert!(ends.iter().all(|end| end.starts_with("wrong=0")), "{ends:?}");
}

#[test]
fn of_machines_that_miss_at_once_one_builds_and_the_others_take_what_it_sent() {
    let share = Share::new();
    let builds = AtomicU32::new(0);
    let waited = std::thread::scope(|scope| {
        let one = || {
            let (root, told) = (Root::new(), Told::default());
            let cache = told.by(Cache::builder()
                .user(root.path())
                .remote(share.store("role=read-write")));
            let fetched = cache.get_or_build(&subject(1), || {
                builds.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(200));
                build(1)
            });
            assert_eq!(fetched.expect("an artifact").artifact.cubin, artifact(1).cubin);
            told.count(|e| matches!(e, Event::Promoted { .. }))
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        all.into_iter()
            .map(|one| one.join().expect("ended"))
            .sum::<usize>()
    });
    assert_eq!((builds.load(Ordering::SeqCst), waited), (1, 7));
}

#[test]
fn a_holder_that_died_costs_its_time_once_and_one_that_failed_nothing() {
    let share = Share::new();
    let lease = share.path().join("v2/leases").join(subject(1).key().hex());
    fs_err::create_dir_all(lease.parent().expect("a folder")).expect("made");
    fs_err::write(&lease, r#"{"holder":"one that died","for_ms":150}"#).expect("written");
    let root = Root::new();
    let cache = Cache::builder()
        .user(root.path())
        .remote(share.store("role=read-write"))
        .build();
    let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(built.provenance.label(), "built");
    drop(cache);
    assert!(!lease.exists());
    // What is no lease holds nobody up, and stays.
    let lease = share.path().join("v2/leases").join(subject(2).key().hex());
    fs_err::write(&lease, "for ever and ever").expect("written");
    let cache = Cache::builder()
        .user(root.path())
        .remote(share.store("role=read-write"))
        .build();
    cache.get_or_build(&subject(2), || build(2)).expect("built");
    // A build that fails lets go at once.
    let failed = cache.get_or_build(&subject(3), || Err::<_, &str>("no"));
    assert_eq!(failed.err(), Some("no"));
    assert!(
        !share
            .path()
            .join("v2/leases")
            .join(subject(3).key().hex())
            .exists()
    );
    drop(cache);
    // And a warm fleet asks for none.
    let told = Told::default();
    let cache = told.by(Cache::builder()
        .user(Root::new().path())
        .remote(share.store("role=read-write")));
    cache.get_or_build(&subject(1), never).expect("a hit");
}

#[test]
fn after_three_waits_for_nothing_a_process_waits_for_no_machine_any_more() {
    let share = Share::new();
    let folder = share.path().join("v2/leases");
    fs_err::create_dir_all(&folder).expect("made");
    for n in 0..8 {
        let lease = folder.join(subject(n).key().hex());
        let for_ms = if n < 3 { 100 } else { 600_000 };
        let note = format!(r#"{{"holder":"one that died","for_ms":{for_ms}}}"#);
        fs_err::write(lease, note).expect("written");
    }
    let (root, told) = (Root::new(), Told::default());
    let remote = share.store("role=read-write");
    let cache = told.by(Cache::builder().user(root.path()).remote(remote));
    for n in 0..8 {
        let built = cache.get_or_build(&subject(n), || build(n)).expect("built");
        assert_eq!(built.provenance.label(), "built");
    }
    drop(cache);
    let left = fs_err::read_dir(&folder).expect("a folder").count();
    assert_eq!(left, 5, "those of the first three were broken, and let go");
}

#[test]
fn a_lease_without_end_is_waited_for_as_long_as_lock_timeout_says() {
    let share = Share::new();
    let lease = share.path().join("v2/leases").join(subject(1).key().hex());
    fs_err::create_dir_all(lease.parent().expect("a folder")).expect("made");
    let forever = format!(r#"{{"holder":"hostile","for_ms":{}}}"#, u64::MAX);
    fs_err::write(&lease, forever).expect("written");
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder()
        .user(root.path())
        .lock_timeout(Duration::from_millis(200))
        .remote(share.store("role=read-write")));
    let built = cache.get_or_build(&subject(1), || build(1)).expect("built");
    assert_eq!(built.provenance.label(), "built");
}
