//! benches/runs: one shape for every run, and an index made from their READMEs.
//!
//! Invariant: the index holds nothing that is not in a README's front matter.

use std::path::{Path, PathBuf};

/// What each run's front matter holds, in this order.
const KEYS: [&str; 5] = ["question", "commit", "gpu", "command", "answer"];

/// What the index opens with.
const HEAD: &str = "# Runs

Made from the front matter of each run's README; do not edit. After a change: `JITC_BLESS=1 cargo test --locked --test it runs_index`.

A run lies in `<date>-<host>/<name>/`. Its README opens with `question`, `commit` (the commit of this repository that was
measured, `before` the one that brought the data where that is all that is known, or `unknown`), `gpu`, `command` (the one that
made the main figure; commands are of that commit) and `answer`, between two lines of `---`. A patch of an experiment that was
dropped opens with `base`, the commit it applies to, or with `base: none` and why.

";

/// One run, as its folder and its front matter have it.
struct Run {
    /// The folder, from benches/runs on.
    folder: String,
    /// The values of `KEYS`.
    values: [String; KEYS.len()],
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/runs")
}

/// The entries of a folder, sorted: whether a folder, and the path.
fn entries(dir: &Path) -> Vec<(bool, PathBuf)> {
    let mut all: Vec<_> = fs_err::read_dir(dir)
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .map(|path| (path.is_dir(), path))
        .collect();
    all.sort();
    all
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for (is_dir, path) in entries(dir) {
        if is_dir {
            out.extend(files(&path));
        } else {
            out.push(path);
        }
    }
    out
}

/// A path as the index writes it: from `dir` on, with `/`.
fn below(dir: &Path, path: &Path) -> String {
    let parts: Vec<_> = path
        .strip_prefix(dir)
        .expect("below")
        .iter()
        .map(|part| part.to_str().expect("text"))
        .collect();
    parts.join("/")
}

