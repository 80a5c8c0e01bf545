//! Kernels from strings: no TOML, no folder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jitc::engine::cache::{Provenance, Why};
use jitc::engine::jit::{Jit, SourceKernel};
use jitc::engine::request::header_set::HeaderSet;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::Access;

use crate::compile_process::{Bench, program};

const SCALE: &str = "#include \"own/scale.cuh\"\n\
    extern \"C\" __global__ void scale(float* x) { x[threadIdx.x] *= factor() * FACTOR; }\n";
const HEADER: &str = "#include \"more.cuh\"\n__device__ float factor() { return more(); }\n";
const MORE: &str = "__device__ float more() { return 3; }\n";

fn arch() -> Arch {
    "sm_90a".parse().expect("arch")
}

fn scale(jit: &Jit) -> SourceKernel<'_> {
    jit.source(SCALE)
        .name("scale")
        .header("own/scale.cuh", HEADER)
        .header("own/more.cuh", MORE)
        .define("FACTOR", "2.0f")
        .entry("scale")
}

#[test]
fn a_string_is_a_kernel_that_is_keyed_cached_and_explained_like_any_other() {
    let bench = Bench::new("");
    let jit = bench.jit(program(), &[]);
    let built = scale(&jit).prepare(arch()).expect("compiled");
    assert_eq!(built.fetched.provenance, Provenance::Built);
    assert_eq!(built.fetched.artifact.resources[0].entry, "scale");
    // Of another process, say.
    let later = bench.jit(program(), &[]);
    let hit = scale(&later).prepare(arch()).expect("a hit");
    assert!(matches!(hit.fetched.provenance, Provenance::Hit(_)));
    assert_eq!(hit.request.key(), built.request.key());
    let other = scale(&later).define("MORE", 1).spec(arch()).expect("a spec");
    let Why::Miss(Some(nearest)) = later.why(&other).expect("explained").1 else {
        panic!("no entry is near");
    };
    assert_eq!(nearest.key, *built.request.key());
    assert!(nearest.to_string().contains("option: -DMORE=1 here"), "{nearest}");
}

#[test]
fn everything_that_is_given_with_a_string_changes_its_key() {
    let bench = Bench::new("");
    let jit = bench.jit(program(), &[]);
    let set = |text: &str| {
        let texts = BTreeMap::from([("s.h".to_owned(), text.to_owned())]);
        Arc::new(HeaderSet::from_texts(&texts).expect("set"))
    };
    let all = [
        scale(&jit),
        scale(&jit).name("other"),
        scale(&jit).header("own/more.cuh", "__device__ float more() { return 4; }\n"),
        scale(&jit).header("unused.cuh", ""),
        scale(&jit).define("X", 1),
        scale(&jit).define("X", 2),
        scale(&jit).option("--std=c++20"),
        scale(&jit).use_set("std"),
        scale(&jit).header_set("s", set("int s;")),
        scale(&jit).header_set("s", set("int t;")),
        scale(&jit).entry("scale2"),
        scale(&jit).expression("more", "k<1>"),
        scale(&jit).expression("more", "k<2>"),
        jit.source("x").name("scale").entry("scale"),
    ];
    let (mut keys, mut ids) = (BTreeSet::new(), Vec::new());
    let number = all.len();
    for kernel in all {
        let spec = kernel.spec(arch()).expect("a spec");
        keys.insert(jit.describe(&spec).expect("described").0.key().hex());
        // Two texts of one name are two kernels of a process, too.
        assert!(!ids.contains(&spec.id()));
        ids.push(spec.id());
    }
    assert_eq!(keys.len(), number);
    // Sizes of a launch change no code, and are kept apart all the same.
    let wide = scale(&jit).block(512).spec(arch()).expect("a spec");
    assert!(keys.contains(&jit.describe(&wide).expect("described").0.key().hex()));
    assert!(!ids.contains(&wide.id()));
}

