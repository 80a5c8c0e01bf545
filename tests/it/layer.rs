//! The decode layer's families, as far as no GPU is needed.

use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::Registry;
use jitc::engine::run::occupancy::known_device;
use jitc::families::decode_layer::{FAMILY, LayerDims};
use jitc::measure::tune::Gpu;
use jitc::measure::tune::Problem;
use jitc::measure::tune::Record;
use jitc::measure::tune::Winner;

use crate::cli::{events, jitc, succeeded};

const LAUNCHES: [&str; 2] = ["cooperative", "separate"];

/// What each preset is for: a GPU that `dispatch` knows, and further archs.
const PRESETS: [(&str, &str, &[&str]); 8] = [
    ("h200", "h200", &["sm_90"]),
    ("h200-packed", "h200", &["sm_90"]),
    ("h200-batch4", "h200", &["sm_90"]),
    ("h200-packed-batch8", "h200", &["sm_90"]),
    ("b200", "b200", &["sm_103a"]),
    ("a100", "a100", &[]),
    ("l40s", "l40s", &["sm_86"]),
    ("gb10", "gb10", &["sm_120a"]),
];

#[test]
fn every_preset_is_a_kernel_whose_shared_memory_fits_its_gpus() {
    let registry = Registry::load(None).expect("registry");
    let family = registry.get(FAMILY).expect("family");
    for name in LAUNCHES {
        // The original's grids are checked below.
        let declared: Vec<&str> = (family.presets.iter())
            .filter(|preset| preset.constants.contains_key("num_ctas"))
            .map(|preset| preset.name.as_str())
            .collect();
        assert_eq!(declared, PRESETS.map(|(preset, ..)| preset), "{name}");
        for (preset, device, archs) in PRESETS {
            let device = known_device(device).expect("device");
            let own = Arch::of_device(device.major, device.minor);
            assert_eq!(own.shared_mem_per_block(), Some(device.shared_mem_per_block));
            let constants = &family.preset(preset).expect("preset").constants;
            let grid: u32 = constants["num_ctas"].to_string().parse().expect("number");
            assert_eq!(grid, device.sm_count, "{preset}: a block a multiprocessor");
            let texts: Vec<(String, String)> = (constants.iter())
                .map(|(n, v)| (n.clone(), v.to_string()))
                .collect();
            let archs = archs.iter().map(|text| text.parse().expect("arch"));
            for arch in archs.chain([own]) {
                // The sums of eight tokens and 32 slots do not fit beside stages as long.
                let most = if preset == "h200-packed-batch8" { "4" } else { "8" };
                for (split, mode) in [("1", "fma"), (most, "fma"), ("1", "mma"), (most, "mma")] {
                    let set = texts.iter().map(|(n, v)| (n.as_str(), v.as_str()));
                    let set = set.chain([("launch", name), ("wo_split", split), ("accumulate", mode)]);
                    let spec = KernelSpec::new(family, set, arch).expect("kernel");
                    assert!(
                        Some(spec.derived["shared_bytes"]) <= arch.shared_mem_per_block(),
                        "{name} {preset} {arch}: {}",
                        spec.derived["shared_bytes"]
                    );
                    assert_eq!(
                        LayerDims::of(&spec).expect("layer").slots,
                        4 * split.parse::<usize>().expect("number")
                    );
                }
            }
        }
    }
}

#[test]
fn the_originals_presets_are_its_grids() {
    let registry = Registry::load(None).expect("registry");
    let family = registry.get(FAMILY).expect("family");
    let arch: Arch = "sm_121a".parse().expect("arch");
    for (name, grid) in [
        ("decode-mini", [8, 8]),
        ("prefill-legacy", [8, 8]),
        ("decode-balanced", [16, 8]),
        ("decode-small", [32, 8]),
        ("decode-narrow-grid", [8, 4]),
    ] {
        let preset = family.preset(name).expect("preset");
        let texts: Vec<(String, String)> = preset
            .constants
            .iter()
            .map(|(n, v)| (n.clone(), v.to_string()))
            .collect();
        let set = texts.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let spec = KernelSpec::new(family, set.chain([("wo_split", "8")]), arch).expect("kernel");
        assert_eq!([spec.derived["grid_x"], spec.derived["grid_y"]], grid, "{name}");
        assert_eq!(spec.derived["block_threads"], 128);
        assert!(spec.derived["shared_bytes"] <= 99 * 1024);
    }
}

#[test]
fn a_preset_yields_to_a_flag_and_an_unknown_one_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let render = |args: &[&str]| {
        let output = jitc(dir.path())
            .args(["render", "decode_layer", "--arch", "sm_90a"])
            .args(args)
            .output()
            .expect("ran");
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (source, _) = render(&["--preset", "b200", "--stages", "3"]);
    assert!(source.contains("num_ctas = 148u;"), "{source}");
    assert!(source.contains("stages = 3u;"), "{source}");
    let (_, error) = render(&["--preset", "b201"]);
    let line = error.lines().next().unwrap_or_default();
    assert!(
        line.starts_with("error: decode_layer: preset (flag --preset): there is no `b201` (did you mean `b200`?); there are: h200"),
        "{error}"
    );
}

