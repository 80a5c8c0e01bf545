//! The crate's first page: short, and with an example that is run.

use std::collections::BTreeSet;
use std::path::Path;

/// Names that the page lists: modules, what is re-exported, and macros of the crate.
fn listed() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs_err::read_to_string(root.join("src/lib.rs")).expect("page");
    let mut names = BTreeSet::new();
    let mut hidden = false;
    for line in page.lines() {
        let declared = line
            .strip_prefix("pub mod ")
            .or_else(|| line.strip_prefix("pub use "));
        let Some(declared) = declared.and_then(|rest| rest.strip_suffix(';')) else {
            hidden |= line == "#[doc(hidden)]";
            continue;
        };
        if std::mem::take(&mut hidden) {
            continue;
        }
        let last = declared.rsplit("::").next().unwrap_or(declared);
        let each = last.trim_matches(['{', '}']).split(", ");
        names.extend(each.map(|name| name.rsplit(" as ").next().unwrap_or(name).to_owned()));
    }
    let macros = fs_err::read_to_string(root.join("src/engine/embed/mod.rs")).expect("source");
    let exported = macros.split("#[macro_export]\nmacro_rules! ").skip(1);
    names.extend(exported.filter_map(|rest| Some(format!("{}!", rest.split_once(' ')?.0))));
    names
}

#[test]
fn the_first_page_lists_fewer_than_25_items() {
    let names = listed();
    for expected in ["engine", "cudarc", "Jit", "Config", "Context", "build", "embed!"] {
        assert!(names.contains(expected), "{expected} is not found: {names:?}");
    }
    assert!(names.len() < 25, "{} items: {names:?}", names.len());
}
