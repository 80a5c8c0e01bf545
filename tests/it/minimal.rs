//! `--minimal`, which leaves out of what the compiler reads what a family does not use.

use std::path::Path;

use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;

const MINIMAL: &str = ", \"--minimal\"";

/// Copies a folder, at every depth, and takes the option out of its families.
fn without_the_option(from: &Path, into: &Path) {
    fs_err::create_dir_all(into).expect("folder");
    for entry in fs_err::read_dir(from).expect("folder") {
        let path = entry.expect("entry").path();
        let copy = into.join(path.file_name().expect("name"));
        if path.is_dir() {
            without_the_option(&path, &copy);
        } else {
            let text = fs_err::read_to_string(&path).expect("text");
            fs_err::write(copy, text.replace(MINIMAL, "")).expect("written");
        }
    }
}

#[test]
fn leaving_out_what_is_not_used_changes_the_key_and_no_byte_of_the_machine_code() {
    let dir = tempfile::tempdir().expect("tempdir");
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    without_the_option(&templates, &dir.path().join("t"));
    let jit = |templates: &Path| {
        let flags = Flags {
            cache_dir: Some(dir.path().join("c")),
            templates: Some(templates.to_owned()),
            ..Flags::default()
        };
        Jit::new(Config::load(flags, Environment::capture()).expect("settings")).expect("families")
    };
    let (with, without) = (jit(&templates), jit(&dir.path().join("t")));
    for family in ["axpy", "stream", "gemv", "pack"] {
        for arch in ["sm_80", "sm_90a", "sm_120a"] {
            let made = |jit: &Jit| {
                let family = jit.registry().get(family).expect("family");
                let spec = KernelSpec::new(family, [], arch.parse().expect("arch")).expect("legal");
                jit.prepare(&spec).expect("compiled")
            };
            let (with, without) = (made(&with), made(&without));
            assert_ne!(with.request.key(), without.request.key(), "{family}, {arch}");
            assert!(
                with.fetched.artifact.cubin == without.fetched.artifact.cubin,
                "{family}, {arch}"
            );
        }
    }
}

#[test]
fn every_built_in_family_leaves_out_what_it_does_not_use() {
    let jit = Jit::new(Config::load(Flags::default(), Environment::default()).expect("settings"));
    for family in jit.expect("families").registry().families() {
        let options = &family.options.options;
        assert!(
            options.iter().any(|option| option == "--minimal"),
            "{}: {options:?}",
            family.name
        );
    }
}
