//! Device code that is plain C++, run by the host's compiler, if there is one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jitc::families::nvfp4::packed::Weight;

/// The repository's headers.
pub(crate) fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/include")
}

/// A program of this source, made in a folder whose own headers come first; nothing, and
/// that is said, where there is no compiler.
pub(crate) fn built(dir: &Path, source: &str) -> Option<PathBuf> {
    let (file, program) = (dir.join("code.cpp"), dir.join("code"));
    fs_err::write(&file, source).expect("written");
    let output = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w", "-I"])
        .arg(dir)
        .arg("-I")
        .arg(headers())
        .arg(&file)
        .arg("-o")
        .arg(&program)
        .output();
    let Ok(output) = output else {
        let _ = writeln!(std::io::stderr(), "skipped, no c++ here");
        return None;
    };
    crate::cli::succeeded(&output);
    Some(program)
}

/// What one of its cases writes, given a weight's codes, then its scales.
pub(crate) fn run(program: &Path, case: usize, weight: &Weight) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg(case.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut input = child.stdin.take().expect("stdin");
    input.write_all(&weight.codes).expect("codes");
    input.write_all(&weight.scales).expect("scales");
    drop(input);
    let output = child.wait_with_output().expect("ran");
    assert!(output.status.success(), "case {case}: {}", output.status);
    output.stdout
}
