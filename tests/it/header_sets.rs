//! Header sets: CUDA's own, the small standard ones, and those of a family's own.
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

use std::path::Path;

use jitc::engine::build::compile::WorkerChoice;
use jitc::engine::build::key::tag;
use jitc::engine::build::toolchain;
use jitc::engine::cache::{Load, Provenance, Store};
use jitc::engine::jit::{Error, Jit, Prepared};
use jitc::engine::request::header_set::{HeaderSet, PinnedSet};
use jitc::engine::request::spec::KernelSpec;

use crate::closed_files::{reached, traced};
use crate::compile_process::{Bench, program};

/// Whether the pinned sets among these can be had; that they cannot is said.
fn at_hand(jit: &Jit, sets: &[&str]) -> bool {
    sets.iter().filter_map(|name| PinnedSet::named(name)).all(|set| {
        let there = toolchain::header_set(jit.config(), set);
        there.inspect_err(|error| println!("skipped: {error}")).is_ok()
    })
}

/// A family `k` that uses these sets, with more lines of `[headers]`.
pub(crate) fn family(sets: &[&str], more: &str, options: &str, source: &str) -> Bench {
    let bench = Bench::new(source);
    let toml = format!(
        "summary = 's'\noptions = [{options}]\n[headers]\nuse = {sets:?}\n{more}\n\
         [constants.n]\ntype = 'u32'\nrange = [1, 10000]\ndefault = 1\nhelp = 'n'\n\
         [[entries]]\nname = 'k'\ngrid = [1, 1, 1]\nblock = 256\n"
    );
    fs_err::write(bench.path().join("t/k.toml"), toml).expect("toml");
    bench
}

fn write(bench: &Bench, path: &str, text: &str) {
    let path = bench.path().join("t").join(path);
    fs_err::create_dir_all(path.parent().expect("folder")).expect("folder");
    fs_err::write(path, text).expect("written");
}

fn prepare(jit: &Jit, arch: &str) -> Result<Prepared, Error> {
    let family = jit.registry().get("k").expect("family");
    jit.prepare(&KernelSpec::new(family, [], arch.parse().expect("arch")).expect("legal"))
}

const CUDA: &[&str] = &["cuda"];
const CUDA_STD: &[&str] = &["cuda", "std"];
const STD: &[&str] = &["std"];

