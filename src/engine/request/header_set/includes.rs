//! `#include` lines, and which header a quoted one means.
//!
//! Invariant: the compiler is given headers by name alone and reads no folder. So a
//! quoted name that C++ would look up beside the including file is written out as the
//! name under which the header is handed over, before anything is hashed or compiled.

use std::borrow::Cow;

/// The name in an `#include` line, and whether it is in quotes.
pub(crate) fn included(line: &str) -> Option<(&str, bool)> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start();
    let rest = rest.strip_prefix("include")?.trim_start();
    let quoted = !rest.starts_with('<');
    let (open, close) = if quoted { ('"', '"') } else { ('<', '>') };
    let (name, _) = rest.strip_prefix(open)?.split_once(close)?;
    Some((name, quoted))
}

/// The text of `file` with every quoted include that lies beside it named in full:
/// in `foo/a.cuh`, `"b.cuh"` is `<foo/b.cuh>` if there is such a header. Lines keep
/// their numbers; what lies elsewhere stays as it is written.
pub(crate) fn name_in_full<'a>(file: &str, text: &'a str, known: impl Fn(&str) -> bool) -> Cow<'a, str> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let in_full = |line: &str| {
        let (name, quoted) = included(line)?;
        let beside = joined(folder, name)?;
        if !quoted || beside == name || !known(&beside) {
            return None;
        }
        Some(line.replacen(&format!("\"{name}\""), &format!("<{beside}>"), 1))
    };
    if text.lines().all(|line| in_full(line).is_none()) {
        return Cow::Borrowed(text);
    }
    let lines = text.split_inclusive('\n');
    Cow::Owned(
        lines
            .map(|line| in_full(line).map_or(Cow::Borrowed(line), Cow::Owned))
            .collect(),
    )
}

/// A relative name seen from a folder of the include tree; `None` above its root, and
/// for an absolute one.
fn joined(folder: &str, name: &str) -> Option<String> {
    if name.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_include_means_the_header_beside_the_file_that_has_it() {
        let known = |name: &str| ["foo/b.cuh", "b.cuh", "c.cuh"].contains(&name);
        let named = |file: &str, line: &str| name_in_full(file, line, known).into_owned();
        assert_eq!(
            named("foo/a.cuh", "#include \"b.cuh\"  // x\n"),
            "#include <foo/b.cuh>  // x\n"
        );
        assert_eq!(
            named("foo/a.cuh", "int i;\n # include \"../b.cuh\"\n"),
            "int i;\n # include <b.cuh>\n"
        );
        assert_eq!(named("k.cu.tera", "#include \"./c.cuh\""), "#include <c.cuh>");
        // By its name alone the compiler finds it, or says that it does not.
        for line in [
            "#include \"c.cuh\"",
            "#include <b.cuh>",
            "#include \"d.cuh\"",
            "#include \"../../b.cuh\"",
            "#include \"/b.cuh\"",
            "// #include \"b.cuh\"",
        ] {
            assert_eq!(named("foo/a.cuh", line), line);
        }
    }
}
