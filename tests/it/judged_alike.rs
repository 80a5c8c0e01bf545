//! Questions decide as a load would: under a receipt, and without changing anything.

use std::path::Path;

use crate::command::{jitc, succeeded};

/// Exit status and standard output of a verb under a receipt.
fn under(receipt: &Path, cache: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = jitc(cache)
        .env("JITC_REQUIRE_RECEIPT", receipt)
        .args(args)
        .args(["--arch", "sm_90a"])
        .output()
        .expect("ran");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// The names of what lies in a folder that [`jitc`] was told of, but for its tag.
pub(crate) fn written(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).expect("a folder").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "CACHEDIR.TAG").collect()
}

#[test]
fn check_and_why_refuse_what_a_load_under_the_receipt_refuses() {
    let [dir, cache, other] = std::array::from_fn(|_| tempfile::tempdir().expect("tempdir"));
    let (cache, other, receipt) = (cache.path(), other.path(), dir.path().join("receipt.json"));
    let listed = ["warm", "stream", "--arch", "sm_90a"];
    let warm = jitc(cache).args(listed).arg("--receipt").arg(&receipt).output();
    succeeded(&warm.expect("ran"));
    let warm = jitc(cache).args(listed).args(["--unroll", "8"]).output();
    succeeded(&warm.expect("ran"));
    let ask = |args: &[&str]| under(&receipt, cache, args);
    // Warming is a load: the judge of the questions.
    assert_eq!(ask(&["warm", "stream"]).0, Some(0));
    assert_eq!(ask(&["warm", "stream", "--check"]).0, Some(0));
    assert_eq!(ask(&["why", "stream"]).0, Some(0));
    assert_eq!(ask(&["warm", "stream", "--unroll", "8"]).0, Some(2));
    for question in [
        &["warm", "stream", "--unroll", "8", "--check"][..],
        &["why", "stream", "--unroll", "8"],
    ] {
        let (status, said) = ask(question);
        assert_eq!(status, Some(1), "{question:?}: {said}");
        assert!(
            said.contains("refused") && said.contains("not in the receipt"),
            "{said}"
        );
        let (status, said) = ask(&[question, &["--json"]].concat());
        assert_eq!(status, Some(1), "{said}");
        let event: serde_json::Value =
            serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
        let why = event["reason"].as_str().expect("a reason");
        assert!(why.contains("not in the receipt"), "{event}");
    }
    // Listed and not in this cache: missing for both, and nothing is made.
    for question in [&["warm", "stream", "--check"][..], &["why", "stream"]] {
        let (status, said) = under(&receipt, other, question);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("in the receipt but not in the cache"), "{said}");
    }
    assert_eq!(written(other), [""; 0], "a question writes nothing");
}
