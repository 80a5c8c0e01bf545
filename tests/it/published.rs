//! Every command that is published runs: those of README, of docs/, of every `--help`,
//! and those of benches/runs that are marked as reproducible.
//!
//! What counts as a command:
//! - a line `$ jitc ...` in a fenced block tagged `console`, up to a `#` comment;
//! - a code span that begins with `jitc `; one of two words that takes more only names
//!   its verb ([`NAMES`]), and then the verb's `--help` is run;
//! - in benches/runs only a block right under the line `<!-- reproducible -->`: records of
//!   older states stay as they were written;
//! - `cargo run --release -- ...` is `jitc ...`.
//!
//! A placeholder is a word in capitals, `FILE`, `DIR` or `KEY`; the test puts something
//! real in its place ([`Desk::filled`]), and refuses words in capitals that it does not know.
//!
//! Two things are cheaper than published: `warm` of whole families is run with `--check`,
//! but for those that compile at once ([`QUICK`]), and `warm --receipt` of `stream` alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::cli::{events, jitc, succeeded};

/// What a command says that needs a GPU, where there is none.
const NO_GPU: &str = "error: measuring takes a GPU, and there is none to use: ";

const MARK: &str = "<!-- reproducible -->";

/// Verbs that take more than their name.
const NAMES: [&str; 7] = [
    "cache",
    "completions",
    "extract",
    "pack",
    "regions",
    "sign",
    "toolchain",
];

/// Families whose `warm` is run in full, as it is published.
const QUICK: [&str; 2] = ["axpy", "stream"];

/// A command, and where it stands.
#[derive(Debug, Clone, PartialEq)]
struct Published {
    place: String,
    /// After `jitc`.
    words: Vec<String>,
}

/// The words after `jitc`, if it is such a command.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    let rest = ["jitc ", "cargo run --release -- "]
        .iter()
        .find_map(|start| line.strip_prefix(start))?;
    let rest = rest.split(" #").next().unwrap_or(rest);
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Commands of fenced blocks, and the text without any block.
fn blocks(text: &str, only_marked: bool) -> (Vec<Vec<String>>, String) {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let (mut fence, mut above) = (None, "");
    for line in text.lines() {
        match (fence, line.strip_prefix("```")) {
            (None, Some(tag)) => fence = Some(tag == "console" && (!only_marked || above == MARK)),
            (Some(_), Some(_)) => fence = None,
            (Some(taken), None) => {
                let command = line.strip_prefix("$ ").filter(|_| taken);
                found.extend(command.and_then(words));
            }
            (None, None) => rest.extend([line, "\n"]),
        }
        above = line.trim();
    }
    (found, rest)
}

/// Commands of code spans.
fn spans(text: &str) -> Vec<Vec<String>> {
    let span = |span: &str| words(&span.split_whitespace().collect::<Vec<_>>().join(" "));
    text.split('`').skip(1).step_by(2).filter_map(span).collect()
}

fn markdown(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            markdown(&path, out);
        } else if path.extension().is_some_and(|e| e == "md") {
            out.push(path);
        }
    }
}

fn of_files() -> Vec<Published> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    markdown(&root.join("docs"), &mut files);
    let today = files.len();
    markdown(&root.join("benches/runs"), &mut files);
    let mut all = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let text = fs_err::read_to_string(file).expect("text");
        let (mut found, rest) = blocks(&text, at >= today);
        if at < today {
            found.extend(spans(&rest));
        }
        let place = file.strip_prefix(root).expect("below").display().to_string();
        all.extend(found.into_iter().map(|words| Published {
            place: place.clone(),
            words,
        }));
    }
    all
}

/// The verbs that a help lists, under headings that end in `ommands:`.
pub(crate) fn verbs_of(help: &str) -> Vec<&str> {
    let (mut listing, mut names) = (false, Vec::new());
    for line in help.lines() {
        if line.ends_with(':') && !line.starts_with(' ') {
            listing = line.ends_with("ommands:");
        } else if listing && line.starts_with("  ") && !line.starts_with("   ") {
            names.extend(line.split_whitespace().next());
        }
    }
    names.retain(|name| *name != "help");
    names
}

/// Of the help of these words and of every verb below them.
fn of_help(verb: &[&str], out: &mut Vec<Published>) {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path()).args(verb).arg("--help").output().expect("ran");
    succeeded(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    out.extend(spans(&text).into_iter().map(|words| Published {
        place: format!("jitc {} --help", verb.join(" ")),
        words,
    }));
    let examples = text.lines().filter_map(|line| line.trim().strip_prefix("$ "));
    out.extend(examples.filter_map(words).map(|words| Published {
        place: format!("jitc {} --help", verb.join(" ")),
        words,
    }));
    for name in verbs_of(&text) {
        of_help(&[verb, &[name]].concat(), out);
    }
}

