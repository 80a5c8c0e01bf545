//! The structure of the source itself.

use std::path::{Path, PathBuf};

/// The walk, first to last: a stage uses only stages before it.
const WALK: &[&str] = &[
    "config",
    "constant",
    "target",
    "expression",
    "template",
    "spec",
    "matrix",
    "toolchain",
    "key",
    "region",
    "render",
    "artifact",
    "compile",
    "cache",
    "device",
    "dispatch",
    "load",
    "launch",
    "timing",
    "tune",
    "reference",
    "problem",
    "workspace",
    "jit",
    "cli",
];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn no_stage_imports_a_later_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let place = |name: &str| WALK.iter().position(|w| *w == name);
    let mut checked = 0;
    for file in files {
        let below = file
            .strip_prefix(&root)
            .expect("below src")
            .to_string_lossy()
            .into_owned();
        let stage = below
            .split('/')
            .next()
            .expect("name")
            .trim_end_matches(".rs")
            .to_owned();
        let Some(own) = place(&stage) else {
            assert!(
                ["lib", "main"].contains(&stage.as_str()),
                "{below} is not in the walk"
            );
            continue;
        };
        for line in fs_err::read_to_string(&file).expect("source").lines() {
            let Some(rest) = line
                .trim_start()
                .trim_start_matches("pub ")
                .strip_prefix("use crate::")
            else {
                continue;
            };
            let used = rest.split([':', ';', '{', ' ']).next().expect("name");
            let used = place(used).unwrap_or_else(|| panic!("{below}: {line}"));
            assert!(used <= own, "{below} imports a later stage: {line}");
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} imports were seen");
}

#[test]
fn no_file_is_over_the_limit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files {
        let lines = fs_err::read_to_string(&file).expect("source").lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}
