//! Whose settings count: what a file that nobody named may say, variables that are slips,
//! paths of any bytes, flags beside a matrix or a trace, and what the report shows.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jitc::engine::build::compile;
use jitc::engine::cache::Limits;
use jitc::engine::config::settings::{Effect, SETTINGS};
use jitc::engine::config::{Config, Flags, parse_age, parse_bytes};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

use crate::command::{events, jitc, succeeded};

const KEY: [&str; 4] = ["key", "wo_gemv", "--arch", "sm_90a"];

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs_err::write(path, text).expect("written");
}

fn mode(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
}

/// The key of the request, with further words and variables.
fn key(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = jitc(dir)
        .args(KEY)
        .args(args)
        .arg("--json")
        .envs(env.iter().copied())
        .output()
        .expect("ran");
    succeeded(&output);
    events(&output)[0]["key"].as_str().expect("key").to_owned()
}

/// Makes a working folder's file somebody else's word: everybody may write to the folder.
/// That needs no rights of root.
fn open_to_others(dir: &Path) {
    mode(dir, 0o777);
}

#[test]
fn of_a_file_that_somebody_else_may_have_written_only_what_is_harmless_is_taken() {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("p");
    fs_err::create_dir(&folder).expect("folder");
    let file = folder.join("jitc.toml");
    let plain = key(dir.path(), &[], &[]);
    let two = key(dir.path(), &["--wo-split", "2"], &[]);
    assert_ne!(plain, two);
    write(
        &file,
        "nvrtc = 'theirs'\ntemplates = 'theirs'\ncache_ro = 'theirs'\nenv_file = 'theirs'\ntrace = 'theirs'\n\
         jobs = 1\ncolor = 'always'\n[constants]\nwo_split = 2\n",
    );
    let run = |args: &[&str]| {
        let mut command = jitc(dir.path());
        command.current_dir(&folder).args(KEY).args(args).arg("--json");
        command.output().expect("ran")
    };
    open_to_others(&folder);
    let output = run(&[]);
    succeeded(&output);
    assert_eq!(events(&output)[0]["key"], two.as_str(), "constants are taken");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in [
        "which others can write to, so these settings are not obeyed",
        "cache_ro (line 3), env_file (line 4), nvrtc (line 1), templates (line 2), trace (line 5)",
        "--config",
        "JITC_CONFIG=",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(said.contains("\u{1b}["), "the color is taken: {said}");
    // Named, or this user's alone, it is obeyed.
    let theirs = |output: std::process::Output| {
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("theirs") && !said.contains("not obeyed"), "{said}");
    };
    theirs(run(&["--config", "jitc.toml"]));
    mode(&folder, 0o755);
    theirs(run(&[]));
}

#[test]
fn a_policy_of_such_a_file_is_not_passed_over() {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("p");
    fs_err::create_dir(&folder).expect("folder");
    open_to_others(&folder);
    for policy in ["miss = 'forbid'", "offline = true", "require_receipt = 'none'"] {
        write(&folder.join("jitc.toml"), policy);
        let name = policy.split(' ').next().expect("name");
        let said = contains(format!("so these settings are not obeyed: {name} (line 1)"));
        jitc(dir.path())
            .current_dir(&folder)
            .args(KEY)
            .assert()
            .code(2)
            .stderr(said.clone());
        // Reports and help go on without it.
        jitc(dir.path())
            .current_dir(&folder)
            .args(["doctor", "--offline"])
            .assert()
            .stdout(said);
        jitc(dir.path())
            .current_dir(&folder)
            .args(["warm", "--help"])
            .assert()
            .success();
    }
}

#[test]
fn which_file_was_read_is_logged() {
    let dir = tempfile::tempdir().expect("tempdir");
    write(&dir.path().join("jitc.toml"), "jobs = 1\n");
    let said = contains(format!(
        "settings are read from {}",
        dir.path().join("jitc.toml").display()
    ));
    jitc(dir.path())
        .args(KEY)
        .arg("-v")
        .assert()
        .success()
        .stderr(said);
    jitc(dir.path()).args(KEY).assert().success().stderr(is_empty());
}

