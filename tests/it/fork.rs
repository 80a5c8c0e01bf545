//! A process that forks while its threads are at work: the child answers by itself.
//!
//! Each test runs in a process of its own, which forks and ends; it is killed, and the
//! test fails, where it is not done within [`DEADLINE`].

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;

const FOLDER: &str = "JITC_TEST_FORK";

/// Far longer than anything here takes, and far shorter than the waits that it is about.
const DEADLINE: Duration = Duration::from_mins(2);

/// In the process of its own: its folder. In the harness's: `None`, when the test of this
/// name has passed in such a process.
fn apart(name: &str) -> Option<std::path::PathBuf> {
    if let Some((_, folder)) = std::env::vars_os().find(|(name, _)| name == FOLDER) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().expect("tempdir");
    let words = fs_err::File::create(folder.path().join("words")).expect("created");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .stderr(words.try_clone().expect("cloned").into_parts().0)
        .stdout(words.into_parts().0)
        .process_group(0);
    let mut process = command.spawn().expect("started");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().expect("asked") {
            break Some(status);
        }
        if begun.elapsed() > DEADLINE {
            let group = rustix::process::Pid::from_child(&process);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = process.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let words = fs_err::read_to_string(folder.path().join("words")).expect("read");
    assert!(
        status.is_some_and(|s| s.success()),
        "{status:?} (none: it hung): {words}"
    );
    assert!(words.contains("1 passed"), "there is no test {name}: {words}");
    None
}

/// Says that a compile has begun, and goes on when it is told to; in a child at once.
struct Told {
    parent: u32,
    begun: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Compiler for Told {
    fn compile(&self, rendered: &RenderedSource, _cancel: &Cancel) -> Result<Artifact, CompileError> {
        if std::process::id() == self.parent {
            self.begun.send(()).expect("heard");
            self.go_on.lock().expect("unlocked").recv().expect("told");
        }
        Ok(Artifact {
            cubin: crate::cubin::of_source(rendered),
            resources: vec![Resources::default()],
            compile_log: String::new(),
            compile_us: 7,
        })
    }
}

/// A facade over a folder, or over none, whose waits for others are longer than a day.
fn facade(folder: Option<&std::path::Path>) -> (Arc<Jit>, Receiver<()>, SyncSender<()>) {
    let mut settings = vec![("JITC_LOCK_TIMEOUT".to_owned(), "2d".to_owned())];
    if let Some(folder) = folder {
        let folder = folder.join("cache").to_str().expect("a path").to_owned();
        settings.push(("JITC_CACHE_DIR".into(), folder));
    }
    let env: Environment = settings.into_iter().collect();
    let jit = Jit::new(Config::load(Flags::default(), env).expect("config")).expect("a facade");
    let (begun, hears) = sync_channel(1);
    let (tells, go_on) = sync_channel(1);
    let told = Told {
        parent: std::process::id(),
        begun,
        go_on: Mutex::new(go_on),
    };
    (Arc::new(jit.with_compiler(Box::new(told))), hears, tells)
}

fn spec(jit: &Jit) -> KernelSpec {
    let family = jit.registry().get("wo_gemv").expect("family");
    let arch = "sm_90a".parse().expect("an arch");
    KernelSpec::new(family, [("wo_split", "8")], arch).expect("a spec")
}

/// Does something in a forked child; its process id.
fn in_child(work: impl FnOnce()) -> i32 {
    // SAFETY: the child works with what the C library lets a child use, and ends without
    // unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let works = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: ends this process, of which nothing else is left.
        unsafe { libc::_exit(i32::from(works.is_err())) };
    }
    assert!(child > 0, "forked");
    child
}

fn ended_well(child: i32) {
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "its words are above");
}

#[test]
fn a_child_that_is_forked_during_a_compile_waits_for_no_thread_of_its_parent() {
    let name = "fork::a_child_that_is_forked_during_a_compile_waits_for_no_thread_of_its_parent";
    let Some(_) = apart(name) else { return };
    // Without a folder no lock is shared: only what is in memory could make it wait.
    let (jit, hears, tells) = facade(None);
    let spec = spec(&jit);
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| jit.prepare(&spec).expect("built"));
        hears.recv().expect("begun");
        // The parent's compile ends only once the child has its own.
        ended_well(in_child(|| {
            let prepared = jit.prepare(&spec).expect("built here");
            assert_eq!(prepared.fetched.provenance.label(), "built_uncached");
            jit.prepare(&spec).expect("and again");
        }));
        tells.send(()).expect("told");
        compiling.join().expect("the parent's own");
    });
}

#[test]
fn a_child_that_shares_a_folder_takes_what_its_parent_publishes() {
    let name = "fork::a_child_that_shares_a_folder_takes_what_its_parent_publishes";
    let Some(folder) = apart(name) else { return };
    let (jit, hears, tells) = facade(Some(&folder));
    let spec = spec(&jit);
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| jit.prepare(&spec).expect("built"));
        hears.recv().expect("begun");
        let child = in_child(|| {
            let prepared = jit.prepare(&spec).expect("waited for, or built");
            assert_eq!(prepared.fetched.provenance.label(), "hit");
        });
        tells.send(()).expect("told");
        compiling.join().expect("the parent's own");
        ended_well(child);
    });
}

#[test]
fn a_child_shuts_its_cache_down_without_its_parents_publishers_and_locks() {
    let name = "fork::a_child_shuts_its_cache_down_without_its_parents_publishers_and_locks";
    let Some(folder) = apart(name) else { return };
    let (jit, hears, tells) = facade(Some(&folder));
    let spec = spec(&jit);
    let locks = folder.join("cache/v2/.locks");
    let held = || fs_err::read_dir(&locks).map_or(0, Iterator::count);
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| jit.prepare(&spec).expect("built"));
        hears.recv().expect("begun");
        assert_eq!(held(), 1, "the parent's");
        ended_well(in_child(jitc::engine::cache::shutdown));
        assert_eq!(held(), 1, "and still the parent's");
        tells.send(()).expect("told");
        let prepared = compiling.join().expect("the parent's own");
        assert_eq!(prepared.fetched.provenance.label(), "built");
    });
}
