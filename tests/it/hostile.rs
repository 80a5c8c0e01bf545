//! A server that compiles hostile sources lives, and answers everybody else.

use crate::compile_process::program;

#[path = "../support/hostile.rs"]
mod generator;

#[test]
fn a_server_under_hostile_sources_lives_and_answers_every_other_request() {
    let folder = tempfile::tempdir().expect("tempdir");
    let handlers = || {
        [libc::SIGINT, libc::SIGTERM, libc::SIGSEGV].map(|signal| {
            // SAFETY: plain data, for which zeros are a value.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: only reads, into a struct that outlives the call.
            unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
            (action.sa_sigaction, action.sa_flags)
        })
    };
    let before = handlers();
    // One of each kind; `just hostile` takes a thousand.
    let report = generator::serve(20, 2026, program(), folder.path());
    assert_eq!(handlers(), before);
    assert_eq!(report.outcomes.values().sum::<u32>(), 20);
    assert!(report.answered > 0, "{report:?}");
    for outcome in ["refused", "timed out", "built"] {
        assert!(report.outcomes.contains_key(outcome), "{report:?}");
    }
}
