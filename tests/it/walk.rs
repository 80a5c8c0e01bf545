//! The structure of the source itself.

use std::path::{Path, PathBuf};

/// The wings and rooms, first to last: each uses only those before it. The longest name
/// that fits counts.
const WALK: &[&str] = &[
    "engine::suggest",
    "engine::atomic_file",
    "engine::config",
    "engine::request::constant",
    "engine::request::dtype",
    "engine::request::target",
    "engine::request::tera_strict",
    "engine::request::regions",
    "engine::request::template",
    "engine::request::spec",
    "engine::request::select",
    "engine::request::signature",
    "engine::request::matrix",
    "engine::build::toolchain",
    "engine::build::key",
    "engine::build::render",
    "engine::build::request",
    "engine::build::artifact",
    "engine::build::parameter_info",
    "engine::build::compile",
    "engine::cache",
    "engine::run::device",
    "engine::run::occupancy",
    "engine::run::load",
    "engine::run::launch",
    "engine::run::tensor",
    "engine::run::bind_error",
    "engine::run::packet",
    "engine::run::arguments",
    "engine::run::bind",
    "engine::jit",
    "measure",
    "families::config",
    "families::nvfp4",
    "families::wo_gemv",
    "families::gemv",
    "families::decode_layer",
    "families",
    "cli",
];

/// What may import anything below it: it only says what there is.
const FRONT: &[&str] = &[
    "lib.rs",
    "main.rs",
    "engine/mod.rs",
    "engine/request/mod.rs",
    "engine/build/mod.rs",
    "engine/run/mod.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file with its path below src/.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs_err::read_dir(dir).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root(), &mut files);
    let below = |file: &PathBuf| {
        let name = file.strip_prefix(root()).expect("below src");
        let text = fs_err::read_to_string(file).expect("source");
        (name.to_string_lossy().into_owned(), text)
    };
    files.iter().map(below).collect()
}

/// The place in the walk of a path of modules, and its name there.
fn place(path: &str) -> Option<(usize, &'static str)> {
    let fits = |name: &&'static str| path == *name || path.starts_with(&format!("{name}::"));
    let named = WALK.iter().enumerate().filter(|(_, name)| fits(name));
    named
        .max_by_key(|(_, name)| name.len())
        .map(|(at, name)| (at, *name))
}

/// The modules of a file: `engine/run/load.rs` is `engine::run::load`.
fn module(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.replace('/', "::")
}

#[test]
fn no_room_imports_a_later_one() {
    let mut checked = 0;
    for (file, text) in sources() {
        if FRONT.contains(&file.as_str()) {
            continue;
        }
        let (own, _) = place(&module(&file)).unwrap_or_else(|| panic!("{file} is in no room"));
        for (number, line) in text.lines().enumerate() {
            // Links of comments, and paths in the middle of a line, are uses too.
            for rest in line.split("crate::").skip(1) {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let used = rest[..end.unwrap_or(rest.len())].trim_end_matches(':');
                let (used, name) =
                    place(used).unwrap_or_else(|| panic!("{file}:{}: {used} is in no room", number + 1));
                assert!(
                    used <= own,
                    "{file}:{} imports a later room, {name}: {line}",
                    number + 1
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "only {checked} imports were seen");
}

#[test]
fn no_file_is_over_the_limit() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 600, "{file} has {lines} lines");
    }
}
