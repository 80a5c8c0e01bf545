//! The compiler's messages, as people want them: the first error in one line, and all of them
//! in the terms of the family's files.
//!
//! Invariant: nothing of the log is left out or reordered; only names of files change.

/// `file:line: message` of the first error in a log. A source renders line by
/// line, so the compiler's line numbers are the template's own.
pub(super) fn first_error(log: &str) -> String {
    let line = log
        .lines()
        .find(|l| is_error(l))
        .or_else(|| log.lines().find(|l| !l.trim().is_empty()))
        .unwrap_or("the compiler gave no message")
        .trim();
    match place_in(line) {
        Some((file, number, message)) => format!("{file}:{number}: {message}"),
        None => line.to_owned(),
    }
}

/// `error:` of the front end, `error   :` and `fatal   :` of ptxas.
fn is_error(line: &str) -> bool {
    line.match_indices("error")
        .chain(line.match_indices("fatal"))
        .any(|(at, word)| line[at + word.len()..].trim_start().starts_with(':'))
}

/// File, line and message of `file(line): message`.
pub(super) fn place_in(line: &str) -> Option<(&str, &str, &str)> {
    let (place, message) = line.split_once("): ")?;
    let (file, number) = place.rsplit_once('(')?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (is_number && !file.is_empty()).then_some((file, number, message))
}

/// A log with the compiler's names of files replaced by where they are, as `place` says.
pub(crate) fn in_files(log: &str, place: &dyn Fn(&str) -> Option<String>) -> String {
    log.split_inclusive('\n')
        .map(|line| line_in_files(line, place))
        .collect()
}

fn line_in_files(line: &str, place: &dyn Fn(&str) -> Option<String>) -> String {
    let text = line.trim_start();
    let indent = &line[..line.len() - text.len()];
    // `file(line): message`, and the summary's `file:line: message`.
    if let Some(end) = text.find(['(', ':'])
        && text[end + 1..].starts_with(|c: char| c.is_ascii_digit())
        && let Some(path) = place(&text[..end])
    {
        return format!("{indent}{path}{}", &text[end..]);
    }
    // `... at line 3 of file`, `2 errors detected in the compilation of "file".`
    for (before, after) in [(" of \"", "\""), (" of ", "\n")] {
        if let Some((front, rest)) = line.rsplit_once(before)
            && let Some(name) = rest.split(after).next()
            && let Some(path) = place(name)
        {
            return format!("{front}{before}{path}{}", &rest[name.len()..]);
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Option<String> {
        match name {
            "k.cu.tera" => Some("own/k/kernel.cu.tera".to_owned()),
            "a/h.cuh" => Some("own/include/a/h.cuh".to_owned()),
            _ => None,
        }
    }

    const LOG: &str = r#"a/h.cuh(3): warning #177-D: variable "x" was declared but never referenced
    int x = made.cuh(1): a;
        ^

k.cu.tera(12): error: identifier "q" is undefined
  p[0] = q; // see k.cu.tera(1): and the like
         ^
          detected during instantiation of "T twice(T) [with T=int]" at line 2 of k.cu.tera

made.cuh(1): error: expected a ";"
1 error detected in the compilation of "k.cu.tera".
"#;

    #[test]
    fn an_error_names_file_and_line_of_the_template() {
        assert_eq!(
            first_error(LOG),
            "k.cu.tera:12: error: identifier \"q\" is undefined"
        );
        assert_eq!(
            in_files(&first_error(LOG), &place),
            "own/k/kernel.cu.tera:12: error: identifier \"q\" is undefined"
        );
    }

    #[test]
    fn the_first_error_of_ptxas_is_the_cause_and_not_the_end() {
        let log = "ptxas application ptx input, line 28; error   : Unknown modifier '.bar'\nptxas fatal   : aborted\n";
        assert!(
            first_error(log).contains("Unknown modifier"),
            "{}",
            first_error(log)
        );
        assert_eq!(
            first_error("ptxas fatal   : aborted\n"),
            "ptxas fatal   : aborted"
        );
        assert_eq!(first_error(""), "the compiler gave no message");
    }

    #[test]
    fn all_of_a_log_is_kept_and_its_files_are_named_as_they_are_found() {
        let mapped = in_files(LOG, &place);
        let expected = LOG
            .replace("a/h.cuh(3)", "own/include/a/h.cuh(3)")
            .replace("\nk.cu.tera(12)", "\nown/k/kernel.cu.tera(12)")
            .replace("at line 2 of k.cu.tera", "at line 2 of own/k/kernel.cu.tera")
            .replace("of \"k.cu.tera\"", "of \"own/k/kernel.cu.tera\"");
        assert_eq!(mapped, expected);
    }
}