#[test]
fn a_variable_that_is_a_slip_is_never_ignored() {
    let dir = tempfile::tempdir().expect("tempdir");
    let run = |name: &str, value: &[u8]| {
        let mut command = jitc(dir.path());
        command.args(KEY).env(name, OsStr::from_bytes(value));
        command.assert()
    };
    for (name, value) in [
        ("JITC_MISS", &b""[..]),
        ("JITC_MISS", b"forbid\xff"),
        ("JITC_WO_SPLIT", b""),
        ("JITC_WO_SPLIT", b"\xff"),
        ("JITC_CACHE_RO", b""),
        ("JITC_MISSS", b"forbid"),
        ("JITC_REQUIRE_RECIEPT", b"/none"),
        ("JITC_OFLINE", b"1"),
        ("CUTE_WO_SPLIT", b"\xff"),
        ("NVRTC_APPEND_FLAGS", b"-DX=\xff"),
    ] {
        run(name, value).code(2).stderr(contains(name));
    }
    for (name, hint) in [
        ("JITC_WO_SPILT", "JITC_WO_SPLIT"),
        ("JITC_JBOS", "JITC_JOBS"),
        ("JITC_TOKEN", "JITC_TOKENS"),
    ] {
        let said = format!("unknown environment variable {name} (did you mean `{hint}`?)");
        run(name, b"2").success().stderr(contains(&said));
        write(&dir.path().join("ENV"), format!("A=1\n{name}=2\n"));
        let said = contains(&said).and(contains("ENV, line 2"));
        jitc(dir.path())
            .args(KEY)
            .args(["--env-file", "ENV"])
            .assert()
            .success()
            .stderr(said);
    }
    for (name, value) in [
        ("JITC_STAGES", "2"),
        ("JITC_COMPILE_TIMEOUT", "5m"),
        ("CUTE_WO_SPLIT", ""),
    ] {
        run(name, value.as_bytes()).success().stderr(is_empty());
    }
}

#[test]
fn an_environment_file_is_read_whole_or_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("ENV");
    let four = key(dir.path(), &["--wo-split", "4"], &[]);
    for text in [
        "JITC_WO_SPLIT=4\n",
        "\u{feff}JITC_WO_SPLIT=4\n",
        "\u{feff}JITC_WO_SPLIT=4\r\nA=1\r\n",
    ] {
        write(&file, text);
        assert_eq!(key(dir.path(), &["--env-file", "ENV"], &[]), four);
    }
    for (bytes, said) in [
        (&b"A=\xff\nJITC_WO_SPLIT=4\n"[..], "ENV is not UTF-8 in line 1"),
        (b"JITC_WO_SPLIT=4\nJITC_JOBS\n", "ENV:2: expected KEY=VALUE"),
        (b"JITC_MISS=\n", "ENV:1: JITC_MISS is empty"),
        (b"JITC_WO_SPLIT=3\n", "ENV, line 1"),
    ] {
        write(&file, bytes);
        jitc(dir.path())
            .args(KEY)
            .args(["--env-file", "ENV"])
            .assert()
            .code(2)
            .stderr(contains(said));
    }
    let refused = |path: &Path, said: &str| {
        jitc(dir.path())
            .args(KEY)
            .arg("--env-file")
            .arg(path)
            .assert()
            .code(2)
            .stderr(contains(said));
    };
    write(&file, vec![b'\n'; (1 << 20) + 1]);
    refused(&file, "at most 1048576 are read");
    refused(dir.path(), "expected a regular file");
    refused(Path::new("/dev/zero"), "expected a regular file");
}

