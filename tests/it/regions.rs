//! Region timing in compiled kernels.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use jitc::engine::request::regions::Regions;
use jitc::engine::request::template::Registry;
use jitc::measure::region::{Geometry, Region};

use crate::cli::jitc;
use crate::region_code::{code, code_of, without_timing};

const TOML: &str = r#"
summary = "a probe with the names of the W_O GEMV's regions"
options = ["--std=c++17"]

[constants.num_regions]
type = "u32"
values = [0, 4]
default = 0
help = "timing regions"

[constants.tick_source]
type = "enum"
cxx_type = "jitc::TickSource"
values = ["globaltimer", "clock64"]
default = "globaltimer"
help = "the clock"

[[entries]]
name = "probe"
sizes = ["num_tokens"]
grid = [8, 4, "num_tokens"]
block = 128

[regions]
count = "num_regions"
clock = "tick_source"
classes = ["work"]
rows = [
    { id = 0, name = "phase1_wo_stage", class = "work" },
    { id = 1, name = "phase1_wo_gemv", class = "work", iterates = true, sum = 3 },
    { id = 2, name = "unused", class = "work" },
    { id = 3, name = "phase1_gather", class = "work", sum_of = 1 },
]
"#;

/// A loop, a barrier and a sum, so that a compiler has something to lose.
const SOURCE: &str = r#"#include <jitc/region.cuh>
struct Config {
    static constexpr unsigned num_regions = {{ num_regions }};
    static constexpr jitc::TickSource tick_source = {{ tick_source }};
    static constexpr unsigned tick_thread = 0;
};
extern "C" __global__ void probe(const float* x, float* y, unsigned long long* region_timing, unsigned n) {
    jitc::RegionTimer<Config> timer(region_timing);
    jitc::RegionSum<Config> sum;
    __shared__ float part[128];
    float a = 0.0f;
    timer.enter(jitc::region::phase1_wo_stage{});
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    timer.exit(jitc::region::phase1_wo_stage{});
    for (unsigned i = threadIdx.x; i < n; i += 128u) {
        timer.enter(jitc::region::phase1_wo_gemv{}, sum);
        a += x[i] * part[i % 128u];
        timer.exit(jitc::region::phase1_wo_gemv{}, sum);
    }
    timer.sum(jitc::region::phase1_gather{}, sum);
    y[threadIdx.x] = a;
}
"#;

/// A folder with the probe, as the family whose table it uses.
fn folder(source: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    fs_err::write(dir.path().join("wo_gemv.toml"), TOML).expect("written");
    fs_err::write(dir.path().join("wo_gemv.cu.tera"), source).expect("written");
    dir
}

/// The cubin and the registers of one variant.
fn cubin(templates: &Path, cache: &Path, set: &[&str]) -> (Vec<u8>, u64) {
    let output = jitc(cache)
        .args(["warm", "wo_gemv", "--arch", "sm_90a", "--json", "--templates"])
        .arg(templates)
        .args(set)
        .output()
        .expect("ran");
    let text = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{words}");
    let event: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let key = event["key"].as_str().expect("key");
    let entry = jitc::engine::cache::Store::new(cache)
        .read(&key.parse().expect("a key"))
        .expect("an entry");
    (
        entry.code().to_vec(),
        event["registers"].as_u64().expect("registers"),
    )
}

#[test]
fn no_regions_compile_to_the_very_code_without_instrumentation() {
    let cache = tempfile::tempdir().expect("tempdir");
    let (with, plain) = (folder(SOURCE), folder(&without_timing(SOURCE)));
    let off = cubin(with.path(), cache.path(), &[]);
    let never = cubin(plain.path(), cache.path(), &[]);
    assert_eq!(code(&off.0), code(&never.0));
    assert_eq!(off.1, never.1);
    for ticks in ["globaltimer", "clock64"] {
        let on = cubin(
            with.path(),
            cache.path(),
            &["--num-regions", "4", "--tick-source", ticks],
        );
        assert!(code(&on.0).len() > code(&off.0).len(), "{ticks}");
    }
}

#[test]
fn the_wo_gemv_without_regions_is_the_very_code_of_one_without_instrumentation() {
    let cache = tempfile::tempdir().expect("tempdir");
    let (plain, none) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/include/jitc/wo");
    let below = plain.path().join("include/jitc/wo");
    fs_err::create_dir_all(&below).expect("folder");
    for name in ["gemv.cuh", "original.cuh", "tiled.cuh"] {
        let source = code_of(&fs_err::read_to_string(headers.join(name)).expect("header"));
        let stripped = without_timing(&source)
            .replace(", RegionTimer<C>& timer)", ")")
            .replace(", num_tokens, timer)", ", num_tokens)")
            .replace(", counters, timer)", ", counters)");
        assert!(!stripped.contains("timer"), "{stripped}");
        fs_err::write(below.join(name), stripped).expect("written");
    }
    for geometry in ["original", "tiled"] {
        let set = ["--geometry", geometry, "--wo-split", "8"];
        let off = cubin(none.path(), cache.path(), &set);
        let never = cubin(plain.path(), cache.path(), &set);
        assert_eq!(code(&off.0), code(&never.0));
        assert_eq!(off.1, never.1);
        let on = cubin(
            none.path(),
            cache.path(),
            &[&set[..], &["--num-regions", "4"]].concat(),
        );
        assert_ne!(code(&on.0), code(&off.0));
    }
}

