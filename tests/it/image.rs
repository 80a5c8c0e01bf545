//! What machine code has to be before it is published or loaded.

use std::path::Path;

use jitc::engine::build::artifact::{Artifact, Resources};
use jitc::engine::build::compile::{Cancel, CompileError, Compiler};
use jitc::engine::build::image::{self, ImageError};
use jitc::engine::build::render::RenderedSource;
use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::{Error, ErrorKind, Jit};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::{Arch, CudaVersion};

use crate::command::jitc;
use crate::cubin::{Kernel, cubin, kernels, of_spec};

const TOML: &str = "summary = 's'\n[constants.block]\ntype = 'u32'\nvalues = [32, 64]\ndefault = 32\nhelp = 'h'\n\
    [[entries]]\nname = 'scale'\ngrid = [1, 1, 1]\nblock = 'block'\n\
    [[entries]]\nname = 'gather'\nwhen = 'block == 64'\ngrid = [1, 1, 1]\nblock = 'block'\n";

fn templates(folder: &Path, source: &str) {
    fs_err::write(folder.join("k.toml"), TOML).expect("written");
    fs_err::write(folder.join("k.cu.tera"), source).expect("written");
}

fn jit(folder: &Path) -> Jit {
    let flags = Flags {
        templates: Some(folder.to_path_buf()),
        cache_dir: Some(folder.join("cache")),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families")
}

fn spec(jit: &Jit, set: &[(&str, &str)]) -> KernelSpec {
    let family = jit.registry().get("k").expect("family");
    KernelSpec::new(family, set.iter().copied(), arch("sm_90a")).expect("spec")
}

fn arch(text: &str) -> Arch {
    text.parse().expect("an arch")
}

fn named(names: &[&str]) -> Vec<Kernel> {
    let kernel = |name: &&str| Kernel {
        name: (*name).to_owned(),
        takes: Vec::new(),
    };
    names.iter().map(kernel).collect()
}

#[test]
fn a_whole_cubin_with_the_declared_kernels_is_taken_and_says_what_made_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    templates(dir.path(), "");
    let jit = jit(dir.path());
    let spec = spec(&jit, &[]);
    let good = of_spec(&spec);
    image::check(&spec, &good).expect("whole");
    let read = image::read(&good).expect("whole");
    assert_eq!(read.entries, ["scale", "gather"]);
    assert_eq!(read.arch, Some(90));
    assert_eq!(image::made_by(&good), Some(CudaVersion { major: 13, minor: 0 }));
    let older = cubin(spec.arch(), 129, &kernels(&spec), b"");
    assert_eq!(image::made_by(&older), Some(CudaVersion { major: 12, minor: 9 }));
    assert_eq!(image::made_by(b"no ELF"), None);
    // Wherever in memory it lies.
    for shift in 1..8 {
        let mut moved = vec![0; shift];
        moved.extend_from_slice(&good);
        image::check(&spec, &moved[shift..]).expect("whole");
    }
}

#[test]
fn what_nvrtc_makes_reads_as_what_was_asked_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    let source = "__device__ __noinline__ int helper(int x) { return x * 3; }\n\
        extern \"C\" __global__ void scale(int* p) { p[{{ block }}] = helper(p[0]); }\n\
        extern \"C\" __global__ void gather(int* p) { p[1] = helper(p[2]); }\n";
    templates(dir.path(), source);
    let jit = jit(dir.path());
    let family = jit.registry().get("k").expect("family");
    for text in ["sm_80", "sm_90a", "sm_100f", "sm_120a"] {
        let spec = KernelSpec::new(family, [], arch(text)).expect("spec");
        let prepared = jit.prepare(&spec).expect("built");
        let cubin = &prepared.fetched.artifact.cubin;
        let mut read = image::read(cubin).expect("whole");
        read.entries.sort();
        assert_eq!(read.entries, ["gather", "scale"], "{text}");
        assert_eq!(read.arch, Some(u32::from(spec.arch().number())), "{text}");
        let version = CudaVersion::at_start_of(&prepared.request.toolchain().version);
        assert_eq!(image::made_by(cubin), version, "{text}");
    }
}

