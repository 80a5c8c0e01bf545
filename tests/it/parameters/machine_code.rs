//! Whether machine code takes what is declared.

use std::path::Path;

use jitc::engine::build::parameter_info::{ParameterError, parameters};
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Error, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Place;

use crate::cli::{events, jitc};

fn jit_over(templates: Option<&Path>, cache: &Path) -> Jit {
    let flags = Flags {
        templates: templates.map(Path::to_path_buf),
        cache_dir: Some(cache.to_path_buf()),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families")
}

#[test]
fn a_kernel_that_takes_something_else_than_declared_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("families");
    fs_err::create_dir_all(&folder).expect("folder");
    let toml = "summary = 's'\n[constants.block]\ntype = 'u32'\nvalues = [32]\ndefault = 32\nhelp = 'h'\n\
                [[entries]]\nname = 'k'\nsizes = ['n']\ngrid = ['n', 1, 1]\nblock = 'block'\n\
                [[entries.parameters]]\nname = 'x'\ntype = 'f32'\nshape = ['n']\n\
                [[entries.parameters]]\nname = 'a'\ntype = 'u16'\n\
                [[entries.parameters]]\nname = 'n'\ntype = 'u32'\nvalue = 'n'\n";
    fs_err::write(folder.join("k.toml"), toml).expect("written");
    let compile = |parameters: &str| {
        let source = format!(
            "extern \"C\" __global__ void __launch_bounds__({{{{ block }}}}) k({parameters}) {{ }}\n"
        );
        fs_err::write(folder.join("k.cu.tera"), source).expect("written");
        let jit = jit_over(Some(&folder), &dir.path().join("cache"));
        let family = jit.registry().get("k").expect("family");
        let spec = KernelSpec::new(family, [], "sm_90a".parse().expect("arch")).expect("spec");
        jit.prepare(&spec)
            .map(|prepared| prepared.fetched.provenance.label())
    };
    let refused = |parameters: &str| match compile(parameters) {
        Err(Error::Parameters(error)) => error,
        other => panic!("{parameters}: {other:?}"),
    };
    let wider = refused("const float* x, unsigned short a, unsigned long long n");
    assert_eq!(
        wider.to_string(),
        "k: `k`: parameter 2 `n`: declared 4 bytes at 12, the kernel takes 8 at 16"
    );
    assert!(matches!(wider, ParameterError::Differs { index: 2, .. }));
    let swapped = refused("unsigned short a, const float* x, unsigned n").to_string();
    assert_eq!(
        swapped,
        "k: `k`: parameter 0 `x`: declared 8 bytes at 0, the kernel takes 2 at 0"
    );
    let fewer = refused("const float* x, unsigned short a").to_string();
    assert_eq!(
        fewer,
        "k: `k`: 3 parameters are declared, the kernel takes 2; not taken: n"
    );
    let more = refused("const float* x, unsigned short a, unsigned n, int more").to_string();
    assert_eq!(more, "k: `k`: 3 parameters are declared, the kernel takes 4");
    let none = refused("").to_string();
    assert_eq!(
        none,
        "k: `k`: 3 parameters are declared, the kernel takes 0; not taken: x, a, n"
    );
    // What was refused is not kept.
    assert_eq!(
        compile("const float* x, unsigned short a, unsigned n").expect("right"),
        "built"
    );
}

#[test]
fn what_cannot_be_read_says_why() {
    let unreadable = parameters(b"no ELF", "k").expect_err("no cubin");
    assert!(!unreadable.to_string().is_empty());
}

/// Small variants of every family, so that all of them compile in seconds.
const VARIANTS: &[(&str, &[(&str, &str)])] = &[
    ("wo_gemv", &[]),
    ("wo_gemv", &[("geometry", "original")]),
    ("wo_gemv", &[("accumulate", "mma"), ("weight_layout", "packed")]),
    ("wo_gemv", &[("num_regions", "4")]),
    ("gemv", &[]),
    (
        "gemv",
        &[("output", "bf16"), ("weight_layout", "packed"), ("tokens", "2")],
    ),
    ("pack", &[]),
    ("pack", &[("unpack", "true"), ("weight_layout", "packed")]),
    ("stream", &[]),
    ("axpy", &[]),
    ("decode_layer", SMALL),
    ("decode_layer", SMALL_ORIGINAL),
    ("decode_layer", SMALL_SEPARATE),
];

const SMALL: &[(&str, &str)] = &[
    ("hidden", "256"),
    ("intermediate", "320"),
    ("num_q_heads", "4"),
    ("num_kv_heads", "2"),
    ("head_dim", "64"),
    ("page_size", "16"),
    ("num_ctas", "6"),
];

const SMALL_SEPARATE: &[(&str, &str)] = &[
    ("launch", "separate"),
    ("hidden", "256"),
    ("intermediate", "320"),
    ("num_q_heads", "4"),
    ("num_kv_heads", "2"),
    ("head_dim", "64"),
    ("page_size", "16"),
    ("num_ctas", "6"),
];

