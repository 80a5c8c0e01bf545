//! Which compiler options a family may have.
//!
//! Invariant: an option that passes makes the compiler read and write nothing, and what
//! it changes is in its own text, which is in the key. Whatever is not listed is refused:
//! the next compiler may have options that nobody has looked at.

use crate::engine::suggest::did_you_mean;

/// What an option takes after its `=`.
enum Takes {
    Nothing,
    Flag,
    Number,
    OneOf(&'static [&'static str]),
    /// A macro: `NAME` or `NAME=TEXT`.
    Macro,
    /// Numbers of diagnostics, separated by commas.
    Numbers,
    /// Options of the assembler, separated by commas.
    Assembler,
}

use Takes::{Assembler, Flag, Macro, Nothing, Number, Numbers, OneOf};

const STANDARDS: &[&str] = &["c++03", "c++11", "c++14", "c++17", "c++20"];

/// Every spelling is an option of its own, as the compiler's documentation lists it.
#[rustfmt::skip]
const LISTED: &[(&str, Takes)] = &[
    ("--std", OneOf(STANDARDS)), ("-std", OneOf(STANDARDS)),
    ("--use_fast_math", Nothing), ("-use_fast_math", Nothing),
    ("--ftz", Flag), ("-ftz", Flag),
    ("--prec-sqrt", Flag), ("-prec-sqrt", Flag),
    ("--prec-div", Flag), ("-prec-div", Flag),
    ("--fmad", Flag), ("-fmad", Flag),
    ("--maxrregcount", Number), ("-maxrregcount", Number),
    ("--extra-device-vectorization", Nothing), ("-extra-device-vectorization", Nothing),
    ("--dopt", OneOf(&["on"])), ("-dopt", OneOf(&["on"])),
    ("--Ofast-compile", OneOf(&["0", "min", "mid", "max"])), ("-Ofc", OneOf(&["0", "min", "mid", "max"])),
    ("--device-debug", Nothing), ("-G", Nothing),
    ("--generate-line-info", Nothing), ("-lineinfo", Nothing),
    ("--define-macro", Macro), ("-D", Macro),
    ("--undefine-macro", Macro), ("-U", Macro),
    ("--restrict", Nothing), ("-restrict", Nothing),
    ("--device-as-default-execution-space", Nothing), ("-default-device", Nothing),
    ("--device-int128", Nothing), ("-device-int128", Nothing),
    ("--device-float128", Nothing), ("-device-float128", Nothing),
    ("--builtin-move-forward", Flag), ("-builtin-move-forward", Flag),
    ("--builtin-initializer-list", Flag), ("-builtin-initializer-list", Flag),
    ("--no-vla", Nothing), ("-no-vla", Nothing),
    ("--minimal", Nothing), ("-minimal", Nothing),
    ("--disable-warnings", Nothing), ("-w", Nothing),
    ("--display-error-number", Nothing), ("-err-no", Nothing),
    ("--no-display-error-number", Nothing), ("-no-err-no", Nothing),
    ("--brief-diagnostics", Flag), ("-brief-diag", Flag),
    ("--diag-error", Numbers), ("-diag-error", Numbers),
    ("--diag-suppress", Numbers), ("-diag-suppress", Numbers),
    ("--diag-warn", Numbers), ("-diag-warn", Numbers),
    ("--Werror", OneOf(&["all-warnings", "reorder", "deprecated-declarations"])),
    ("--split-compile", Number), ("-split-compile", Number),
    ("--ptxas-options", Assembler), ("-Xptxas", Assembler),
];

