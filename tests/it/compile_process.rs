//! The compiler's own process: what a source does to it costs nothing but that compile.
#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jitc::engine::build::compile::worker::{StartError, WorkerSetup};
use jitc::engine::build::compile::{Cancel, CompileError, Limits, WorkerChoice, Workers};
use jitc::engine::build::toolchain;
use jitc::engine::cache::Provenance;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Error, Jit, Prepared};
use jitc::engine::request::spec::KernelSpec;

use crate::command::{events, jitc};

/// A folder with a family `k` of one constant `n`, and a cache.
pub(crate) struct Bench(tempfile::TempDir);

impl Bench {
    pub(crate) fn new(source: &str) -> Self {
        let bench = Self(tempfile::tempdir().expect("tempdir"));
        bench.family("k", source);
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn family(&self, name: &str, source: &str) {
        let include = self.path().join("t/include");
        fs_err::create_dir_all(&include).expect("folder");
        let toml = format!(
            "summary = 's'\n[constants.n]\ntype = 'u32'\nrange = [1, 10000]\ndefault = 1\nhelp = 'n'\n\
             [[entries]]\nname = '{name}'\ngrid = [1, 1, 1]\nblock = 32\n"
        );
        fs_err::write(self.path().join(format!("t/{name}.toml")), toml).expect("toml");
        fs_err::write(self.path().join(format!("t/{name}.cu.tera")), source).expect("source");
    }

    pub(crate) fn jit(&self, choice: WorkerChoice, env: &[(&str, &str)]) -> Jit {
        let flags = Flags {
            templates: Some(self.path().join("t")),
            cache_dir: Some(self.path().join("c")),
            ..Flags::default()
        };
        let home = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .filter(|(k, _)| ["HOME", "XDG_DATA_HOME", "CUDA_HOME"].contains(&k.as_str()));
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let env: Environment = home.chain(env).collect();
        let config = Config::load(flags, env).expect("config");
        Jit::builder(config).worker(choice).build().expect("families")
    }
}

pub(crate) fn program() -> WorkerChoice {
    WorkerChoice::Program(PathBuf::from(env!("CARGO_BIN_EXE_jitc")))
}

pub(crate) fn prepare(jit: &Jit, family: &str, n: u32) -> Result<Prepared, Error> {
    jit.prepare(&spec(jit, family, n))
}

fn spec(jit: &Jit, family: &str, n: u32) -> KernelSpec {
    let family = jit.registry().get(family).expect("family");
    let n = n.to_string();
    KernelSpec::new(family, [("n", n.as_str())], "sm_90a".parse().expect("arch")).expect("legal")
}

fn compile_error(result: Result<Prepared, Error>) -> CompileError {
    match result {
        Err(Error::Compile { source, .. }) => source,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("compiled"),
    }
}

const GOOD: &str = "extern \"C\" __global__ void good(float* p) { p[{{ n }}] = 1; }\n";
const ENDLESS: &str = "\
template<int N, int M> __device__ long f() {
    if constexpr (N == 0) return M; else return f<N-1, 2*M>() + f<N-1, 2*M+1>();
}
extern \"C\" __global__ void k(long* p) { p[{{ n }}] = f<26, 0>(); }
";

fn nested(depth: usize) -> String {
    let (open, close) = ("(".repeat(depth), ")".repeat(depth));
    format!("extern \"C\" __global__ void k(float* p) {{ p[{{{{ n }}}}] = {open}1.f{close}; }}\n")
}

#[test]
fn a_source_that_crashes_the_compiler_is_a_typed_error_and_the_next_one_compiles() {
    let bench = Bench::new(&nested(400_000));
    bench.family("good", GOOD);
    let jit = bench.jit(program(), &[]);
    let error = compile_error(prepare(&jit, "k", 1));
    assert!(matches!(error, CompileError::Crashed { .. }), "{error:?}");
    assert!(error.to_string().contains("nested too deeply"), "{error}");
    let good = prepare(&jit, "good", 1).expect("compiled");
    assert_eq!(good.fetched.provenance, Provenance::Built);
}

#[test]
fn a_source_as_deep_as_generators_make_them_compiles() {
    let arms: Vec<_> = (0..2000)
        .map(|i| format!("if (x == {i}) p[1] = {i}; else "))
        .collect();
    let arms = arms.concat();
    let source =
        format!("extern \"C\" __global__ void k(int* p) {{ int x = p[{{{{ n }}}}]; {arms} p[2] = 1; }}\n");
    let bench = Bench::new(&source);
    for choice in [program(), WorkerChoice::InProcess] {
        // A cache each: the second is to compile, too.
        let _ = fs_err::remove_dir_all(bench.path().join("c"));
        let prepared = prepare(&bench.jit(choice, &[]), "k", 1).expect("compiled");
        assert_eq!(prepared.fetched.provenance, Provenance::Built);
    }
}

