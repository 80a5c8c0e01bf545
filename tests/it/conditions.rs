//! Conditions of a family's declarations: entry points and presets that only some specs have.

use std::collections::BTreeMap;

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Registry;

const TOML: &str = r#"
summary = "a test"
[constants.mode]
type = "enum"
cxx_type = "jitc::Mode"
values = ["one", "two", "none"]
default = "one"
help = "mode"
[constants.n]
type = "u32"
range = [1, 1000]
default = 5
help = "n"
[[derived]]
name = "rounded"
value = "round_up(a=n, b=16)"
[[derived]]
name = "largest"
value = "max(a=n, b=rounded - 1, c=7)"
[[derived]]
name = "picked"
value = "pick(cond=mode == 'two' and n > 3, a=largest * 2, b=1)"
[[presets]]
name = "wide"
help = "wide"
when = "mode == 'one'"
set = { n = 64 }
[[former_names]]
name = "duo"
set = { mode = "two" }
[[entries]]
name = "first"
when = "mode == 'one'"
grid = [1, 1, 1]
block = 32
shared_mem_bytes = 100
[[entries]]
name = "second"
when = "mode == 'two' or rounded > 16"
grid = ["picked", 1, 1]
block = 32
shared_mem_bytes = 200
"#;

fn registry(toml: &str) -> Result<Registry, String> {
    let source = "extern \"C\" __global__ void first() {}\n".to_owned();
    let files = BTreeMap::from([
        ("k.toml".to_owned(), toml.to_owned()),
        ("k.cu.tera".to_owned(), source),
    ]);
    Registry::from_files(&files).map_err(|e| e.to_string())
}

fn spec(set: &[(&str, &str)]) -> Result<KernelSpec, String> {
    let registry = registry(TOML)?;
    let family = registry.get("k").map_err(|e| e.to_string())?;
    let arch = "sm_90a".parse().expect("arch");
    KernelSpec::new(family, set.iter().copied(), arch).map_err(|e| e.to_string())
}

#[test]
fn an_entry_whose_condition_is_false_does_not_exist_for_a_spec() {
    for (set, entries, shared) in [
        (&[][..], &["first"][..], 100),
        (&[("mode", "two")], &["second"], 200),
        (&[("n", "17")], &["first", "second"], 200),
    ] {
        let spec = spec(set).expect("legal");
        let there: Vec<&str> = spec.entries().map(|e| e.name.as_str()).collect();
        assert_eq!(there, entries, "{set:?}");
        assert_eq!(spec.shared_mem_bytes(), shared, "{set:?}");
    }
}

#[test]
fn a_spec_of_which_no_entry_is_left_is_refused_with_the_conditions() {
    assert_eq!(
        spec(&[("mode", "none")]).expect_err("refused"),
        "k: no entry point is left: none of these conditions holds: mode == 'one'; mode == 'two' or rounded > 16"
    );
    let none = TOML.split("[[entries]]").next().expect("head");
    assert!(registry(&format!("{none}\nentries = []")).is_err());
}

#[test]
fn a_condition_reads_declared_names_alone() {
    let entry = TOML.replace("or rounded > 16", "or rundded > 16");
    assert_eq!(
        registry(&entry).expect_err("refused"),
        "k.toml: entry `second`: when uses `rundded`, which nobody declares (did you mean `rounded`?)"
    );
    // A preset sets constants, before anything is derived from them.
    let preset = TOML.replace("when = \"mode == 'one'\"\nset", "when = \"rounded == 16\"\nset");
    let error = registry(&preset).expect_err("refused");
    assert!(
        error.starts_with("k.toml: preset `wide` uses `rounded`, which nobody declares before it"),
        "{error}"
    );
}

#[test]
fn helpers_of_expressions_round_up_pick_and_find_the_largest() {
    let derived = |set: &[(&str, &str)]| {
        let spec = spec(set).expect("legal");
        ["rounded", "largest", "picked"].map(|name| spec.derived()[name])
    };
    assert_eq!(derived(&[]), [16, 15, 1]);
    assert_eq!(derived(&[("mode", "two")]), [16, 15, 30]);
    assert_eq!(derived(&[("mode", "two"), ("n", "1")]), [16, 15, 1]);
    assert_eq!(derived(&[("n", "16")]), [16, 16, 1]);
}

#[test]
fn a_former_name_is_borne_by_one_family_and_stands_for_declared_constants() {
    let undeclared = TOML.replace("set = { mode = \"two\" }", "set = { mood = \"two\" }");
    let error = registry(&undeclared).expect_err("refused");
    assert_eq!(
        error,
        "k.toml: former name `duo`: constant `mood`: nobody declares it (did you mean `mode`?)"
    );
    let source = "extern \"C\" __global__ void first() {}\n".to_owned();
    let files: BTreeMap<String, String> = [("k", TOML), ("l", TOML)]
        .iter()
        .flat_map(|(name, toml)| {
            [
                (format!("{name}.toml"), (*toml).to_owned()),
                (format!("{name}.cu.tera"), source.clone()),
            ]
        })
        .collect();
    let error = Registry::from_files(&files).expect_err("refused").to_string();
    assert_eq!(error, "l: former name `duo` is also one of `k`");
}
