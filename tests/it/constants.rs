//! Constants belong to families: help, selection by value, names that are taken.

use std::path::Path;

use predicates::str::contains;

use crate::cli::{events, jitc, succeeded};

fn help(verb: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("tempdir");
    let output = jitc(dir.path()).args(verb).arg("--help").output().expect("ran");
    succeeded(&output);
    String::from_utf8(output.stdout).expect("text")
}

/// A family `k` whose file ends in these lines, in a folder of its own.
fn family(lines: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    let toml = format!("summary = \"k\"\n{lines}\n[[entries]]\nname = \"k\"\ngrid = [1, 1, 1]\nblock = 32\n");
    fs_err::write(dir.path().join("k.toml"), toml).expect("written");
    fs_err::write(
        dir.path().join("k.cu.tera"),
        "extern \"C\" __global__ void k() {}\n",
    )
    .expect("written");
    dir
}

fn constant(name: &str) -> String {
    format!("[constants.{name}]\ntype = \"u32\"\nvalues = [1, 2]\ndefault = 1\nhelp = \"x\"\n")
}

/// What help says of one flag, on one line.
fn entry(help: &str, flag: &str) -> String {
    let from = help
        .find(&format!("      {flag} <"))
        .unwrap_or_else(|| panic!("no {flag} in {help}"));
    let lines = help[from..].lines();
    let mut words = Vec::new();
    for (at, line) in lines.enumerate() {
        let ends = line.trim_start().starts_with("--") || (!line.is_empty() && !line.starts_with(' '));
        if at > 0 && ends {
            break;
        }
        words.push(line.trim());
    }
    words.join(" ")
}

#[test]
fn help_of_a_family_shows_its_constants_alone() {
    let one = help(&["warm", "wo_gemv"]);
    assert!(one.contains("Constants of wo_gemv:"), "{one}");
    for own in ["--mma-rows", "--geometry"] {
        assert!(one.contains(own), "{one}");
    }
    for other in ["--tile-s", "--unroll", "--unpack"] {
        assert!(!one.contains(other), "{other} in {one}");
    }
    let geometry = entry(&one, "--geometry");
    assert!(
        geometry.contains("(one of tiled, original) [default: tiled]"),
        "{geometry}"
    );
    assert!(!geometry.contains("spread"), "{geometry}");
    // Flags of a verb, too, where a family is named; without one, all are listed.
    for (args, own, other) in [
        (["bench", "axpy"], "--launches", "--context"),
        (["tune", "axpy"], "--dry-run", "--tokens <"),
        (["verify", "gemv"], "--seeds", "--soak"),
        (["verify", "decode_layer"], "--soak", "--seeds"),
        (["verify", "beta_lite"], "--soak", "--seeds"),
        (["bench", "layer"], "--context", "--ncu"),
    ] {
        let text = help(&args);
        assert!(text.contains(own), "{args:?}: {own} in {text}");
        assert!(!text.contains(other), "{args:?}: {other} in {text}");
        let all = help(&args[..1]);
        assert!(all.contains(own), "{own} in {all}");
    }
    // A verb about one family shows that one's without being told.
    assert!(!help(&["tune"]).contains("--tile-s"));
    assert!(help(&["bench", "layer"]).contains("--tile-s"));
    assert!(!help(&["dispatch"]).contains("--mma-rows"));
}

#[test]
fn help_without_a_family_shows_what_differs_family_by_family() {
    let all = help(&["warm"]);
    let geometry = entry(&all, "--geometry");
    for part in [
        "wo_gemv: ",
        "(one of tiled, original) [default: tiled]",
        "(one of spread, original)",
    ] {
        assert!(geometry.contains(part), "{part} in {geometry}");
    }
    let unpack = entry(&all, "--unpack");
    assert!(!unpack.contains("pack:"), "declared once: {unpack}");
    for shown in ["--mma-rows", "--tile-s", "--unpack"] {
        assert!(all.contains(shown), "{all}");
    }
}

#[test]
fn flags_of_every_verb_stand_under_a_heading_of_their_own() {
    for verb in [&["warm"][..], &["pack"], &["cache", "ls"]] {
        let help = help(verb);
        let (own, global) = help.split_once("Global options:").expect("heading");
        for flag in ["--cache-dir", "--json", "--color", "-h, --help"] {
            assert!(!own.contains(flag), "{flag} in {own}");
            assert!(global.contains(flag), "{flag} in {global}");
        }
    }
}

