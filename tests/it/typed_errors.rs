//! The library's errors are types: no public function fails with a text.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Public functions of a source that fail with a text, by name.
fn untyped(source: &str) -> Vec<String> {
    let tests = source.find("#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let heads = source[..tests]
        .split("\n    pub fn ")
        .flat_map(|part| part.split("\npub fn "));
    let heads = heads
        .skip(1)
        .filter_map(|rest| rest.split_once('{').map(|(head, _)| head.trim_end()));
    let fails = heads.filter(|head| head.contains("-> Result<") && head.ends_with(", String>"));
    let name = |head: &str| head.split(['(', '<']).next().unwrap_or(head).to_owned();
    let mut all: Vec<String> = fails.map(name).collect();
    if source[..tests].contains("type Err = String") {
        all.push("FromStr".to_owned());
    }
    all
}

/// Names of stores and releases are read of the fleet's settings alone.
const STORES: [&str; 2] = ["engine/config/remote.rs", "engine/cache/remote/release.rs"];

#[test]
fn no_public_function_of_the_library_fails_with_a_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    for wing in ["engine", "measure", "families"] {
        sources(&root.join(wing), &mut all);
    }
    assert!(all.len() > 150, "only {} sources", all.len());
    let mut bad = Vec::new();
    for path in all
        .iter()
        .filter(|path| !STORES.iter().any(|store| path.ends_with(store)))
    {
        let found = untyped(&fs_err::read_to_string(path).expect("source"));
        bad.extend(
            found
                .into_iter()
                .map(|name| format!("{}: {name}", path.display())),
        );
    }
    assert!(
        bad.is_empty(),
        "expected a type, Refused at least: {}",
        bad.join(", ")
    );
}

#[test]
fn a_function_that_fails_with_a_text_is_found() {
    let source = "impl A {\n    pub fn a(&self) -> Result<u32, String> {\n    }\n    fn b() -> Result<u32, String> {}\n}\n\
                  pub fn c<T>(\n    t: T,\n) -> Result<BTreeMap<String, T>, Error> {\n}\n";
    assert_eq!(untyped(source), ["a"]);
}
