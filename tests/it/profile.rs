//! Compiling for profilers: keys of their own, line information, and the source beside it.

use std::path::Path;
use std::process::Output;

use jitc::engine::config::{Config, Environment, Flags};
use jitc::engine::jit::Jit;
use jitc::engine::request::spec::KernelSpec;

use crate::command::jitc;

fn facade(cache: &Path, settings: &[(&str, &str)]) -> Jit {
    let pairs = settings.iter();
    let env: Environment = pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let flags = Flags {
        cache_dir: Some(cache.to_owned()),
        ..Flags::default()
    };
    Jit::new(Config::load(flags, env).expect("settings")).expect("families")
}

fn spec(jit: &Jit, family: &str) -> KernelSpec {
    let family = jit.registry().get(family).expect("built in");
    KernelSpec::new(family, [], "sm_90a".parse().expect("an arch")).expect("a spec")
}

fn run(folder: &Path, words: &str) -> Output {
    let mut command = jitc(folder);
    command
        .args(words.split_whitespace())
        .arg("--cache-dir")
        .arg(folder.join("cache"));
    command.output().expect("run")
}

fn out(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Whether one text is among the bytes.
fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_build_for_profilers_has_a_key_of_its_own_that_differs_by_one_option() {
    let cache = tempfile::tempdir().expect("tempdir");
    let (plain, profile) = (
        facade(cache.path(), &[]),
        facade(cache.path(), &[("JITC_PROFILE", "1")]),
    );
    let described = |jit: &Jit| jit.describe(&spec(jit, "stream")).expect("described");
    let ((plain, before), (profiled, after)) = (described(&plain), described(&profile));
    assert_ne!(plain.key(), profiled.key());
    assert_eq!((&before.source, &before.headers), (&after.source, &after.headers));
    let mut options = before.options.clone();
    options.push("--generate-line-info".into());
    assert_eq!(after.options, options);
    let command = profile.warm_command(&spec(&profile, "stream"));
    assert_eq!(command, "jitc warm stream --arch sm_90a --profile");
    let env: Environment = [("JITC_PROFILE".to_owned(), "maybe".to_owned())]
        .into_iter()
        .collect();
    let refused = Config::load(Flags::default(), env);
    let error = refused
        .expect("read")
        .check_values()
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("profile = `maybe`") && error.contains("expected 1 or 0"),
        "{error}"
    );
}

#[test]
fn a_profilers_machine_code_names_the_source_and_no_place_of_this_machine() {
    let folder = tempfile::tempdir().expect("tempdir");
    let folder = folder.path();
    let warmed = |words: &str| {
        let text = out(&run(folder, &format!("warm stream --arch sm_90a --json {words}")));
        let first: serde_json::Value =
            serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        first["key"].as_str().expect("a key").to_owned()
    };
    let code = |key: &str| {
        let file = folder.join(key);
        out(&run(
            folder,
            &format!("cache show {key} --cubin {}", file.display()),
        ));
        fs_err::read(file).expect("read")
    };
    let (plain, profiled) = (code(&warmed("")), code(&warmed("--profile")));
    assert!(has(&profiled, "stream.cu.tera") && has(&profiled, ".debug_line"));
    assert!(!has(&plain, ".debug_line"), "a build without it stays as it was");
    for place in [
        folder.to_str().expect("a path"),
        env!("CARGO_MANIFEST_DIR"),
        "/tmp",
    ] {
        assert!(!has(&profiled, place), "{place}");
    }
    // Beside each other in one cache, each is a hit.
    for words in ["", " --profile"] {
        let text = out(&run(folder, &format!("warm stream --arch sm_90a --check{words}")));
        assert_eq!(text.trim(), "1 requested, 0 missing");
    }
}

#[test]
fn the_source_is_written_under_the_names_that_line_information_has() {
    let folder = tempfile::tempdir().expect("tempdir");
    let folder = folder.path();
    let text = out(&run(
        folder,
        &format!(
            "render axpy --arch sm_90a --profile --out {}",
            folder.join("src").display()
        ),
    ));
    let own = Path::new(text.trim());
    assert!(own.starts_with(folder.join("src")), "{text}");
    let source = fs_err::read_to_string(own.join("axpy.cu.tera")).expect("the source");
    assert_eq!(source, out(&run(folder, "render axpy --arch sm_90a")));
    let header = fs_err::read_to_string(own.join("jitc/region.cuh")).expect("a header");
    assert!(header.contains("RegionTimer"));
}

#[test]
fn a_header_whose_name_leads_out_of_the_folder_is_not_written() {
    let folder = tempfile::tempdir().expect("tempdir");
    let jit = facade(&folder.path().join("cache"), &[]);
    let kernel = jit.source("#include \"../up.cuh\"\nextern \"C\" __global__ void k() {}");
    let spec = kernel
        .header("../up.cuh", "")
        .entry("k")
        .spec("sm_90a".parse().expect("an arch"));
    let error = jit
        .write_source(&spec.expect("a spec"), &folder.path().join("src"))
        .expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("../up.cuh: a name that leads out of the folder"),
        "{error}"
    );
    assert!(!folder.path().join("src/up.cuh").exists());
}