#[test]
fn a_compile_that_does_not_end_is_ended_and_named_by_its_setting() {
    let bench = Bench::new(ENDLESS);
    bench.family("good", GOOD);
    let jit = bench.jit(program(), &[("JITC_COMPILE_TIMEOUT", "1s")]);
    let error = compile_error(prepare(&jit, "k", 1));
    assert!(matches!(error, CompileError::TimedOut { .. }), "{error:?}");
    assert!(error.to_string().contains("JITC_COMPILE_TIMEOUT"), "{error}");
    prepare(&jit, "good", 1).expect("compiled");
}

#[test]
fn a_compile_that_takes_all_memory_is_out_of_memory_and_named_by_its_setting() {
    let bench = Bench::new(ENDLESS);
    let jit = bench.jit(program(), &[("JITC_COMPILE_MEMORY", "512MiB")]);
    let error = compile_error(prepare(&jit, "k", 1));
    assert!(matches!(error, CompileError::OutOfMemory { .. }), "{error:?}");
    assert!(error.to_string().contains("JITC_COMPILE_MEMORY"), "{error}");
}

#[test]
fn limits_below_what_a_compile_takes_are_refused() {
    let bench = Bench::new(GOOD);
    for (name, value, expected) in [
        ("JITC_COMPILE_TIMEOUT", "0s", "at least 1s"),
        ("JITC_COMPILE_MEMORY", "1MiB", "at least 512MiB"),
    ] {
        let output = jitc(bench.path())
            .env(name, value)
            .args(["doctor"])
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_canceled_compile_ends_and_the_key_can_be_asked_for_again() {
    let bench = Bench::new(ENDLESS);
    bench.family("good", GOOD);
    let jit = bench.jit(program(), &[]);
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| jit.prepare_unless(&spec(&jit, "k", 1), &cancel));
        // Another waits for it, and is canceled with it.
        let waiting = scope.spawn(|| jit.prepare_unless(&spec(&jit, "k", 1), &cancel));
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
        for thread in [compiling, waiting] {
            let error = compile_error(thread.join().expect("no panic"));
            assert!(matches!(error, CompileError::Canceled), "{error:?}");
        }
    });
    prepare(&jit, "good", 1).expect("compiled");
}

#[test]
fn one_crashing_family_costs_neither_the_others_nor_the_receipt() {
    let bench = Bench::new(&nested(400_000));
    bench.family("good", GOOD);
    let receipt = bench.path().join("receipt.json");
    let output = jitc(bench.path())
        .args([
            "warm",
            "k",
            "good",
            "--templates",
            "t",
            "--arch",
            "sm_90a",
            "--json",
            "--receipt",
        ])
        .arg(&receipt)
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(2));
    let events = events(&output);
    let summary = events.iter().find(|e| e["event"] == "summary").expect("summary");
    assert_eq!((&summary["built"], &summary["failed"]), (&1.into(), &1.into()));
    assert!(
        fs_err::read_to_string(&receipt)
            .expect("receipt")
            .contains("good")
    );
}

#[test]
fn a_worker_ends_with_the_process_that_started_it() {
    let bench = Bench::new(ENDLESS);
    let mut warm = std::process::Command::new(env!("CARGO_BIN_EXE_jitc"))
        .args([
            "warm",
            "k",
            "--templates",
            "t",
            "--arch",
            "sm_90a",
            "--cache-dir",
            "c",
            "-q",
        ])
        .current_dir(bench.path())
        .spawn()
        .expect("started");
    let worker = eventually(|| children(warm.id()).first().copied()).expect("a worker");
    warm.kill().expect("killed");
    warm.wait().expect("ended");
    let gone = eventually(|| (!alive(worker)).then_some(()));
    assert_eq!(gone, Some(()), "the worker {worker} lives on");
}

/// What it comes to within a minute.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let found = look();
        if found.is_some() || started.elapsed() > Duration::from_mins(1) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes that this one started, from the kernel's table.
fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| fs_err::read_to_string(format!("/proc/{pid}/stat")).ok();
    let of = |pid: &u32| {
        let text = stat(*pid)?;
        let parent = text.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        parent.parse::<u32>().ok()
    };
    let all = fs_err::read_dir("/proc").expect("proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| of(pid) == Some(parent)).collect()
}

