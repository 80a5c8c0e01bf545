//! docs/SECURITY.md names a test for each promise: the tests are there.

use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_promises_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promises = fs_err::read_to_string(root.join("docs/SECURITY.md")).expect("document");
    let mut sources = String::new();
    let mut folders: Vec<PathBuf> = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                sources.push_str(&fs_err::read_to_string(path).expect("source"));
            }
        }
    }
    let named = promises
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let tests: Vec<&str> = named.filter(|name| name.matches('_').count() > 3).collect();
    assert!(tests.len() > 50, "{}", tests.len());
    for test in tests {
        assert!(sources.contains(&format!("fn {test}(")), "no test `{test}`");
    }
}