#[test]
fn a_value_that_is_legal_in_one_family_selects_that_family() {
    let dir = tempfile::tempdir().expect("tempdir");
    let check = |args: &[&str]| {
        let mut command = jitc(dir.path());
        command
            .args(["warm", "--check", "--json", "--arch", "sm_90a"])
            .args(args);
        command
    };
    let one = check(&["--geometry", "tiled"]);
    let output = { one }
        .assert()
        .code(1)
        .stderr(contains("left out: "))
        .get_output()
        .clone();
    let gaps = events(&output);
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert_eq!(gaps[0]["family"], "wo_gemv");
    let several = check(&["--geometry", "tiled,spread"]).output().expect("ran");
    let gaps = events(&several);
    let families: Vec<_> = gaps.iter().filter_map(|g| g["family"].as_str()).collect();
    assert!(
        families.contains(&"wo_gemv") && families.len() > 1,
        "{families:?}"
    );
    check(&["--geometry", "round"])
        .assert()
        .code(2)
        .stderr(contains("`round` is not legal: expected one of "))
        .stderr(contains("tiled, original (wo_gemv)"));
}

#[test]
fn a_constant_with_the_name_of_a_setting_is_refused_when_its_family_is_read() {
    let cache = tempfile::tempdir().expect("tempdir");
    let taken = [
        "arch",
        "cache_dir",
        "json",
        "preset",
        "set",
        "miss",
        "trace",
        "config",
        "help",
    ];
    for name in taken {
        let folder = family(&constant(name));
        jitc(cache.path())
            .args(["families", "--templates"])
            .arg(folder.path())
            .assert()
            .code(2)
            .stderr(contains(format!(
                "k.toml: constant `{name}`: `{name}` is the name of a "
            )));
    }
    let folder = family(&constant("archive"));
    let mut fine = jitc(cache.path());
    fine.args(["families", "k", "--templates"])
        .arg(folder.path())
        .assert()
        .success();
}

/// `seed` is a flag of `bench`, not of `warm`: there it is a constant's flag, here the verb's.
#[test]
fn a_constant_with_the_name_of_a_verbs_own_flag_is_set_by_name_there() {
    let folder = family(&constant("seed"));
    let cache = tempfile::tempdir().expect("tempdir");
    let with = |args: &[&str]| {
        let mut command = jitc(cache.path());
        command.args(args).arg("--templates").arg(folder.path());
        command
    };
    with(&["key", "k", "--seed", "2", "--arch", "sm_90a"])
        .assert()
        .success();
    with(&["key", "k", "--seed", "3", "--arch", "sm_90a"])
        .assert()
        .code(2);
    with(&["bench", "--help"])
        .assert()
        .success()
        .stdout(contains("--seed"));
}

fn preset_key(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = jitc(dir);
    let output = command
        .args(["key", "--json", "--arch", "sm_90a"])
        .args(args)
        .envs(env.iter().copied())
        .output()
        .expect("ran");
    succeeded(&output);
    events(&output)[0]["key"].as_str().expect("key").to_owned()
}

#[test]
fn a_preset_may_stand_in_the_config_file_and_what_is_said_nearer_wins() {
    let dir = tempfile::tempdir().expect("tempdir");
    let key = |args: &[&str], env: &[(&str, &str)]| {
        preset_key(dir.path(), &[&["decode_layer"], args].concat(), env)
    };
    let (plain, small) = (key(&[], &[]), key(&["--preset", "gb10"], &[]));
    let original = key(&["--preset", "decode-mini"], &[]);
    assert_ne!(plain, small);
    fs_err::write(dir.path().join("jitc.toml"), "preset = \"gb10\"\n").expect("written");
    assert_eq!(key(&[], &[]), small);
    assert_eq!(key(&["--preset", "h200"], &[]), plain);
    assert_eq!(key(&[], &[("CUTE_MLP_TILE", "decode-mini")]), original);
    assert_eq!(
        key(&[], &[("CUTE_MLP_TILE", "decode-mini"), ("JITC_PRESET", "h200")]),
        plain
    );
    fs_err::write(dir.path().join("jitc.toml"), "preset = \"gb11\"\n").expect("written");
    jitc(dir.path())
        .args(["key", "decode_layer"])
        .assert()
        .code(2)
        .stderr(contains("jitc.toml, line 1"))
        .stderr(contains("there is no `gb11`"));
}

