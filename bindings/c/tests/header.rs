//! The committed header, and what is true of all functions in it.

#[path = "../examples/header.rs"]
mod example;

use std::path::Path;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_header_is_what_the_sources_make() {
    let made = String::from_utf8(example::header().expect("made")).expect("UTF-8");
    let committed = fs_err::read_to_string(folder().join("include/jitc.h")).expect("committed");
    assert!(
        made == committed,
        "include/jitc.h is out of date: cargo run -p jitc-c --example header > bindings/c/include/jitc.h"
    );
}

#[test]
fn every_function_of_the_header_is_guarded_against_unwinding() {
    // These two cannot panic.
    let plain = ["jitc_version", "jitc_last_error"];
    let mut functions = 0;
    for entry in fs_err::read_dir(folder().join("src")).expect("sources") {
        let text = fs_err::read_to_string(entry.expect("an entry").path()).expect("a source");
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let (head, body) = function.split_once('{').expect("a body");
            let name = head.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
            let name = name.expect("a name");
            functions += 1;
            assert!(
                plain.contains(&name) || body.trim_start().starts_with("guard(|| {"),
                "{name} does something outside of `guard`"
            );
        }
    }
    let header = fs_err::read_to_string(folder().join("include/jitc.h")).expect("committed");
    let declared = header.matches("jitc_").count();
    assert!(
        functions > 10 && declared > functions,
        "{functions} functions were found"
    );
}
