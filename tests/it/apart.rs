//! Tests in a process of their own, which forks and ends; it is killed, and the test fails,
//! where it is not done within [`DEADLINE`].

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "JITC_TEST_FORK";

/// Far longer than anything here takes, and far shorter than the waits that it is about.
const DEADLINE: Duration = Duration::from_mins(2);

/// In the process of its own: its folder. In the harness's: `None`, when the test of this
/// name has passed in such a process.
pub(crate) fn apart(name: &str) -> Option<std::path::PathBuf> {
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

/// Does something in a forked child; its process id.
pub(crate) fn in_child(work: impl FnOnce()) -> i32 {
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

pub(crate) fn ended_well(child: i32) {
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "its words are above");
}