#[test]
fn every_truncation_of_a_cubin_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    templates(dir.path(), "");
    let jit = jit(dir.path());
    let spec = spec(&jit, &[]);
    let whole = of_spec(&spec);
    for length in 0..whole.len() {
        let error = image::check(&spec, &whole[..length]).expect_err("cut off");
        assert!(matches!(error, ImageError::Broken { .. }), "{length}: {error}");
    }
}

#[test]
fn a_section_or_segment_that_reaches_over_the_end_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    templates(dir.path(), "");
    let jit = jit(dir.path());
    let spec = spec(&jit, &[]);
    let whole = of_spec(&spec);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        image::check(&spec, &bytes).expect_err("damaged").to_string()
    };
    let table = usize::try_from(u64::from_le_bytes(whole[40..48].try_into().expect("8"))).expect("small");
    // The size of section 1; sections are 64 bytes, and their size stands at 32.
    let section = refused(&|b| b[table + 64 + 32 + 6] = 1);
    assert!(
        section.ends_with("section `.note.nv.cuinfo` reaches over its end"),
        "{section}"
    );
    // The file size of segment 0, behind the header of 64 bytes.
    let segment = refused(&|b| b[64 + 32 + 6] = 1);
    assert!(segment.ends_with("segment 0 reaches over its end"), "{segment}");
    let machine = refused(&|b| b[18] = 62);
    assert!(
        machine.ends_with("its machine is 62, and a GPU's is 190"),
        "{machine}"
    );
    let text = image::check(&spec, b"//\n// Generated by NVIDIA NVVM\n").expect_err("PTX");
    assert_eq!(
        text.to_string(),
        "k: the machine code is not a whole cubin: it is PTX, and sm_90a was requested"
    );
    let short = image::check(&spec, b"\x7fELF").expect_err("a part");
    assert_eq!(
        short.to_string(),
        "k: the machine code is not a whole cubin: invalid ELF header size or alignment"
    );
}

#[test]
fn code_for_another_arch_is_refused_in_both_ways_of_writing_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    templates(dir.path(), "");
    let jit = jit(dir.path());
    let spec = spec(&jit, &[]);
    let mut other = cubin(arch("sm_100a"), 130, &kernels(&spec), b"");
    let error = image::check(&spec, &other).expect_err("another");
    assert_eq!(
        error.to_string(),
        "k: the machine code is for sm_100, and sm_90a was requested"
    );
    // The older format has the number in the lowest byte.
    other[8] = 7;
    other[48..52].copy_from_slice(&0x5a_05_5a_u32.to_le_bytes());
    image::check(&spec, &other).expect("sm_90");
    other[48] = 0x50;
    assert!(matches!(
        image::check(&spec, &other),
        Err(ImageError::OtherArch { found: 80, .. })
    ));
    // A format that is not known yet is the driver's to judge.
    other[8] = 9;
    image::check(&spec, &other).expect("not known");
}

