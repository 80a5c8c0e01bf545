use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|n| (*n).to_owned()).collect()
}

/// Each level alone would answer; the strongest that speaks must win.
#[test]
fn flags_beat_environment_beats_env_file_beats_config_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    let env_file = dir.path().join("ENV");
    fs_err::write(&env_file, "# comment\nOTHER=1\nexport CUTE_WO_SPLIT=2\n").expect("write");
    fs_err::write(
        dir.path().join("jitc.toml"),
        "jobs = 3\n[constants]\nwo_split = 1\n",
    )
    .expect("write");
    let variables = names(&["JITC_WO_SPLIT", "CUTE_WO_SPLIT"]);
    let load = |flag: bool, real: bool, file: bool| {
        let mut flags = Flags::default();
        if flag {
            flags.constants.push(FlagConstant {
                name: "wo_split".into(),
                value: "8".into(),
                flag: "--wo-split".into(),
            });
        }
        flags.env_file = file.then(|| env_file.clone());
        let env = if real {
            env(&[("CUTE_WO_SPLIT", "4")])
        } else {
            env(&[])
        };
        let config = Config::load_in(flags, env, dir.path()).expect("config");
        let setting = config.constant("wo_split", &variables).expect("set");
        (setting.value, setting.source.to_string())
    };
    assert_eq!(load(true, true, true), ("8".into(), "flag --wo-split".into()));
    assert_eq!(
        load(false, true, true),
        ("4".into(), "environment variable CUTE_WO_SPLIT".into())
    );
    let (value, source) = load(false, false, true);
    assert_eq!(value, "2");
    assert!(source.ends_with("ENV, line 3"), "{source}");
    let (value, source) = load(false, false, false);
    assert_eq!(value, "1");
    assert!(source.ends_with("jitc.toml, line 3"), "{source}");
}

#[test]
fn the_environment_beats_the_env_file_even_under_another_accepted_name() {
    let config = Config {
        env: env(&[("CUTE_WO_SPLIT", "4")]),
        env_file: Some(EnvFile::parse(Path::new("ENV"), "JITC_WO_SPLIT=2").expect("parse")),
        ..Config::default()
    };
    let setting = config.constant("wo_split", &names(&["JITC_WO_SPLIT", "CUTE_WO_SPLIT"]));
    assert_eq!(setting.expect("set").value, "4");
}

#[test]
fn empty_values_of_others_count_as_unset() {
    let config = Config {
        env: env(&[("CUTE_WO_SPLIT", "")]),
        env_file: Some(EnvFile::parse(Path::new("ENV"), "CUTE_WO_SPLIT=\n").expect("parse")),
        ..Config::default()
    };
    assert_eq!(config.constant("wo_split", &names(&["CUTE_WO_SPLIT"])), None);
}

fn refused(name: &str, value: &[u8]) -> String {
    let pair = (OsString::from(name), OsString::from_vec(value.to_vec()));
    let env: Environment = [pair].into_iter().collect();
    Config::load(Flags::default(), env)
        .expect_err("refused")
        .to_string()
}

#[test]
fn a_variable_of_the_program_that_is_empty_or_not_text_is_refused_by_its_name() {
    for setting in settings::SETTINGS.iter().filter(|s| s.variable) {
        let name = setting.variable_name();
        let said = format!("environment variable {name} is empty: give it a value, or unset it");
        assert_eq!(refused(&name, b""), said);
        if !setting.is_path {
            let said = format!("environment variable {name} is not UTF-8: expected text");
            assert_eq!(refused(&name, b"forbid\xff"), said);
        }
    }
    assert!(refused("JITC_WO_SPLIT", b"\xff").contains("JITC_WO_SPLIT is not UTF-8"));
    // The key could not cover it.
    assert!(refused("NVRTC_APPEND_FLAGS", b"-DX=\xff").contains("NVRTC_APPEND_FLAGS is not UTF-8"));
}

