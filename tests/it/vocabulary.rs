//! The words of help, errors and declarations: docs/GLOSSARY.md decides.

use std::path::{Path, PathBuf};

/// Phrases that are not to return, and what is said instead.
const BANNED: &[(&str, &str)] = &[
    ("to mend", "fix"),
    ("mend it", "fix"),
    ("at hand", "in use"),
    ("other bytes", "SHA-256 mismatch"),
    ("fit its seal", "checksum mismatch"),
    // Of all such sentences only [`ABSENCE`] stays.
    ("is no ", "is not a"),
    ("asked for", "requested"),
    ("asks for", "requests"),
    ("asked after", "searched after"),
    ("dealt to", "share"),
    ("held to", "checked against"),
    (
        "into a layout for tensor cores, or back",
        "Repack an NVFP4 weight for tensor cores, or unpack it",
    ),
    ("` is none of", "expected one of"),
    ("Say less", "Only print errors"),
    ("Say more", "Log more"),
    ("jitc.toml here", "./jitc.toml"),
    ("Families over, or beside", "Directory of kernel families"),
    ("asked in order", "searched in order"),
    ("hold them to", "check against"),
    ("hold the W_O", "verify"),
    ("Hold the W_O", "Verify"),
    ("in at most two eights", "at most 16 query heads per KV head"),
    (
        "geometry chains; tensor cores",
        "`accumulate = mma` needs `geometry = tiled`",
    ),
    ("like ranges of K", "the same multiple of 128"),
    (
        "take more stages or longer ones",
        "raise `stages` or `stage_chunks`",
    ),
    ("on their way at a time", "in flight"),
    ("the MLP's middle", "intermediate size of the MLP"),
    ("the original's", "nvllm's"),
    ("the original system", "nvllm"),
    ("original geometry", "nvllm's geometry, `geometry = original`"),
];

/// Where `is no` is plain English.
const ABSENCE: &[&str] = &["there is no ", "There is no ", "is no longer", "is no faster"];

fn files(dir: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files(&path, extension, out);
        } else if path.extension().is_some_and(|e| e == extension) {
            out.push(path);
        }
    }
}

/// British spellings, anywhere in code, declarations and the page: identifiers, help and
/// comments are American.
const BRITISH: &[(&str, &str)] = &[
    ("olour", "color"),
    ("uantis", "quantize"),
    ("pecialis", "specialize"),
    ("erialis", "serialize"),
    ("ummaris", "summarize"),
    ("eighbour", "neighbor"),
    ("ehaviour", "behavior"),
    ("ancelled", "canceled"),
    ("nitialis", "initialize"),
    ("icence", "license"),
    // `aria-labelledby` is HTML's.
    (" labelled", "labeled"),
];

/// The text literals of a Rust source, each whole, with the line on which it begins. A line
/// that ends in a backslash goes on without the next one's indentation.
fn literals(source: &str) -> Vec<(usize, String)> {
    let text: Vec<char> = source.chars().collect();
    let starts = |at: usize, what: &str| text[at..].iter().copied().zip(what.chars()).all(|(a, b)| a == b);
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < text.len() {
        let word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
        let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
        match text[at] {
            '/' if starts(at, "//") => {
                at += text[at..].iter().take_while(|c| **c != '\n').count();
                continue;
            }
            'r' if !word && text.get(at + 1 + hashes) == Some(&'"') => {
                let end = format!("\"{}", "#".repeat(hashes));
                let begin = at + 2 + hashes;
                let length = (begin..text.len()).take_while(|i| !starts(*i, &end)).count();
                let literal: String = text[begin..begin + length].iter().collect();
                let lines = literal.matches('\n').count();
                found.push((line, literal));
                line += lines;
                at = begin + length + end.len();
                continue;
            }
            // A character; a lifetime has no closing quote.
            '\'' if text.get(at + 1) == Some(&'\\') => at += 3,
            '\'' if text.get(at + 2) == Some(&'\'') => at += 2,
            '"' => {
                let (begins, mut literal) = (line, String::new());
                at += 1;
                while at < text.len() && text[at] != '"' {
                    if text[at] == '\\' && text.get(at + 1) == Some(&'\n') {
                        line += 1;
                        at += 2;
                        at += text[at..].iter().take_while(|c| c.is_whitespace()).count();
                        continue;
                    }
                    if text[at] == '\\' {
                        at += 1;
                    }
                    line += usize::from(text[at] == '\n');
                    literal.push(text[at]);
                    at += 1;
                }
                found.push((begins, literal));
            }
            '\n' => line += 1,
            _ => {}
        }
        at += 1;
    }
    found
}

fn found(banned: &[(&str, &str)], text: &str, place: &str, out: &mut Vec<String>) {
    let searched = ABSENCE
        .iter()
        .fold(text.to_owned(), |text, phrase| text.replace(phrase, ""));
    for (phrase, instead) in banned {
        if searched.contains(phrase) {
            out.push(format!(
                "{place}: `{phrase}` is said as `{instead}`: {}",
                text.trim()
            ));
        }
    }
}

