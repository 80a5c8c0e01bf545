//! Families and machine code in a program's own image: no folder at run time.

use std::path::{Path, PathBuf};

use jitc::build::{Build, EmbedError, Embedded, Kernels};
use jitc::engine::cache::Provenance;
use jitc::engine::config::{Config, Environment, Flags, MissPolicy};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::template::Templates;

use crate::compile_process::program;

/// What a build script writes for `kernels`, as `include_templates!` takes it in.
const TEMPLATES: Templates = Templates::new("kernels", include!("embedded/templates.rs"));

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/embedded")
}

/// The build of a program in `out`, with the compiler of this machine.
fn build(out: &Path) -> Build {
    let kept = |name: &String| ["HOME", "XDG_DATA_HOME", "CUDA_HOME", "JITC_NVRTC"].contains(&name.as_str());
    let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v)));
    Build {
        package: package(),
        out: out.to_owned(),
        cross: None,
        env: variables.filter(|(name, _)| kept(name)).collect(),
    }
}

fn kernels() -> Kernels {
    Kernels::of("kernels")
        .archs(["sm_80", "sm_90a"])
        .worker(program())
}

fn embed(out: &Path, kernels: &Kernels) -> Result<Embedded, EmbedError> {
    kernels.embed_into(&build(out))
}

fn bundle(out: &Path) -> &'static [u8] {
    let bytes = fs_err::read(out.join("jitc/kernels/kernels.jitc")).expect("a bundle");
    Box::leak(bytes.into_boxed_slice())
}

fn config(flags: Flags) -> Config {
    Config::load(flags, Environment::default()).expect("settings")
}

fn twice(jit: &Jit, block: &str, arch: &str) -> KernelSpec {
    let family = jit.registry().get("twice").expect("family");
    KernelSpec::new(family, [("block", block)], arch.parse().expect("arch")).expect("legal")
}

#[test]
fn a_build_script_writes_the_families_that_a_program_includes() {
    let out = tempfile::tempdir().expect("tempdir");
    let asked = kernels().archs(["no arch"]);
    // The families are written before anything is compiled.
    let refused = embed(out.path(), &asked).expect_err("no arch");
    assert!(
        refused
            .to_string()
            .starts_with("`no arch` is not a GPU architecture"),
        "{refused}"
    );
    let written = fs_err::read_to_string(out.path().join("jitc/kernels/templates.rs")).expect("texts");
    assert_eq!(written, include_str!("embedded/templates.rs"));
}

#[test]
fn a_family_has_one_key_in_the_program_and_in_a_folder() {
    let carried = Jit::builder(config(Flags::default()))
        .families(TEMPLATES)
        .build()
        .expect("families");
    let of_folder = Jit::new(config(Flags {
        templates: Some(package().join("kernels")),
        ..Flags::default()
    }));
    let of_folder = of_folder.expect("families");
    let key = |jit: &Jit| {
        *jit.describe(&twice(jit, "128", "sm_80"))
            .expect("rendered")
            .0
            .key()
    };
    assert_eq!(key(&carried), key(&of_folder));
    assert!(
        carried.registry().get("stream").is_ok(),
        "those of jitc are there too"
    );
    let place = carried.registry().place_of("twice.cu.tera");
    assert_eq!(
        place,
        Path::new("kernels/twice.cu.tera"),
        "messages name the file"
    );
}

#[test]
fn a_folder_of_the_settings_holds_over_the_families_of_the_program() {
    let folder = tempfile::tempdir().expect("tempdir");
    let own = "extern \"C\" __global__ void twice() {}\n";
    fs_err::write(folder.path().join("twice.cu.tera"), own).expect("written");
    let flags = Flags {
        templates: Some(folder.path().to_owned()),
        ..Flags::default()
    };
    let jit = Jit::builder(config(flags))
        .families(TEMPLATES)
        .build()
        .expect("families");
    assert_eq!(jit.registry().get("twice").expect("family").source, own);
}

#[test]
fn an_embedded_bundle_answers_without_a_folder_a_cache_or_a_compiler() {
    let out = tempfile::tempdir().expect("tempdir");
    let variants = kernels()
        .variant("twice", [("block", "128")])
        .variant("twice", []);
    let first = embed(out.path(), &variants).expect("compiled");
    assert_eq!((first.kernels, first.compiled), (4, 4));
    let again = embed(out.path(), &variants).expect("of the build's cache");
    assert_eq!((again.kernels, again.compiled, again.bytes), (4, 0, first.bytes));

    let jit = Jit::builder(config(Flags::default()))
        .families(TEMPLATES)
        .embedded(bundle(out.path()))
        .miss(MissPolicy::Forbid)
        .build()
        .expect("families");
    for (block, arch) in [("128", "sm_80"), ("256", "sm_90a")] {
        let prepared = jit.prepare(&twice(&jit, block, arch)).expect("a hit");
        let Provenance::Hit(tier) = &prepared.fetched.provenance else {
            panic!("{:?}", prepared.fetched.provenance);
        };
        assert_eq!(tier.to_string(), "embedded");
        assert_eq!(prepared.fetched.artifact.resources[0].entry, "twice");
    }
    let missing = jit
        .prepare(&twice(&jit, "128", "sm_89"))
        .expect_err("not embedded");
    assert!(missing.to_string().contains("sm_89"), "{missing}");
}

#[test]
fn what_a_build_lacks_is_said_in_one_line() {
    let out = tempfile::tempdir().expect("tempdir");
    let refused = |kernels: Kernels| embed(out.path(), &kernels).expect_err("refused").to_string();
    for (kernels, says) in [
        (Kernels::of("kernels"), "no arch: expected those of the GPUs"),
        (
            Kernels::of("../embedded/kernels"),
            "expected a folder below the package",
        ),
        (
            Kernels::of("kernel"),
            "`kernel`: there is no such folder in the package",
        ),
        (Kernels::of("kernels/include"), "there is no family in it"),
        (kernels().variant("twice", [("block", "96")]), "96"),
        (kernels().variant("twize", []), "did you mean `twice`"),
        (
            kernels().tuned("kernels/twice.toml"),
            "twice.toml: expected value",
        ),
        (kernels().tuned("tuned.json"), "tuned.json"),
    ] {
        let line = refused(kernels);
        assert!(line.contains(says) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn without_a_compiler_an_offline_or_cross_build_says_which_machine_lacks_it() {
    let out = tempfile::tempdir().expect("tempdir");
    let nowhere = out.path().join("nowhere");
    let mut build = build(out.path());
    build.env = [("HOME", nowhere.as_os_str()), ("JITC_NVRTC", nowhere.as_os_str())]
        .into_iter()
        .collect();
    build.cross = Some((
        "aarch64-unknown-linux-gnu".into(),
        "x86_64-unknown-linux-gnu".into(),
    ));
    let refused = kernels().embed_into(&build).expect_err("no compiler");
    assert!(matches!(refused, EmbedError::Cross { .. }), "{refused:?}");
    let line = refused.to_string();
    let says =
        "it is this machine (x86_64-unknown-linux-gnu) that compiles the kernels of a program for aarch64";
    assert!(
        line.contains(says) && line.contains("nowhere") && !line.contains('\n'),
        "{line}"
    );
}