#[test]
fn kernels_are_exactly_the_declared_ones() {
    let dir = tempfile::tempdir().expect("tempdir");
    templates(dir.path(), "");
    let jit = jit(dir.path());
    let (small, large) = (spec(&jit, &[]), spec(&jit, &[("block", "64")]));
    let check = |spec: &KernelSpec, names: &[&str]| {
        image::check(spec, &cubin(arch("sm_90a"), 130, &named(names), b"")).map_err(|e| e.to_string())
    };
    assert_eq!(check(&small, &["scale"]), Ok(()));
    assert_eq!(
        check(&small, &["gather", "scale"]),
        Ok(()),
        "declared, and left out by a constant"
    );
    assert_eq!(check(&large, &["gather", "scale"]), Ok(()));
    let refused = |spec: &KernelSpec, names: &[&str]| check(spec, names).expect_err("refused");
    assert_eq!(
        refused(&large, &["scale"]),
        "k: the source defines no kernel `gather`: it defines scale"
    );
    assert_eq!(
        refused(&small, &["scael"]),
        "k: the source defines no kernel `scale` (did you mean `scael`?)"
    );
    assert_eq!(
        refused(&small, &["_Z5scalePf", "gather"]),
        "k: the source defines no kernel `scale`, but `_Z5scalePf`: write extern \"C\" before __global__"
    );
    assert_eq!(
        refused(&small, &["_ZN2ns5scaleEPf"]),
        "k: the source defines no kernel `scale`, but `_ZN2ns5scaleEPf`: write extern \"C\" before __global__"
    );
    let unmangled = refused(&small, &["at5scale"]);
    assert!(!unmangled.contains("extern"), "{unmangled}");
    assert_eq!(
        refused(&small, &[]),
        "k: the source defines no kernel `scale`: it defines none; the instance of a template is named by `expression`"
    );
    assert_eq!(
        refused(&small, &["scale", "scale_2"]),
        "k: the source defines the kernel `scale_2`, which the family does not declare (did you mean `scale`?): \
         give it an [[entries]], make it a __device__ function, or set other_kernels = true"
    );
}

/// Gives these bytes, whatever it is asked to compile.
struct Gives(Vec<u8>);

impl Compiler for Gives {
    fn compile(&self, _: &RenderedSource, _: &Cancel) -> Result<Artifact, CompileError> {
        Ok(Artifact {
            cubin: self.0.clone(),
            resources: vec![Resources::default()],
            compile_log: String::new(),
            compile_us: 1,
        })
    }
}

#[test]
fn what_is_no_cubin_is_neither_returned_nor_published() {
    let dir = tempfile::tempdir().expect("tempdir");
    templates(dir.path(), "");
    let good = of_spec(&spec(&jit(dir.path()), &[]));
    let mut cut = good.clone();
    cut.truncate(good.len() - 1);
    for bytes in [cut, Vec::new(), b"ptx".to_vec()] {
        let jit = jit(dir.path()).with_compiler(Box::new(Gives(bytes)));
        let spec = spec(&jit, &[]);
        let error = jit.prepare(&spec).expect_err("no cubin");
        assert!(
            matches!(error, Error::Image(ImageError::Broken { .. })),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Template);
        let key = *jit.describe(&spec).expect("described").0.key();
        assert!(jit.cache().peek(&key).is_none(), "published");
    }
    let jit = jit(dir.path()).with_compiler(Box::new(Gives(good)));
    jit.prepare(&spec(&jit, &[])).expect("a whole one");
}

#[test]
fn a_slip_in_a_kernels_name_fails_the_warm_in_one_line_with_what_was_meant() {
    let dir = tempfile::tempdir().expect("tempdir");
    let cache = dir.path().join("cache");
    fs_err::create_dir_all(&cache).expect("folder");
    let warm = |source: &str| {
        templates(dir.path(), source);
        let output = jitc(&cache)
            .args(["warm", "k", "--arch", "sm_90a", "--templates"])
            .arg(dir.path())
            .output()
            .expect("ran");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), errors)
    };
    let (code, errors) = warm("extern \"C\" __global__ void scael(float* p) { p[{{ block }}] = 1; }\n");
    assert_eq!(code, Some(2));
    assert_eq!(
        errors,
        "failed: k defaults sm_90a: k: the source defines no kernel `scale` (did you mean `scael`?)\n"
    );
    let (code, errors) = warm("__global__ void scale(float* p) { p[{{ block }}] = 1; }\n");
    assert_eq!(code, Some(2));
    assert_eq!(
        errors,
        "failed: k defaults sm_90a: k: the source defines no kernel `scale`, but `_Z5scalePf`: \
         write extern \"C\" before __global__\n"
    );
    let (code, errors) = warm("extern \"C\" __global__ void scale(float* p) { p[{{ block }}] = 1; }\n");
    assert_eq!(code, Some(0), "{errors}");
}
