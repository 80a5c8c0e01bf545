//! Fetching the compiler: alone in a folder, once, bounded, and leaving nothing. A stub
//! stands in for python3.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::cli::jitc;

/// A home without an NVRTC, and a python3 that notes its start and does this.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new(does: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let bin = dir.path().join("bin");
        fs_err::create_dir(&bin).expect("folder");
        let log = dir.path().join("started");
        let script = format!("#!/bin/sh\necho $$ >> {}\n{does}\n", log.display());
        fs_err::write(bin.join("python3"), script).expect("script");
        fs_err::set_permissions(bin.join("python3"), PermissionsExt::from_mode(0o755)).expect("mode");
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("jitc/toolchain")
    }

    fn started(&self) -> Vec<String> {
        let log = fs_err::read_to_string(self.dir.path().join("started")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// The program, with nothing of the caller's that would lead to an NVRTC.
    fn jitc(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("jitc"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("JITC_") {
                command.env_remove(name);
            }
        }
        for name in [
            "CUDA_HOME",
            "CUDA_PATH",
            "LD_LIBRARY_PATH",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
        ] {
            command.env_remove(name);
        }
        let path = format!("{}:/usr/bin:/bin", self.dir.path().join("bin").display());
        command
            .args(args)
            .env("PATH", path)
            .env("XDG_DATA_HOME", self.dir.path())
            .env("JITC_CACHE_DIR", self.dir.path().join("cache"))
            .current_dir(self.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Whether another NVRTC than the managed one would be found on this machine: then
/// nothing would be fetched.
fn has_another_nvrtc(home: &Home) -> bool {
    let output = home.jitc(&["toolchain", "path"]).output().expect("ran");
    let found = output.status.success();
    if found {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skipped: this system has an NVRTC of its own");
    }
    found
}

const ONE: [&str; 4] = ["warm", "stream", "--arch", "sm_90a"];

fn names(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Waits until something is so.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it did not come to pass");
}

fn ends(pid: Pid) {
    until(|| {
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok();
        // Whoever inherits it may not have waited for it yet.
        let zombie = stat.is_some_and(|s| s.rsplit_once(')').is_some_and(|(_, s)| s.trim().starts_with('Z')));
        (zombie || test_kill_process(pid).is_err()).then_some(())
    });
}

/// A program that fetches, and the stub that it started.
fn fetching(home: &Home, args: &[&str]) -> (Child, Pid) {
    let child = home.jitc(args).spawn().expect("started");
    let stub = until(|| home.started().first()?.parse().ok());
    (child, Pid::from_raw(stub).expect("a number"))
}

#[test]
fn twelve_variants_are_one_fetch_and_its_last_words_reach_the_user() {
    let home = Home::new("echo 'ERROR: no network' >&2; echo '[notice] news' >&2; exit 1");
    if has_another_nvrtc(&home) {
        return;
    }
    let args = [
        "warm",
        "stream",
        "--set",
        "unroll=1,2,4,8",
        "--arch",
        "sm_80,sm_90a,sm_100a",
    ];
    let output = home.jitc(&args).output().expect("ran");
    let words = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(words.contains("failed: ERROR: no network"), "{words}");
    assert_eq!(home.started().len(), 1, "{words}");
    // Whoever is started afterwards tries again.
    assert!(!home.jitc(&ONE).output().expect("ran").status.success());
    assert_eq!(home.started().len(), 2);
}

#[test]
fn of_processes_that_are_started_at_once_one_fetches() {
    // The first goes on until all are there.
    let go = "while [ ! -e ../../../../go ]; do sleep 0.05; done; echo ERROR: no network >&2; exit 1";
    let home = Home::new(go);
    if has_another_nvrtc(&home) {
        return;
    }
    let (first, _) = fetching(&home, &ONE);
    let others: Vec<Child> = (0..7)
        .map(|_| home.jitc(&ONE).spawn().expect("started"))
        .collect();
    // A process that has been there for a moment, waiting or not yet, was there.
    std::thread::sleep(Duration::from_millis(100));
    fs_err::write(home.dir.path().join("go"), "").expect("write");
    for child in others.into_iter().chain([first]) {
        let output = child.wait_with_output().expect("ended");
        let words = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success());
        assert!(words.contains("no network"), "{words}");
    }
    assert_eq!(home.started().len(), 1);
}

#[test]
fn a_fetch_ends_with_the_program_and_leaves_nothing() {
    for args in [&ONE[..], &["toolchain", "install"]] {
        let home = Home::new("exec sleep 600");
        if has_another_nvrtc(&home) {
            return;
        }
        let (child, pip) = fetching(&home, args);
        kill_process(Pid::from_child(&child), Signal::TERM).expect("signal");
        let output = child.wait_with_output().expect("ended");
        assert_eq!(output.status.signal(), Some(15), "{}", output.status);
        ends(pip);
        assert_eq!(names(&home.root()), [""; 0], "{args:?}");
    }
}

#[test]
fn a_fetch_ends_even_with_a_program_that_is_killed_and_its_leftovers_are_collected() {
    let home = Home::new("exec sleep 600");
    if has_another_nvrtc(&home) {
        return;
    }
    let (mut child, pip) = fetching(&home, &ONE);
    child.kill().expect("killed");
    child.wait().expect("ended");
    ends(pip);
    let is_left = |home: &Home| names(&home.root()).iter().any(|name| name.starts_with(".tmp-"));
    assert!(is_left(&home));
    // The next one removes them, whatever becomes of its own fetch.
    let stub = home.dir.path().join("bin/python3");
    fs_err::write(&stub, "#!/bin/sh\nexit 1\n").expect("script");
    assert!(!home.jitc(&ONE).output().expect("ran").status.success());
    assert!(!is_left(&home), "{:?}", names(&home.root()));
}

#[test]
fn settings_of_pip_that_break_a_download_are_not_passed_on_and_those_of_the_network_are() {
    let home = Home::new("pwd > \"$TMPDIR/../../../../pwd\"; env > \"$TMPDIR/../../../../env\"; exit 1");
    let mut command = home.jitc(&["toolchain", "install"]);
    for (name, value) in [
        ("PIP_REQUIRE_VIRTUALENV", "1"),
        ("PIP_NO_BINARY", ":all:"),
        ("PIP_PLATFORM", "win_amd64"),
        ("PIP_INDEX_URL", "https://index.example/simple"),
        ("PIP_CONFIG_FILE", "/etc/pip.example"),
    ] {
        command.env(name, value);
    }
    assert!(!command.output().expect("ran").status.success());
    let env = fs_err::read_to_string(home.dir.path().join("env")).expect("the stub ran");
    let has = |line: &str| env.lines().any(|l| l == line);
    assert!(has("PIP_REQUIRE_VIRTUALENV=0"), "{env}");
    assert!(
        !env.contains("PIP_NO_BINARY") && !env.contains("PIP_PLATFORM"),
        "{env}"
    );
    assert!(has("PIP_INDEX_URL=https://index.example/simple"), "{env}");
    assert!(has("PIP_CONFIG_FILE=/etc/pip.example"), "{env}");
    let folder = fs_err::read_to_string(home.dir.path().join("pwd")).expect("the stub ran");
    assert!(Path::new(folder.trim()).starts_with(home.root()), "{folder}");
}

#[test]
fn a_wheel_needs_no_python() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wheel = dir.path().join("some.whl");
    fs_err::write(&wheel, "not the pinned one").expect("write");
    let output = jitc(dir.path())
        .env("XDG_DATA_HOME", dir.path())
        .env("PATH", "")
        .args(["toolchain", "install", "--wheel"])
        .arg(&wheel)
        .output()
        .expect("ran");
    let words = String::from_utf8_lossy(&output.stderr);
    // As far as it comes without one: its hash is looked at.
    assert!(words.contains("SHA-256 is"), "{words}");
    assert!(!dir.path().join("jitc").exists());
}

#[test]
fn a_python_of_the_working_folder_is_not_run_where_path_is_relative() {
    let home = Home::new("exit 1");
    for args in [&["toolchain", "install"][..], &["doctor", "--offline"]] {
        let mut command = home.jitc(args);
        command
            .env("PATH", "bin:.:/usr/bin:/bin")
            .env("PIP_NO_INDEX", "1");
        command.output().expect("ran");
        assert!(home.started().is_empty(), "{args:?}");
    }
}