#[test]
fn nothing_of_a_string_is_rendered_and_templates_are_named_by_cxx() {
    let bench = Bench::new("");
    let jit = bench.jit(program(), &[]);
    let text = "
#define NEXT <next.h>
#include NEXT
// {% if x %} {{ y }}
template <class T> __global__ void fill(T* p) {
    const float table[2][2] = {{1.f, 2.f}, {3.f, 4.f}};
    asm volatile(\"{ mov.u32 %0, %1; }\" : \"=r\"(p[1]) : \"r\"(p[0]));
    p[threadIdx.x] = T(table[1][0] + next());
}
struct {{int a;}} odd[0];
";
    let text = text.replace("struct {{int a;}} odd[0];\n", "");
    let kernel = |text: &str| {
        jit.source(text)
            .header("next.h", "__device__ int next() { return 5; }\n")
            .expression("fill", "fill<unsigned>")
            .prepare(arch())
    };
    let prepared = kernel(&text).expect("compiled");
    assert_eq!(prepared.fetched.artifact.symbol("fill"), "_Z4fillIjEvPT_");
    assert_eq!(prepared.request.source(), text);
    // A file of a hundred kernels gives the one that is asked for.
    let more = format!("{text}extern \"C\" __global__ void other() {{}}\n");
    kernel(&more).expect("compiled");
}

#[test]
fn what_is_wrong_with_a_string_is_one_line_that_names_it() {
    let bench = Bench::new("");
    let jit = bench.jit(program(), &[]);
    for (kernel, says) in [
        (
            jit.source("").name("n"),
            "n: no entry point: expected `.entry(..)`",
        ),
        (scale(&jit).name("a b"), "a b: is not a name of a source"),
        (
            scale(&jit).use_set("cude"),
            "there is no set `cude` (did you mean `cuda`?)",
        ),
        (
            scale(&jit).option("-I/usr/include"),
            "option `-I/usr/include` is refused",
        ),
        (scale(&jit).define("1X", 2), "option `-D1X=2` is refused"),
        (
            scale(&jit).entry("scael"),
            "no kernel `scael` (did you mean `scale`?)",
        ),
        (
            scale(&jit).header("own/more.cuh", "\nint more( { }\n"),
            "own/more.cuh:2: error:",
        ),
        (jit.source("\nnonsense\n").name("n").entry("k"), "n.cu:2: error:"),
    ] {
        let error = kernel.prepare(arch()).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_forbidden_string_says_who_could_warm_it_and_no_trace_asks_others_for_it() {
    let bench = Bench::new("");
    let trace = bench.path().join("trace");
    let traced = [
        ("JITC_TRACE", trace.to_str().expect("text")),
        ("JITC_TRACE_HITS", "1"),
    ];
    for _ in 0..2 {
        scale(&bench.jit(program(), &traced))
            .prepare(arch())
            .expect("prepared");
    }
    assert_eq!(fs_err::read_to_string(&trace).unwrap_or_default(), "");
    let jit = bench.jit(program(), &[("JITC_MISS", "forbid")]);
    scale(&jit).prepare(arch()).expect("it is there");
    let error = scale(&jit).define("X", 1).prepare(arch()).expect_err("forbidden");
    assert!(error.to_string().contains("a run of this program"), "{error}");
}

#[test]
fn what_a_string_is_called_with_is_declared_in_one_line_each_and_not_in_its_key() {
    let bench = Bench::new("");
    let jit = bench.jit(program(), &[]);
    let declared = |source: SourceKernel<'_>| {
        let source = source.size("n").grid(["ceil_div(a=n, b=256)", "2"]);
        let source = source.parameter("x", "f32[n, 4], aligned to 4 or null", Access::InOut);
        source.parameter("n", "u32 = n", Access::In).spec(arch())
    };
    let spec = declared(scale(&jit)).expect("declared");
    let signature = spec.entries().next().and_then(|entry| spec.signature(entry));
    let signature = signature.expect("a signature");
    let texts = signature
        .parameters()
        .iter()
        .map(|p| p.type_text(signature.sizes()));
    assert_eq!(texts.collect::<Vec<_>>(), ["f32[n, 4]", "u32 = n"]);
    let plain = scale(&jit).spec(arch()).expect("plain");
    let key = |spec| jit.describe(spec).expect("described").0.key().hex();
    assert_eq!(key(&spec), key(&plain));
    let wrong = scale(&jit).parameter("x", "f32[m]", Access::In).spec(arch());
    let wrong = wrong.expect_err("no such size").to_string();
    assert!(
        wrong.contains("parameter `x`: dimension `m` uses `m`, which nobody declares"),
        "{wrong}"
    );
}
