//! A build without the feature `remote`, and a setting that takes it.

use crate::command::jitc;

#[test]
fn a_build_without_stores_refuses_them_in_one_line_and_shows_no_url() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut command = jitc(dir.path());
    command
        .args(["cache", "dir"])
        .env("JITC_REMOTE", "s3://user:hush@bucket/x");
    let output = command.output().expect("run");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("feature `remote`") && error.contains("JITC_REMOTE"),
        "{error}"
    );
    assert!(
        !error.contains("hush") && error.trim().lines().count() == 1,
        "{error}"
    );
}
