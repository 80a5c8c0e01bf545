//! What happens to lie in the working folder is neither compiled, nor run, nor obeyed.

use std::io::Write;
use std::path::Path;
use std::process::Command as Process;

use crate::cli::{events, jitc, succeeded};

const KERNEL: &str = "extern \"C\" __global__ void k(float* p) { p[{{ n }}] = V; }\n";

/// A family `k` whose kernel stores V, which `include` has to define.
fn family(at: &Path, include: &str) {
    let toml = "summary = \"k\"\n[constants.n]\ntype = \"u32\"\nrange = [1, 64]\ndefault = 1\nhelp = \"n\"\n\
                [[entries]]\nname = \"k\"\ngrid = [1, 1, 1]\nblock = 32\n";
    write(&at.join("k.toml"), toml);
    write(&at.join("k.cu.tera"), &format!("{include}\n{KERNEL}"));
}

fn write(path: &Path, text: &str) {
    fs_err::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs_err::write(path, text).expect("write");
}

/// What became of the family's variant, warmed from this folder.
fn warmed(cache: &Path, templates: &Path, from: &Path) -> std::process::Output {
    jitc(cache)
        .current_dir(from)
        .args(["warm", "k", "--arch", "sm_90a", "--json", "--templates"])
        .arg(templates)
        .output()
        .expect("ran")
}

fn provenance(output: &std::process::Output) -> String {
    succeeded(output);
    events(output)[0]["provenance"]
        .as_str()
        .expect("provenance")
        .to_owned()
}

#[test]
fn a_header_of_the_working_folder_is_not_compiled() {
    let (cache, dir) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    let templates = dir.path().join("templates");
    family(&templates, "#include \"local.cuh\"");
    write(&dir.path().join("local.cuh"), "#define V 3.0f\n");
    let output = warmed(cache.path(), &templates, dir.path());
    let words = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{words}");
    assert!(
        words.contains("could not open source file") && words.contains("local.cuh"),
        "{words}"
    );
    // The same header of the family's own is.
    write(&templates.join("include/local.cuh"), "#define V 5.0f\n");
    assert_eq!(provenance(&warmed(cache.path(), &templates, dir.path())), "built");
}

#[test]
fn a_header_includes_its_neighbor_and_the_key_covers_it_wherever_one_stands() {
    let (cache, dir) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    family(dir.path(), "#include <foo/a.cuh>");
    let include = dir.path().join("include");
    write(&include.join("foo/a.cuh"), "#include \"b.cuh\"\n");
    write(&include.join("foo/b.cuh"), "#define V 1.f\n");
    // Of this name, but not the neighbor; and one of the working folder.
    write(&include.join("b.cuh"), "#error \"not this one\"\n");
    let from = |folder: &Path| provenance(&warmed(cache.path(), dir.path(), folder));
    assert_eq!(from(&include.join("foo")), "built");
    assert_eq!(from(cache.path()), "hit");
    write(&include.join("foo/b.cuh"), "#define V 2.f\n");
    assert_eq!(from(&include.join("foo")), "built", "an edit is another kernel");
    assert_eq!(from(cache.path()), "hit");
}

#[test]
fn a_pip_of_the_working_folder_is_not_run() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mark = dir.path().join("mark");
    write(
        &dir.path().join("pip.py"),
        "import os\nopen(os.environ['MARK'], 'w').close()\nraise SystemExit(1)\n",
    );
    let control = Process::new("python3")
        .args(["-m", "pip"])
        .current_dir(dir.path())
        .env("MARK", &mark)
        .output();
    if control.is_err() {
        let _ = writeln!(std::io::stderr(), "skipped: there is no python3 here");
        return;
    }
    assert!(mark.exists(), "python3 -m pip runs it");
    fs_err::remove_file(&mark).expect("removed");
    for args in [&["doctor"][..], &["toolchain", "install"]] {
        jitc(dir.path())
            .args(args)
            .env("MARK", &mark)
            .env("XDG_DATA_HOME", dir.path())
            .env("PIP_NO_INDEX", "1")
            .output()
            .expect("ran");
        assert!(!mark.exists(), "{args:?} ran pip.py of the working folder");
    }
}
