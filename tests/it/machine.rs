//! What the machine does not give: threads.

use crate::command::{events, jitc, succeeded};

/// A stack that cannot be mapped is refused as a thread too many is, with `EAGAIN`.
const NO_STACK: &str = "70368744177664";

#[test]
fn threads_that_cannot_be_made_cost_speed_and_not_the_run() {
    let dir = tempfile::tempdir().expect("tempdir");
    let warm = ["warm", "axpy", "--arch", "sm_80,sm_90a", "--jobs", "4", "--json"];
    let output = jitc(dir.path())
        .args(warm)
        .env("RUST_MIN_STACK", NO_STACK)
        .output()
        .expect("ran");
    succeeded(&output);
    let summary = events(&output).pop().expect("a summary");
    assert_eq!((&summary["built"], &summary["failed"]), (&2.into(), &0.into()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("fewer threads than requested"), "{said}");
    let output = jitc(dir.path())
        .args(["cache", "verify"])
        .env("RUST_MIN_STACK", NO_STACK)
        .output()
        .expect("ran");
    succeeded(&output);
}
