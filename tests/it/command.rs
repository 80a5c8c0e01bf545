//! Running the program, and reading what it said.

use std::path::Path;

use assert_cmd::Command;

/// jitc with an empty cache of its own and nothing of the caller's settings.
pub(crate) fn jitc(cache: &Path) -> Command {
    let mut command = Command::cargo_bin("jitc").expect("binary");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("JITC_") || name.starts_with("CUTE_") {
            command.env_remove(name);
        }
    }
    // Tagged, since these folders hold what a test works with too.
    if cache.is_dir() {
        fs_err::write(cache.join("CACHEDIR.TAG"), "made by jitc's tests: made by jitc").expect("a tag");
    }
    command.env("JITC_CACHE_DIR", cache).current_dir(cache);
    command
}

/// It ended well; if not, what it said.
pub(crate) fn succeeded(output: &std::process::Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The objects that it printed, one a line.
pub(crate) fn events(output: &std::process::Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect()
}