/// What commands are run with: a cache with one entry, and files of every kind.
struct Desk {
    dir: tempfile::TempDir,
    key: String,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let desk = Self {
            key: String::new(),
            dir,
        };
        let matrix = "[[warm]]\nfamilies = [\"stream\"]\narchs = [\"sm_90a\"]\n";
        fs_err::write(desk.at("matrix"), matrix).expect("write");
        let first = desk.at("first");
        fs_err::create_dir(&first).expect("folder");
        let run = |line: &str| {
            let output = jitc(&first)
                .args(line.split(' '))
                .env("JITC_TRACE", desk.at("trace"))
                .current_dir(desk.dir.path())
                .output()
                .expect("ran");
            succeeded(&output);
            output
        };
        run("warm stream --arch sm_90a --receipt receipt");
        run("cache export --out bundle");
        run("regions --synthetic 1 --save buffers");
        // Without the file beside it that says what it is, as nvllm's are.
        let is_buffer = |path: &PathBuf| path.extension().is_some_and(|e| e == "npy");
        let mut saved = fs_err::read_dir(desk.at("buffers")).expect("folder");
        let saved = saved.find_map(|entry| entry.ok().map(|e| e.path()).filter(is_buffer));
        fs_err::copy(saved.expect("a buffer"), desk.at("buffer.npy")).expect("copied");
        let listed = events(&run("cache ls --json"));
        let key = listed[0]["key"].as_str().expect("key").to_owned();
        Self { key, ..desk }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command with placeholders filled in; or what has no place.
    fn filled(&self, words: &[String]) -> Result<Vec<String>, String> {
        let path = |name: &str| self.at(name).display().to_string();
        let mut filled: Vec<String> = Vec::new();
        for word in words {
            let before = filled.last().map_or("", String::as_str);
            let is_placeholder = word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
            let real = match (word.as_str(), before) {
                _ if !is_placeholder => word.clone(),
                ("FILE", "--against") => path("receipt"),
                ("FILE", "--from-trace") => path("trace"),
                ("FILE", "--matrix") => path("matrix"),
                ("FILE", "import") => path("bundle"),
                ("FILE", _) if words[0] == "regions" => path("buffer.npy"),
                ("DIR", "--templates") if words.iter().any(|w| w == "rms_norm") => {
                    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rms_norm").into()
                }
                ("DIR", "--templates" | "check") => {
                    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/family").into()
                }
                ("FILE", "--receipt" | "--out") | ("DIR", "--save" | "--out") => "out".into(),
                ("KEY", _) => self.key.clone(),
                _ => return Err(format!("nothing to put in the place of {word}")),
            };
            filled.push(real);
        }
        Ok(filled)
    }

    /// Runs it in a folder of its own, beside a cache of its own that has the entry.
    fn run(&self, words: &[String]) -> Output {
        let (cache, here) = (
            tempfile::tempdir().expect("tempdir"),
            tempfile::tempdir().expect("tempdir"),
        );
        let import = jitc(cache.path())
            .args(["cache", "import"])
            .arg(self.at("bundle"))
            .output();
        succeeded(&import.expect("ran"));
        let mut command = jitc(cache.path());
        if removes_what_is_the_users(words) {
            command.env("XDG_DATA_HOME", here.path());
        }
        command
            .args(words)
            .current_dir(here.path())
            .env("JITC_OFFLINE", "1")
            .output()
            .expect("ran")
    }
}

/// What is run of a command.
fn cheaper(mut words: Vec<String>) -> Vec<String> {
    let has = |word: &str| words.iter().any(|w| w == word);
    if NAMES.contains(&words[0].as_str()) && words.len() == 1 {
        return vec![words.remove(0), "--help".into()];
    }
    let named = words.get(1).is_some_and(|name| QUICK.contains(&name.as_str()));
    let small = named || has("--from-trace") || has("--matrix") || has("--templates");
    let more: &[&str] = match words[0].as_str() {
        "warm" if has("--receipt") && !named => &["stream", "--arch", "sm_90a"],
        "warm" if !small && !has("--check") => &["--check"],
        _ => &[],
    };
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words
}

