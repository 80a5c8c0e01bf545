//! What changes a key, and what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jitc::engine::build::key::CacheKey;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::{Constant, Legal, Registry};

fn jit(templates: Option<&Path>) -> Jit {
    let flags = Flags {
        templates: templates.map(Path::to_path_buf),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, Environment::default()).expect("config")).expect("jit")
}

fn key(jit: &Jit, family: &str, set: &[(&str, &str)], arch: &str) -> CacheKey {
    let family = jit.registry().get(family).expect("family");
    let spec =
        KernelSpec::new(family, set.iter().copied(), arch.parse::<Arch>().expect("arch")).expect("spec");
    *jit.describe(&spec).expect("described").0.key()
}

/// Other legal values of a constant, as texts.
fn others(constant: &Constant) -> Vec<String> {
    let candidates: Vec<String> = match &constant.legal {
        Legal::U32Values(values) => values.iter().map(u32::to_string).collect(),
        Legal::U32Range(low, high, step) => {
            let near = |factor: u32| (low / step + factor) * step;
            let default: u32 = constant.default.to_string().parse().expect("u32");
            [default / 2, default * 2, default + step, *high, near(1), near(2)]
                .iter()
                .map(u32::to_string)
                .collect()
        }
        Legal::Bool => vec!["true".into(), "false".into()],
        Legal::F32Range(low, high) => vec![format!("{low:?}"), format!("{high:?}")],
        listed => listed.listed().expect("no other range in a built-in family"),
    };
    let other = |text: &String| {
        constant
            .legal
            .parse(text)
            .is_ok_and(|value| value != constant.default)
    };
    candidates.into_iter().filter(other).collect()
}

#[test]
fn changing_any_single_constant_or_the_arch_changes_the_key() {
    let jit = jit(None);
    let arch: Arch = "sm_90a".parse().expect("arch");
    for family in jit.registry().families() {
        let key_of = |set: &[(&str, &str)], arch: Arch| -> Option<CacheKey> {
            let spec = KernelSpec::new(family, set.iter().copied(), arch).ok()?;
            Some(*jit.describe(&spec).expect("described").0.key())
        };
        let mut keys = BTreeSet::from([key_of(&[], arch).expect("defaults go together")]);
        for constant in family.constants.values() {
            let others = others(constant);
            // The first value that no constraint forbids beside the defaults, beside tensor cores, or beside FP8
            // weights.
            let beside = |base: &[(&str, &str)]| {
                others.iter().find_map(|v| {
                    let key = key_of(&[base, &[(&constant.name, v)]].concat(), arch)?;
                    assert_ne!(Some(&key), key_of(base, arch).as_ref(), "{}", constant.name);
                    Some(key)
                })
            };
            let changed = beside(&[])
                .or_else(|| beside(&[("accumulate", "mma")]))
                .or_else(|| beside(&[("wo_format", "fp8")]));
            let name = format!("{}.{}", family.name, constant.name);
            match changed {
                Some(key) => assert!(keys.insert(key), "{name} does not change the key"),
                None => assert!(
                    others.is_empty(),
                    "{name}: none of {others:?} goes with the defaults"
                ),
            }
        }
        for arch in ["sm_80", "sm_90", "sm_100a"] {
            let key = key_of(&[], arch.parse().expect("arch")).expect("legal");
            assert!(keys.insert(key), "{}: {arch}", family.name);
        }
    }
}

#[test]
fn odd_shapes_have_a_variant_in_every_mode_and_split() {
    let jit = jit(None);
    let family = jit.registry().get("wo_gemv").expect("family");
    let arch: Arch = "sm_90a".parse().expect("arch");
    let shapes = [
        ["72", "8", "24"],
        ["130", "16", "40"],
        ["33", "1", "16"],
        ["100", "24", "64"],
        ["200", "16", "17"],
    ];
    for [hidden, q_heads, head_dim] in shapes {
        for accumulate in ["fma", "mul_add", "mma"] {
            for wo_split in ["1", "2", "4", "8"] {
                let set = [
                    ("hidden", hidden),
                    ("num_q_heads", q_heads),
                    ("num_kv_heads", "1"),
                    ("head_dim", head_dim),
                    ("accumulate", accumulate),
                    ("wo_split", wo_split),
                ];
                KernelSpec::new(family, set, arch).unwrap_or_else(|e| panic!("{set:?}: {e}"));
            }
        }
    }
}