/// Names of regions that the headers or the source of a kernel speak of.
fn spoken_of(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("region::").skip(1);
    after
        .filter_map(|rest| rest.split_once("{}"))
        .map(|(name, _)| name)
        .filter(|name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            name.chars().all(plain)
        })
}

#[test]
fn every_region_that_a_kernel_speaks_of_is_declared() {
    let registry = Registry::load(None).expect("families");
    let declared = registry.families().filter_map(|f| f.regions.as_ref());
    let declared: BTreeSet<&str> = declared.flat_map(Regions::compiled_names).collect();
    let headers = registry.headers().values().map(|text| &**text);
    let sources = registry.families().map(|family| family.source.as_str());
    let spoken: BTreeSet<&str> = headers.chain(sources).flat_map(spoken_of).collect();
    assert!(spoken.len() > 20, "{spoken:?}");
    let unknown: Vec<&&str> = spoken.difference(&declared).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // And none is declared that no kernel writes.
    let unwritten: Vec<&&str> = declared.difference(&spoken).collect();
    assert!(unwritten.is_empty(), "{unwritten:?}");
}

/// The blocks that a mask of the table holds, as a C++ literal of one sequence's rows.
fn mask(geometry: &Geometry, region: &Region) -> String {
    let active = |cta| geometry.is_active(&region.active, cta);
    let rows = (0..geometry.ctas_per_seq()).map(|cta| u8::from(active(cta)).to_string());
    rows.collect::<Vec<String>>().join(",")
}

/// Asks the kernel's own roles, which are constant expressions, for every block.
fn roles(regions: &[Region], geometry: &Geometry) -> String {
    let [slice_ctas, num_k_tiles, _] = geometry.grid();
    let (wo_split, num_kv_heads) = (geometry.constants["wo_split"], geometry.constants["num_kv_heads"]);
    let asked = [
        ("norms_input", 0),
        ("attends", 1),
        ("owns_slot", 2),
        ("waits_for_rows", 11),
    ];
    let space = format!("of_{slice_ctas}_{num_k_tiles}_{wo_split}_{num_kv_heads}");
    let mut text = format!(
        "namespace {space} {{\nusing R = jitc::layer::OriginalRoles<{wo_split}u, {num_kv_heads}u>;\n"
    );
    for (role, id) in asked {
        let _ = write!(
            text,
            "constexpr unsigned char {role}_mask[] = {{{mask}}};\n\
             __device__ constexpr bool {role}_agrees() {{\n    \
                 for (unsigned by = 0; by < {num_k_tiles}u; ++by)\n        \
                     for (unsigned bx = 0; bx < {slice_ctas}u; ++bx)\n            \
                         if (R::{role}(bx, by) != ({role}_mask[by * {slice_ctas}u + bx] != 0)) return false;\n    \
                 return true;\n}}\n\
             static_assert({role}_agrees(), \"{role}\");\n",
            mask = mask(geometry, &regions[id]),
        );
    }
    text + "}\n"
}

#[test]
fn masks_are_the_roles_that_the_kernel_of_nvllms_geometry_gives_its_blocks() {
    let registry = Registry::load(None).expect("families");
    let table = registry
        .regions("decode_layer")
        .expect("regions")
        .first(13)
        .expect("a table");
    let mut source = "#include <jitc/region.cuh>\n#include <jitc/layer/roles.cuh>\n".to_owned();
    for (slice_ctas, num_k_tiles) in [(8, 8), (16, 8), (32, 8), (8, 4)] {
        for wo_split in [1, 2, 4, 8] {
            for num_kv_heads in [1, 2, 4] {
                let grid = Geometry {
                    slice_ctas,
                    num_k_tiles,
                    ..Geometry::default()
                };
                let geometry = grid.with("wo_split", wo_split).with("num_kv_heads", num_kv_heads);
                source.push_str(&roles(&table.regions, &geometry));
            }
        }
    }
    let entry = "extern \"C\" __global__ void probe() { /* {{ num_regions }} {{ tick_source }} */ }\n";
    let cache = tempfile::tempdir().expect("tempdir");
    cubin(folder(&(source.clone() + entry)).path(), cache.path(), &[]);
    // And it can fail.
    let wrong = source.replacen("owns_slot_mask[] = {1,", "owns_slot_mask[] = {0,", 1);
    let output = jitc(cache.path())
        .args(["warm", "wo_gemv", "--arch", "sm_90a", "--templates"])
        .arg(folder(&(wrong + entry)).path())
        .output()
        .expect("ran");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("owns_slot"), "{said}");
    // The kernel asks them and nothing else.
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/include/jitc/layer/original.cuh");
    let kernel = fs_err::read_to_string(kernel).expect("header");
    for role in ["norms_input", "owns_slot", "waits_for_rows"] {
        assert!(kernel.contains(&format!("Roles::{role}(bx, by)")), "{role}");
    }
    assert!(
        !kernel.contains("if (bx ") && !kernel.contains("&& by "),
        "a role of its own"
    );
}