/// Options of the assembler, which reads files by some of its others.
#[rustfmt::skip]
const OF_THE_ASSEMBLER: &[(&str, Takes)] = &[
    ("-O0", Nothing), ("-O1", Nothing), ("-O2", Nothing), ("-O3", Nothing), ("-O4", Nothing),
    ("--opt-level", Number), ("-O", Number),
    ("--verbose", Nothing), ("-v", Nothing),
    ("--warn-on-spills", Nothing), ("-warn-spills", Nothing),
    ("--warn-on-local-memory-usage", Nothing), ("-warn-lmem-usage", Nothing),
    ("--warn-on-double-precision-use", Nothing), ("-warn-double-usage", Nothing),
    ("--disable-warnings", Nothing), ("-w", Nothing),
    ("--allow-expensive-optimizations", Flag), ("-allow-expensive-optimizations", Flag),
    ("--disable-optimizer-constants", Nothing), ("-disable-optimizer-consts", Nothing),
    ("--def-load-cache", OneOf(CACHES)), ("-dlcm", OneOf(CACHES)),
    ("--def-store-cache", OneOf(CACHES)), ("-dscm", OneOf(CACHES)),
    ("--fmad", Flag), ("-fmad", Flag),
    ("--maxrregcount", Number), ("-maxrregcount", Number),
    ("--device-function-maxrregcount", Number), ("-func-maxrregcount", Number),
    ("--suppress-stack-size-warning", Nothing), ("-suppress-stack-size-warning", Nothing),
];

const CACHES: &[&str] = &["ca", "cg", "cs", "cv", "wb", "wt"];

/// Options that jitc gives itself.
const OWN: &[&str] = &["--gpu-architecture", "-arch", "--no-source-include", "--no-cache"];

/// Why a family may not have an option, if it may not.
#[must_use]
pub fn refused(option: &str) -> Option<String> {
    let (name, _) = parts(option);
    if OWN.contains(&name) {
        return Some("jitc sets it itself".to_owned());
    }
    judged(option, LISTED)
}

/// Why one of the options that a variable of the environment adds may not be, if one may not.
#[must_use]
pub fn refused_of_environment(options: &str) -> Option<(String, String)> {
    options
        .split_whitespace()
        .find_map(|option| Some((option.to_owned(), refused(option)?)))
}

/// Options for code that is linked afterwards, which nobody does here; and why not.
const LINKED: &[(&str, &str)] = &[
    ("--relocatable-device-code", RELOCATABLE),
    ("-rdc", RELOCATABLE),
    ("--device-c", RELOCATABLE),
    ("-dc", RELOCATABLE),
    ("--dlink-time-opt", AT_LINK_TIME),
    ("-dlto", AT_LINK_TIME),
    ("--gen-opt-lto", AT_LINK_TIME),
    ("-gen-opt-lto", AT_LINK_TIME),
];

const RELOCATABLE: &str = "relocatable code is not supported, as nothing is linked behind the compiler: a kernel \
                           and all that it calls are one source, with headers for what is shared";

const AT_LINK_TIME: &str = "optimizing at link time is not supported, as nothing is linked behind the compiler, \
                            which makes no machine code then: leave it out, the whole source is optimized as one";

fn judged(option: &str, listed: &[(&str, Takes)]) -> Option<String> {
    let (name, value) = parts(option);
    if let Some((_, why)) = LINKED.iter().find(|(linked, _)| *linked == name) {
        return Some((*why).to_owned());
    }
    let Some((_, takes)) = listed.iter().find(|(listed, _)| *listed == name) else {
        let hint = did_you_mean(name, listed.iter().map(|(name, _)| *name));
        return Some(format!(
            "it is not among the options that are known to read nothing but what the key covers{hint}"
        ));
    };
    let (good, expected) = match takes {
        Nothing => (value.is_none(), "nothing after it".to_owned()),
        Flag => (
            matches!(value, Some("true" | "false")),
            "=true or =false".to_owned(),
        ),
        Number => {
            let number = value.is_some_and(|number| number.parse::<u32>().is_ok());
            (number, "= and a whole number".to_owned())
        }
        OneOf(values) => (
            value.is_some_and(|value| values.contains(&value)),
            format!("= and one of {}", values.join(", ")),
        ),
        Macro => (
            value.is_some_and(is_macro),
            "NAME or NAME=TEXT in the same text".to_owned(),
        ),
        Numbers => (
            value.is_some_and(|list| list.split(',').all(|n| n.parse::<u32>().is_ok())),
            "= and numbers, separated by commas".to_owned(),
        ),
        Assembler => {
            let bad = value.and_then(|list| {
                let judge = |option| Some((option, judged(option, OF_THE_ASSEMBLER)?));
                list.split(',').find_map(judge)
            });
            if let Some((option, why)) = bad {
                return Some(format!("of `{option}`: {why}"));
            }
            (value.is_some(), "= and options of the assembler".to_owned())
        }
    };
    if good {
        return None;
    }
    Some(format!("expected {expected}"))
}

