//! Real servers, started by the tests where their packages are installed: on `PATH`, or in
//! the folder that `JITC_TEST_SERVERS` names.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jitc::engine::cache::{Asked, Cache, Event, Remote};
use jitc::engine::config::Environment;
use jitc::engine::config::remote::{Login, RemoteStore};

use crate::cache_support::{Root, artifact, build, fast_folder, never, subject};
use crate::events::{Told, store};
use crate::herd::{compiles, fleet};

/// A server of a package; killed with the value.
pub(crate) struct Running {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    Environment::capture().bytes(name).map(ToOwned::to_owned)
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let own = variable("JITC_TEST_SERVERS").map(PathBuf::from);
    let path = variable("PATH").unwrap_or_default();
    let found = own
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|p| p.is_file());
    if found.is_none() {
        assert!(
            variable("JITC_REQUIRE_SERVERS").is_none(),
            "{name} is not installed"
        );
        let _ = writeln!(
            std::io::stderr(),
            "skipped: {name} is neither on PATH nor in JITC_TEST_SERVERS"
        );
    }
    found
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Running {
    /// Starts it and waits until it listens; `None` where it is not installed.
    pub(crate) fn start(name: &str, words: impl Fn(u16, &Path) -> Vec<String>) -> Option<Self> {
        let program = program(name)?;
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        Some(Self::run(&program, words(port, folder.path()), port, folder))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process"), signal).expect("sent");
    }

    /// Kills it, and starts it again on the same port with nothing kept.
    fn restart(mut self, name: &str, words: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        let port = self.port;
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        drop(self);
        let folder = tempfile::tempdir().expect("a folder");
        let program = program(name).expect("it was there");
        Self::run(&program, words(port, folder.path()), port, folder)
    }

    fn run(program: &Path, words: Vec<String>, port: u16, folder: tempfile::TempDir) -> Self {
        let log = fs_err::File::create(folder.path().join("log"))
            .expect("a log")
            .into_parts()
            .0;
        let child = Command::new(program)
            .args(words)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("started");
        let running = Self { child, port, folder };
        let listens = (0..1500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let log = fs_err::read_to_string(running.folder.path().join("log")).unwrap_or_default();
        assert!(listens, "{}: {log}", program.display());
        running
    }
}

/// Entries go into a store and come back on another machine; a second process asks nothing.
fn carries(remote: impl Fn(&str) -> RemoteStore) {
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder()
        .user(root.path())
        .remote(remote("role=read-write")));
    for n in 0..8 {
        let built = cache.get_or_build(&subject(n), || build(n)).expect("built");
        assert_eq!(built.provenance.label(), "built", "{:?}", told.all());
    }
    // Who writes looks again once it has the lease.
    assert_eq!(told.answers(), [Asked::Absent; 16], "{:?}", told.all());
    drop(cache);
    assert_eq!(
        told.count(|e| matches!(e, Event::Sent { .. })),
        8,
        "{:?}",
        told.all()
    );
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(remote("")));
    for n in 0..8 {
        let hit = cache.get_or_build(&subject(n), never).expect("a hit");
        assert_eq!(hit.artifact.cubin, artifact(n).cubin);
    }
    assert_eq!(told.count(|e| matches!(e, Event::Promoted { .. })), 8);
    let whole = cache.whole(subject(1).key()).expect("there");
    assert!(
        !Remote::new(remote("role=write"))
            .send(&whole)
            .expect("there already")
    );
    let probed = Remote::new(remote("role=read-write")).probe();
    assert!(
        probed.get.is_ok() && matches!(probed.put, Some(Ok(_))),
        "{probed:?}"
    );
}

/// Until a key is answered so, however often that takes.
fn until(cache: &Cache, told: &Told, n: u32, answer: Asked) {
    let answered = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        cache.lookup(subject(n).key());
        told.answers().last() == Some(&answer)
    });
    assert!(answered, "{answer:?}: {:?}", told.answers());
}

/// A server that hangs costs its deadline once, and is asked again when it goes on.
fn stops_and_goes_on(server: &Running, remote: &dyn Fn(&str) -> RemoteStore) {
    let told = Told::default();
    let cache = told.by(Cache::builder().remote(remote("timeout=500ms&cool_down=100ms")));
    assert!(cache.lookup(subject(1).key()).is_some());
    server.signal(rustix::process::Signal::STOP);
    assert!(cache.lookup(subject(2).key()).is_none());
    assert_eq!(told.answers().last(), Some(&Asked::Unreachable));
    assert_eq!(told.count(|e| matches!(e, Event::StoreLeftAlone { .. })), 1);
    server.signal(rustix::process::Signal::CONT);
    until(&cache, &told, 2, Asked::Found);
}

/// A server that is killed is a miss; started anew it is empty, and a miss of another kind.
fn outlives(
    server: Running,
    name: &str,
    words: impl Fn(u16, &Path) -> Vec<String>,
    remote: &dyn Fn(&str) -> RemoteStore,
) -> Running {
    let told = Told::default();
    let cache = told.by(Cache::builder().remote(remote("timeout=2s&cool_down=100ms")));
    assert!(cache.lookup(subject(1).key()).is_some());
    server.signal(rustix::process::Signal::KILL);
    until(&cache, &told, 2, Asked::Unreachable);
    let server = server.restart(name, words);
    if name == "moto_server" {
        make_bucket(server.port);
    }
    until(&cache, &told, 3, Asked::Absent);
    server
}