/// A commit as the log abbreviates it, or longer.
fn is_commit(text: &str) -> bool {
    (7..=40).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A folder's name is a date, and the host that ran.
fn is_date_and_host(name: &str) -> bool {
    let shape = |b: u8| if b.is_ascii_digit() { b'0' } else { b };
    let date: Vec<u8> = name.bytes().take(11).map(shape).collect();
    date == b"0000-00-00-" && name.len() > 11
}

/// The values of `KEYS` at the head of a README; else every fault, a line each.
fn front_matter(readme: &str) -> Result<[String; KEYS.len()], Vec<String>> {
    let Some((head, _)) = readme
        .strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---\n"))
    else {
        return Err(vec![
            "it does not open with front matter between two lines of `---`".to_owned(),
        ]);
    };
    let mut faults = Vec::new();
    let mut found: [Option<&str>; KEYS.len()] = [None; KEYS.len()];
    for line in head.lines() {
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        let Some(at) = KEYS.iter().position(|k| *k == key) else {
            faults.push(format!("`{line}` is none of {}", KEYS.join(", ")));
            continue;
        };
        if found[at].replace(value).is_some() {
            faults.push(format!("`{key}` is there twice"));
        }
        // Else readers of YAML would take it for something else than a text.
        let plain = value.starts_with(|c: char| c.is_ascii_alphanumeric() || "./".contains(c));
        if !plain || value.contains(": ") || value.contains(" #") {
            faults.push(format!(
                "`{key}` is not plain text: a letter or digit first, and no `: ` or ` #`"
            ));
        }
        if key == "commit" && value != "unknown" {
            let commit = value.strip_prefix("before ").unwrap_or(value);
            if !is_commit(commit) {
                faults.push(format!(
                    "`commit` is `{value}`: expected a commit, `before` a commit, or `unknown`"
                ));
            }
        }
    }
    for (key, value) in KEYS.iter().zip(&found) {
        if value.is_none() {
            faults.push(format!("`{key}` is missing"));
        }
    }
    if faults.is_empty() {
        Ok(found.map(|value| value.unwrap_or_default().to_owned()))
    } else {
        Err(faults)
    }
}

/// Every run of a folder in order, and every fault of their shape, a line each.
fn runs(root: &Path) -> (Vec<Run>, Vec<String>) {
    let (mut runs, mut faults) = (Vec::new(), Vec::new());
    for (is_dir, day) in entries(root) {
        let name = below(root, &day);
        if !is_dir {
            if name != "INDEX.md" {
                faults.push(format!("{name}: a file outside of a run's folder"));
            }
            continue;
        }
        if !is_date_and_host(&name) {
            faults.push(format!("{name}: expected a name like 2026-11-24-h200"));
        }
        for (is_dir, run) in entries(&day) {
            let folder = below(root, &run);
            if !is_dir {
                faults.push(format!("{folder}: a file outside of a run's folder"));
                continue;
            }
            match fs_err::read_to_string(run.join("README.md")) {
                Err(_) => faults.push(format!("{folder}: no README.md")),
                Ok(readme) => match front_matter(&readme) {
                    Ok(values) => runs.push(Run { folder, values }),
                    Err(all) => {
                        faults.extend(all.iter().map(|f| format!("{folder}/README.md: {f}")));
                    }
                },
            }
        }
    }
    (runs, faults)
}

/// The index as it is to be.
fn render(runs: &[Run]) -> String {
    let mut out = HEAD.to_owned();
    out.push_str("| date | host, GPU | run | question | answer | commit |\n");
    out.push_str("|---|---|---|---|---|---|\n");
    for Run { folder, values } in runs {
        let (day, name) = folder.split_once('/').expect("a run is two folders down");
        let (date, host) = day.split_at(10);
        let [question, commit, gpu, _, answer] = values;
        let cells = [
            date,
            &format!("{}: {gpu}", &host[1..]),
            &format!("[{name}]({folder}/README.md)"),
            question,
            answer,
            commit,
        ]
        .map(|cell| cell.replace('|', "\\|"));
        out.push_str("| ");
        out.push_str(&cells.join(" | "));
        out.push_str(" |\n");
    }
    out
}

/// What a patch says above its first difference that it applies to.
fn base(patch: &str) -> Result<(), String> {
    let head: Vec<&str> = patch
        .lines()
        .take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- "))
        .collect();
    let value = |key: &str| head.iter().find_map(|line| line.strip_prefix(key));
    match value("base: ") {
        Some("none") if value("why: ").is_some() => Ok(()),
        Some(commit) if is_commit(commit) && value("apply: ").is_some() => Ok(()),
        _ => Err(
            "expected `base: COMMIT` and `apply: HOW`, or `base: none` and `why: ...`, above the first difference"
                .to_owned(),
        ),
    }
}

#[test]
fn every_run_says_what_it_asked_of_which_commit_and_the_answer() {
    let (runs, faults) = runs(&root());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(runs.len() >= 33, "{} runs", runs.len());
}

#[test]
fn the_index_of_runs_is_what_their_readmes_say() {
    let (runs, faults) = runs(&root());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    let expected = render(&runs);
    let path = root().join("INDEX.md");
    if std::env::vars_os().any(|(name, value)| name == "JITC_BLESS" && value == "1") {
        fs_err::write(&path, &expected).expect("written");
    }
    let found = fs_err::read_to_string(&path).expect("benches/runs/INDEX.md");
    let differs = expected
        .lines()
        .zip(found.lines())
        .find(|(expected, found)| expected != found);
    assert!(
        expected == found,
        "benches/runs/INDEX.md is out of date (JITC_BLESS=1 makes it anew); first difference: {differs:?}"
    );
}

#[test]
fn every_dropped_experiment_names_the_commit_that_it_applies_to() {
    let root = root();
    let mut patches = 0;
    let mut faults = Vec::new();
    for path in files(&root) {
        if path.extension().is_some_and(|e| e == "patch" || e == "diff") {
            patches += 1;
            let text = fs_err::read_to_string(&path).expect("patch");
            if let Err(fault) = base(&text) {
                faults.push(format!("{}: {fault}", below(&root, &path)));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(patches >= 9, "{patches} patches");
}

#[test]
fn results_of_benches_lie_in_runs_alone() {
    let benches = root().parent().expect("benches").to_owned();
    let strays: Vec<String> = files(&benches)
        .iter()
        .filter(|path| !path.starts_with(root()))
        .filter(|path| {
            // What a comparison takes is no result.
            !path.ends_with("machine_code/renames.json")
                && path
                    .extension()
                    .and_then(|e| e.to_str())
                    .is_none_or(|e| !["rs", "py", "md"].contains(&e))
        })
        .map(|path| below(&benches, path))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

#[test]
fn front_matter_that_is_not_whole_is_refused_with_its_fault() {
    let whole = "---\nquestion: Is it fast?\ncommit: before 0123abc\ngpu: none\ncommand: jitc bench\nanswer: 7 us\n---\n\n# Run\n";
    assert_eq!(
        front_matter(whole).expect("whole"),
        ["Is it fast?", "before 0123abc", "none", "jitc bench", "7 us"]
    );
    for (from, to, fault) in [
        ("---\nq", "q", "does not open with front matter"),
        ("answer: 7 us\n", "", "`answer` is missing"),
        ("gpu: none", "gpu: ", "`gpu` is not plain text"),
        ("7 us", "7 us: fast", "`answer` is not plain text"),
        ("gpu: none", "gpu: none\ngpu: H200", "`gpu` is there twice"),
        ("gpu:", "card:", "`card: none` is none of"),
        ("before 0123abc", "after 0123abc", "`commit` is `after"),
        ("before 0123abc", "main", "`commit` is `main`"),
    ] {
        let faults = front_matter(&whole.replacen(from, to, 1)).expect_err(fault);
        assert!(faults.iter().any(|f| f.contains(fault)), "{faults:?}");
    }
}

#[test]
fn a_patch_without_its_base_is_refused() {
    let diff = "diff --git a/x b/x\n";
    for head in [
        "",
        "base: main\napply: git apply\n",
        "base: none\n",
        "base: 0123abc\n",
    ] {
        base(&format!("{head}{diff}")).expect_err(head);
    }
    base(&format!("{diff}base: 0123abc\napply: git apply\n")).expect_err("below");
    for head in ["base: 0123abc\napply: git apply\n", "base: none\nwhy: lost\n"] {
        base(&format!("{head}\n{diff}")).expect(head);
    }
}

#[test]
fn a_folder_without_a_readme_and_a_stray_file_are_faults() {
    let dir = tempfile::tempdir().expect("folder");
    let root = dir.path();
    fs_err::create_dir_all(root.join("2026-01-02-h200/quick")).expect("folder");
    fs_err::create_dir_all(root.join("lately")).expect("folder");
    fs_err::write(root.join("2026-01-02-h200/times.txt"), "1").expect("file");
    let (runs, faults) = runs(root);
    assert!(runs.is_empty());
    assert_eq!(
        faults,
        [
            "2026-01-02-h200/times.txt: a file outside of a run's folder",
            "2026-01-02-h200/quick: no README.md",
            "lately: expected a name like 2026-11-24-h200",
        ]
    );
}
