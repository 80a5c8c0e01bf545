//! Ctrl-C during a warm, and SIGTERM as the first process of a container.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::cli::jitc;

#[test]
fn ctrl_c_ends_a_warm_with_a_clean_cache_and_keeps_what_was_built() {
    let dir = tempfile::tempdir().expect("tempdir");
    let args = [
        "warm",
        "wo_gemv",
        "--wo-split",
        "1,2,4,8",
        "--arch",
        "sm_80,sm_90a",
        "--jobs",
        "2",
        "--json",
    ];
    let mut warm = Command::new(assert_cmd::cargo::cargo_bin!("jitc"))
        .args(args)
        .env("JITC_CACHE_DIR", dir.path())
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut first = String::new();
    BufReader::new(warm.stdout.take().expect("pipe"))
        .read_line(&mut first)
        .expect("line");
    assert!(first.contains(r#""provenance":"built""#), "{first}");
    let process = rustix::process::Pid::from_child(&warm);
    rustix::process::kill_process(process, rustix::process::Signal::INT).expect("signal");
    let output = warm.wait_with_output().expect("ended");
    assert_eq!(output.status.signal(), Some(2), "{}", output.status);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("interrupted; the cache is clean"), "{words}");

    jitc(dir.path()).args(["cache", "verify"]).assert().success();
    let staged = fs_err::read_dir(dir.path().join("v2/.staging"))
        .expect("folder")
        .count();
    assert_eq!(staged, 0, "a staging folder is left");
    let again = jitc(dir.path()).args(args).output().expect("ran");
    let last = String::from_utf8_lossy(&again.stdout);
    let summary: serde_json::Value =
        serde_json::from_str(last.lines().last().expect("summary")).expect("JSON");
    assert!(summary["hit"].as_u64().expect("hits") >= 1, "{summary}");
    assert_eq!(summary["failed"], 0);
}

/// As the first process the kernel lets no signal end it: it has to end itself.
#[test]
fn sigterm_ends_the_first_process_of_a_container_with_143() {
    let dir = tempfile::tempdir().expect("tempdir");
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc"])
            .args(words)
            .env("JITC_CACHE_DIR", dir.path().join("cache"))
            .current_dir(dir.path());
        command
    };
    let able = unshare(&["true"]).output();
    if !able.is_ok_and(|output| output.status.success()) {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no process namespace can be made here"
        );
        return;
    }
    let program = assert_cmd::cargo::cargo_bin!("jitc");
    let many = [
        "warm",
        "decode_layer",
        "--wo-split",
        "1,2,4,8",
        "--arch",
        "sm_90a,sm_100a",
        "--json",
    ];
    let mut outer = unshare(&[program.to_str().expect("text")])
        .args(many)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut first = String::new();
    BufReader::new(outer.stdout.take().expect("pipe"))
        .read_line(&mut first)
        .expect("line");
    let children = format!("/proc/{0}/task/{0}/children", outer.id());
    let child = fs_err::read_to_string(children).expect("children");
    let child: i32 = child.trim().parse().expect("one child");
    let process = rustix::process::Pid::from_raw(child).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("signal");
    let status = outer.wait().expect("ended");
    assert_eq!(status.code(), Some(143), "{status}");
}
