//! No two folders of the source need each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The paths that a tree of imports names: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn expand(tree: &str, before: &str, out: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree).trim();
        if !path.is_empty() {
            out.push(format!("{before}{path}"));
        }
        return;
    };
    let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let (mut depth, mut from) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inner[from..at], &format!("{before}{head}"), out);
                from = at + 1;
            }
            _ => {}
        }
    }
    expand(&inner[from..], &format!("{before}{head}"), out);
}

/// A path within the crate, seen from a module; nothing of another crate's.
fn resolve(path: &str, module: &[String]) -> Option<Vec<String>> {
    let mut words = path.split("::");
    let mut at = match words.next()? {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    for word in words {
        match word {
            "super" => drop(at.pop()?),
            "self" => {}
            word => at.push(word.to_owned()),
        }
    }
    Some(at)
}

/// The paths that a file's own code imports or names; tests may look anywhere.
fn used(text: &str) -> Vec<String> {
    let own = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: Vec<&str> = own
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let mut paths = Vec::new();
    for start in ["use crate::", "use super::", "use self::"] {
        for tree in code.split(start).skip(1) {
            let tree = tree.split(';').next().unwrap_or_default();
            expand(tree, start.trim_start_matches("use "), &mut paths);
        }
    }
    for rest in code.split("crate::").skip(1) {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        paths.push(format!(
            "crate::{}",
            rest[..end.unwrap_or(rest.len())].trim_end_matches(':')
        ));
    }
    paths
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Which folder uses which other folder beside it.
fn folders(root: &Path) -> Graph {
    let mut all = Vec::new();
    files(root, &mut all);
    let mut graph = Graph::new();
    for file in &all {
        let below = file.strip_prefix(root).expect("below").with_extension("");
        let mut module: Vec<String> = below.iter().map(|w| w.to_string_lossy().into_owned()).collect();
        let folder = module[..module.len() - 1].to_vec();
        if module
            .last()
            .is_some_and(|last| last == "mod" || last == "lib" || last == "main")
        {
            module.pop();
        }
        let text = fs_err::read_to_string(file).expect("source");
        for path in used(&text).iter().filter_map(|path| resolve(path, &module)) {
            let common = folder.iter().zip(&path).take_while(|(a, b)| a == b).count();
            let (Some(own), Some(_)) = (folder.get(common), path.get(common)) else {
                continue;
            };
            let other = &path[..=common];
            if root.join(other.join("/")).is_dir() {
                let own = [&folder[..common], std::slice::from_ref(own)].concat();
                graph.entry(own.join("/")).or_default().insert(other.join("/"));
            }
        }
    }
    graph
}

/// A way from a folder back to itself.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn go(graph: &Graph, way: &mut Vec<String>) -> bool {
        let from = way[way.len() - 1].clone();
        graph.get(&from).into_iter().flatten().any(|next| {
            if *next == way[0] {
                return true;
            }
            if way.contains(next) {
                return false;
            }
            way.push(next.clone());
            let found = go(graph, way);
            if !found {
                way.pop();
            }
            found
        })
    }
    graph.keys().find_map(|from| {
        let mut way = vec![from.clone()];
        go(graph, &mut way).then_some(way)
    })
}

#[test]
fn no_two_folders_need_each_other() {
    let graph = folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let uses = |own: &str, other: &str| graph.get(own).is_some_and(|all| all.contains(other));
    let layer = "families/decode_layer";
    assert!(
        uses("families", "measure") && uses("measure", "engine"),
        "{graph:?}"
    );
    assert!(
        uses(&format!("{layer}/tune"), &format!("{layer}/verify")),
        "{graph:?}"
    );
    assert_eq!(circle(&graph), None);
}

#[test]
fn a_circle_of_folders_is_seen_through_super_and_through_lists() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (name, text) in [
        ("a/mod.rs", "mod one;"),
        ("a/one.rs", "use super::super::{b::{Two, Three}, lone};"),
        ("b/mod.rs", "// use crate::a;\nfn two() -> crate::c::Four {}"),
        ("c/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::a;\n}"),
        ("lone.rs", "use crate::a::One;"),
    ] {
        let path = dir.path().join(name);
        fs_err::create_dir_all(path.parent().expect("folder")).expect("folder");
        fs_err::write(path, text).expect("written");
    }
    let graph = folders(dir.path());
    assert_eq!(graph.keys().collect::<Vec<_>>(), ["a", "b"], "{graph:?}");
    assert_eq!(circle(&graph), None);
    fs_err::write(dir.path().join("c/more.rs"), "use crate::a::one as first;").expect("written");
    assert_eq!(
        circle(&folders(dir.path())),
        Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])
    );
}
