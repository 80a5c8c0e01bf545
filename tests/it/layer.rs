//! The decode layer's families, as far as no GPU is needed.

use jitc::engine::jit::too_large;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::Registry;
use jitc::engine::run::occupancy::known_device;
use jitc::families::decode_layer::{FAMILY, LayerDims};
use jitc::measure::models::MODELS;

use crate::cli::{events, jitc};

const LAUNCHES: [&str; 2] = ["cooperative", "separate"];

/// What each preset is for: a GPU that `dispatch` knows, and further archs.
const PRESETS: [(&str, &str, &[&str]); 9] = [
    ("h200", "h200", &["sm_90"]),
    ("h200-packed", "h200", &["sm_90"]),
    ("h200-batch4", "h200", &["sm_90"]),
    ("h200-packed-batch8", "h200", &["sm_90"]),
    ("h200-packed-batch16", "h200", &["sm_90"]),
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
            let own = device.arch();
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
                // Sixteen share a pass on tensor cores alone.
                let chains = constants.get("accumulate").is_none();
                let modes = [("1", "mma"), (most, "mma"), ("1", "fma"), (most, "fma")];
                for (split, mode) in modes.into_iter().take(if chains { 4 } else { 2 }) {
                    let set = texts.iter().map(|(n, v)| (n.as_str(), v.as_str()));
                    let set = set.chain([("launch", name), ("wo_split", split), ("accumulate", mode)]);
                    let spec = KernelSpec::new(family, set, arch).expect("kernel");
                    assert!(
                        Some(spec.derived()["shared_bytes"]) <= arch.shared_mem_per_block(),
                        "{name} {preset} {arch}: {}",
                        spec.derived()["shared_bytes"]
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

/// What more than eight tokens a pass cannot be is said with what can.
#[test]
fn more_than_eight_tokens_a_pass_where_they_do_not_fit_are_refused_with_what_would() {
    let registry = Registry::load(None).expect("registry");
    let arch: Arch = "sm_90a".parse().expect("arch");
    let refusal = |family: &str, set: &[(&str, &str)]| {
        let family = registry.get(family).expect("family");
        let error = KernelSpec::new(family, set.iter().copied(), arch).expect_err("refused");
        error.to_string()
    };
    let sixteen = ("tokens_per_pass", "16");
    let packed = [sixteen, ("accumulate", "mma"), ("weight_layout", "packed64")];
    let chains = refusal(FAMILY, &[sixteen]);
    assert!(chains.contains("take tokens_per_pass up to 8"), "{chains}");
    let long = refusal(FAMILY, &packed);
    assert!(long.contains("take stage_chunks = 2 and stages = 5"), "{long}");
    let short = [packed.as_slice(), &[("stage_chunks", "2"), ("stages", "5")]].concat();
    let large = refusal(FAMILY, &[short.as_slice(), &[("hidden", "8192")]].concat());
    assert!(large.contains("up to 6144 elements a row"), "{large}");
    KernelSpec::new(registry.get(FAMILY).expect("family"), short, arch).expect("legal");

    let many = [("tokens_per_pass", "32"), ("accumulate", "mma")];
    let rows = refusal("wo_gemv", &[many.as_slice(), &[("mma_rows", "56")]].concat());
    assert!(rows.contains("48 at 32"), "{rows}");
    let chains = refusal("wo_gemv", &[sixteen]);
    assert!(chains.contains("on tensor cores alone"), "{chains}");
    for refusal in [long, large, rows, chains] {
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
}

#[test]
fn nvllms_presets_are_its_grids() {
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
        assert_eq!(
            [spec.derived()["grid_x"], spec.derived()["grid_y"]],
            grid,
            "{name}"
        );
        assert_eq!(spec.derived()["block_threads"], 128);
        assert!(spec.derived()["shared_bytes"] <= 99 * 1024);
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
fn nvllms_variable_names_a_preset_for_both_launches() {
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

#[test]
fn variants_that_no_gpu_of_their_arch_can_load_are_said_a_line_an_arch() {
    let registry = Registry::load(None).expect("families");
    let family = registry.get("decode_layer").expect("family");
    let spec = |arch: &str, set: &[(&str, &str)]| {
        KernelSpec::new(family, set.iter().copied(), arch.parse().expect("arch")).expect("legal")
    };
    let small = [("stages", "3"), ("num_threads", "256"), ("stage_chunks", "3")];
    let specs = [
        spec("sm_89", &[("wo_split", "1")]),
        spec("sm_89", &[("wo_split", "8")]),
        spec("sm_89", &small),
        spec("sm_90a", &[]),
    ];
    let lines = too_large(&specs.iter().collect::<Vec<_>>());
    assert_eq!(lines.len(), 1, "{lines:?}");
    let most = specs[0].shared_mem_bytes().max(specs[1].shared_mem_bytes());
    assert!(
        lines[0].starts_with(&format!(
            "note: decode_layer: 2 of these take up to {most} bytes of shared memory a block, and sm_89 has 101376"
        )),
        "{}",
        lines[0]
    );
}

#[test]
fn every_public_model_fits_at_one_token_at_each_split_or_its_refusal_names_the_splits() {
    let registry = Registry::load(None).expect("registry");
    let family = registry.get(FAMILY).expect("family");
    let arch: Arch = "sm_90a".parse().expect("arch");
    let kinds = [("fma", "nvfp4"), ("mma", "nvfp4"), ("mma", "packed64")];
    for (model, split) in MODELS.iter().flat_map(|m| [1, 2, 4, 8].map(|split| (m, split))) {
        for (accumulate, layout) in kinds {
            let mut set: Vec<(&str, String)> = (model.attention_constants().into_iter())
                .map(|(name, number)| (name, number.to_string()))
                .collect();
            set.push(("intermediate", model.intermediate.to_string()));
            set.push(("wo_split", split.to_string()));
            set.push(("accumulate", accumulate.to_owned()));
            set.push(("weight_layout", layout.to_owned()));
            let spec = KernelSpec::new(family, set.iter().map(|(n, v)| (*n, v.as_str())), arch);
            let whole_runs = model.slot_len(split).is_some_and(|len| len % 64 == 0);
            let label = format!("{} split {split} {accumulate} {layout}", model.name);
            match spec {
                Ok(spec) => assert!(
                    (accumulate == "fma" || whole_runs) && spec.number("ring_stages") >= Some(2),
                    "{label}"
                ),
                Err(error) => {
                    let told = error.to_string();
                    assert!(accumulate == "mma" && !whole_runs, "{label}: {told}");
                    assert!(told.contains("mma_splits = "), "{label}: {told}");
                }
            }
        }
    }
    let usual = KernelSpec::new(family, [], arch).expect("the defaults");
    assert_eq!(
        usual.number("ring_stages"),
        Some(4),
        "where four stages fit there are four"
    );
}
