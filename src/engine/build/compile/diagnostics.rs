//! The compiler's messages, as people want them: the first error in one line, all of them
//! in the terms of the family's files, and what to do about the first mistakes.
//!
//! Invariant: nothing of the log is left out or reordered; only names of files change.

use crate::engine::request::header_set::{HeaderSet, STANDARD, SetName};

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
fn place_in(line: &str) -> Option<(&str, &str, &str)> {
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

/// Headers of the CUDA toolkit, or the first letters of their names, and the set that has
/// them; of libraries of the host, none.
const CUDA_HEADERS: [(&str, Option<&str>); 14] = [
    ("cublas", None),
    ("cudnn", None),
    ("cufft", None),
    ("cuda", Some("cuda")),
    ("cooperative_groups", Some("cuda")),
    ("mma.h", Some("cuda")),
    ("nv/", Some("cuda")),
    ("cub/", Some("cuda")),
    ("thrust/", Some("cuda")),
    ("curand", Some("curand")),
    ("device_launch_parameters.h", Some("cuda")),
    ("math_constants.h", Some("cuda")),
    ("sm_", Some("cuda")),
    ("vector_", Some("cuda")),
];

/// Headers of C for the host, which the set of small ones leaves out.
const HOST_HEADERS: [&str; 3] = ["ctype.h", "time.h", "errno.h"];

/// Names that those headers declare, the set that has them, and what is written without.
const DECLARED: [(&str, &str, &str, &str); 13] = [
    ("int8_t", "<cstdint>", STANDARD, "signed char"),
    ("uint8_t", "<cstdint>", STANDARD, "unsigned char"),
    ("int16_t", "<cstdint>", STANDARD, "short"),
    ("uint16_t", "<cstdint>", STANDARD, "unsigned short"),
    ("int32_t", "<cstdint>", STANDARD, "int"),
    ("uint32_t", "<cstdint>", STANDARD, "unsigned"),
    ("int64_t", "<cstdint>", STANDARD, "long long"),
    ("uint64_t", "<cstdint>", STANDARD, "unsigned long long"),
    ("uintptr_t", "<cstdint>", STANDARD, "unsigned long long"),
    ("half", "cuda_fp16.h", "cuda", "unsigned short"),
    ("__half", "cuda_fp16.h", "cuda", "unsigned short"),
    ("__nv_bfloat16", "cuda_bf16.h", "cuda", "unsigned short"),
    ("FLT_MAX", "<cfloat>", STANDARD, "3.402823466e38f"),
];

/// What to do about the mistakes that are understood, a line each. `beside` finds a file
/// of this name in the template's own folder; `place` is as for [`in_files`]; `used` are the
/// header sets that the family uses.
pub(crate) fn hints(
    log: &str,
    used: &[SetName],
    beside: &dyn Fn(&str) -> Option<std::path::PathBuf>,
    place: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for line in log.lines() {
        let Some((file, number, message)) = place_in(line.trim()) else {
            continue;
        };
        let file = place(file).unwrap_or_else(|| file.to_owned());
        let hint = if message.contains("could not open source file")
            || message.contains("cannot open source file")
        {
            quoted(message).map(|header| no_header(header, used, beside))
        } else if message.contains("identifier") && message.contains("is undefined") {
            quoted(message).and_then(|name| no_declaration(name, used))
        } else if message.contains("host functions are not allowed in JIT mode") {
            Some("a function without __device__ is for the host: give the family the option `-default-device`, or leave it out".to_owned())
        } else if message.contains("namespace \"std\" has no member") {
            let member = message.rsplit('"').nth(1).unwrap_or("..");
            Some(format!(
                "`std::{member}` is of the C++ library, of which NVRTC has none: types and functions of the device \
                 are built in"
            ))
        } else {
            None
        };
        let Some(hint) = hint else { continue };
        // Once, at the first place.
        if !hints.iter().any(|known| known.starts_with(&hint)) {
            hints.push(format!("{hint} ({file}:{number})"));
        }
    }
    hints
}

fn quoted(message: &str) -> Option<&str> {
    message.split('"').nth(1)
}

fn no_header(header: &str, used: &[SetName], beside: &dyn Fn(&str) -> Option<std::path::PathBuf>) -> String {
    let base = header.rsplit('/').next().unwrap_or(header);
    let standard = HeaderSet::standard();
    let of_cuda = CUDA_HEADERS.iter().find(|(known, _)| header.starts_with(known));
    if let Some(path) = beside(header) {
        return format!(
            "include `{header}`: not below include/; headers beside a template are not read: move {} to include/",
            path.display()
        );
    }
    if standard.has(header) && !uses(used, STANDARD) {
        return format!(
            "include `{header}`: a header of the C++ library, of which NVRTC has none: {}",
            with_set(used, STANDARD)
        );
    }
    match of_cuda {
        Some((_, Some(set))) if !uses(used, set) => format!(
            "include `{header}`: a header of the CUDA toolkit, of which NVRTC has none: {}",
            with_set(used, set)
        ),
        Some((_, Some(set))) => format!("include `{header}`: the header set `{set}` has no such header"),
        Some((_, None)) => format!(
            "include `{header}`: a header of the CUDA toolkit for the host, of which NVRTC has none: leave host code out"
        ),
        None if !base.contains('.') || HOST_HEADERS.contains(&header) => format!(
            "include `{header}`: a header of the C++ library, of which NVRTC has none: leave host code out; what \
             device code includes of it is in the header set `{STANDARD}`"
        ),
        None => format!(
            "include `{header}`: not below include/; headers beside a template are not read: move it to include/, or \
             name the folder of a library under [headers]"
        ),
    }
}

fn uses(used: &[SetName], set: &str) -> bool {
    used.iter().any(|other| other.name == set)
}

/// What a family says that uses this set too.
fn with_set(used: &[SetName], set: &str) -> String {
    let jitcs = used.iter().filter(|other| other.folder.is_none());
    let names = jitcs.map(|other| other.name.as_str()).chain([set]);
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    format!("give the family `[headers]` with `use = [{}]`", names.join(", "))
}

fn no_declaration(name: &str, used: &[SetName]) -> Option<String> {
    let (_, header, set, instead) = DECLARED.iter().find(|(known, ..)| *known == name)?;
    let with = if uses(used, set) {
        String::new()
    } else {
        format!(" and {}", with_set(used, set))
    };
    Some(format!(
        "`{name}` is declared in {header}, which NVRTC does not have: include it{with}, or write `{instead}`"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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

    #[test]
    fn the_first_mistakes_have_a_hint_each_with_its_place() {
        let missing_of = |name: &str, used: &[SetName]| {
            let line = format!(
                "k.cu.tera(2): catastrophic error: could not open source file \"{name}\" (no directories in search list)"
            );
            let beside = |header: &str| (header == "v.h").then(|| PathBuf::from("own/k/v.h"));
            let mut hints = hints(&line, used, &beside, &place);
            assert_eq!(hints.len(), 1, "{hints:?}");
            hints.remove(0)
        };
        let missing = |name: &str| missing_of(name, &[]);
        assert_eq!(
            missing("v.h"),
            "include `v.h`: not below include/; headers beside a template are not read: move own/k/v.h to include/ \
             (own/k/kernel.cu.tera:2)"
        );
        assert_eq!(
            missing("w.h"),
            "include `w.h`: not below include/; headers beside a template are not read: move it to include/, or name \
             the folder of a library under [headers] (own/k/kernel.cu.tera:2)"
        );
        for name in [
            "cuda_fp16.h",
            "cooperative_groups.h",
            "cooperative_groups/reduce.h",
            "mma.h",
            "cub/cub.cuh",
        ] {
            assert!(missing(name).contains("of the CUDA toolkit"), "{name}");
        }
        for name in ["vector", "cstdint", "stdint.h", "type_traits", "cuda/std/array"] {
            assert!(missing(name).contains("of which NVRTC has none"), "{name}");
        }
        let set = |name: &str| SetName {
            name: name.to_owned(),
            folder: None,
        };
        assert!(
            missing("mma.h").contains("`use = [\"cuda\"]`"),
            "{}",
            missing("mma.h")
        );
        assert!(missing("curand_kernel.h").contains("`use = [\"curand\"]`"));
        let more = missing_of("stdint.h", &[set("cuda")]);
        assert!(more.contains("`use = [\"cuda\", \"std\"]`"), "{more}");
        let none = missing_of("cuda_nothing.h", &[set("cuda")]);
        assert!(
            none.contains("the header set `cuda` has no such header"),
            "{none}"
        );
        assert!(missing("cublas_v2.h").contains("leave host code out"));
    }

    #[test]
    fn a_name_of_a_header_that_nvrtc_lacks_has_a_hint_once() {
        let log = "k.cu.tera(2): error: identifier \"uint32_t\" is undefined\n\
                   k.cu.tera(3): error: identifier \"uint32_t\" is undefined\n\
                   k.cu.tera(4): error: namespace \"std\" has no member \"vector\"\n\
                   k.cu.tera(5): error: identifier \"my_own\" is undefined\n\
                   k.cu.tera(6): error: A function without execution space annotations is considered a host \
                   function, and host functions are not allowed in JIT mode. Consider\n";
        let hints = hints(log, &[], &|_| None, &place);
        assert_eq!(hints.len(), 3, "{hints:?}");
        assert!(hints[2].contains("`-default-device`"), "{}", hints[2]);
        assert!(
            hints[0].ends_with("write `unsigned` (own/k/kernel.cu.tera:2)"),
            "{}",
            hints[0]
        );
        assert!(
            hints[1].starts_with("`std::vector` is of the C++ library"),
            "{}",
            hints[1]
        );
    }
}
