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
use crate::header_kernels::{CUDA, CUDA_STD, KERNELS, STD};

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

#[test]
fn the_families_of_a_facility_each_compile_for_the_archs_that_have_it() {
    let bench = Bench::new("");
    if !at_hand(&bench.jit(program(), &[]), &["cuda", "curand"]) {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/facilities");
    let families: Vec<String> = (fs_err::read_dir(&folder).expect("folder"))
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(families.len() >= 8, "{families:?}");
    // Clusters came with compute capability 9.0.
    let newer = |family: &&String| *family == "cluster_sum";
    for (arch, families) in [
        ("sm_80", families.iter().filter(|f| !newer(f)).collect::<Vec<_>>()),
        ("sm_90a", families.iter().collect()),
    ] {
        let output = crate::command::jitc(bench.path())
            .arg("warm")
            .args(families)
            .args(["--arch", arch, "--templates"])
            .arg(&folder)
            .output()
            .expect("run");
        crate::command::succeeded(&output);
    }
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
