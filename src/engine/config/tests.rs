use super::*;

fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
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
        let config = Config::load(flags, env, dir.path()).expect("config");
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
fn empty_values_count_as_unset() {
    let config = Config {
        env: env(&[("JITC_WO_SPLIT", "")]),
        env_file: Some(EnvFile::parse(Path::new("ENV"), "JITC_WO_SPLIT=\n").expect("parse")),
        ..Config::default()
    };
    assert_eq!(config.constant("wo_split", &names(&["JITC_WO_SPLIT"])), None);
}

#[test]
fn a_line_that_is_no_assignment_is_refused_with_its_number() {
    let error = EnvFile::parse(Path::new("ENV"), "A=1\nnonsense\n").expect_err("refused");
    assert_eq!(error.to_string(), "ENV:2: expected KEY=VALUE, found `nonsense`");
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
    let config = Config::load(Flags::default(), env(&[]), dir.path()).expect("config");
    assert_eq!(config.cache_dir(), Some(dir.path().join("kernels")));
}

#[test]
fn the_cache_lies_in_the_home_folder_when_outside_the_repository() {
    let dir = tempfile::tempdir().expect("tempdir");
    let load = |pairs: &[(&str, &str)]| {
        Config::load(Flags::default(), env(pairs), dir.path())
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
    let config = Config::load(Flags::default(), env(&[("HOME", "/h")]), &root.join("src")).expect("config");
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