#[test]
fn the_originals_variable_names_a_preset_for_both_launches() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (launch, words) in [
        ("cooperative", "LayerGeometry::original"),
        ("separate", "LayerGeometry::spread"),
    ] {
        jitc(dir.path())
            .env("CUTE_MLP_TILE", "decode-mini")
            .args(["render", FAMILY, "--launch", launch, "--arch", "sm_90a"])
            .assert()
            .success()
            .stdout(predicates::str::contains(words));
    }
}

#[test]
fn an_error_names_the_preset_that_set_a_value() {
    let dir = tempfile::tempdir().expect("tempdir");
    let toml = r#"
summary = "a test"
[constants.width]
type = "u32"
range = [1, 64]
default = 1
help = "width"
[[presets]]
name = "wide"
help = "wide"
set = { width = 48 }
[[constraints]]
rule = "width % 32 == 0 or width == 1"
because = "rows are aligned"
[[entries]]
name = "own"
grid = [1, 1, 1]
block = 32
"#;
    fs_err::write(dir.path().join("own.toml"), toml).expect("write");
    let source = "extern \"C\" __global__ void own(unsigned* x) { *x = {{ width }}; }";
    fs_err::write(dir.path().join("own.cu.tera"), source).expect("write");
    let output = jitc(dir.path())
        .args([
            "key",
            "own",
            "--arch",
            "sm_90a",
            "--preset",
            "wide",
            "--templates",
            ".",
        ])
        .output()
        .expect("ran");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("width = 48 (preset wide)"), "{error}");
}

#[test]
fn the_layer_compiles_without_spills() {
    let dir = tempfile::tempdir().expect("tempdir");
    let packed = ["--weight-layout", "packed64", "--arch", "sm_90a"];
    for (variants, args) in [
        (2, &["--arch", "sm_90a,sm_121a"][..]),
        (2, &[&packed[..], &["--accumulate", "fma,mma"]].concat()),
        (
            1,
            &[&packed[..], &["--accumulate", "fma", "--num-regions", "21"]].concat(),
        ),
    ] {
        let output = jitc(dir.path())
            .args(["warm", "decode_layer", "--wo-split", "8", "--json"])
            .args(args)
            .output()
            .expect("ran");
        succeeded(&output);
        let events = events(&output);
        assert_eq!(events.len(), variants + 1);
        for event in &events[..variants] {
            assert_eq!(event["spill_bytes"], 0, "{event}");
        }
    }
}