#[test]
fn a_preset_that_no_family_of_the_line_has_is_an_error_in_one_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let elsewhere = "has no preset `h200`; there is one of decode_layer";
    for (line, words) in [
        ("warm axpy --preset nosuch --check", "axpy has no preset `nosuch`"),
        (
            "warm axpy gemv --preset h200 --check",
            "none of axpy, gemv has a preset `h200`; there is one of decode_layer",
        ),
        ("bench axpy --preset h200", elsewhere),
        ("bench wo_gemv --preset h200", elsewhere),
        ("tune axpy --preset h200 --dry-run", elsewhere),
        ("tune wo_gemv --preset h200 --dry-run", elsewhere),
        ("key gemv --preset h20", "(did you mean `h200` of decode_layer?)"),
        (
            "warm --preset decode-mni --check",
            "no family has a preset `decode-mni` (did you mean `decode-mini` of decode_layer?)",
        ),
        (
            "bench layer --preset h20",
            "there is no `h20` (did you mean `h200`?)",
        ),
        (
            "dispatch --device h200 --preset h20",
            "there is no `h20` (did you mean `h200`?)",
        ),
        ("regions --live axpy --preset h200", elsewhere),
    ] {
        let output = jitc(dir.path()).args(line.split(' ')).output().expect("ran");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert!(error.contains(words), "{line}: {error}");
        assert_eq!(
            error.lines().filter(|l| l.contains("preset")).count(),
            1,
            "{line}: {error}"
        );
    }
}

#[test]
fn a_preset_selects_the_families_that_have_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let line = "warm --preset decode-mini --check --json --arch sm_90a";
    let output = jitc(dir.path()).args(line.split(' ')).output().expect("ran");
    let events = events(&output);
    let gaps = events.iter().filter(|event| event["event"] == "gap");
    let text = |gap: &serde_json::Value| {
        let constants = &gap["constants"];
        format!(
            "{} {} {}",
            gap["family"], constants["launch"], constants["geometry"]
        )
        .replace('"', "")
    };
    let gaps: Vec<String> = gaps.map(text).collect();
    let both = [
        "decode_layer cooperative original",
        "decode_layer separate spread",
    ];
    assert_eq!(gaps, both);
}

/// The variable belongs to the families that declare it.
#[test]
fn a_preset_variable_of_one_family_leaves_others_alone() {
    let cache = tempfile::tempdir().expect("tempdir");
    let presets = "[[presets]]\nname = \"two\"\nhelp = \"h\"\nset = { width = 2 }\n";
    let own = family(&format!(
        "preset_env = [\"K_TILE\"]\n{}{presets}",
        constant("width")
    ));
    let folder = own.path().to_str().expect("text");
    let key = |env: &[(&str, &str)]| preset_key(cache.path(), &["k", "--templates", folder], env);
    let plain = key(&[]);
    assert_eq!(key(&[("CUTE_MLP_TILE", "two")]), plain);
    assert_eq!(key(&[("K_TILE", "")]), plain);
    jitc(cache.path())
        .args(["key", "k", "--templates", folder])
        .env("K_TILE", "three")
        .assert()
        .code(2)
        .stderr(contains("environment variable K_TILE"));
}

