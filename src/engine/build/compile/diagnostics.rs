//! The compiler's messages, as people want them: the first error in one line.

/// `file:line: message` of the first error in a log. A source renders line by
/// line, so the compiler's line numbers are the template's own.
pub(super) fn first_error(log: &str) -> String {
    let line = log
        .lines()
        .find(|l| l.contains("error:") || l.contains("error :") || l.contains("fatal"))
        .or_else(|| log.lines().find(|l| !l.trim().is_empty()))
        .unwrap_or("the compiler gave no message")
        .trim();
    match line.split_once("): ") {
        Some((place, message)) if place.contains('(') => format!("{}: {message}", place.replace('(', ":")),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::first_error;

    #[test]
    fn an_error_names_file_and_line_of_the_template() {
        let log = "x.cu.tera(3): warning #177-D: unused\nwo_gemv.cu.tera(12): error: identifier \"q\" is undefined\n";
        assert_eq!(
            first_error(log),
            "wo_gemv.cu.tera:12: error: identifier \"q\" is undefined"
        );
    }
}