/// A kernel of each kind of header that public kernels include: what it shows, the sets
/// that it uses, its options, and its source.
const KERNELS: &[(&str, &[&str], &str, &str)] = &[
    (
        "half precision",
        CUDA,
        "",
        "#include <cuda_fp16.h>
extern \"C\" __global__ void k(__half2* p, float* q) { q[threadIdx.x] = __half22float2(__hadd2(p[0], p[1])).x; }",
    ),
    (
        "bfloat16 and fp8",
        CUDA,
        "",
        "#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern \"C\" __global__ void k(__nv_bfloat16* p, __nv_fp8_e4m3* q) {
    q[threadIdx.x] = __nv_fp8_e4m3(__bfloat162float(p[threadIdx.x]));
}",
    ),
    (
        "the small formats",
        CUDA,
        "",
        "#include <cuda_fp6.h>
#include <cuda_fp4.h>
extern \"C\" __global__ void k(float* p, __nv_fp4_e2m1* q, __nv_fp6_e3m2* r) {
    q[threadIdx.x] = __nv_fp4_e2m1(p[threadIdx.x]);
    r[threadIdx.x] = __nv_fp6_e3m2(p[threadIdx.x]);
}",
    ),
    (
        "a block reduction of cub",
        CUDA,
        "",
        "#include <cub/block/block_reduce.cuh>
extern \"C\" __global__ void k(const float* p, float* q) {
    using Reduce = cub::BlockReduce<float, 256>;
    __shared__ typename Reduce::TempStorage memory;
    float sum = Reduce(memory).Sum(p[threadIdx.x]);
    if (threadIdx.x == 0) q[{{ n }}] = sum;
}",
    ),
    (
        "a sort of a block and a scan of a warp",
        CUDA,
        "",
        "#include <cub/block/block_radix_sort.cuh>
#include <cub/warp/warp_scan.cuh>
#include <cuda/std/complex>
extern \"C\" __global__ void k(const float* p, float* q, cuda::std::complex<float>* c) {
    using Sort = cub::BlockRadixSort<float, 256, 1>;
    using Scan = cub::WarpScan<float>;
    __shared__ typename Sort::TempStorage sorting;
    __shared__ typename Scan::TempStorage scanning[8];
    float value[1] = {p[threadIdx.x]};
    Sort(sorting).Sort(value);
    float out; Scan(scanning[threadIdx.x / 32]).InclusiveSum(value[0], out);
    q[threadIdx.x] = out * (c[0] * c[1]).real();
}",
    ),
    (
        "cooperative groups with a sync of the grid",
        CUDA,
        "",
        "#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;
extern \"C\" __global__ void k(const float* p, float* q) {
    cg::thread_block block = cg::this_thread_block();
    auto warp = cg::tiled_partition<32>(block);
    float sum = cg::reduce(warp, p[block.thread_rank()], cg::plus<float>());
    cg::this_grid().sync();
    if (warp.thread_rank() == 0) q[warp.meta_group_rank()] = sum;
}",
    ),
    (
        "matrix fragments of mma.h",
        CUDA,
        "",
        "#include <mma.h>
using namespace nvcuda;
extern \"C\" __global__ void k(const half* a, const half* b, float* c) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> x;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> y;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> z;
    wmma::fill_fragment(z, 0.0f);
    wmma::load_matrix_sync(x, a, 16);
    wmma::load_matrix_sync(y, b, 16);
    wmma::mma_sync(z, x, y, z);
    wmma::store_matrix_sync(c, z, 16, wmma::mem_row_major);
}",
    ),
    (
        "barriers and pipelines of cuda/",
        CUDA,
        "",
        "#include <cuda/barrier>
#include <cuda/pipeline>
#include <cooperative_groups.h>
extern \"C\" __global__ void k(const float* p, float* q) {
    __shared__ cuda::barrier<cuda::thread_scope_block> bar;
    __shared__ float tile[256];
    if (threadIdx.x == 0) init(&bar, blockDim.x);
    __syncthreads();
    cuda::memcpy_async(&tile[threadIdx.x], &p[threadIdx.x], sizeof(float), bar);
    bar.arrive_and_wait();
    q[threadIdx.x] = tile[255 - threadIdx.x];
}",
    ),
    (
        "random numbers",
        &["cuda", "curand"],
        "",
        "#include <curand_kernel.h>
extern \"C\" __global__ void k(float* p) {
    curandStatePhilox4_32_10_t state;
    curand_init(7, threadIdx.x, 0, &state);
    p[threadIdx.x] = curand_normal(&state);
}",
    ),
    (
        "a texture and constant memory",
        CUDA_STD,
        "'-default-device'",
        "#include <cuda.h>
#include <cuda_runtime.h>
__constant__ float weights[16];
extern \"C\" __global__ void k(cudaTextureObject_t t, float* p) {
    p[threadIdx.x] = tex2D<float>(t, 0.5f, 0.5f) * weights[threadIdx.x % 16];
}",
    ),
    (
        "the library of C++ as kernels include it",
        CUDA_STD,
        "'--std=c++20'",
        "#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
template <class T> requires std::is_floating_point_v<T>
__device__ T least() { return std::min(std::numeric_limits<T>::max(), T(M_PI)); }
extern \"C\" __global__ void k(float* p, std::int64_t at) {
    std::array<float, 2> pair{std::fabs(p[at]), least<float>()};
    std::swap(pair[0], pair[1]);
    auto [a, b] = std::make_tuple(pair[0], pair[1]);
    p[0] = a - b;
}",
    ),
    (
        "the headers of C, without a fetch",
        STD,
        "",
        "#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
extern \"C\" __global__ void k(uint8_t* p, int64_t at, float* q) {
    assert(at < INT_MAX);
    ptrdiff_t here = offsetof(dim3, y);
    q[0] = p[at] == UINT8_MAX ? INFINITY : FLT_MIN * (float)M_PI + here;
    memcpy(p, q, sizeof(size_t));
    if (at == 0) printf(\"%\" PRId64 \"\\n\", at);
}",
    ),
];

#[test]
fn kernels_that_include_cudas_and_the_standard_headers_compile_as_they_are() {
    for (what, sets, options, source) in KERNELS {
        let bench = family(sets, "", options, source);
        let jit = bench.jit(program(), &[]);
        if !at_hand(&jit, sets) {
            continue;
        }
        for arch in ["sm_80", "sm_90a"] {
            let prepared = prepare(&jit, arch).unwrap_or_else(|error| {
                panic!("{what}, {arch}: {error}\n{}", error.log().unwrap_or_default())
            });
            assert_eq!(prepared.fetched.provenance, Provenance::Built, "{what}, {arch}");
        }
    }
}