#[test]
fn a_former_name_of_a_constant_is_understood_wherever_constants_are_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let key = |args: &[&str], env: &[(&str, &str)]| preset_key(dir.path(), &[&["gemv"], args].concat(), env);
    let (plain, two) = (key(&[], &[]), key(&["--tokens-per-pass", "2"], &[]));
    assert_ne!(plain, two);
    assert_eq!(key(&["--set", "tokens=2"], &[]), two);
    assert_eq!(key(&["--tokens", "2"], &[]), two);
    assert_eq!(key(&[], &[("JITC_TOKENS", "2")]), two);
    assert_eq!(
        key(&[], &[("JITC_TOKENS", "2"), ("JITC_TOKENS_PER_PASS", "1")]),
        plain
    );
    let said = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = jitc(dir.path());
        let output = command
            .args(["key", "gemv"])
            .args(args)
            .envs(env.iter().copied())
            .output();
        String::from_utf8(output.expect("ran").stderr).expect("text")
    };
    for (said, word) in [
        (
            said(&["--set", "tokens=2"], &[]),
            "constant `tokens` (flag --set) is called `tokens_per_pass`",
        ),
        (
            said(&["--tokens", "2"], &[]),
            "note: key --tokens is called --tokens-per-pass",
        ),
        (
            said(&[], &[("JITC_TOKENS", "2")]),
            "JITC_TOKENS sets what JITC_TOKENS_PER_PASS does",
        ),
    ] {
        assert!(said.contains(word), "{word} in {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(said(&["--tokens-per-pass", "2"], &[]), "");
    fs_err::write(dir.path().join("jitc.toml"), "[constants]\ntokens = 2\n").expect("written");
    assert_eq!(key(&[], &[]), two);
    fs_err::write(dir.path().join("jitc.toml"), "").expect("written");
    let matrix = "[[warm]]\nfamilies = [\"gemv\"]\narchs = [\"sm_90a\"]\nconstants = { tokens = [2] }\n";
    fs_err::write(dir.path().join("m.toml"), matrix).expect("written");
    let output = jitc(dir.path())
        .args(["warm", "--check", "--json", "--matrix", "m.toml"])
        .output();
    assert_eq!(
        events(&output.expect("ran"))[0]["key"].as_str(),
        Some(two.as_str())
    );
}

#[test]
fn the_number_of_tokens_has_one_spelling_and_its_former_ones_are_noted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let run = |args: &[&str]| {
        let output = jitc(dir.path()).args(args).output().expect("ran");
        String::from_utf8(output.stderr).expect("text")
    };
    for (args, word) in [
        (
            vec!["bench", "layer", "--nat", "many"],
            "note: bench --nat is called --tokens",
        ),
        (
            vec!["bench", "layer", "--nat", "many"],
            "--tokens: `many`: expected whole numbers",
        ),
        (
            vec!["dispatch", "--device", "x", "--nat", "4"],
            "note: dispatch --nat is called --tokens",
        ),
        (
            vec!["dispatch", "--device", "x", "--tokens", "4"],
            "note: --tokens is the number of tokens of a launch",
        ),
        (
            vec!["regions", "none.npy", "--num-seqs", "4"],
            "note: regions --num-seqs is called --tokens",
        ),
        (
            vec!["regions", "--live", "x", "--tokens", "4"],
            "note: --tokens is the number of tokens of a launch",
        ),
    ] {
        let said = run(&args);
        assert!(said.contains(word), "{word} in {said}");
    }
    assert!(!run(&["bench", "wo_gemv", "--tokens", "0"]).contains("note:"));
}

#[test]
fn a_former_name_that_is_taken_is_refused_when_the_family_is_read() {
    let cache = tempfile::tempdir().expect("tempdir");
    let former = constant("width") + "former = [\"size\"]\n";
    for lines in [former.clone() + &constant("size"), constant("size") + &former] {
        let folder = family(&lines);
        jitc(cache.path())
            .args(["families", "--templates"])
            .arg(folder.path())
            .assert()
            .code(2)
            .stderr(contains("constant `width`: its former name `size` is taken"));
    }
}

#[test]
fn a_warm_makes_both_launches_of_the_layer_unless_one_is_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let launches = |args: &[&str]| {
        let output = jitc(dir.path())
            .args(["warm", "--check", "--json", "--arch", "sm_90a", "--wo-split", "8"])
            .args(args)
            .output()
            .expect("ran");
        let gaps = events(&output)
            .into_iter()
            .filter(|e| e["family"] == "decode_layer");
        let launches = gaps.map(|e| e["constants"]["launch"].as_str().expect("a name").to_owned());
        launches.collect::<Vec<_>>()
    };
    assert_eq!(launches(&[]), ["cooperative", "separate"]);
    assert_eq!(launches(&["decode_layer"]), ["cooperative", "separate"]);
    assert_eq!(launches(&["--launch", "separate"]), ["separate"]);
    assert_eq!(launches(&["beta_coop"]), ["cooperative"]);
    assert_eq!(
        launches(&["--timeout-ms", "5"]),
        ["cooperative"],
        "separate ones have none"
    );
}