/// Warps that ask hand registers on to those that compute, out of what launch bounds of
/// 640 threads give: with fewer they would wait for ever.
#[test]
fn kernels_that_share_registers_out_have_them_whatever_the_layer() {
    let dir = tempfile::tempdir().expect("tempdir");
    let small = "--hidden 256 --intermediate 128 --num-q-heads 4 --num-kv-heads 1 --head-dim 64 --num-ctas 4";
    let output = jitc(dir.path())
        .args([
            "warm",
            "decode_layer",
            "--launch",
            "cooperative,separate",
            "--arch",
            "sm_90a,sm_100a",
            "-q",
        ])
        .args(["--weight-layout", "packed64", "--accumulate", "mma"])
        .args(small.split(' '))
        .output()
        .expect("ran");
    succeeded(&output);
    let rows = jitc(dir.path())
        .args(["cache", "ls", "--json"])
        .output()
        .expect("ran");
    let mut seen = 0;
    for row in events(&rows) {
        for entry in row["resources"].as_array().expect("list") {
            let name = entry["entry"].as_str().expect("name");
            if !["decode_layer_attention", "decode_layer_merge"].contains(&name) {
                assert_eq!(entry["registers"], 96, "{name}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 2 + 6);
}

#[test]
fn dispatch_says_what_it_chose_and_why_without_a_gpu() {
    let dir = tempfile::tempdir().expect("tempdir");
    let run = |args: &[&str]| {
        let output = jitc(dir.path())
            .args(["dispatch", "--wo-split", "8", "--device", "h200", "--json"])
            .args(args)
            .output()
            .expect("ran");
        (output.status.code(), events(&output))
    };
    let (code, said) = run(&["--tokens", "4", "--explain"]);
    assert_eq!(code, Some(0));
    assert_eq!(said[0]["kind"], "coop");
    assert_eq!(said[0]["reason"], "its grid is resident at once");
    assert_eq!(said[1]["resident"], 132);
    assert_eq!(
        (&said[0]["wo_split"], &said[0]["origin"]),
        (&8.into(), &"Forced".into())
    );
    let (code, said) = run(&["--tokens", "4", "--path", "coop", "--num-ctas", "264"]);
    assert_eq!(code, Some(1));
    let reason = said[0]["reason"].as_str().expect("reason");
    assert!(reason.contains("264 blocks is over the 132"), "{reason}");
    let (code, said) = run(&["--tokens", "4", "--num-ctas", "264"]);
    assert_eq!((code, &said[0]["kind"]), (Some(0), &"lite".into()));
    let (code, said) = run(&["--tokens", "4", "--layers", "3,7", "--layer", "4"]);
    assert_eq!((code, &said[0]["variant"]), (Some(1), &serde_json::Value::Null));
}

#[test]
fn dispatch_refuses_what_no_step_has_and_constants_of_other_families() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (args, words) in [
        (["--tokens", "0"], "expected a whole number from 1"),
        (["--max-tokens", "0"], "expected a whole number from 1"),
        (["--rows", "8"], "unknown constant `rows` (flag --rows)"),
    ] {
        let output = jitc(dir.path())
            .args(["dispatch", "--device", "h200"])
            .args(args)
            .output()
            .expect("ran");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words), "{args:?}: {text}");
    }
}

/// A shape that compiles fast.
const SMALL: [&str; 10] = [
    "--hidden",
    "256",
    "--intermediate",
    "192",
    "--num-q-heads",
    "4",
    "--num-kv-heads",
    "2",
    "--head-dim",
    "64",
];

#[test]
fn the_split_is_what_was_set_else_what_was_tuned_else_by_rule() {
    let dir = tempfile::tempdir().expect("tempdir");
    let cache = dir.path().join("kept");
    let run = |args: &[&str]| {
        let output = jitc(dir.path())
            .args(["dispatch", "--device", "h200", "--json", "--path", "coop"])
            .arg("--cache-dir")
            .arg(&cache)
            .args(SMALL)
            .args(args)
            .output()
            .expect("ran");
        let said = events(&output).swap_remove(0);
        (said["wo_split"].clone(), said["origin"].clone())
    };
    assert_eq!(run(&[]), (8.into(), "Heuristic".into()));
    let registry = Registry::load(None).expect("registry");
    let shape = SMALL
        .chunks(2)
        .map(|pair| (pair[0][2..].replace('-', "_"), pair[1]));
    let shape: Vec<(String, &str)> = shape.collect();
    let set = shape.iter().map(|(name, value)| (name.as_str(), *value));
    let arch: Arch = "sm_90a".parse().expect("arch");
    let spec = KernelSpec::new(registry.get(FAMILY).expect("family"), set, arch).expect("legal");
    let mut record = Record::default();
    for (tokens, split) in [(1, "4"), (4, "1")] {
        record.put(Winner {
            gpu: Gpu::from(&known_device("h200").expect("known")),
            problem: Problem::of_layer(&spec, tokens),
            geometry: [("wo_split".to_owned(), split.to_owned())].into(),
            median_us: 9.0,
            tried: 8,
        });
    }
    record.save(&Record::path(&cache)).expect("kept");
    assert_eq!(run(&[]), (4.into(), "Tuned".into()));
    // What four tokens were tuned for holds for three.
    assert_eq!(run(&["--tokens", "3"]), (1.into(), "Tuned".into()));
    assert_eq!(run(&["--wo-split", "2"]), (2.into(), "Forced".into()));
}

#[test]
fn tuning_a_layer_lists_its_candidates_without_a_gpu() {
    let dir = tempfile::tempdir().expect("tempdir");
    let list = |args: &[&str]| {
        let output = jitc(dir.path())
            .args(["tune", "decode_layer", "--dry-run", "--json"])
            .args(args)
            .output()
            .expect("ran");
        events(&output)
    };
    let all = list(&["--tokens", "1,4"]);
    assert_eq!(all.len(), 4 * 2 + 4 * 2 * 3);
    assert!(
        all.iter()
            .any(|c| c["tokens"] == 4 && c["constants"]["tokens_per_pass"] == "2")
    );
    // A list that would fix what is tuned fixes nothing.
    jitc(dir.path())
        .args(["tune", "decode_layer", "--dry-run", "--wo-split", "1,8"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains(
            "wo_split = 1,8: one value fixes it; --space wo_split=1,8 tries both",
        ));
    let some = list(&["--space", "wo_split=4,8", "--space", "num_ctas=132"]);
    assert_eq!(some.len(), 2);
    assert_eq!(some[0]["constants"]["wo_split"], "4");
}

#[test]
fn every_test_that_the_layers_page_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs_err::read_to_string(root.join("docs/LAYER.md")).expect("page");
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut sources = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources += &fs_err::read_to_string(path).unwrap_or_default();
            }
        }
    }
    let mut named = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let name = word.rsplit("::").next().unwrap_or(word);
        // Sentences, not constants.
        if name.split('_').count() > 5 && !name.contains(' ') {
            named += 1;
            assert!(sources.contains(&format!("fn {name}()")), "{name}");
        }
    }
    assert!(named > 15, "{named}");
}
