//! What a text may be before Tera's parser sees it.
//!
//! Invariant: a text that passes is parsed and evaluated on a small stack and in a short
//! time. The parser descends once for every bracket and block, and tries a call in four
//! ways, so in four times as many for every call within it; evaluation descends once for
//! every operator.

/// What opens and closes Tera's tags.
pub(super) const DELIMITERS: [&str; 6] = ["{{", "}}", "{%", "%}", "{#", "#}"];

/// Characters of an expression, which is ten times the longest that comes with jitc.
pub(super) const MAX_LENGTH: usize = 16 << 10;
/// Brackets within each other.
const MAX_BRACKETS: usize = 12;
/// Calls within each other.
const MAX_CALLS: usize = 3;
/// Operators in a `{{ }}` or `{% %}`.
const MAX_OPERATORS: usize = 128;
/// Blocks within each other.
const MAX_BLOCKS: usize = 16;

/// Operators that are words.
const WORDS: [&str; 5] = ["and", "or", "in", "is", "not"];

/// Checks every tag of a template; text, comments and raw parts are as they are.
pub(super) fn check(template: &str) -> Result<(), String> {
    let mut rest = template;
    let mut blocks = 0_usize;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        if rest.starts_with("{#") {
            rest = rest.find("#}").map_or("", |end| &rest[end + 2..]);
        } else if rest.starts_with("{{") {
            rest = check_tag(&rest[2..], "}}")?.1;
        } else if rest.starts_with("{%") {
            let (tag, after) = check_tag(&rest[2..], "%}")?;
            rest = after;
            let word = tag.trim_start_matches('-').trim_start();
            let word = word
                .split(|c: char| !c.is_ascii_alphabetic())
                .next()
                .unwrap_or("");
            match word {
                "raw" => rest = rest.find("endraw").map_or("", |end| &rest[end..]),
                "if" | "for" | "block" | "macro" | "filter" => blocks += 1,
                _ if word.starts_with("end") => blocks = blocks.saturating_sub(1),
                _ => {}
            }
            if blocks > MAX_BLOCKS {
                return Err(format!("has more than {MAX_BLOCKS} blocks within each other"));
            }
        } else {
            rest = &rest[1..];
        }
    }
    Ok(())
}

/// The inside of a tag, and what follows it.
fn check_tag<'a>(text: &'a str, end: &str) -> Result<(&'a str, &'a str), String> {
    let bytes = text.as_bytes();
    // Whether each open bracket is a call's.
    let mut open: Vec<bool> = Vec::new();
    let mut operators = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match byte {
            b'"' | b'\'' | b'`' => {
                let string = text[at + 1..].find(char::from(byte));
                at = string.map_or(bytes.len(), |length| at + length + 2);
                continue;
            }
            b'(' | b'[' => {
                open.push(byte == b'(' && is_named(&text[..at]));
                if open.len() > MAX_BRACKETS {
                    return Err(format!("has more than {MAX_BRACKETS} brackets within each other"));
                }
                if open.iter().filter(|call| **call).count() > MAX_CALLS {
                    return Err(format!("has more than {MAX_CALLS} calls within each other"));
                }
            }
            b')' | b']' => {
                open.pop();
            }
            _ if bytes[at..].starts_with(end.as_bytes()) => {
                return Ok((&text[..at], &text[at + end.len()..]));
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'<' | b'>' | b'=' | b'!' | b'|' => operators += 1,
            // `and`, `or`, `in`, `is`, `not` stand between blanks.
            b' ' | b'\t' | b'\r' | b'\n' => {
                let word = text[at + 1..].split(|c: char| !c.is_ascii_alphabetic()).next();
                operators += usize::from(word.is_some_and(|w| WORDS.contains(&w)));
            }
            _ => {}
        }
        if operators > MAX_OPERATORS {
            return Err(format!(
                "has more than {MAX_OPERATORS} operators in one expression"
            ));
        }
        at += 1;
    }
    // It never ends: Tera says so.
    Ok((text, ""))
}

/// Whether a bracket after this text is that of a call.
fn is_named(before: &str) -> bool {
    let before = before.trim_end();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let word = before.rsplit(|c| !is_part(c)).next().unwrap_or("");
    !word.is_empty() && !WORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comments_strings_and_raw_parts_may_hold_any_brackets() {
        let deep = "(".repeat(1000);
        for text in [
            format!("int x = {deep};"),
            format!("{{# {deep} #}}"),
            format!("{{% raw %}} {{{{ {deep} }}}} {{% endraw %}}"),
            format!("{{{{ '{deep}' }}}}"),
            "{ ä { ö } } {{ ü }}".to_owned(),
        ] {
            assert_eq!(check(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_the_parser_descends_into_is_bounded_in_every_tag() {
        let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        for (text, words) in [
            (nested("(", ")", 100_000), "brackets within each other"),
            (nested("x[", "]", 100_000), "brackets within each other"),
            (nested("max(a=", ")", 4), "calls within each other"),
            (nested("max (a=", ")", 4), "calls within each other"),
            (vec!["1"; 200].join(" + "), "operators in one expression"),
            (vec!["x"; 200].join(" and "), "operators in one expression"),
            (format!("x{}", "|abs".repeat(200)), "operators in one expression"),
        ] {
            for tag in [
                format!("{{{{ {text} }}}}"),
                format!("a {{% if {text} %}}1{{% endif %}}"),
                format!("{{{{ {text}"),
            ] {
                let reason = check(&tag).expect_err("refused");
                assert!(reason.contains(words), "{reason}");
            }
        }
        let blocks = nested("{% if x %}", "{% endif %}", 100_000);
        assert!(
            check(&blocks)
                .expect_err("refused")
                .contains("blocks within each other")
        );
        assert_eq!(check("{{ a and (b or (c and (d or (e and f)))) }}"), Ok(()));
    }
}