/// Whether it takes away what whoever runs the tests has installed: it gets a home of its
/// own, where there is nothing.
fn removes_what_is_the_users(words: &[String]) -> bool {
    words.first().is_some_and(|w| w == "toolchain") && words.iter().any(|w| w == "remove")
}

/// Whether it takes a GPU.
fn measures(words: &[String]) -> bool {
    let has = |word: &str| words.iter().any(|w| w == word);
    match words[0].as_str() {
        "bench" | "verify" => true,
        "tune" => !has("--dry-run"),
        "dispatch" => !has("--device"),
        "regions" => has("--live"),
        _ => false,
    }
}

/// Whether a negative answer, exit code 1, may be the right one where nothing is wrong.
fn may_say_no(words: &[String]) -> bool {
    ["dispatch", "doctor", "why"].contains(&words[0].as_str()) || words.iter().any(|w| w == "--check")
}

/// What is wrong with how a command ended. A `record` may use former names of flags and
/// families, which are said to be such.
fn wrong(words: &[String], output: &Output, record: bool) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let former = |line: &&str| {
        ["the former spelling will go", "is the former name of"]
            .iter()
            .any(|f| line.contains(f))
    };
    let lines: Vec<&str> = said.lines().filter(|line| !(record && former(line))).collect();
    let said = lines.join("\n");
    let right = match output.status.code() {
        Some(2) if measures(words) => said.starts_with(NO_GPU) && said.lines().count() == 1,
        Some(0) => !measures(words),
        Some(1) => may_say_no(words),
        _ => false,
    };
    let code = output.status.code();
    (!right).then(|| format!("ended with {code:?}: {}", said.trim_end()))
}

#[test]
fn a_published_removal_is_known_as_one_however_it_is_written() {
    for removes in [
        "toolchain remove",
        "toolchain remove --json",
        "toolchain --json remove",
    ] {
        let words: Vec<_> = removes.split(' ').map(str::to_owned).collect();
        assert!(removes_what_is_the_users(&words), "{removes}");
    }
    assert!(!removes_what_is_the_users(&["toolchain".into(), "path".into()]));
}

#[test]
fn every_published_command_runs_and_without_a_gpu_only_measuring_is_refused() {
    let mut all = of_files();
    of_help(&[], &mut all);
    for (place, at_least) in [
        ("README.md", 25),
        ("docs/", 25),
        ("jitc ", 5),
        ("benches/runs/", 5),
    ] {
        let found = all.iter().filter(|p| p.place.starts_with(place)).count();
        assert!(found >= at_least, "{place}: only {found} commands were found");
    }
    let gpu = jitc::engine::run::device::list().is_ok_and(|devices| !devices.is_empty());
    let desk = Desk::new();
    let (mut done, mut bad) = (Vec::new(), Vec::new());
    for Published { place, words } in all {
        let ended = desk.filled(&cheaper(words.clone())).and_then(|filled| {
            if done.contains(&filled) || gpu && measures(&filled) {
                return Ok(());
            }
            let output = desk.run(&filled);
            done.push(filled.clone());
            wrong(&filled, &output, place.starts_with("benches/runs/")).map_or(Ok(()), Err)
        });
        if let Err(reason) = ended {
            bad.push(format!("{place}: jitc {}: {reason}", words.join(" ")));
        }
    }
    if gpu {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: there is a GPU here, so what measures was not run"
        );
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    let in_full = |words: &&Vec<String>| {
        words[0] == "warm" && QUICK.contains(&words[1].as_str()) && !words.iter().any(|w| w == "--check")
    };
    let warmed = done.iter().filter(in_full).count();
    assert!(
        warmed > 0,
        "no published `warm` of {} was run in full",
        QUICK.join(" or ")
    );
}

#[test]
fn a_verb_that_is_only_a_name_takes_more() {
    let dir = tempfile::tempdir().expect("tempdir");
    for verb in NAMES {
        jitc(dir.path()).arg(verb).assert().code(2);
    }
}

#[test]
fn commands_are_found_where_they_are_marked() {
    let split = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let text = format!(
        "`jitc tune\nwo_gemv` and `jitc.toml`\n```console\n$ jitc old\n```\n{MARK}\n```console\n\
         $ cargo run --release -- warm stream  # a comment\nits output\n```\n"
    );
    let (found, rest) = blocks(&text, true);
    assert_eq!(found, [split("warm stream")]);
    assert_eq!(spans(&rest), [split("tune wo_gemv")]);
    assert_eq!(blocks(&text, false).0, [split("old"), split("warm stream")]);
}
