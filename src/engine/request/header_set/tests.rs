//! Sets of texts, folders and bytes.

use super::*;

fn texts(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn files_of(set: &HeaderSet) -> Vec<(String, String)> {
    let text = |text: &CStr| text.to_str().expect("UTF-8").to_owned();
    set.files().map(|(n, t)| (text(n), text(t))).collect()
}

#[test]
fn a_set_is_known_by_every_byte_of_names_and_texts() {
    let sets = [
        texts(&[("a.h", "int a;"), ("b.h", "")]),
        texts(&[("a.h", "int b;"), ("b.h", "")]),
        texts(&[("a.h", "int a;"), ("c.h", "")]),
        texts(&[("a.h", "int a;b.h"), ("b.h", "")]),
        texts(&[("a.h", "int a;")]),
        texts(&[("a.hint a;", ""), ("b.h", "")]),
    ];
    let digests = sets
        .iter()
        .map(|set| HeaderSet::from_texts(set).expect("set").digest);
    let distinct: std::collections::BTreeSet<_> = digests.collect();
    assert_eq!(distinct.len(), sets.len());
}

#[test]
fn bytes_that_were_a_set_are_the_same_one_and_what_is_cut_off_is_none() {
    let set = HeaderSet::from_texts(&texts(&[("a.h", "int a;\n"), ("d/b", "")])).expect("set");
    assert_eq!(set.len(), 2);
    let again = HeaderSet::from_bytes(set.bytes().to_vec()).expect("the same");
    assert_eq!(again.digest(), set.digest());
    assert_eq!(files_of(&again), files_of(&set));
    for end in 1..set.bytes().len() {
        let cut = HeaderSet::from_bytes(set.bytes()[..end].to_vec());
        assert_ne!(cut.map(|set| set.digest).ok(), Some(set.digest.clone()), "{end}");
    }
    assert_eq!(
        HeaderSet::from_bytes(b"a\0".to_vec()).expect_err("no text"),
        HeaderSetError::Broken
    );
    assert_eq!(
        HeaderSet::from_bytes(Vec::new()).expect_err("nothing"),
        HeaderSetError::Empty
    );
}

#[test]
fn a_header_is_found_by_its_whole_name() {
    let set = HeaderSet::from_texts(&texts(&[("a.h", ""), ("d/b.h", ""), ("d/c", "")])).expect("set");
    for name in ["a.h", "d/b.h", "d/c"] {
        assert!(set.has(name), "{name}");
    }
    for name in ["", "a", "b.h", "d/b.hh", "d/"] {
        assert!(!set.has(name), "{name}");
    }
}

#[test]
fn a_quoted_include_beside_the_including_header_is_named_in_full_and_lines_stay() {
    let set = texts(&[
        (
            "d/a.h",
            "\n#include \"b.inl\" // x\n#include \"e/../../root\"\n#include <b.inl>\n#include \"root\"\n",
        ),
        ("d/b.inl", ""),
        ("root", ""),
    ]);
    let set = HeaderSet::from_texts(&set).expect("set");
    let expected = "\n#include <d/b.inl> // x\n#include <root>\n#include <b.inl>\n#include \"root\"\n";
    assert_eq!(files_of(&set)[0].1, expected);
}

#[test]
fn a_folder_is_read_whole_whatever_names_end_in_and_what_is_hidden_is_left() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (name, text) in [
        ("a/b.hpp", "1"),
        ("a/noend", "2"),
        ("c.inl", "3"),
        (".git/x", "4"),
        (".x", "5"),
    ] {
        let path = dir.path().join(name);
        fs_err::create_dir_all(path.parent().expect("folder")).expect("folder");
        fs_err::write(path, text).expect("written");
    }
    let set = HeaderSet::read(dir.path()).expect("set");
    let names: Vec<String> = files_of(&set).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a/b.hpp", "a/noend", "c.inl"]);

    fs_err::write(dir.path().join("picture"), "\0").expect("written");
    let refused = HeaderSet::read(dir.path()).expect_err("a NUL").to_string();
    assert!(refused.contains("`picture` has a NUL byte"), "{refused}");
}

#[test]
fn the_standard_set_has_the_headers_that_device_code_includes() {
    let set = HeaderSet::standard();
    for name in [
        "stdint.h",
        "cstdint",
        "cassert",
        "assert.h",
        "type_traits",
        "cmath",
        "limits",
        "sys/types.h",
    ] {
        assert!(set.has(name), "{name}");
    }
    assert!(set.len() > 40, "{}", set.len());
}