/// The example family, written under a folder, perhaps with one text replaced.
fn copy(into: &Path, edit: Option<(&str, &str)>) -> CacheKey {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/family");
    fs_err::create_dir_all(into.join("include")).expect("folder");
    for name in ["scale.toml", "scale.cu.tera", "include/scale.cuh"] {
        let mut text = fs_err::read_to_string(from.join(name)).expect("read");
        if let Some((_, change)) = edit.filter(|(file, _)| *file == name) {
            let (old, new) = change.split_once("->").expect("change");
            assert!(text.contains(old), "{name} has no {old}");
            text = text.replacen(old, new, 1);
        }
        fs_err::write(into.join(name), text).expect("write");
    }
    key(&jit(Some(into)), "scale", &[], "sm_90a")
}

#[test]
fn moving_the_templates_leaves_the_key_and_changing_a_byte_of_them_does_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let here = copy(&dir.path().join("here"), None);
    assert_eq!(here, copy(&dir.path().join("a/longer/path/elsewhere"), None));
    let edits = [
        ("include/scale.cuh", "each element->every element"),
        ("scale.cu.tera", "float* y->float* z"),
        ("scale.toml", "--std=c++17->--std=c++20"),
    ];
    for edit in edits {
        assert_ne!(
            here,
            copy(&dir.path().join(edit.0.replace('/', "_")), Some(edit)),
            "{edit:?}"
        );
    }
    let help = ("scale.toml", "threads a block\"->threads in a block\"");
    assert_eq!(
        here,
        copy(&dir.path().join("help"), Some(help)),
        "help is not compiled"
    );
}

#[test]
fn an_option_that_would_read_files_is_refused() {
    let files = BTreeMap::from([
        ("k.toml".to_owned(), "summary = 's'\noptions = ['-I/usr/include']\n[constants]\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n".to_owned()),
        ("k.cu.tera".to_owned(), "extern \"C\" __global__ void k() {}\n".to_owned()),
    ]);
    let registry = Registry::from_files(&files).expect("registry");
    let family = registry.get("k").expect("family");
    let spec = KernelSpec::new(family, [], "sm_80".parse().expect("arch")).expect("spec");
    let error = jitc::engine::build::render::render(&registry, &spec).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "k: option `-I/usr/include` is refused: it is not among the options that are known to read nothing but \
         what the key covers"
    );
}

#[test]
fn a_header_that_a_template_names_by_way_of_folders_is_handed_over_and_named_in_full() {
    let toml = "summary = 's'\n[constants]\n[[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 32\n";
    let source = "#include \"./v.h\"\n#include \"a/../w/./x.h\"\nextern \"C\" __global__ void k() {}\n";
    let files = [
        ("k.toml", toml),
        ("k.cu.tera", source),
        ("include/v.h", "#pragma once\n"),
        ("include/w/x.h", "#pragma once\n"),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let registry = Registry::from_files(&files.into()).expect("registry");
    let family = registry.get("k").expect("family");
    let spec = KernelSpec::new(family, [], "sm_80".parse().expect("arch")).expect("spec");
    let rendered = jitc::engine::build::render::render(&registry, &spec).expect("rendered");
    assert!(
        rendered.source.starts_with("#include <v.h>\n#include <w/x.h>\n"),
        "{}",
        rendered.source
    );
    let names: Vec<&str> = rendered.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["v.h", "w/x.h"]);
}

#[test]
fn a_broken_constraint_names_the_values_and_where_they_were_written() {
    let jit = jit(None);
    let family = jit.registry().get("wo_gemv").expect("family");
    let set = [("geometry", "original"), ("wo_split", "8"), ("slice_ctas", "4")];
    let error = KernelSpec::new(family, set, "sm_90a".parse().expect("arch")).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("wo_split = 8 (the embedding program)"), "{text}");
    assert!(text.contains("slice_ctas = 4 (the embedding program)"), "{text}");
}