/// What was kept below a folder, besides folders.
fn files(folder: &Path) -> usize {
    let entries = fs_err::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").path());
    entries
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

#[test]
fn a_folder_whose_name_is_not_text_is_used_as_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let odd = dir.path().join(OsString::from_vec(b"c_\xff".to_vec()));
    let templates = dir.path().join(OsString::from_vec(b"t_\xfe".to_vec()));
    fs_err::create_dir_all(templates.join("k")).expect("folder");
    let toml = "summary = 'k'\n[constants]\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n";
    write(&templates.join("k/family.toml"), toml);
    write(
        &templates.join("k/kernel.cu.tera"),
        "extern \"C\" __global__ void k() {}\n",
    );
    let shown = |command: &mut assert_cmd::Command| {
        let output = command.output().expect("ran");
        succeeded(&output);
        output.stdout
    };
    let expected = [odd.as_os_str().as_bytes(), b"\n"].concat();
    let cache_dir = || {
        let mut command = jitc(dir.path());
        command.args(["cache", "dir"]);
        command
    };
    let mut equals = OsString::from("--cache-dir=");
    equals.push(&odd);
    assert_eq!(shown(cache_dir().env("JITC_CACHE_DIR", &odd)), expected);
    assert_eq!(shown(cache_dir().arg("--cache-dir").arg(&odd)), expected);
    assert_eq!(shown(cache_dir().arg(equals)), expected);
    // A family of such a folder is kept in such a folder, and in no other.
    let mut warm = jitc(dir.path());
    warm.args(["warm", "k", "--arch", "sm_90a", "--json", "--templates"])
        .arg(&templates)
        .arg("--cache-dir")
        .arg(&odd);
    let output = warm.output().expect("ran");
    succeeded(&output);
    let key = events(&output)[0]["key"].as_str().expect("key").to_owned();
    assert!(files(&odd) > 0);
    // (The one more is the tag of the folder that all of it lies in.)
    assert_eq!(files(dir.path()), files(&odd) + files(&templates) + 1);
    // Looked into, for people and for programs.
    let bundle = odd.join("bundle");
    for args in [
        &["cache", "stats"][..],
        &["cache", "ls"],
        &["cache", "show", &key],
        &["cache", "verify"],
        &["doctor", "--offline"],
        &["cache", "export", "--out"],
        &["cache", "prune"],
        &["toolchain", "list"],
    ] {
        for json in [&[][..], &["--json"]] {
            let mut command = jitc(dir.path());
            command.args(args);
            if args.contains(&"--out") {
                command.arg(&bundle);
            }
            let output = command
                .args(json)
                .env("JITC_CACHE_DIR", &odd)
                .env("CUDA_HOME", &odd)
                .output()
                .expect("ran");
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.code().is_some_and(|code| code < 2),
                "{args:?}: {words}"
            );
        }
    }
}

const MATRIX: &str = "[[warm]]\nfamilies = [\"wo_gemv\"]\narchs = [\"sm_90a\"]\n";

fn check(dir: &Path, args: &[&str]) -> std::process::Output {
    jitc(dir)
        .args(["warm", "--check", "--json"])
        .args(args)
        .output()
        .expect("ran")
}

#[test]
fn a_flag_beside_a_matrix_is_applied_or_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    write(&dir.path().join("m.toml"), MATRIX);
    let keys = |args: &[&str]| -> Vec<String> {
        let output = check(dir.path(), &[&["--matrix", "m.toml"], args].concat());
        let gaps = events(&output).into_iter().filter(|e| e["event"] == "gap");
        gaps.map(|gap| gap["key"].as_str().expect("key").to_owned())
            .collect()
    };
    assert_eq!(keys(&[]), [key(dir.path(), &[], &[])]);
    assert_eq!(
        keys(&["--wo-split", "8"]),
        [key(dir.path(), &["--wo-split", "8"], &[])]
    );
    let refused = |args: &[&str], said: &str| {
        let output = check(dir.path(), &[&["--matrix", "m.toml"], args].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains(said), "{said}: {words}");
    };
    refused(
        &["--wo-split", "3"],
        "wo_split (flag --wo-split): `3` is not legal",
    );
    refused(
        &["--stages", "3"],
        "`stages` (flag --stages): no family of the matrix declares it",
    );
    refused(
        &["--arch", "sm_100a"],
        "line 3: archs is set here and by flag --arch",
    );
    refused(
        &["--preset", "h200"],
        "preset (flag --preset): wo_gemv has no preset `h200`; there is one of decode_layer",
    );
    refused(&["wo_gemv"], "cannot be used with");
    write(
        &dir.path().join("m.toml"),
        format!("{MATRIX}[warm.constants]\nwo_split = [1, 3]\n"),
    );
    refused(&[], "m.toml: wo_gemv: wo_split (line 5): `3` is not legal");
    refused(
        &["--wo-split", "1"],
        "line 5: wo_split is set here and by flag --wo-split",
    );
}