fn redis(port: u16, password: Option<&str>) -> Vec<String> {
    let port = port.to_string();
    let mut words = vec![
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    if let Some(password) = password {
        words.extend(["--requirepass", password]);
    }
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn a_redis_server_carries_entries_and_is_a_miss_when_it_is_killed_full_or_started_anew() {
    let Some(server) = Running::start("redis-server", |port, _| redis(port, None)) else {
        return;
    };
    let url = format!("redis://127.0.0.1:{}/2", server.port);
    let remote = |options: &str| store(&format!("{url}?{options}"));
    carries(remote);
    let folder = fast_folder();
    let ends = fleet(
        folder.path(),
        6,
        1,
        30,
        &format!("{url}?role=read-write&timeout=10s"),
    );
    assert!(ends.iter().all(|end| end == "wrong=0 unreachable=0"), "{ends:?}");
    let counted = compiles(&folder.path().join("compiles"));
    let all: usize = counted.values().sum();
    assert!(all <= 33, "{counted:?}");
    stops_and_goes_on(&server, &remote);
    let server = outlives(server, "redis-server", |port, _| redis(port, None), &remote);
    let full = ["--maxmemory", "1kb", "--maxmemory-policy", "noeviction"].map(str::to_owned);
    let _server = server.restart("redis-server", |port, _| {
        redis(port, None).into_iter().chain(full.clone()).collect()
    });
    // Full from the first byte on.
    let (root, told) = (Root::new(), Told::default());
    let cache = told.by(Cache::builder().user(root.path()).remote(remote("role=write")));
    cache.get_or_build(&subject(4), || build(4)).expect("built");
    drop(cache);
    assert_eq!(told.count(|e| matches!(e, Event::NotSent { .. })), 1);
}

#[test]
fn a_redis_server_with_a_password_is_told_it_and_names_none_that_is_wrong() {
    let Some(server) = Running::start("redis-server", |port, _| redis(port, Some("hush-hush"))) else {
        return;
    };
    let url = format!("redis://127.0.0.1:{}", server.port);
    carries(|options| store(&format!("{url}?{options}")).with_login(Some(Login::new("", "hush-hush"))));
    for login in [None, Some(Login::new("", "not-it"))] {
        let told = Told::default();
        let cache = told.by(Cache::builder().remote(store(&url).with_login(login)));
        assert!(cache.lookup(subject(1).key()).is_none());
        let words = format!("{:?}", told.all());
        assert_eq!(told.answers(), [Asked::Unreachable], "{words}");
        assert!(words.contains("credentials"), "{words}");
        assert!(!words.contains("not-it"), "{words}");
    }
}

fn moto(port: u16, _: &Path) -> Vec<String> {
    ["-H", "127.0.0.1", "-p", &port.to_string()]
        .map(str::to_owned)
        .to_vec()
}

/// Its buckets are made by a plain PUT.
fn make_bucket(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    write!(
        stream,
        "PUT /fleet HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
    )
    .expect("asked");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("answered");
    assert!(answer.contains(" 200 "), "{answer}");
}

fn wsgidav(port: u16, folder: &Path) -> Vec<String> {
    let root = folder.join("root");
    fs_err::create_dir(&root).expect("a folder");
    let words = [format!("--port={port}"), format!("--root={}", root.display())];
    let fixed = ["--host=127.0.0.1", "--auth=anonymous"].map(str::to_owned);
    fixed.into_iter().chain(words).collect()
}

/// Runs a test again in a process of its own with these credentials; says whether this is
/// the outer one, which has no more to do.
fn again_with_credentials(test: &str) -> bool {
    if variable("AWS_ACCESS_KEY_ID").is_some_and(|id| id == "tests-of-jitc") {
        return false;
    }
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(["--exact", test, "--nocapture"]);
    again
        .env("AWS_ACCESS_KEY_ID", "tests-of-jitc")
        .env("AWS_SECRET_ACCESS_KEY", "hush-hush");
    let output = again.output().expect("run");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{said:?}");
    assert!(said[0].contains("1 passed"), "{said:?}");
    assert!(!said.concat().contains("hush-hush"), "{said:?}");
    true
}

#[test]
fn an_s3_server_carries_entries_and_honors_conditional_puts() {
    if program("moto_server").is_none()
        || again_with_credentials("servers::an_s3_server_carries_entries_and_honors_conditional_puts")
    {
        return;
    }
    let Some(server) = Running::start("moto_server", moto) else {
        return;
    };
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    make_bucket(server.port);
    let url = format!("s3://fleet/team/a?endpoint={endpoint}&region=us-east-1");
    let remote = |options: &str| store(&format!("{url}&{options}"));
    carries(remote);
    assert_eq!(
        Remote::new(remote("role=write")).probe().creates_alone,
        Some(true)
    );
    let absent = format!("s3://nobody/x?endpoint={endpoint}&region=us-east-1");
    let told = Told::default();
    let cache = told.by(Cache::builder().remote(store(&absent)));
    assert!(cache.lookup(subject(1).key()).is_none());
    assert_eq!(told.answers().len(), 1);
    stops_and_goes_on(&server, &remote);
    outlives(server, "moto_server", moto, &remote);
}

#[test]
fn a_webdav_server_carries_entries() {
    let Some(server) = Running::start("wsgidav", wsgidav) else {
        return;
    };
    let url = format!("http://127.0.0.1:{}/fleet", server.port);
    let remote = |options: &str| store(&format!("{url}?{options}"));
    carries(remote);
    assert!(server.folder.path().join("root/fleet/v2").is_dir());
    stops_and_goes_on(&server, &remote);
    outlives(server, "wsgidav", wsgidav, &remote);
}