#[test]
fn paths_are_the_bytes_that_were_given() {
    let raw = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let pairs = [
        ("JITC_CACHE_DIR", raw(b"/c\xff")),
        ("JITC_CACHE_RO", raw(b"/a\xff:/b\xfe::")),
        ("JITC_TEMPLATES", raw(b"/t\xff")),
        ("JITC_NVRTC", raw(b"/n\xff")),
        ("JITC_REQUIRE_RECEIPT", raw(b"/r\xff")),
        ("JITC_TRACE", raw(b"/trace\xff")),
        ("JITC_PROGRAM", raw(b"/p\xff")),
        ("CUDA_HOME", raw(b"/cuda\xff")),
        ("LD_LIBRARY_PATH", raw(b"/l\xff:/m")),
        ("VIRTUAL_ENV", raw(b"/v\xff")),
        ("XDG_DATA_HOME", raw(b"/x\xff")),
    ];
    let config = Config::load(Flags::default(), pairs.iter().cloned().collect()).expect("config");
    let path = |bytes: &[u8]| PathBuf::from(raw(bytes));
    assert_eq!(config.cache_dir(), Some(path(b"/c\xff")));
    assert_eq!(config.cache_ro(), [path(b"/a\xff"), path(b"/b\xfe")]);
    assert_eq!(config.templates(), Some(path(b"/t\xff")));
    assert_eq!(config.nvrtc(), Some(path(b"/n\xff")));
    assert_eq!(config.require_receipt(), Some(path(b"/r\xff")));
    assert_eq!(config.trace(), Some(path(b"/trace\xff")));
    assert_eq!(config.program(), Some(path(b"/p\xff")));
    assert_eq!(config.cuda_homes(), [("CUDA_HOME", path(b"/cuda\xff"))]);
    assert_eq!(config.library_path(), [path(b"/l\xff"), path(b"/m")]);
    assert_eq!(config.python_prefixes(), [path(b"/v\xff")]);
    assert_eq!(config.toolchain_dir(), Some(path(b"/x\xff/jitc/toolchain")));
    let home = [("HOME", raw(b"/h\xff"))].into_iter().collect();
    let config = Config::load(Flags::default(), home).expect("config");
    assert_eq!(config.cache_dir(), Some(path(b"/h\xff/.cache/jitc")));
}

#[test]
fn a_list_of_paths_in_the_config_file_may_have_any_character() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("named.toml");
    let folders = |text: &str| {
        fs_err::write(&file, text).expect("write");
        let flags = Flags {
            config: Some(file.clone()),
            ..Flags::default()
        };
        Config::load(flags, env(&[])).expect("config").cache_ro()
    };
    assert_eq!(
        folders("cache_ro = ['/a,b', 'c:d']"),
        [PathBuf::from("/a,b"), dir.path().join("c:d")]
    );
    assert_eq!(folders("cache_ro = '/a,/b'"), ["/a", "/b"].map(PathBuf::from));
}

#[test]
fn a_program_that_embeds_the_library_reads_no_file_unless_it_is_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("jitc.toml");
    fs_err::write(&file, "jobs = 3\n").expect("write");
    let jobs = |config: Result<Config, ConfigError>| config.expect("config").jobs().expect("jobs");
    assert_eq!(jobs(Config::load(Flags::default(), env(&[]))), None);
    assert_eq!(
        jobs(Config::load_in(Flags::default(), env(&[]), dir.path())),
        Some(3)
    );
    let named = [("JITC_CONFIG", file.to_str().expect("text"))];
    assert_eq!(jobs(Config::load(Flags::default(), env(&named))), Some(3));
}