const SMALL_ORIGINAL: &[(&str, &str)] = &[
    ("hidden", "256"),
    ("intermediate", "320"),
    ("num_q_heads", "4"),
    ("num_kv_heads", "2"),
    ("head_dim", "64"),
    ("page_size", "16"),
    ("geometry", "original"),
    ("tile_s", "64"),
    ("tile_k", "64"),
];

#[test]
fn every_built_in_family_declares_what_its_machine_code_takes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let jit = jit_over(None, dir.path());
    for family in jit.registry().families() {
        assert!(
            VARIANTS.iter().any(|(name, _)| *name == family.name),
            "{}",
            family.name
        );
        let declared = family.entries.iter().all(|entry| entry.parameters.is_some());
        assert!(declared, "{}: an entry point without parameters", family.name);
    }
    for arch in ["sm_90a", "sm_120a"] {
        for (name, set) in VARIANTS {
            let family = jit.registry().get(name).expect("family");
            let arch = arch.parse().expect("arch");
            let spec = KernelSpec::new(family, set.iter().copied(), arch).expect("spec");
            let prepared = jit.prepare(&spec).expect("what is declared is what is taken");
            let cubin = &prepared.fetched.artifact.cubin;
            for entry in spec.entries() {
                let signature = spec.signature(entry).expect("declared");
                let takes = parameters(cubin, &entry.name).expect("readable");
                let size = u32::try_from(8 * signature.parameters().len()).expect("few");
                if signature.is_struct() {
                    assert_eq!(takes, [Place { offset: 0, size }], "{name} {set:?}");
                } else {
                    assert_eq!(takes, signature.places(), "{name} {set:?}");
                }
            }
        }
    }
}

#[test]
fn families_gives_the_whole_table_to_other_languages_and_signatures_to_people() {
    let dir = tempfile::tempdir().expect("tempdir");
    let run = |args: &[&str]| {
        let output = jitc(dir.path()).args(args).output().expect("ran");
        assert!(output.status.success());
        output
    };
    let gemv = &events(&run(&["families", "gemv", "--json"]))[0]["entries"][0];
    assert_eq!(gemv["name"], "gemv");
    assert_eq!(gemv["sizes"][0], "num_tokens");
    assert_eq!(gemv["grid"][0], "grid_x");
    assert!(gemv["struct"].is_null());
    let output = &gemv["parameters"][4];
    assert_eq!(
        (
            &output["name"],
            &output["kind"],
            &output["type"],
            &output["access"]
        ),
        (
            &"output".into(),
            &"pointer".into(),
            &"output".into(),
            &"out".into()
        )
    );
    assert_eq!((&output["offset"], &output["size"]), (&32.into(), &8.into()));
    assert_eq!(gemv["parameters"][5]["value"], "num_tokens");
    let layer = &events(&run(&["families", "decode_layer", "--json"]))[0]["entries"];
    assert_eq!(layer[0]["struct"], "jitc::layer::Params");
    assert_eq!(layer[1]["when"], "launch == 'separate'");
    assert_eq!(layer[1]["parameters"].as_array().map(Vec::len), Some(42));
    let text = run(&["families", "decode_layer"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.contains("num_tokens if geometry == 'original' else 1"),
        "{text}"
    );
    assert!(text.contains("takes what decode_layer takes"), "{text}");
    assert!(text.contains("bf16[num_tokens, num_q_heads, head_dim]"), "{text}");
}

#[test]
fn machine_code_names_the_variables_that_a_host_may_set() {
    let dir = tempfile::tempdir().expect("tempdir");
    let toml = "summary = 's'\n[[entries]]\nname = 'k'\ngrid = 1\nblock = 32\n[[entries.parameters]]\nname = 'y'\n\
                type = 'f32'\nshape = [1]\naccess = 'out'\n";
    let source = "__constant__ float table[5];\nnamespace ns { __device__ int count; }\n__device__ int unused;\n\
                  extern \"C\" __global__ void k(float* y) { y[threadIdx.x] = table[threadIdx.x % 5] + ns::count++; }\n";
    fs_err::write(dir.path().join("k.toml"), toml).expect("written");
    fs_err::write(dir.path().join("k.cu.tera"), source).expect("written");
    let jit = jit_over(Some(dir.path()), &dir.path().join("cache"));
    let family = jit.registry().get("k").expect("family");
    let spec = KernelSpec::new(family, [], "sm_90a".parse().expect("arch")).expect("spec");
    let prepared = jit.prepare(&spec).unwrap_or_else(|e| panic!("{e}"));
    let variables = jitc::engine::build::image::variables(&prepared.fetched.artifact.cubin);
    for (name, bytes) in [("table", 20), ("ns::count", 4)] {
        let symbol = jitc::engine::build::image::mangled(name);
        assert!(variables.contains(&(symbol, bytes)), "{name} in {variables:?}");
    }
    assert!(jitc::engine::build::image::variables(b"no cubin").is_empty());
}