#[test]
fn a_flag_beside_a_trace_is_refused_and_a_bad_line_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let key = "0".repeat(64);
    let line = |family: &str, split: u32| {
        format!(
            "{{\"key\":\"{key}\",\"family\":\"{family}\",\"arch\":\"sm_90a\",\"constants\":{{\"wo_split\":{split}}},\"compile_us\":1}}\n"
        )
    };
    let trace = dir.path().join("trace");
    let refused = |args: &[&str], said: &str| {
        let output = check(dir.path(), &[&["--from-trace", "trace"], args].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains(said), "{said}: {words}");
    };
    write(&trace, line("wo_gemv", 2));
    assert_eq!(
        check(dir.path(), &["--from-trace", "trace"]).status.code(),
        Some(1)
    );
    for flag in [
        &["--wo-split", "4"][..],
        &["--set", "wo_split=4"],
        &["--arch", "sm_90a"],
        &["--preset", "h200"],
    ] {
        refused(flag, &format!("{} beside --from-trace", flag[0]));
    }
    write(&trace, line("wo_gemv", 2) + &line("wo_gemv", 3));
    refused(&[], "trace, line 2: wo_gemv: wo_split (line 2): `3` is not legal");
    write(&trace, line("wo_gemm", 2));
    refused(&[], "trace, line 1: ");
}

#[test]
fn a_value_of_the_config_file_is_blamed_on_its_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (text, said) in [
        ("\njobs = 0\n", "jitc.toml, line 2"),
        ("\n\ncolor = 'red'\n", "jitc.toml, line 3"),
        ("miss = 'never'\n", "jitc.toml, line 1"),
        ("[constants]\n\nwo_split = 3\n", "jitc.toml, line 3"),
        ("arch = 'sm_1'\n", "jitc.toml, line 1"),
        ("\nenv_file = 'none'\n", "jitc.toml, line 2"),
        ("\ntemplates = 'none'\n", "jitc.toml, line 2"),
    ] {
        write(&dir.path().join("jitc.toml"), text);
        let args = ["warm", "wo_gemv", "--check"];
        let run = jitc(dir.path()).args(args).assert().code(2);
        run.stderr(contains(said));
    }
}

#[test]
fn the_report_shows_every_setting_and_who_said_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    write(
        &dir.path().join("jitc.toml"),
        "\njobs = 3\n[constants]\nwo_split = 2\n",
    );
    write(&dir.path().join("ENV"), "A=1\nJITC_CACHE_MAX_SIZE=1GiB\n");
    let mut command = jitc(dir.path());
    command
        .args(["doctor", "--json", "--offline", "--env-file", "ENV"])
        .env("JITC_MISS", "warn")
        .env("CUDA_HOME", "/none");
    let output = command.output().expect("ran");
    let report = events(&output).remove(0);
    let said = |name: &str| {
        let settings = report["settings"].as_array().expect("settings");
        let one = settings
            .iter()
            .find(|s| s["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {report}"));
        (
            one["value"].as_str().expect("text").to_owned(),
            one["source"].as_str().expect("text").to_owned(),
        )
    };
    let own = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    let file = dir.path().join("jitc.toml").display().to_string();
    assert_eq!(said("offline"), own("true", "flag --offline"));
    assert_eq!(said("miss"), own("warn", "environment variable JITC_MISS"));
    assert_eq!(
        said("cache_max_size"),
        own("1GiB", "environment file ENV, line 2")
    );
    assert_eq!(said("jobs"), own("3", &format!("{file}, line 2")));
    assert_eq!(said("wo_split"), own("2", &format!("{file}, line 4")));
    assert_eq!(said("config"), own(&file, "found from the working folder"));
    assert_eq!(
        said("lock_timeout"),
        own("as long as its holder may compile, and 10 s", "default")
    );
    assert_eq!(said("CUDA_HOME"), own("/none", "environment variable CUDA_HOME"));
    let mut table = jitc(dir.path());
    table
        .args(["doctor", "--offline"])
        .assert()
        .stdout(predicates::str::is_match("miss +compile +default").expect("pattern"));
}