/// Whether a process is there, and no zombie that nobody has waited for.
fn alive(pid: u32) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|text| {
        !text
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

#[test]
fn a_program_that_is_no_worker_of_this_build_is_refused_in_words() {
    let bench = Bench::new(GOOD);
    let toolchain = {
        let config = bench.jit(WorkerChoice::InProcess, &[]);
        prepare(&config, "k", 1).err();
        toolchain::find(config.config())
            .expect("search")
            .expect("an NVRTC")
    };
    let start = |program: &str| {
        Workers::start(WorkerSetup {
            program: program.into(),
            toolchain: toolchain.clone(),
            compiler_env: Vec::new(),
            limits: Limits::default(),
        })
        .expect_err("refused")
    };
    assert!(matches!(start("/nonexistent/jitc"), StartError::Spawn { .. }));
    assert!(matches!(start("/bin/true"), StartError::NoWorker { .. }));
    assert!(matches!(start("/bin/cat"), StartError::NoWorker { .. }));
    let words = start("/bin/false").to_string();
    assert!(
        words.contains("/bin/false: it is not a compile worker"),
        "{words}"
    );
}

#[test]
fn a_named_program_that_is_no_worker_is_an_error_and_no_other_way_is_taken() {
    let bench = Bench::new(GOOD);
    let jit = bench.jit(WorkerChoice::Program("/bin/true".into()), &[]);
    let error = prepare(&jit, "k", 1).expect_err("refused").to_string();
    assert!(error.contains("/bin/true"), "{error}");
}

#[test]
fn the_program_is_found_on_an_absolute_path_and_else_this_process_compiles() {
    let bench = Bench::new(GOOD.replace("good", "k").as_str());
    let folder = Path::new(env!("CARGO_BIN_EXE_jitc")).parent().expect("folder");
    for path in [folder.to_str().expect("text"), "relative:/nonexistent"] {
        let _ = fs_err::remove_dir_all(bench.path().join("c"));
        let jit = bench.jit(WorkerChoice::Found, &[("PATH", path)]);
        let prepared = prepare(&jit, "k", 1).expect("compiled");
        assert_eq!(prepared.fetched.provenance, Provenance::Built);
    }
}

#[test]
fn a_program_named_by_a_relative_path_is_that_of_the_working_folder() {
    let bench = Bench::new(GOOD.replace("good", "k").as_str());
    let here = std::env::current_dir().expect("folder");
    let up = here.components().skip(1).map(|_| "..").collect::<PathBuf>();
    let program = up.join(env!("CARGO_BIN_EXE_jitc").trim_start_matches('/'));
    assert!(program.is_relative());
    let jit = bench.jit(WorkerChoice::Program(program), &[]);
    prepare(&jit, "k", 1).expect("compiled");
}

#[test]
fn both_ways_make_the_same_machine_code() {
    let bench = Bench::new(GOOD.replace("good", "k").as_str());
    let codes = [program(), WorkerChoice::InProcess].map(|choice| {
        let _ = fs_err::remove_dir_all(bench.path().join("c"));
        let jit = bench.jit(choice, &[]);
        ["k", "gemv"].map(|family| {
            let family = jit.registry().get(family).expect("family");
            let spec = KernelSpec::new(family, [], "sm_90a".parse().expect("arch")).expect("legal");
            jit.prepare(&spec)
                .expect("compiled")
                .fetched
                .artifact
                .cubin
                .clone()
        })
    });
    assert_eq!(codes[0], codes[1]);
}

#[test]
fn the_hosts_signal_handlers_and_limits_are_its_own_during_and_after_a_compile_in_it() {
    let bench = Bench::new(GOOD.replace("good", "k").as_str());
    let jit = bench.jit(WorkerChoice::InProcess, &[]);
    let state = || {
        let signals = [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGXFSZ,
            libc::SIGSEGV,
            libc::SIGABRT,
        ];
        let handlers = signals.map(|signal| {
            // SAFETY: plain data, for which zeros are a value.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: only reads, into a struct that outlives the call.
            unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
            (action.sa_sigaction, action.sa_flags)
        });
        let stack = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
        (handlers, stack, std::env::current_dir().expect("folder"))
    };
    let before = state();
    std::thread::scope(|scope| {
        let compiling = scope.spawn(|| (1..8).map(|n| prepare(&jit, "k", n)).collect::<Vec<_>>());
        while !compiling.is_finished() {
            assert_eq!(state(), before, "during a compile");
        }
        for result in compiling.join().expect("no panic") {
            assert_eq!(result.expect("compiled").fetched.provenance, Provenance::Built);
        }
    });
    assert_eq!(state(), before, "after it");
}

#[test]
fn a_request_in_the_background_is_waited_for_awaited_and_canceled() {
    let bench = Bench::new(ENDLESS);
    bench.family("good", GOOD);
    let jit = std::sync::Arc::new(bench.jit(program(), &[]));
    let endless = jit.start(&spec(&jit, "k", 1));
    let good = jit.start(&spec(&jit, "good", 1));
    assert_eq!(
        good.wait().expect("compiled").fetched.provenance,
        Provenance::Built
    );
    assert!(!endless.wait_for(Duration::from_millis(1)) && !endless.is_done());
    endless.cancel();
    assert!(matches!(compile_error(endless.wait()), CompileError::Canceled));
    // Awaited, by the smallest executor there is: one that parks its thread.
    let mut awaited = std::pin::pin!(jit.start(&spec(&jit, "good", 2)));
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let result = loop {
        match awaited.as_mut().poll(&mut context) {
            std::task::Poll::Ready(result) => break result,
            std::task::Poll::Pending => std::thread::park(),
        }
    };
    assert_eq!(result.expect("compiled").fetched.provenance, Provenance::Built);
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_request_that_is_dropped_ends_its_compile() {
    let bench = Bench::new(ENDLESS);
    let jit = std::sync::Arc::new(bench.jit(program(), &[]));
    let preparing = jit.start(&spec(&jit, "k", 1));
    // Until its thread has let go of the facade, which it does when its compile has ended.
    drop(preparing);
    let ended = eventually(|| (std::sync::Arc::strong_count(&jit) == 1).then_some(()));
    assert_eq!(ended, Some(()));
}

#[test]
fn a_worker_that_is_started_by_hand_says_what_it_is() {
    let output = jitc(&std::env::temp_dir())
        .arg("compile-worker")
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("compile-worker: is started by jitc itself"),
        "{said}"
    );
}

#[test]
fn a_worker_keeps_no_file_of_the_host_open() {
    let bench = Bench::new(ENDLESS);
    let jit = std::sync::Arc::new(bench.jit(program(), &[]));
    // As a library of C may leave it: open for children, too.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).expect("inheritable");
    let inode = rustix::fs::fstat(&listener).expect("stat").st_ino;
    let preparing = jit.start(&spec(&jit, "k", 1));
    let worker = eventually(|| {
        let of_worker = |pid: &u32| {
            fs_err::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("compile-worker"))
        };
        let open = |pid: u32| fs_err::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        children(std::process::id())
            .into_iter()
            .find(|pid| of_worker(pid) && open(*pid).is_ok_and(|n| n <= 6))
    })
    .expect("a worker with its own files alone");
    let files = fs_err::read_dir(format!("/proc/{worker}/fd"))
        .expect("files")
        .flatten();
    let links = files.filter_map(|file| fs_err::read_link(file.path()).ok());
    let sockets: Vec<_> = links
        .filter(|link| link.to_string_lossy() == format!("socket:[{inode}]"))
        .collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    preparing.cancel();
}

