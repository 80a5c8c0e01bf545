//! Machine code, and headers without their timing, for tests that compare the two.

use object::{Object, ObjectSection};

/// The machine code of the only kernel.
pub(crate) fn code(cubin: &[u8]) -> Vec<u8> {
    let file = object::File::parse(cubin).expect("ELF");
    let section = file
        .sections()
        .find(|s| s.name().is_ok_and(|n| n.starts_with(".text.")))
        .expect("code");
    section.data().expect("bytes").to_vec()
}

/// A header without comments, and its argument lists on one line each.
pub(crate) fn code_of(header: &str) -> String {
    let comment = |line: &&str| !line.trim_start().starts_with("//");
    let mut joined = String::new();
    for line in header.lines().filter(comment) {
        let (gap, line) = match joined.chars().last() {
            Some(',') => (" ", line.trim_start()),
            Some('(') => ("", line.trim_start()),
            _ => ("\n", line),
        };
        joined.push_str(gap);
        joined.push_str(line);
    }
    joined + "\n"
}

/// The source without a trace of timing.
pub(crate) fn without_timing(source: &str) -> String {
    let timing = ["timer.", "RegionTimer<Config> ", "RegionTimer<C> ", "RegionSum<"];
    let plain: Vec<&str> = source
        .lines()
        .filter(|line| {
            !timing
                .iter()
                .any(|word| line.trim_start().trim_start_matches("jitc::").starts_with(word))
        })
        .collect();
    plain.join(
        "
",
    )
}