/// Name and value. Of the two that may have their value right behind them it is split off.
fn parts(option: &str) -> (&str, Option<&str>) {
    for joined in ["-D", "-U"] {
        if let Some(text) = option.strip_prefix(joined).filter(|text| !text.is_empty()) {
            return (joined, Some(text.strip_prefix('=').unwrap_or(text)));
        }
    }
    match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    }
}

/// A macro's name, perhaps with parameters, and perhaps what stands for it.
fn is_macro(text: &str) -> bool {
    let name = text.split(['=', '(']).next().unwrap_or_default();
    let mut letters = name.chars();
    let begins = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    begins && letters.all(|c| c.is_ascii_alphanumeric() || c == '_') && !text.contains(['\n', '\r', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_only_change_what_their_text_says_pass() {
        for option in [
            "--std=c++17",
            "-std=c++20",
            "--fmad=false",
            "-use_fast_math",
            "--maxrregcount=64",
            "-DN=3",
            "-DX",
            "-D=N=3",
            "-D_a_1=x",
            "--define-macro=F(x)=x",
            "-lineinfo",
            "--ptxas-options=-v",
            "-Xptxas=-O3,-dlcm=cg",
            "--diag-suppress=177,550",
        ] {
            assert_eq!(refused(option), None, "{option}");
        }
    }

    #[test]
    fn whatever_reads_writes_or_is_not_known_is_refused() {
        for option in [
            "-I/usr/include",
            "--include-path=.",
            "-include",
            "--pre-include=x.h",
            "--pch",
            "--create-pch=x",
            "--use-pch=x",
            "--pch-dir=.",
            "--time=-",
            "--fdevice-time-trace=x",
            "-arch=sm_80",
            "--gpu-architecture=sm_80",
            "--no-cache",
            "--ptxas-options=--options-file=x",
            "-Xptxas=-optf=x",
            "-Xptxas=-v,--options-file=x",
            "--ptxas-options=-optf,x",
            "-dlto",
            "--relocatable-device-code=true",
            "-rdc=true",
            "--std=c++99",
            "--fmad",
            "--fmad=maybe",
            "-maxrregcount=many",
            "-D",
            "-D1=2",
            "-DA-B",
            "-DA$",
            "-D-",
            "-w=x",
            "x.cu",
            "@file",
            "",
            " --fmad=false",
            "--ptxas-options",
            "--diag-suppress=all",
            "-DX=1\n-I.",
        ] {
            assert!(refused(option).is_some(), "{option}");
        }
    }

    #[test]
    fn what_would_have_to_be_linked_is_refused_with_the_reason() {
        for (option, says) in [
            ("-rdc=true", "relocatable code is not supported"),
            ("--relocatable-device-code=true", "one source, with headers"),
            ("-dlto", "optimizing at link time is not supported"),
            ("--dlink-time-opt", "leave it out"),
        ] {
            let why = refused(option).expect(option);
            assert!(
                why.contains(says) && !why.contains('\n') && !why.contains("  "),
                "{why}"
            );
        }
    }

    #[test]
    fn a_slip_is_answered_with_the_nearest_name() {
        let why = refused("--fmda=false").expect("refused");
        assert!(why.contains("--fmad"), "{why}");
    }

    #[test]
    fn of_the_environments_options_the_first_bad_one_is_named() {
        assert_eq!(refused_of_environment(" -lineinfo  --fmad=true "), None);
        let (option, _) = refused_of_environment("-lineinfo -I. -w").expect("refused");
        assert_eq!(option, "-I.");
    }
}
