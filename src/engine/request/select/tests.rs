use std::collections::BTreeMap as Map;

use super::*;
use crate::engine::config::{Environment, FlagConstant, Flags};

fn enumerated(values: &str, default: &str) -> String {
    format!(
        "[constants.form]\ntype = \"enum\"\ncxx_type = \"F\"\nvalues = {values}\ndefault = \"{default}\"\nhelp = \"f\"\n"
    )
}

/// Two families that declare `form` differently, one with a constant of its own, and one
/// that declares neither.
fn registry() -> Registry {
    let head = "summary = \"s\"\n";
    let tail = "[[entries]]\nname = \"k\"\ngrid = [1, 1, 1]\nblock = 32\n";
    let size = "[constants.size]\ntype = \"u32\"\nrange = [1, 64]\ndefault = 1\nhelp = \"n\"\n";
    let presets = "[[presets]]\nname = \"small\"\nhelp = \"h\"\nset = { size = 2 }\n";
    let near = enumerated("[\"tiled\", \"plain\"]", "tiled");
    let far = enumerated("[\"wide\", \"plain\"]", "wide");
    let mut files = Map::new();
    for (name, toml) in [
        ("near", format!("{head}{near}{size}{presets}{tail}")),
        ("far", format!("{head}{far}{tail}")),
        (
            "other",
            format!(
                "{head}preset_env = [\"OLD\"]\n{size}{}{tail}",
                presets.replace("small", "big")
            ),
        ),
    ] {
        files.insert(format!("{name}.toml"), toml);
        files.insert(format!("{name}.cu.tera"), "// nothing".to_owned());
    }
    Registry::from_files(&files).expect("families")
}

fn config(set: &[(&str, &str)], env: &[(&str, &str)]) -> Config {
    let constants = set.iter().map(|(name, value)| FlagConstant {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        flag: format!("--{name}"),
    });
    let flags = Flags {
        constants: constants.collect(),
        ..Flags::default()
    };
    let env: Environment = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Config::load(flags, env).expect("config")
}

/// Family and `form` of every spec, and the notes; or the error.
fn selected(names: &[&str], config: &Config) -> Result<(Vec<String>, Vec<String>), String> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let selection = registry().select(&names, config).map_err(|e| e.to_string())?;
    let arch = vec!["sm_90a".parse().expect("arch")];
    let specs = selection.specs(config, || arch).map_err(|e| e.to_string())?;
    let text = |s: &KernelSpec| match s.constants().get("form") {
        Some(form) => format!("{} {form}", s.family().name),
        None => s.family().name.clone(),
    };
    Ok((specs.iter().map(text).collect(), selection.notes().collect()))
}

