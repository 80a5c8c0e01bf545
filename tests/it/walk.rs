//! The structure of the source itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jitc::engine::config::settings::SETTINGS;
use jitc::engine::request::template::Registry;

/// The wings and rooms, first to last: each uses only those before it. The longest name
/// that fits counts. `families::*` are the families that are not named, of which none uses
/// another: a new one has its place without being added here.
const WALK: &[&str] = &[
    "engine::suggest",
    "engine::refused",
    "engine::threads",
    "engine::per_process",
    "engine::digest_hasher",
    "engine::atomic_file",
    "engine::regular_file",
    "engine::sign",
    "engine::config",
    "engine::request::constant",
    "engine::request::cxx_name",
    "engine::request::dtype",
    "engine::request::header_set",
    "engine::request::target",
    "engine::request::tera_strict",
    "engine::request::formula",
    "engine::request::regions",
    "engine::request::template",
    "engine::request::spec",
    "engine::request::select",
    "engine::request::signature",
    "engine::request::matrix",
    "engine::build::toolchain",
    "engine::build::key",
    "engine::build::options",
    "engine::build::render",
    "engine::build::request",
    "engine::build::artifact",
    "engine::build::ptx",
    "engine::build::image",
    "engine::build::parameter_info",
    "engine::build::compile",
    "engine::cache",
    "engine::run::driver_error",
    "engine::run::device",
    "engine::run::occupancy",
    "engine::run::dispatch",
    "engine::run::tuned",
    "engine::run::capture",
    "engine::run::entry_point",
    "engine::run::load",
    "engine::run::launch",
    "engine::run::tensor",
    "engine::run::dlpack",
    "engine::run::variable",
    "engine::run::bind_error",
    "engine::run::packet",
    "engine::run::arguments",
    "engine::run::bind",
    "engine::run::tvm_ffi",
    "engine::jit",
    "engine::doctor",
    "engine::embed",
    "measure",
    "families::config",
    "families::nvfp4",
    ANY_FAMILY,
    "families::wo_gemv",
    "families::gemv",
    "families::decode_layer",
    "families",
    "cli",
];

const ANY_FAMILY: &str = "families::*";

/// What may import anything below it: it only says what there is.
const FRONT: &[&str] = &[
    "lib.rs",
    "main.rs",
    "engine/mod.rs",
    "engine/request/mod.rs",
    "engine/build/mod.rs",
    "engine/run/mod.rs",
];

/// Constants that the engine itself defines: a family that declares regions is compiled
/// with this one at the number of them, and without at 0.
const ENGINE_CONSTANTS: [&str; 1] = ["num_regions"];

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
    let (at, name) = named.max_by_key(|(_, name)| name.len())?;
    if *name == "families" && own_family(path).is_some() {
        return Some((WALK.iter().position(|name| *name == ANY_FAMILY)?, ANY_FAMILY));
    }
    Some((at, name))
}

