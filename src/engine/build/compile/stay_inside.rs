//! A look through sources that are to be compiled where nothing fences the compiler.
//!
//! Invariant: a source that passes names no file but those that it was given. It is
//! stricter than it must be, as a text is not compiled here: an include that is never
//! reached, or that is computed, is refused too.

use crate::engine::build::render::RenderedSource;

/// Why a source may not be compiled here, if it may not.
pub(super) fn check(rendered: &RenderedSource) -> Result<(), String> {
    // Of these every header would have to pass, also what none of its includes reaches.
    if let Some(set) = rendered.sets.first() {
        return Err(format!(
            "{}:1: error: header set `{}` cannot be used here: this kernel has neither seccomp nor Landlock \
             to keep the compiler from reading files",
            rendered.name, set.name
        ));
    }
    let texts = rendered
        .headers
        .iter()
        .map(|(name, text)| (name.as_str(), &**text));
    for (file, text) in texts.chain([(rendered.name.as_str(), rendered.source.as_str())]) {
        for (line, words) in directives(text) {
            let asks = words.strip_prefix("include").map(str::trim_start).or_else(|| {
                Some(
                    words
                        .split_once("__has_include")?
                        .1
                        .trim_start_matches([' ', '(']),
                )
            });
            let Some(asks) = asks else { continue };
            let name = asks
                .strip_prefix(['"', '<'])
                .and_then(|rest| rest.split(['"', '>']).next());
            let given = name.is_some_and(|name| rendered.headers.iter().any(|(given, _)| given == name));
            if !given {
                return Err(format!(
                    "{file}:{line}: error: #{words}: not among the headers of the family, and this kernel \
                     has neither seccomp nor Landlock to keep the compiler from reading it"
                ));
            }
        }
    }
    Ok(())
}

/// Preprocessing directives with the numbers of the lines on which they begin, in one
/// line each and without comments before their words.
fn directives(text: &str) -> Vec<(usize, String)> {
    let joined = text.replace("\\\r\n", "\u{1}").replace("\\\n", "\u{1}");
    let mut line = 1;
    let mut found = Vec::new();
    for logical in joined.split('\n') {
        let bare = uncommented(&logical.replace('\u{1}', ""));
        if let Some(words) = bare
            .trim_start()
            .strip_prefix('#')
            .or_else(|| bare.trim_start().strip_prefix("%:"))
        {
            found.push((line, words.trim().to_owned()));
        } else if bare.contains("__has_include") {
            found.push((line, bare.trim().to_owned()));
        }
        line += 1 + logical.matches('\u{1}').count();
    }
    found
}

/// A line without the comments that begin and end on it: what may stand before a `#`.
fn uncommented(line: &str) -> String {
    let mut rest = line;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        out.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    // The end of a comment that began lines before may stand before a directive.
    match (out.is_empty(), rest.split_once("*/")) {
        (true, Some((_, after))) => after.to_owned(),
        _ => out + rest,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::request::header_set::{HeaderSet, SetUse};

    fn rendered(source: &str) -> RenderedSource {
        RenderedSource {
            name: "k.cu.tera".into(),
            source: source.into(),
            headers: vec![("v.h".into(), "int v;\n".into())],
            sets: Vec::new(),
            expressions: Vec::new(),
            options: Vec::new(),
        }
    }

    fn check_of(source: &str) -> Result<(), String> {
        check(&rendered(source))
    }

    #[test]
    fn header_sets_which_nobody_looks_through_are_refused() {
        let mut with_a_set = rendered("");
        let standard = Arc::clone(HeaderSet::standard());
        with_a_set.sets.push(SetUse::of("std", standard));
        let refused = check(&with_a_set).expect_err("a set");
        assert!(
            refused.contains("header set `std` cannot be used here"),
            "{refused}"
        );
    }

    #[test]
    fn headers_that_were_given_pass() {
        for source in [
            "#include \"v.h\"\n",
            "#include <v.h>\n",
            "# /* c */ define X\n",
            "#if __has_include(\"v.h\")\n",
        ] {
            assert_eq!(check_of(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn whatever_else_asks_for_a_file_is_refused_with_its_place() {
        for source in [
            "\n#include \"/etc/passwd\"\n",
            "\n#include <../v.h>\n",
            "\n#define H \"/etc/passwd\"\n#include H\n",
            "\n  /* c */ # include \"w.h\"\n",
            "\n#inc\\\nlude \"w.h\"\n",
            "\n%:include \"w.h\"\n",
            "/* from before\n ends */ #include \"w.h\"\n",
            "\n#if __has_include(</etc/passwd>)\n",
        ] {
            let refused = check_of(source).expect_err(source);
            assert!(
                refused.starts_with("k.cu.tera:2") || refused.starts_with("k.cu.tera:3"),
                "{refused}"
            );
        }
    }
}
