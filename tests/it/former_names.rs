//! Names that a family had: accepted wherever names are read, for what they stood for.

use std::path::Path;

use jitc::engine::config::Config;
use jitc::engine::request::matrix::Matrix;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::Registry;
use jitc::engine::run::occupancy::known_device;
use jitc::measure::tune::{Gpu, Origin, Record};

use crate::cli::{events, jitc, succeeded};

fn key(cache: &Path, args: &[&str]) -> (String, String) {
    let output = jitc(cache)
        .args(["key", "--json", "--arch", "sm_90a"])
        .args(args)
        .output()
        .expect("ran");
    succeeded(&output);
    let key = events(&output)[0]["key"].as_str().expect("key").to_owned();
    (key, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_former_name_is_the_family_with_what_the_name_stood_for_and_one_line_says_so() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (former, launch) in [("beta_coop", "cooperative"), ("beta_lite", "separate")] {
        let (old, said) = key(dir.path(), &[former, "--wo-split", "8"]);
        let (new, silent) = key(
            dir.path(),
            &["decode_layer", "--launch", launch, "--wo-split", "8"],
        );
        assert_eq!(old, new, "{former}");
        let line = format!("`{former}` is the former name of `decode_layer` with launch = {launch}");
        assert_eq!(said.matches(&line).count(), 1, "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(silent, "");
    }
}

#[test]
fn a_constant_that_contradicts_a_former_name_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (args, words) in [
        (
            &["beta_lite", "--launch", "cooperative"][..],
            "decode_layer: launch = cooperative (flag --launch) contradicts `beta_lite`, the former name of `decode_layer`",
        ),
        (
            &["beta_lite", "--geometry", "original"],
            "decode_layer: geometry = original (flag --geometry) contradicts `beta_lite`",
        ),
        (
            &["beta_coop", "--launch", "cooperative,separate"],
            "decode_layer: launch = separate (flag --launch) contradicts `beta_coop`",
        ),
    ] {
        let output = jitc(dir.path())
            .args(["key", "-q", "--arch", "sm_90a"])
            .args(args)
            .output()
            .expect("ran");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_former_name_is_noted_alike_whatever_it_was_the_name_of() {
    let dir = tempfile::tempdir().expect("tempdir");
    let notes = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = jitc(dir.path());
        let output = command
            .args(args)
            .envs(env.iter().copied())
            .output()
            .expect("ran");
        succeeded(&output);
        String::from_utf8(output.stderr).expect("text")
    };
    let key = |args: &[&'static str]| [&["key", "--arch", "sm_90a"], args].concat();
    for (text, words) in [
        (
            notes(&key(&["beta_lite"]), &[]),
            "note: `beta_lite` is the former name",
        ),
        (
            notes(&key(&["gemv", "--tokens", "2"]), &[]),
            "note: key --tokens is called",
        ),
        (
            notes(&key(&["gemv", "--set", "tokens=2"]), &[]),
            "note: constant `tokens` (",
        ),
        (
            notes(&key(&["gemv"]), &[("JITC_TOKENS", "2")]),
            "note: environment variable JITC_TOKENS sets what",
        ),
    ] {
        assert!(text.starts_with(words), "{text}");
        assert!(!text.contains("jitc::") && !text.contains("WARN"), "{text}");
    }
    // Warnings name no place in the source either.
    let file = dir.path().join("file");
    fs_err::write(&file, "no folder").expect("written");
    let trace = file.join("trace");
    let trace = trace.to_str().expect("path");
    let text = notes(&["warm", "stream", "--arch", "sm_90a"], &[("JITC_TRACE", trace)]);
    assert!(text.starts_with("warning: requests are not recorded"), "{text}");
    assert!(!text.contains("jitc::"), "{text}");
}

#[test]
fn a_matrix_finds_families_by_former_names_and_by_globs_over_them() {
    let registry = Registry::load(None).expect("families");
    let arch: Arch = "sm_90a".parse().expect("arch");
    let variants = |families: &str| -> Vec<String> {
        let text = format!("[[warm]]\nfamilies = {families}\n[warm.constants]\nwo_split = [8]\n");
        let matrix = Matrix::parse(&text).expect("matrix");
        let expansion = matrix
            .expand(&registry, &Config::default(), || vec![arch])
            .expect("expanded");
        let specs = expansion.specs.iter();
        specs
            .map(|s| format!("{} {}", s.family().name, s.variant()))
            .collect()
    };
    let cooperative = "decode_layer wo_split=8".to_owned();
    let separate = "decode_layer launch=separate wo_split=8".to_owned();
    let both = vec![cooperative, separate.clone()];
    assert_eq!(variants("['beta_coop', 'beta_lite']"), both);
    assert_eq!(variants("'beta_*'"), both);
    assert_eq!(variants("'beta_lite'"), [separate]);
    // A pattern that fits the present name means the family once, with all of its launches.
    assert_eq!(variants("'*_l*'"), both);
}

#[test]
fn a_trace_of_a_former_name_warms_the_family() {
    let dir = tempfile::tempdir().expect("tempdir");
    let trace = dir.path().join("trace.jsonl");
    let line = format!(
        r#"{{"key":"{}","family":"beta_lite","arch":"sm_90a","constants":{{"wo_split":8}},"compile_us":7}}"#,
        "0".repeat(64)
    );
    fs_err::write(&trace, line + "\n").expect("written");
    let output = jitc(dir.path())
        .args(["warm", "--check", "--json", "--from-trace"])
        .arg(&trace)
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(1), "it is not there yet");
    let gap = &events(&output)[0];
    assert_eq!(gap["family"], "decode_layer");
    assert_eq!(gap["constants"]["launch"], "separate");
    assert_eq!(gap["constants"]["wo_split"], 8);
}

/// A record that the program wrote when the family had its former names; its problem has
/// every constant that was no geometry then.
const TUNED: &str = r#"{
  "format": 1,
  "winners": [
    {
      "gpu": {"name": "NVIDIA H200", "compute_capability": "9.0", "sm_count": 132, "shared_mem_per_block": 232448},
      "problem": {
        "family": "FAMILY",
        "constants": {
          "accumulate": "fma", "dependent": "false", CONSTANTS "halves_in_flight": "3", "head_dim": "256",
          "hidden": "5120", "input_norm": "false", "intermediate": "17408", "num_kv_heads": "4", "num_q_heads": "24",
          "num_regions": "0", "output_gate": "false", "page_size": "64", "scale_layout": "swizzled",
          "tick_source": "globaltimer", "weight_layout": "nvfp4"
        },
        "tokens": 1
      },
      "geometry": {"num_ctas": "132", "tokens": "1", "wo_split": "4"},
      "median_us": 90.0,
      "tried": 8
    }
  ]
}"#;

/// Constants that `beta_coop` had, and `beta_lite` had not.
const COOPERATIVE_ONLY: &str =
    r#""geometry": "spread", "slice_ctas": "8", "tile_k": "640", "tile_s": "64", "timeout_ms": "0","#;

#[test]
fn a_winner_tuned_under_a_former_name_is_still_found_so_the_bits_do_not_change() {
    let registry = Registry::load(None).expect("families");
    let device = known_device("h200").expect("known");
    let dir = tempfile::tempdir().expect("tempdir");
    let path = Record::path(dir.path());
    for (former, constants, launch) in [
        ("beta_coop", COOPERATIVE_ONLY, "cooperative"),
        ("beta_lite", "", "separate"),
    ] {
        let text = TUNED.replace("FAMILY", former).replace("CONSTANTS", constants);
        let text = text.replace("NVIDIA H200", &Gpu::from(&device).name);
        fs_err::write(&path, text).expect("written");
        let record = Record::load(&path, &registry);
        for other in ["cooperative", "separate"] {
            let set = [("launch", other)];
            let family = registry.get("decode_layer").expect("family");
            let arch = "sm_90a".parse().expect("arch");
            let asked = KernelSpec::new(family, set, arch).expect("legal");
            let (laid, origin) =
                jitc::families::decode_layer::tune::lay_out(&record, &device, &asked, 1, &[]).expect("laid");
            let found = (laid.number("wo_split"), origin);
            if launch == other {
                assert_eq!(found, (Some(4), Origin::Tuned), "{former}");
            } else {
                assert_eq!(found, (Some(8), Origin::Heuristic), "{former} is not {other}");
            }
        }
        // Saved again, it has the present name alone.
        record.save(&path).expect("saved");
        let text = fs_err::read_to_string(&path).expect("read");
        assert!(text.contains("decode_layer") && !text.contains(former), "{text}");
    }
}

#[test]
fn a_matrix_leaves_constants_that_a_former_family_lacked_to_the_others() {
    let registry = Registry::load(None).expect("families");
    let text =
        "[[warm]]\nfamilies = [\"beta_coop\", \"beta_lite\"]\n[warm.constants]\ntimeout_ms = [0, 1000]\n";
    let matrix = Matrix::parse(text).expect("matrix");
    let expansion = matrix
        .expand(&registry, &Config::default(), || {
            vec!["sm_90a".parse().expect("arch")]
        })
        .expect("expanded");
    let seen = expansion.specs.iter().map(|spec| {
        let launch = spec.constants()["launch"].to_string();
        (launch, spec.number("timeout_ms"))
    });
    let seen: Vec<_> = seen.collect();
    let named = |launch: &str, timeout| (launch.to_owned(), Some(timeout));
    assert_eq!(
        seen,
        [
            named("cooperative", 0),
            named("cooperative", 1000),
            named("separate", 0)
        ]
    );
}
