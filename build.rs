//! Templates are embedded with `include_dir!`, which tracks the contents of the
//! files that it found but not new files: ask cargo to look at the folder. And what a
//! compile worker is known by: a digest of the engine's sources, so that a library and a
//! program of the same sources know each other.

#![expect(clippy::disallowed_methods, reason = "a build script has no dependencies")]

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=templates");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/engine");
    let mut files = Vec::new();
    collect(Path::new("src/engine"), &mut files);
    files.sort();
    // FNV-1a: tells builds apart, and authenticates nothing.
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_default();
        for byte in file.to_string_lossy().bytes().chain([0]).chain(bytes) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    println!("cargo:rustc-env=JITC_BUILD={digest:016x}");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