#[test]
fn the_example_of_the_page_compiles_and_is_what_the_page_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs_err::read_to_string(root.join("docs/HEADERS.md")).expect("page");
    let shown = page
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let toml = fs_err::read_to_string(root.join("examples/headers/row_sum.toml")).expect("family");
    assert!(
        toml.starts_with(shown.expect("a block")),
        "the page shows another family"
    );
    let bench = Bench::new("");
    if !at_hand(&bench.jit(program(), &[]), CUDA_STD) {
        return;
    }
    let output = crate::command::jitc(bench.path())
        .args([
            "warm",
            "row_sum",
            "--block",
            "128,256",
            "--arch",
            "sm_80,sm_90a",
            "--templates",
        ])
        .arg(root.join("examples/headers"))
        .output()
        .expect("run");
    crate::command::succeeded(&output);
}

/// A library as people vendor them: names without the usual endings, includes relative to
/// the file, computed, and asked for.
fn library(bench: &Bench) {
    write(
        bench,
        "vendor/lib/api.hpp",
        "#pragma once\n#include \"detail/one.inl\"\n",
    );
    write(
        bench,
        "vendor/lib/detail/one.inl",
        "#include \"../two\"\n#define NEXT <detail/three.inc>\n#include NEXT\n\
         #if __has_include(<detail/three.inc>)\n__device__ float four() { return 4; }\n#endif\n",
    );
    write(bench, "vendor/lib/two", "__device__ float two() { return 2; }\n");
    write(
        bench,
        "vendor/lib/detail/three.inc",
        "__device__ float three() { return 3; }\n",
    );
}

const USES_THE_LIBRARY: &str = "#include <api.hpp>
extern \"C\" __global__ void k(float* p) { p[{{ n }}] = two() + three() + four(); }\n";

#[test]
fn a_set_of_ones_own_is_read_whole_and_every_byte_of_it_changes_the_key() {
    let bench = family(&[], "lib = 'vendor/lib'", "", USES_THE_LIBRARY);
    library(&bench);
    let key = || {
        let prepared = prepare(&bench.jit(program(), &[]), "sm_90a").expect("compiled");
        (prepared.request.key().hex(), prepared.fetched.provenance)
    };
    let (first, provenance) = key();
    assert_eq!(provenance, Provenance::Built);
    assert!(matches!(key(), (again, Provenance::Hit(_)) if again == first));
    // Also of a file that no include reaches.
    write(&bench, "vendor/lib/README", "x\n");
    let (second, provenance) = key();
    assert_eq!(provenance, Provenance::Built);
    assert_ne!(second, first);
    write(&bench, "vendor/lib/README", "y\n");
    assert_ne!(key().0, second);
}

#[test]
fn an_entry_names_its_sets_and_holds_none_of_their_texts() {
    let source = "#include <stdint.h>\nextern \"C\" __global__ void k(uint8_t* p) { p[{{ n }}] = 1; }\n";
    let bench = family(STD, "lib = 'vendor/lib'", "", source);
    library(&bench);
    let prepared = prepare(&bench.jit(program(), &[]), "sm_90a").expect("compiled");
    let Load::Found(entry) = Store::new(bench.path().join("c")).whole(prepared.request.key()) else {
        panic!("no entry");
    };
    assert!(entry.texts().headers.is_empty(), "{:?}", entry.texts().headers);
    let fields = &entry.entry().manifest().preimage.fields;
    let sets: Vec<(&str, &str)> = (fields.iter())
        .filter(|field| field.tag == tag::HEADER_SET)
        .map(|field| (field.name.as_str(), field.value.as_str()))
        .collect();
    let own = HeaderSet::read(&bench.path().join("t/vendor/lib")).expect("set");
    assert_eq!(
        sets,
        [("lib", own.digest()), ("std", HeaderSet::standard().digest())]
    );
}

#[test]
fn why_names_the_set_that_differs() {
    let bench = family(&[], "lib = 'vendor/lib'", "", USES_THE_LIBRARY);
    library(&bench);
    prepare(&bench.jit(program(), &[]), "sm_90a").expect("compiled");
    write(
        &bench,
        "vendor/lib/two",
        "__device__ float two() { return 2.5f; }\n",
    );
    let output = crate::command::jitc(bench.path())
        .args([
            "why",
            "k",
            "--templates",
            "t",
            "--arch",
            "sm_90a",
            "--cache-dir",
            "c",
        ])
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("header set lib: "), "{said}");
}

#[test]
fn the_familys_own_headers_stand_before_its_folders_and_these_before_the_others() {
    let source = "#include <a.h>\n#include <stdint.h>\n\
                  extern \"C\" __global__ void k(float* p) { p[{{ n }}] = A + B; }\n";
    let bench = family(STD, "z = 'vendor/z'\ny = 'vendor/y'", "", source);
    write(&bench, "include/a.h", "#define A 1\n");
    write(&bench, "vendor/z/a.h", "#error z\n");
    write(&bench, "vendor/z/stdint.h", "#define B 2\n");
    write(&bench, "vendor/y/stdint.h", "#error y\n");
    prepare(&bench.jit(program(), &[]), "sm_90a").expect("compiled");
}

