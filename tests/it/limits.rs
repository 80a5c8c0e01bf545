//! Inputs that are too deep, too large, too many or no files at all: one line, at once.

use std::fmt::Write as _;
use std::path::Path;

use jitc::engine::config::Config;
use jitc::engine::request::matrix::Matrix;
use jitc::engine::request::spec::MAX_VARIANTS;
use jitc::engine::request::template::Registry;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::command::jitc;

const SOURCE: &str = "extern \"C\" __global__ void k() {}\n";

/// The TOML of a family `k`, with these lines after its summary.
fn toml(more: &str) -> String {
    format!(
        "summary = 's'\n{more}\n[constants.n]\ntype = 'u32'\nrange = [1, 1000]\ndefault = 1\nhelp = 'n'\n\
         [constants.m]\ntype = 'u32'\nrange = [1, 1000]\ndefault = 1\nhelp = 'm'\n\
         [[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n"
    )
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs_err::create_dir_all(path.parent().expect("folder")).expect("folder");
    fs_err::write(path, text).expect("written");
}

/// A folder with the family.
fn family(more: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    write(dir.path(), "k.toml", &toml(more));
    write(dir.path(), "k.cu.tera", SOURCE);
    dir
}

/// Why this folder is refused.
fn refused(dir: &Path) -> String {
    let reason = Registry::load(Some(dir)).expect_err("refused").to_string();
    assert_eq!(reason.lines().count(), 1, "one line: {reason}");
    assert!(reason.len() < 1000, "a line of {} characters", reason.len());
    reason
}

#[test]
fn a_deep_expression_is_refused_in_one_line_wherever_a_family_has_one() {
    for depth in [1000, 100_000] {
        let deep = format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        for more in [
            format!("constraints = [{{ rule = '{deep}', because = 'x' }}]"),
            format!("derived = [{{ name = 'd', value = '{deep}' }}]"),
            format!("presets = [{{ name = 'p', help = 'p', when = '{deep}', set = {{ n = 1 }} }}]"),
        ] {
            let reason = refused(family(&more).path());
            assert!(
                reason.contains("brackets within each other")
                    || reason.contains("has more than 16384 characters"),
                "{reason}"
            );
        }
        let entry = toml("").replace("block = 32", &format!("block = 32\nwhen = '{deep}'"));
        let dir = family("");
        write(dir.path(), "k.toml", &entry);
        refused(dir.path());
        let dir = family("");
        write(dir.path(), "k.cu.tera", &format!("int x = {{{{ {deep} }}}};\n"));
        assert!(refused(dir.path()).contains("k.cu.tera: has more than 12 brackets"));
    }
}