#[test]
fn an_unknown_variable_is_named_with_the_nearest_and_a_misspelt_policy_refused() {
    let known = std::iter::once("JITC_WO_SPLIT".to_owned()).collect();
    let lines = |pairs: &[(&str, &str)], file: &str| {
        let config = Config {
            env: env(pairs),
            env_file: Some(EnvFile::parse(Path::new("ENV"), file).expect("parse")),
            ..Config::default()
        };
        config.unknown_variables(&known)
    };
    let fine = [
        ("JITC_WO_SPLIT", "1"),
        ("JITC_COMPILE_TIMEOUT", "5m"),
        ("JITC_CONFIG", "x"),
        ("WO_SPILT", "1"),
    ];
    assert_eq!(
        lines(&fine, "JITC_MISS=warn\nOTHER=1").expect("known"),
        Vec::<String>::new()
    );
    assert_eq!(
        lines(&[("JITC_WO_SPILT", "1")], "JITC_JBOS=1\nJITC_CONFIG=x").expect("lines"),
        [
            "unknown environment variable JITC_WO_SPILT (did you mean `JITC_WO_SPLIT`?): nothing reads it",
            "JITC_CONFIG (environment file ENV, line 2) is read from the environment alone: set it there",
            "unknown environment variable JITC_JBOS (did you mean `JITC_JOBS`?) (environment file ENV, line 1): nothing reads it",
        ]
    );
    for (pairs, file) in [(&[("JITC_MISSS", "forbid")][..], ""), (&[], "JITC_miss=forbid")] {
        let error = lines(pairs, file).expect_err("refused").to_string();
        assert!(
            error.contains("nearly the policy JITC_MISS: correct its name, or unset it"),
            "{error}"
        );
    }
}

#[test]
fn every_setting_is_shown_with_its_value_and_where_it_was_said() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("named.toml");
    fs_err::write(&file, "\ntemplates = 't'\noffline = true\n").expect("write");
    let flags = Flags {
        config: Some(file.clone()),
        cache_ro: vec!["/a".into(), "/b".into()],
        ..Flags::default()
    };
    let config = Config::load(flags, env(&[("JITC_MISS", "warn"), ("HOME", "/h")])).expect("config");
    let shown = config.effective();
    for setting in settings::SETTINGS
        .iter()
        .filter(|s| (s.in_file || s.variable) && s.name != "constants")
    {
        assert_eq!(
            shown.iter().filter(|one| one.name == setting.name).count(),
            1,
            "{}",
            setting.name
        );
    }
    let said = |name: &str| {
        let one = shown.iter().find(|one| one.name == name).expect("shown");
        (one.value.clone(), one.source.to_string())
    };
    let own = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(said("miss"), own("warn", "environment variable JITC_MISS"));
    assert_eq!(said("cache_ro"), own("/a:/b", "flag --cache-ro"));
    assert_eq!(said("cache_dir"), own("/h/.cache/jitc", "default"));
    assert_eq!(said("jobs"), own("cores, as far as memory allows", "default"));
    assert_eq!(said("HOME"), own("/h", "environment variable HOME"));
    let (value, source) = said("templates");
    assert_eq!(Path::new(&value), dir.path().join("t"));
    assert!(source.ends_with("named.toml, line 2"), "{source}");
}

#[test]
fn an_unknown_setting_in_the_config_file_is_refused_with_the_nearest_name() {
    let error = ConfigFile::parse(Path::new("jitc.toml"), "\ncache_dri = 'x'\n").expect_err("refused");
    let text = error.to_string();
    assert!(
        text.starts_with("jitc.toml:2: unknown setting `cache_dri` (did you mean `cache_dir`?)"),
        "{text}"
    );
}

#[test]
fn broken_toml_is_refused_with_its_line() {
    let error = ConfigFile::parse(Path::new("jitc.toml"), "jobs = 1\noffline = \n").expect_err("refused");
    assert!(error.to_string().starts_with("jitc.toml:2: "), "{error}");
}

#[test]
fn paths_in_the_config_file_are_relative_to_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::write(dir.path().join("jitc.toml"), "cache_dir = 'kernels'\n").expect("write");
    let config = Config::load_in(Flags::default(), env(&[]), dir.path()).expect("config");
    assert_eq!(config.cache_dir(), Some(dir.path().join("kernels")));
}