#[test]
fn a_file_of_another_user_is_not_this_users_word() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("jitc.toml");
    write(&file, "nvrtc = \"theirs\"\n");
    if std::os::unix::fs::chown(&file, Some(12345), None).is_err() {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: only root can give a file to somebody else"
        );
        return;
    }
    let said = "belongs to user 12345, so these settings are not obeyed: nvrtc (line 1)";
    jitc(dir.path())
        .args(KEY)
        .assert()
        .success()
        .stderr(contains(said));
    jitc(dir.path())
        .args(["doctor", "--offline"])
        .assert()
        .code(1)
        .stdout(contains(said));
    // Named, it is obeyed.
    for named in [["--config", "jitc.toml"], ["--config", "./jitc.toml"]] {
        jitc(dir.path())
            .args(KEY)
            .args(named)
            .assert()
            .code(2)
            .stderr(contains("theirs"));
    }
    // A link of somebody else to a file of one's own says where its paths begin.
    let own = dir.path().join("own.toml");
    write(&own, "nvrtc = 'own'\n");
    fs_err::remove_file(&file).expect("removed");
    fs_err::os::unix::fs::symlink(&own, &file).expect("link");
    jitc(dir.path()).args(KEY).assert().code(2);
    std::os::unix::fs::lchown(&file, Some(12345), None).expect("chown");
    jitc(dir.path())
        .args(KEY)
        .assert()
        .success()
        .stderr(contains(said));
}

/// docs/SETTINGS.md has a line for each, with its variable and whether a file that nobody
/// named may say it.
#[test]
fn the_document_lists_every_setting_as_the_table_of_the_source_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs_err::read_to_string(root.join("docs/SETTINGS.md")).expect("document");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut listed = 0;
    for setting in SETTINGS.iter().filter(|s| s.in_file || s.variable) {
        let in_file = if setting.name == "constants" {
            "`[constants]`".to_owned()
        } else {
            format!("`{}`", setting.name)
        };
        let variable = format!("`{}`", setting.variable_name());
        let named = |row: &&Vec<&str>| row[0].starts_with(&in_file) || row[1].starts_with(&variable);
        let found: Vec<_> = rows.iter().filter(named).collect();
        let [row] = found.as_slice() else {
            panic!("{}: {found:?}", setting.name);
        };
        assert_eq!(row[0].starts_with(&in_file), setting.in_file, "{row:?}");
        assert_eq!(row[1].starts_with(&variable), setting.variable, "{row:?}");
        assert_eq!(
            row[3].contains("harmless"),
            setting.effect == Effect::Harmless,
            "{row:?}"
        );
        assert_eq!(
            row[3].contains("policy"),
            setting.effect == Effect::Policy,
            "{row:?}"
        );
        assert_eq!(row[3].contains("path"), setting.is_path, "{row:?}");
        assert!(setting.default.is_empty() || row[2] == setting.default, "{row:?}");
        listed += 1;
    }
    assert_eq!(rows.len(), listed + 1, "besides the heading");
}

#[test]
fn the_defaults_that_are_shown_are_those_that_hold() {
    let shown = |name: &str| {
        SETTINGS
            .iter()
            .find(|s| s.name == name)
            .expect("a setting")
            .default
    };
    let limits = Limits::default();
    assert_eq!(parse_bytes(shown("cache_max_size")), Ok(limits.max_bytes));
    assert_eq!(shown("cache_max_entries"), limits.max_entries.to_string());
    let compile = compile::Limits::default();
    assert_eq!(parse_bytes(shown("compile_memory")), Ok(compile.memory));
    assert_eq!(parse_age(shown("compile_timeout")), Ok(compile.timeout));
    let none = Config::default();
    assert_eq!(shown("offline"), none.offline().expect("off").to_string());
    assert_eq!(shown("cache_trust"), none.cache_trust().expect("off").to_string());
    let said = [("JITC_MISS", shown("miss"))].into_iter().collect();
    let said = Config::load(Flags::default(), said).expect("settings");
    assert_eq!(said.miss().expect("policy"), none.miss().expect("policy"));
}