#[test]
fn deep_toml_is_refused_and_overflows_no_stack() {
    for deep in [
        format!("options = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("x = {}1{}", "{a=".repeat(100_000), "}".repeat(100_000)),
        format!("{}x = 1", "a.".repeat(100_000)),
        format!("[{}a]\nx = 1", "a.".repeat(100_000)),
    ] {
        refused(family(&deep).path());
        Matrix::parse(&deep).expect_err("refused");
    }
}

#[test]
fn an_expression_cannot_read_the_environment_or_loop() {
    for (value, words) in [
        ("get_env(name=\"HOME\")", "has no function `get_env`"),
        (
            "{% for i in range(end=9999999999) %}1{% endfor %}",
            "has {% for %}",
        ),
        ("{% include \"/etc/passwd\" %}", "has {% include %}"),
    ] {
        let more = format!("derived = [{{ name = 'd', value = '{value}' }}]");
        let reason = refused(family(&more).path());
        assert!(
            reason.contains("derived `d`") && reason.contains(words),
            "{reason}"
        );
    }
}

/// Makes something at a path, which is refused with these words.
type Kind<'a> = (&'a dyn Fn(&Path), &'a str);

#[test]
fn what_is_no_regular_file_or_too_large_is_refused_and_never_waited_for() {
    let large = |path: &Path| {
        fs_err::File::create(path)
            .expect("file")
            .set_len(10 << 30)
            .expect("sparse");
    };
    let pipe = |path: &Path| {
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    };
    let device = |path: &Path| fs_err::os::unix::fs::symlink("/dev/zero", path).expect("link");
    let folder = |path: &Path| fs_err::create_dir(path).expect("folder");
    let kinds: [Kind<'_>; 4] = [
        (&large, "of 10737418240 bytes: at most"),
        (&pipe, "is a pipe: expected a regular file"),
        (&device, "is a device: expected a regular file"),
        (&folder, "is a folder: expected a regular file"),
    ];
    for (make, words) in kinds {
        for name in [
            "k.toml",
            "k.cu.tera",
            "include/own/h.cuh",
            "f/family.toml",
            "f/kernel.cu.tera",
        ] {
            // A folder of such a name may hold families, or headers.
            if words.contains("folder") && !name.starts_with("f/") {
                continue;
            }
            let dir = family("");
            let path = dir.path().join(name);
            let _ = fs_err::remove_file(&path);
            fs_err::create_dir_all(path.parent().expect("folder")).expect("folder");
            make(&path);
            let reason = refused(dir.path());
            assert!(
                reason.contains(words) && reason.contains(name),
                "{name}: {reason}"
            );
        }
        // What verbs read: each ends with one line.
        let dir = tempfile::tempdir().expect("tempdir");
        make(&dir.path().join("x"));
        for args in [
            &["warm", "--matrix", "x"][..],
            &["warm", "--from-trace", "x"],
            &["cache", "import", "x"],
            &["cache", "verify", "--against", "x"],
        ] {
            if args.contains(&"import") && words.contains("bytes") {
                continue;
            }
            let output = jitc(dir.path()).args(args).output().expect("ran");
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(said.trim_end().lines().count(), 1, "{said}");
            assert!(said.contains(words), "{args:?}: {said}");
        }
    }
}

#[test]
fn an_input_that_is_missing_is_named_once_in_one_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let weight = "--rows 128 --k 128 --layout packed --scales gone --out-codes c --out-scales s";
    for args in [
        "warm --matrix gone",
        "warm --from-trace gone",
        "warm stream --env-file gone",
        "warm stream --config gone",
        "cache import gone",
        "cache verify --against gone",
        "regions gone",
        "regions diff gone a",
        &format!("pack --codes gone {weight}"),
    ] {
        let output = jitc(dir.path())
            .args(args.split(' '))
            .current_dir(dir.path())
            .output()
            .expect("ran");
        assert_eq!(output.status.code(), Some(2), "{args}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.trim_end().lines().count(), 1, "{args}: {said}");
        assert!(said.contains("gone: no such file"), "{args}: {said}");
        assert_eq!(said.matches("gone").count(), 1, "{args}: {said}");
    }
}

#[test]
fn folders_are_walked_once_and_links_that_go_round_are_refused() {
    let dir = family("");
    fs_err::create_dir_all(dir.path().join("include/a")).expect("folder");
    fs_err::os::unix::fs::symlink(dir.path().join("include"), dir.path().join("include/a/up")).expect("link");
    let reason = refused(dir.path());
    assert!(
        reason.ends_with("include/a/up is a link to a folder that it lies in"),
        "{reason}"
    );

    // Two links a level, each to the next: a walk of all ways would take 2^40 steps.
    let dir = family("");
    for level in 0..40 {
        let here = dir.path().join(format!("elsewhere/{level}"));
        fs_err::create_dir_all(&here).expect("folder");
        for way in ["l", "r"] {
            let next = dir.path().join(format!("elsewhere/{}", level + 1));
            fs_err::os::unix::fs::symlink(next, here.join(way)).expect("link");
        }
    }
    fs_err::create_dir_all(dir.path().join("elsewhere/40")).expect("folder");
    fs_err::os::unix::fs::symlink(dir.path().join("elsewhere/0"), dir.path().join("include")).expect("link");
    let reason = refused(dir.path());
    assert!(reason.contains("deeper than 16 folders"), "{reason}");

    // A folder that is something else is given up on; what no family needs is not read.
    let dir = family("");
    for n in 0..10_001 {
        fs_err::write(dir.path().join(n.to_string()), "").expect("written");
    }
    assert!(refused(dir.path()).contains("has more than 10000 files"));
    let dir = family("");
    for n in 0..100 {
        write(dir.path(), &format!("src/{n}/deep.cuh"), "");
    }
    fs_err::os::unix::fs::symlink(dir.path(), dir.path().join("src/up")).expect("link");
    Registry::load(Some(dir.path())).expect("families alone");
}

#[test]
fn products_are_counted_before_they_are_made() {
    let dir = family("");
    let all: Vec<String> = (1..=1000).map(|n| n.to_string()).collect();
    let all = all.join(",");
    let output = jitc(dir.path())
        .args([
            "warm",
            "k",
            "--templates",
            ".",
            "--arch",
            "sm_80,sm_90a",
            "--check",
            "--n",
            &all,
            "--m",
            &all,
        ])
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().expect("a line");
    assert_eq!(
        line,
        format!(
            "error: k: 2000000 variants are requested: at most {MAX_VARIANTS} are made at once; name fewer values"
        )
    );

    let registry = Registry::load(Some(dir.path())).expect("families");
    let mut matrix = String::from("[[warm]]\nfamilies = 'k'\narchs = 'sm_80'\n[warm.constants]\n");
    let _ = writeln!(matrix, "n = [{all}]\nm = [{all}]");
    let reason = Matrix::parse(&matrix)
        .expect("parsed")
        .expand(&registry, &Config::default(), Vec::new)
        .expect_err("refused");
    assert_eq!(
        reason.to_string(),
        format!(
            "line 1: k: 1000000 variants are requested: at most {MAX_VARIANTS} are made at once; name fewer values"
        )
    );
}

#[test]
fn a_trace_that_nobody_reads_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    let pipe = dir.path().join("trace");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    let output = jitc(dir.path())
        .args(["warm", "axpy", "--arch", "sm_90a"])
        .env("JITC_TRACE", &pipe)
        .output()
        .expect("ran");
    crate::command::succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("requests are not recorded"), "{said}");
}