/// A page without its code spans, line by line.
fn prose(text: &str) -> String {
    let line = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("``");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_phrase_is_found_in_prose_and_plain_absence_is_not() {
    let hits = |text: &str| {
        let mut all = Vec::new();
        found(BANNED, text, "here", &mut all);
        all.len()
    };
    assert_eq!(hits("`x` is no size of a launch"), 1);
    assert_eq!(hits("there is no set `x`, and this is no longer one"), 0);
    assert_eq!(hits(&prose("as `what_is_asked_for is no ` says")), 0);
    assert_eq!(hits(&prose("what is asked for, `there`")), 1);
}

/// A file without its unit tests.
fn shown(path: &Path) -> String {
    let text = fs_err::read_to_string(path).expect("source");
    let tests = text.find("#[cfg(test)]\nmod tests {");
    text[..tests.unwrap_or(text.len())].to_owned()
}

#[test]
fn phrases_that_the_glossary_replaced_do_not_return() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    let mut seen = 0;
    let mut sources = Vec::new();
    files(&root.join("src"), "rs", &mut sources);
    for source in &sources {
        for (line, literal) in literals(&shown(source)) {
            seen += 1;
            found(
                BANNED,
                &literal,
                &format!("{}:{line}", source.display()),
                &mut all,
            );
        }
    }
    let mut others = Vec::new();
    files(&root.join("templates"), "toml", &mut others);
    for extension in ["html", "js", "css"] {
        files(&root.join("src"), extension, &mut others);
    }
    for other in &others {
        let text = fs_err::read_to_string(other).expect("text");
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with('#') && other.extension().is_some_and(|e| e == "toml") {
                continue;
            }
            seen += 1;
            let place = format!("{}:{}", other.display(), number + 1);
            found(BANNED, line, &place, &mut all);
        }
    }
    // Names of tests and of code are code's own; the list of changes is a record.
    let mut pages = vec![root.join("README.md")];
    files(&root.join("docs"), "md", &mut pages);
    for page in &pages {
        let text = fs_err::read_to_string(page).expect("text");
        let prose = prose(&text);
        for (number, line) in prose.lines().enumerate() {
            seen += 1;
            let place = format!("{}:{}", page.display(), number + 1);
            found(BANNED, line, &place, &mut all);
        }
    }
    assert!(pages.iter().any(|path| path.ends_with("GLOSSARY.md")));
    assert!(others.iter().any(|path| path.ends_with("page.html")));
    assert!(seen > 2000, "only {seen} texts were seen");
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn spelling_is_american_in_code_declarations_and_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut all, mut paths) = (Vec::new(), Vec::new());
    for extension in ["rs", "html", "js", "css"] {
        files(&root.join("src"), extension, &mut paths);
    }
    for extension in ["toml", "tera", "cuh"] {
        files(&root.join("templates"), extension, &mut paths);
    }
    for path in &paths {
        let text = shown(path);
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            found(BRITISH, line, &place, &mut all);
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Doc comments that say nothing where they are read by themselves.
const VAGUE: &[&str] = &[
    "Which.",
    "Whose.",
    "Where.",
    "When.",
    "Why.",
    "Its name.",
    "A name.",
    "The name.",
    "Its key.",
    "Its index.",
    "Its type.",
    "Its bytes.",
    "Its sizes.",
    "How many.",
    "How often.",
    "Multiplied.",
];

#[test]
fn doc_comments_say_what_a_thing_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut all) = (Vec::new(), Vec::new());
    files(&root.join("src"), "rs", &mut sources);
    for path in &sources {
        let text = shown(path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let doc = |line: &&str| line.starts_with("///");
            let alone = !lines[..number].last().is_some_and(doc);
            let vague = line.strip_prefix("/// ").filter(|text| VAGUE.contains(text));
            if let Some(vague) = vague.filter(|_| alone) {
                all.push(format!("{}:{}: {vague}", path.display(), number + 1));
            }
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Reports keep the JSON member `nat` for a release, beside `num_tokens`.
#[test]
fn the_tokens_of_a_launch_are_num_tokens_in_kernels_and_in_reports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_word = |text: &str| {
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word == "nat")
    };
    let (mut kernels, mut sources, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for extension in ["toml", "tera", "cuh"] {
        files(&root.join("templates"), extension, &mut kernels);
    }
    for path in &kernels {
        let text = fs_err::read_to_string(path).expect("kernel");
        for (number, _) in text.lines().enumerate().filter(|(_, line)| is_word(line)) {
            all.push(format!("{}:{}", path.display(), number + 1));
        }
    }
    files(&root.join("src"), "rs", &mut sources);
    for path in &sources {
        let literals = literals(&shown(path));
        let members = |name: &str| literals.iter().filter(|(_, text)| text == name).count();
        if members("nat") > members("num_tokens") {
            all.push(format!("{}: `nat` without `num_tokens`", path.display()));
        }
        let printed = literals
            .iter()
            .filter(|(_, text)| is_word(text) && text != "nat" && text != "--nat");
        all.extend(printed.map(|(line, text)| format!("{}:{line}: {text}", path.display())));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn a_literal_is_read_whole_over_its_lines() {
    let source = "// a \"comment\"\nlet c = '\"'; let l: &'a str = \"one \\\n    two\";\n\
                  let r = r#\"three \"four\"\"#; let e = \"\\\"five\\\"\";\n";
    let found = literals(source);
    let expected = [(2, "one two"), (4, "three \"four\""), (4, "\"five\"")];
    let expected = expected.map(|(line, text)| (line, text.to_owned()));
    assert_eq!(found, expected);
}