#[test]
fn a_value_that_is_legal_in_one_family_selects_it_and_says_which_it_leaves_out() {
    let (specs, notes) = selected(&[], &config(&[("form", "tiled")], &[])).expect("selected");
    assert_eq!(specs, ["near tiled"]);
    assert_eq!(
        notes,
        ["left out: far: form (flag --form): `tiled` is not legal: expected one of wide, plain"]
    );
    let (specs, notes) = selected(&[], &config(&[("form", "plain")], &[])).expect("selected");
    assert_eq!(specs, ["far plain", "near plain"]);
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn of_a_list_each_family_takes_what_is_legal_for_it() {
    let (specs, notes) = selected(&[], &config(&[("form", "tiled,wide,plain")], &[])).expect("selected");
    assert_eq!(specs, ["far wide", "far plain", "near tiled", "near plain"]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes.iter().all(|n| n.starts_with("left out of the list: ")),
        "{notes:?}"
    );
    let (specs, _) = selected(&["near", "far"], &config(&[("form", "wide,tiled")], &[])).expect("selected");
    assert_eq!(specs, ["near tiled", "far wide"]);
}

#[test]
fn a_value_that_is_legal_nowhere_is_refused_with_what_is_legal_in_each_family() {
    let error = selected(&[], &config(&[("form", "round")], &[])).expect_err("refused");
    assert_eq!(
        error,
        "form (flag --form): `round` is not legal: expected one of wide, plain (far); one of tiled, plain (near)"
    );
    let error = selected(&[], &config(&[("form", "tiled,round")], &[])).expect_err("refused");
    assert!(error.contains("`round` is not legal"), "{error}");
    let error = selected(&[], &config(&[("form", "wide"), ("size", "3")], &[])).expect_err("refused");
    assert!(
        error.starts_with("form (flag --form)") || error.starts_with("near: form"),
        "{error}"
    );
}

#[test]
fn a_named_family_is_never_left_out() {
    let error = selected(&["near", "far"], &config(&[("form", "tiled")], &[])).expect_err("refused");
    assert_eq!(
        error,
        "far: form (flag --form): `tiled` is not legal: expected one of wide, plain"
    );
    let error = selected(&["other"], &config(&[("form", "tiled")], &[])).expect_err("refused");
    assert_eq!(error, "unknown constant `form` (flag --form)");
}

#[test]
fn a_variable_selects_too_and_leaves_alone_who_does_not_declare_the_constant() {
    let (specs, notes) = selected(&[], &config(&[], &[("JITC_FORM", "tiled")])).expect("selected");
    assert_eq!(specs, ["near tiled", "other"]);
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[test]
fn constants_that_no_family_declares_together_are_refused_as_such() {
    let both = config(&[("form", "plain"), ("size", "65")], &[]);
    let error = selected(&[], &both).expect_err("refused");
    assert_eq!(
        error,
        "near: size (flag --size): `65` is not legal: expected a whole number from 1 to 64"
    );
    let registry = Registry::load(None).expect("families");
    let apart = config(&[("unroll", "1"), ("unpack", "true")], &[]);
    let error = registry.select(&[], &apart).expect_err("refused").to_string();
    assert_eq!(error, "no family declares all of unroll, unpack");
}

#[test]
fn a_preset_selects_among_the_families_that_have_presets() {
    let preset = |name: &str, env: &[(&str, &str)]| {
        let flags = Flags {
            preset: (!name.is_empty()).then(|| name.to_owned()),
            ..Flags::default()
        };
        let env: Environment = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        selected(&[], &Config::load(flags, env).expect("config"))
    };
    let (specs, notes) = preset("small", &[]).expect("selected");
    assert_eq!(specs, ["near tiled"]);
    assert_eq!(
        notes,
        ["left out: other: preset (flag --preset): there is no `small`; there are: big"]
    );
    assert_eq!(
        preset("smal", &[]).expect_err("refused"),
        "preset (flag --preset): no family has a preset `smal` (did you mean `small` of near?)"
    );
    // The environment's is for those who have it, and leaves others alone.
    let (specs, _) = preset("", &[("JITC_PRESET", "small")]).expect("selected");
    assert_eq!(specs, ["far wide", "near tiled"]);
    // A family's own variable is its own.
    let (specs, notes) = preset("", &[("OLD", "big")]).expect("selected");
    assert_eq!((specs.len(), notes.len()), (3, 0));
    assert!(
        preset("", &[("OLD", "small")])
            .expect_err("refused")
            .starts_with("other: preset")
    );
}

/// Launch and geometry of every variant of the decode layer that is warmed.
fn warmed(names: &[&str], preset: Option<&str>, env: &[(&str, &str)]) -> Vec<String> {
    let flags = Flags {
        preset: preset.map(str::to_owned),
        ..Flags::default()
    };
    let env: Environment = (env.iter())
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let config = Config::load(flags, env).expect("config");
    let registry = Registry::load(None).expect("families");
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let selection = registry.select(&names, &config).expect("selected");
    let arch = vec!["sm_90a".parse().expect("arch")];
    let specs = selection.specs_to_warm(&config, || arch).expect("specs");
    let layer = specs.iter().filter(|spec| spec.family().name == "decode_layer");
    let text = |s: &KernelSpec| format!("{} {}", s.constants()["launch"], s.constants()["geometry"]);
    layer.map(text).collect()
}

#[test]
fn a_preset_of_one_launch_leaves_the_other_at_its_own_values() {
    let both = ["cooperative original", "separate spread"];
    assert_eq!(warmed(&["decode_layer"], Some("decode-mini"), &[]), both);
    assert_eq!(
        warmed(&["decode_layer"], None, &[("CUTE_MLP_TILE", "decode-mini")]),
        both
    );
    assert_eq!(warmed(&[], None, &[("JITC_PRESET", "decode-mini")]), both);
    let former = warmed(&["beta_coop"], Some("decode-mini"), &[]);
    assert_eq!(former, ["cooperative original"]);
    // What is set on purpose is not varied, nor is what a constraint forbids warmed.
    let set = [("JITC_LAUNCH", "separate")];
    assert_eq!(
        warmed(&["decode_layer"], Some("decode-mini"), &set),
        ["separate spread"]
    );
    let grid = [
        ("JITC_GEOMETRY", "original"),
        ("JITC_TILE_S", "64"),
        ("JITC_TILE_K", "640"),
        ("JITC_SLICE_CTAS", "8"),
    ];
    assert_eq!(warmed(&["decode_layer"], None, &grid), ["cooperative original"]);
}

#[test]
fn a_preset_of_the_command_line_that_no_named_family_has_is_refused() {
    let refused = |names: &[&str], preset: &str| {
        let flags = Flags {
            preset: Some(preset.to_owned()),
            ..Flags::default()
        };
        let config = Config::load(flags, Environment::default()).expect("config");
        selected(names, &config).expect_err("refused")
    };
    assert_eq!(
        refused(&["far"], "small"),
        "preset (flag --preset): far has no preset `small`; there is one of near"
    );
    assert_eq!(
        refused(&["far"], "smal"),
        "preset (flag --preset): far has no preset `smal` (did you mean `small` of near?)"
    );
    assert_eq!(
        refused(&["other"], "bigg"),
        "other: preset (flag --preset): there is no `bigg` (did you mean `big`?); there are: big"
    );
}
