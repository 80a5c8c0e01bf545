//! The pages: every link resolves, every page is listed, and what is shown as code is code
//! that is run or compiled.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::command::jitc;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(root().join(path)).expect("text")
}

/// Markdown below a folder, by its path from the root on.
fn below(folder: &str, out: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(root().join(folder)).expect("folder") {
        let path = entry.expect("entry").path();
        let named = path.strip_prefix(root()).expect("below").to_path_buf();
        if path.is_dir() {
            below(&named.to_string_lossy(), out);
        } else if path.extension().is_some_and(|e| e == "md") {
            out.push(named);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for folder in ["docs", "benches", "bindings", "examples"] {
        below(folder, &mut all);
    }
    all.sort();
    all
}

/// A page without fenced blocks and code spans.
fn prose(text: &str) -> String {
    let (mut out, mut fenced) = (String::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            out.extend([line, "\n"]);
        }
    }
    out.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The targets of links and pictures.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1);
    let target = |rest: &str| Some(rest.split_once(')')?.0.trim().to_owned());
    targets.filter_map(target).collect()
}

/// What GitHub and mdBook call a heading.
fn anchor(heading: &str) -> String {
    let text = heading.replace('`', "").to_lowercase();
    let kept = text.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = text.lines().filter_map(|line| {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        (!fenced && heading.len() < line.len() && heading.starts_with(' ')).then(|| anchor(heading.trim()))
    });
    headings.collect()
}

/// A path without `..` in it.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

/// What is wrong with a link of a page.
fn broken(page: &Path, link: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"]
        .iter()
        .any(|s| link.starts_with(s))
    {
        return None;
    }
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => page.to_path_buf(),
        path => plain(&page.parent().unwrap_or(Path::new("")).join(path)),
    };
    if !root().join(&target).exists() {
        return Some(format!("{} is not there", target.display()));
    }
    let is_page = target.extension().is_some_and(|e| e == "md");
    let found = fragment.is_empty() || !is_page || anchors(&read(&target)).contains(fragment);
    (!found).then(|| format!("{} has no heading `{fragment}`", target.display()))
}

#[test]
fn every_link_between_pages_resolves_to_a_file_and_a_heading() {
    let (mut seen, mut bad) = (0, Vec::new());
    for page in pages() {
        for link in links(&read(&page)) {
            seen += 1;
            let reason = broken(&page, &link);
            bad.extend(reason.map(|reason| format!("{}: {link}: {reason}", page.display())));
        }
    }
    assert!(seen > 150, "only {seen} links were found");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_broken_link_is_found_and_code_is_not_taken_for_one() {
    let text = "[a](x.md) `[b](y.md)`\n```\n[c](z.md)\n```\n![d](#Head)\n";
    assert_eq!(links(text), ["x.md", "#Head"]);
    let page = Path::new("docs/CACHE.md");
    assert!(broken(page, "nowhere.md").is_some());
    assert!(broken(page, "FLEET.md#nothing-such").is_some());
    assert_eq!(broken(page, "../README.md#how-fast"), None);
    assert_eq!(
        anchor("Tensor cores: `accumulate = \"mma\"`"),
        "tensor-cores-accumulate--mma"
    );
}

#[test]
fn the_book_lists_every_page_of_docs() {
    let mut all = Vec::new();
    below("docs", &mut all);
    let listed: BTreeSet<String> = links(&read("docs/SUMMARY.md")).into_iter().collect();
    let named = all.iter().map(|page| {
        page.strip_prefix("docs")
            .expect("below")
            .to_string_lossy()
            .into_owned()
    });
    let missing: Vec<String> = named
        .filter(|name| name != "SUMMARY.md" && !listed.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/SUMMARY.md does not list {}",
        missing.join(", ")
    );
}

/// A crate's page shows README: what it links to travels with it.
#[test]
fn what_readme_links_to_is_in_the_package() {
    let output = Command::new(env!("CARGO"))
        .args([
            "package",
            "--list",
            "--allow-dirty",
            "--offline",
            "--package",
            "jitc",
        ])
        .current_dir(root())
        .output()
        .expect("ran");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let packed: BTreeSet<&str> = text.lines().collect();
    let local = links(&read("README.md"))
        .into_iter()
        .filter(|link| !link.starts_with("http"));
    let missing: Vec<String> = local
        .map(|link| link.split('#').next().unwrap_or_default().to_owned())
        .filter(|path| !packed.contains(path.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in the package: {}", missing.join(", "));
    for needed in ["examples/hello/main.rs", "templates/wo_gemv/family.toml"] {
        assert!(packed.contains(needed), "{needed}");
    }
}

/// The first fenced block of a language.
fn block<'t>(text: &'t str, language: &str) -> &'t str {
    let start = text.split_once(&format!("```{language}\n")).expect("a block").1;
    start.split_once("```").expect("its end").0
}

#[test]
fn readmes_rust_is_eight_lines_of_an_example_that_is_compiled() {
    let readme = read("README.md");
    let shown = block(&readme, "rust");
    let example = read("examples/readme.rs");
    for line in shown.lines() {
        assert!(example.contains(line), "examples/readme.rs lacks: {line}");
    }
    assert!(shown.lines().count() <= 8);
}

#[test]
fn readmes_python_is_that_of_the_packages_readme_which_is_run() {
    let readme = read("README.md");
    let shown = block(&readme, "python").lines().filter(|line| !line.is_empty());
    let package = read("bindings/python/README.md");
    let run = block(&package, "python");
    let mut count = 0;
    for line in shown {
        count += 1;
        assert!(run.contains(line), "bindings/python/README.md lacks: {line}");
    }
    assert!((1..=6).contains(&count), "{count}");
}

#[test]
fn the_program_of_the_first_page_is_the_example() {
    let page = read("docs/start/embed.md");
    let example = read("examples/hello/main.rs");
    let program = example.split_once("\n\n").expect("after its first line").1;
    assert_eq!(block(&page, "rust"), program);
}

#[test]
fn the_container_recipe_of_the_page_is_the_one_that_is_built() {
    let recipe = read("examples/container/Containerfile");
    let steps = recipe.split_once("\n\n").expect("after its head").1;
    assert_eq!(block(&read("docs/guide/containers.md"), "dockerfile"), steps);
}

#[test]
fn the_picture_of_readme_is_drawn_from_the_committed_figures() {
    let script = root().join("docs/figures/front.py");
    match Command::new("python3").arg(script).arg("--print").output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let drawn = String::from_utf8(output.stdout).expect("text");
            assert!(
                drawn == read("docs/figures/front.svg"),
                "run docs/figures/front.py"
            );
        }
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: no python3: {error}");
        }
    }
}

/// What a release carries is a list that can be read; nothing of it is here.
#[test]
fn the_kernels_of_a_release_can_be_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let matrix = root().join(".ci/release.toml");
    let output = jitc(dir.path())
        .args(["warm", "--check", "--json", "--matrix"])
        .arg(matrix)
        .output()
        .expect("ran");
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = crate::command::events(&output).pop().expect("a summary");
    assert_eq!(last["requested"], last["missing"]);
    assert!(last["requested"].as_u64() > Some(50), "{last}");
}