#[test]
fn the_cache_lies_in_the_home_folder_when_outside_the_repository() {
    let dir = tempfile::tempdir().expect("tempdir");
    let load = |pairs: &[(&str, &str)]| {
        Config::load_in(Flags::default(), env(pairs), dir.path())
            .expect("config")
            .cache_dir()
    };
    assert_eq!(load(&[("HOME", "/h")]), Some("/h/.cache/jitc".into()));
    assert_eq!(
        load(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]),
        Some("/x/jitc".into())
    );
    assert_eq!(
        load(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]),
        Some("/h/.cache/jitc".into())
    );
    assert_eq!(
        load(&[("HOME", "/h"), ("JITC_CACHE_DIR", "/c")]),
        Some("/c".into())
    );
    assert_eq!(load(&[]), None);
}

#[test]
fn the_cache_is_the_repositorys_own_when_run_inside_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Ok(Some(reason)) = trust::why_folder_not_ours(root) {
        let _ = writeln!(std::io::stderr(), "skipped: the repository {reason}");
        return;
    }
    let config =
        Config::load_in(Flags::default(), env(&[("HOME", "/h")]), &root.join("src")).expect("config");
    assert_eq!(config.cache_dir(), Some(root.join("cache")));
}

#[test]
fn a_switch_that_is_neither_on_nor_off_is_refused() {
    let config = Config {
        env: env(&[("JITC_OFFLINE", "perhaps")]),
        ..Config::default()
    };
    let text = config.offline().expect_err("refused").to_string();
    assert_eq!(
        text,
        "offline = `perhaps` (environment variable JITC_OFFLINE): expected 1 or 0 (true or false)"
    );
}

/// Anybody can lay out a folder that looks like the repository.
#[test]
fn a_repository_that_others_can_write_to_is_not_used_for_the_cache() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("r");
    for folder in ["cache", "templates", "src"] {
        fs_err::create_dir_all(root.join(folder)).expect("folder");
    }
    fs_err::write(root.join("cache/CACHEDIR.TAG"), "").expect("write");
    fs_err::write(root.join("Cargo.toml"), "name = \"jitc\"\n").expect("write");
    let cache = |mode: u32| {
        fs_err::set_permissions(&root, std::fs::Permissions::from_mode(mode)).expect("mode");
        let config = Config::load_in(Flags::default(), env(&[("HOME", "/h")]), &root.join("src"));
        config.expect("config").cache_dir()
    };
    assert_eq!(cache(0o755), Some(root.join("cache")));
    assert_eq!(cache(0o777), Some("/h/.cache/jitc".into()));
}

#[test]
fn bounds_of_a_compile_are_read_with_their_units_and_refused_below_the_least() {
    let said = |pairs: &[(&str, &str)]| Config::load(Flags::default(), env(pairs)).expect("config");
    let limits = said(&[("JITC_COMPILE_TIMEOUT", "2m"), ("JITC_COMPILE_MEMORY", "4GiB")]);
    let two_minutes = std::time::Duration::from_mins(2);
    assert_eq!(limits.compile_timeout().expect("time"), Some(two_minutes));
    assert_eq!(limits.compile_memory().expect("bytes"), Some(4 << 30));
    assert_eq!(said(&[]).compile_timeout().expect("none"), None);
    let none = said(&[("JITC_COMPILE_TIMEOUT", "0"), ("JITC_COMPILE_MEMORY", "0")]);
    assert_eq!(
        none.compile_timeout().expect_err("too short").to_string(),
        "compile_timeout = `0` (environment variable JITC_COMPILE_TIMEOUT): expected at least 1s"
    );
    assert_eq!(
        none.compile_memory().expect_err("too little").to_string(),
        "compile_memory = `0` (environment variable JITC_COMPILE_MEMORY): expected at least 512MiB"
    );
}