#[test]
fn a_set_that_cannot_be_read_or_is_not_there_is_one_line_that_names_it() {
    let bench = family(&[], "lib = 'vendor/lib'", "", USES_THE_LIBRARY);
    let said = |bench: &Bench| {
        let output = crate::command::jitc(bench.path())
            .args(["warm", "k", "--templates", "t", "--arch", "sm_90a"])
            .output()
            .expect("run");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let none = said(&bench);
    assert!(
        none.contains("k.toml: headers: lib = \"vendor/lib\": there is no such folder"),
        "{none}"
    );
    write(&bench, "vendor/lib/picture", "P\0");
    let binary = said(&bench);
    assert!(binary.contains("header set `lib`:"), "{binary}");
    assert!(binary.contains("`picture` has a NUL byte"), "{binary}");
    let bench = family(&["cude"], "", "", USES_THE_LIBRARY);
    let unknown = said(&bench);
    assert!(
        unknown.contains("there is no set `cude` (did you mean `cuda`?)"),
        "{unknown}"
    );
}

#[test]
fn keys_are_known_where_the_headers_are_not_and_a_compile_says_how_to_get_them() {
    let source = "#include <cuda_fp16.h>\nextern \"C\" __global__ void k(__half* p) { p[{{ n }}] = 1; }\n";
    let bench = family(CUDA, "", "", source);
    let Some(nvrtc) = toolchain::find(bench.jit(program(), &[]).config()).expect("found") else {
        println!("skipped: no NVRTC");
        return;
    };
    let nowhere = bench.path().join("nowhere");
    let run = |verb: &str| {
        crate::command::jitc(bench.path())
            .args([verb, "k", "--templates", "t", "--arch", "sm_90a"])
            .env("JITC_NVRTC", nvrtc.nvrtc.parent().expect("folder"))
            .env("JITC_OFFLINE", "1")
            .env("XDG_DATA_HOME", &nowhere)
            .output()
            .expect("run")
    };
    let key = run("key");
    assert!(key.status.success(), "{}", String::from_utf8_lossy(&key.stderr));
    let warm = run("warm");
    let said = String::from_utf8_lossy(&warm.stderr) + String::from_utf8_lossy(&warm.stdout);
    assert!(said.contains("the header set `cuda` is not here"), "{said}");
    assert!(said.contains("jitc toolchain install --headers cuda"), "{said}");
}

#[test]
fn a_missing_header_is_answered_with_the_set_that_has_it() {
    for (include, says) in [
        ("<cuda_fp16.h>", "use = [\"cuda\"]"),
        ("<curand_kernel.h>", "use = [\"curand\"]"),
        ("<cstdint>", "use = [\"std\"]"),
    ] {
        let bench = Bench::new(&format!(
            "#include {include}\nextern \"C\" __global__ void k() {{}}\n"
        ));
        let error = prepare(&bench.jit(program(), &[]), "sm_90a").expect_err("an error");
        let hints = error.hints();
        assert!(
            hints.iter().any(|hint| hint.contains(says)),
            "{include}: {hints:?}"
        );
    }
}

#[test]
fn the_ptx_of_an_entry_is_made_with_the_sets_that_it_names_or_not_at_all() {
    let bench = family(STD, "lib = 'vendor/lib'", "", USES_THE_LIBRARY);
    library(&bench);
    let jit = bench.jit(WorkerChoice::InProcess, &[]);
    let prepared = prepare(&jit, "sm_90a").expect("compiled");
    let Load::Found(entry) = Store::new(bench.path().join("c")).whole(prepared.request.key()) else {
        panic!("no entry");
    };
    assert!(jit.ptx(&entry).expect("PTX").contains(".entry k("));
    write(&bench, "vendor/lib/two", "__device__ float two() { return 5; }\n");
    let other = bench
        .jit(WorkerChoice::InProcess, &[])
        .ptx(&entry)
        .expect_err("another set");
    assert!(other.to_string().contains("the header set `lib`"), "{other}");
}

#[test]
fn a_compile_with_header_sets_reaches_no_file() {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: no strace");
        return;
    }
    for (what, sets, options, source) in KERNELS {
        let bench = family(sets, "lib = 'vendor/lib'", options, source);
        library(&bench);
        if !at_hand(&bench.jit(program(), &[]), sets) {
            continue;
        }
        let trace = bench.path().join("trace");
        let output = traced(&bench, &trace);
        let trace = fs_err::read_to_string(&trace).expect("trace");
        if !trace.contains("execve(") {
            println!(
                "skipped: no leave to trace: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
        let reached = reached(&trace);
        assert!(reached.is_empty(), "{what}: {reached:#?}");
    }
}