#[test]
fn a_host_that_does_not_wait_for_children_or_has_no_proc_compiles_all_the_same() {
    let bench = Bench::new(&nested(400_000));
    bench.family("good", GOOD);
    let program = env!("CARGO_BIN_EXE_jitc");
    let warm = "warm k good --templates t --arch sm_90a --cache-dir c -q";
    for (what, script) in [
        (
            "SIGCHLD is ignored",
            format!("trap '' CHLD; exec {program} {warm}"),
        ),
        ("no /proc", format!("umount -l /proc && exec {program} {warm}")),
    ] {
        let _ = fs_err::remove_dir_all(bench.path().join("c"));
        let mut command = std::process::Command::new(if what == "no /proc" { "unshare" } else { "sh" });
        if what == "no /proc" {
            command.args(["--mount", "sh"]);
        }
        let output = command.args(["-c", &script]).current_dir(bench.path()).output();
        let Ok(output) = output else { continue };
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("unshare") || said.contains("umount") {
            eprintln!("skipped: {what}: {said}");
            continue;
        }
        assert_eq!(output.status.code(), Some(2), "{what}: {said}");
        assert!(said.contains("the compiler crashed"), "{what}: {said}");
        let entries = jitc(bench.path())
            .args(["cache", "ls", "--cache-dir", "c"])
            .output()
            .expect("run");
        assert!(
            String::from_utf8_lossy(&entries.stdout).contains("good"),
            "{what}: {said}"
        );
    }
}
