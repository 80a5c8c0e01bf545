//! The words of help, errors and declarations: docs/GLOSSARY.md decides.

use std::path::{Path, PathBuf};

/// Phrases that are not to return, and what is said instead.
const BANNED: &[(&str, &str)] = &[
    ("to mend", "fix"),
    ("mend it", "fix"),
    ("at hand", "in use"),
    ("other bytes", "SHA-256 mismatch"),
    ("fit its seal", "checksum mismatch"),
    ("is no prefix", "is not a ... prefix"),
    ("is no key", "is not a key"),
    ("is no number", "is not a number"),
    ("is no u32", "is not a u32"),
    ("` is no kernel", "is not a kernel"),
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
    ("Colours", "Colors"),
    ("specialised", "specialized"),
    ("quantize", "quantize"),
    ("the original's", "nvllm's"),
    ("the original system", "nvllm"),
    ("the original geometry", "`geometry = original`"),
];

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

/// The text literals of a line of Rust that a user may be shown.
fn literals(line: &str) -> Vec<&str> {
    if line.trim_start().starts_with("//") {
        return Vec::new();
    }
    line.split('"').skip(1).step_by(2).collect()
}

fn found(text: &str, place: &str, out: &mut Vec<String>) {
    for (phrase, instead) in BANNED {
        if text.contains(phrase) {
            out.push(format!(
                "{place}: `{phrase}` is said as `{instead}`: {}",
                text.trim()
            ));
        }
    }
}

#[test]
fn phrases_that_the_glossary_replaced_do_not_return() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    let mut seen = 0;
    let mut sources = Vec::new();
    files(&root.join("src"), "rs", &mut sources);
    for source in &sources {
        let text = fs_err::read_to_string(source).expect("source");
        let shown = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in shown.lines().enumerate() {
            for literal in literals(line) {
                seen += 1;
                found(literal, &format!("{}:{}", source.display(), number + 1), &mut all);
            }
        }
    }
    let mut declarations = Vec::new();
    files(&root.join("templates"), "toml", &mut declarations);
    for declaration in &declarations {
        let text = fs_err::read_to_string(declaration).expect("declaration");
        for (number, line) in text
            .lines()
            .filter(|l| !l.trim_start().starts_with('#'))
            .enumerate()
        {
            seen += 1;
            found(
                line,
                &format!("{}:{}", declaration.display(), number + 1),
                &mut all,
            );
        }
    }
    assert!(seen > 2000, "only {seen} texts were seen");
    assert!(all.is_empty(), "{}", all.join("\n"));
}