/// The folder of a family that a path of modules lies in.
fn own_family(path: &str) -> Option<&str> {
    let name = path.strip_prefix("families::")?.split("::").next()?;
    root().join("families").join(name).is_dir().then_some(name)
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
        let module = module(&file);
        let (own, _) = place(&module).unwrap_or_else(|| panic!("{file} is in no room"));
        for (number, line) in text.lines().enumerate() {
            // Links of comments, and paths in the middle of a line, are uses too.
            for rest in line.split("crate::").skip(1) {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let used = rest[..end.unwrap_or(rest.len())].trim_end_matches(':');
                let path = used;
                let (used, name) =
                    place(used).unwrap_or_else(|| panic!("{file}:{}: {path} is in no room", number + 1));
                let same_family = name != ANY_FAMILY || own_family(path) == own_family(&module);
                assert!(
                    used < own || used == own && same_family,
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

/// Whether a file is test code as a whole.
fn is_test(file: &str) -> bool {
    let whole = ["tests.rs", "test_fixtures.rs", "crash.rs"];
    whole.iter().any(|end| file.ends_with(end))
}

/// The string literals of a source, with their lines, up to its tests.
fn literals(text: &str) -> Vec<(usize, String)> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let chars: Vec<char> = code.chars().collect();
    let (mut found, mut line, mut at) = (Vec::new(), 1, 0);
    while at < chars.len() {
        let rest = |offset: usize| chars.get(at + offset).copied();
        match chars[at] {
            '\n' => line += 1,
            '/' if rest(1) == Some('/') => {
                while at + 1 < chars.len() && chars[at + 1] != '\n' {
                    at += 1;
                }
            }
            // A character, not a lifetime: `'"'` and `'\\''`.
            '\'' if rest(1) == Some('\\') => at += 3,
            '\'' if rest(2) == Some('\'') => at += 2,
            '"' => {
                let hashes = chars[..at].iter().rev().take_while(|c| **c == '#').count();
                let raw = at > hashes && chars[at - hashes - 1] == 'r';
                let (start, from) = (line, at + 1);
                at += 1;
                while at < chars.len() {
                    let closes =
                        chars[at] == '"' && (!raw || chars[at + 1..].iter().take(hashes).all(|c| *c == '#'));
                    if closes {
                        break;
                    }
                    line += usize::from(chars[at] == '\n');
                    at += if chars[at] == '\\' && !raw { 2 } else { 1 };
                }
                let end = at.min(chars.len());
                found.push((start, chars[from..end].iter().collect()));
            }
            _ => {}
        }
        at += 1;
    }
    found
}

#[test]
fn string_literals_are_told_from_comments_and_characters() {
    let source = "let a = \"x\"; // \"no\"\nlet b = ['\"', '\\'', 'c']; f(r#\"raw \"y\"\"#, \"z\\\"\");\n";
    let found = literals(source);
    let expected = [(1, "x"), (2, "raw \"y\""), (2, "z\\\"")];
    assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
}

/// The engine knows no family: what it says of one, it has from that family's declarations.
/// Names of several words count anywhere in a literal; a name of one word, such as
/// `stream`, is also plain English and counts where it is all that the literal says; of one
/// letter it is also a unit.
#[test]
fn no_literal_of_the_engine_names_a_built_in_family_or_one_of_its_constants() {
    let registry = Registry::load(None).expect("families");
    let mut names: BTreeSet<&str> = registry.families().map(|f| f.name.as_str()).collect();
    for family in registry.families() {
        names.extend(family.constants.keys().map(String::as_str));
    }
    for name in ENGINE_CONSTANTS {
        assert!(names.remove(name), "{name}: no built-in family declares it");
    }
    let says_a_name = |literal: &str| {
        let words = literal.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mut words = words.filter(|word| word.contains('_'));
        literal.len() > 1 && names.contains(literal) || words.any(|word| names.contains(word))
    };
    let mut checked = 0;
    for (file, text) in sources() {
        if !file.starts_with("engine/") || is_test(&file) {
            continue;
        }
        for (line, literal) in literals(&text) {
            assert!(
                !says_a_name(&literal),
                "src/{file}:{line} names a family or its constant: {literal:?}"
            );
            checked += 1;
        }
    }
    assert!(checked > 500, "only {checked} literals were seen");
}

/// Regions are declared by their families: nothing that serves any family names one.
#[test]
fn no_region_of_a_built_in_family_is_named_outside_of_it() {
    let registry = Registry::load(None).expect("families");
    let declared = registry.families().filter_map(|family| family.regions.as_ref());
    let regions: BTreeSet<&str> = declared.flat_map(|regions| regions.compiled_names()).collect();
    assert!(regions.contains("phase1_wo_gemv"), "{regions:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let page = "measure/region/page/page.js";
    let page_text = fs_err::read_to_string(root.join(page)).expect("the page");
    let general = sources()
        .into_iter()
        .filter(|(file, _)| !file.starts_with("families/") && !is_test(file));
    for (file, text) in general.chain([(page.to_owned(), page_text)]) {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let named = words.find(|word| regions.contains(word) && word.contains('_'));
        assert_eq!(named, None, "src/{file} names a region of a built-in family");
    }
}

/// Whatever the program reads from a variable of its own is a setting by that name, so
/// that no constant's variable can be the same.
#[test]
fn every_variable_of_the_program_is_in_the_table_of_settings() {
    let mut read = BTreeSet::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| !is_test(file)) {
        let reads_by_name = file.starts_with("engine/config/") && !file.ends_with("/settings.rs");
        for (line, literal) in literals(&text) {
            if reads_by_name {
                read.insert(literal.to_uppercase());
            }
            let Some(name) = literal.strip_prefix("JITC_").filter(|n| !n.is_empty()) else {
                continue;
            };
            if !name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                continue;
            }
            // What the build says is no setting.
            if text
                .lines()
                .nth(line - 1)
                .is_some_and(|line| line.contains("env!("))
            {
                continue;
            }
            let known = SETTINGS
                .iter()
                .any(|s| s.variable && s.name.to_uppercase() == name);
            assert!(
                known,
                "src/{file}:{line}: JITC_{name} is not in the table of settings"
            );
            read.insert(name.to_owned());
        }
    }
    for setting in SETTINGS.iter().filter(|s| s.variable) {
        assert!(
            read.contains(&setting.name.to_uppercase()),
            "the table lists {}, which nothing reads",
            setting.name
        );
    }
}

#[test]
fn the_architecture_lists_every_room() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let text = fs_err::read_to_string(path).expect("document");
    let listed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter_map(|line| line.split_whitespace().next())
        .map(|word| word.trim_end_matches('/'))
        .collect();
    for room in WALK.iter().filter(|room| **room != ANY_FAMILY) {
        let name = room.rsplit("::").next().unwrap_or(room);
        assert!(listed.contains(name), "{room} is not in docs/ARCHITECTURE.md");
    }
}

#[test]
fn the_command_line_parses_and_prints_and_stays_small() {
    let of_cli = |(file, _): &(String, String)| file.starts_with("cli/");
    let lines: usize = sources()
        .iter()
        .filter(|file| of_cli(file))
        .map(|(_, text)| text.lines().count())
        .sum();
    assert!(
        lines < 5_000,
        "src/cli has {lines} lines: work belongs to the engine, measure or a family"
    );
}
