//! Makes the native program `jitc` that a wheel carries, where a wheel is being made.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts by the environment"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that is there already, instead of one that is made here.
const GIVEN: &str = "JITC_WHEEL_PROGRAM";

fn main() {
    println!("cargo:rerun-if-env-changed={GIVEN}");
    let of_cargo = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if of_cargo("CARGO_FEATURE_WHEEL").is_none() {
        println!("cargo:rerun-if-changed=build.rs");
        return;
    }
    let (Some(out), Some(own)) = (of_cargo("OUT_DIR"), of_cargo("CARGO_MANIFEST_DIR")) else {
        panic!("this is run by cargo");
    };
    let root = own.join("../..");
    for part in ["src", "templates", "Cargo.toml", "Cargo.lock", "build.rs"] {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
    }
    let program = of_cargo(GIVEN).unwrap_or_else(|| make(&root, &out));
    println!("cargo:rerun-if-changed={}", program.display());
    let into = out.join("bin");
    fs_err::create_dir_all(&into).expect("a folder");
    fs_err::copy(&program, into.join("jitc")).expect("copied, with its mode");
}

/// Made by a cargo of its own, in a target folder of its own: this one holds the lock of
/// the other.
fn make(root: &Path, out: &Path) -> PathBuf {
    let of_cargo = |name: &str| std::env::var(name).expect("this is run by cargo");
    let of_own = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let release = of_cargo("PROFILE") == "release";
    let target = of_cargo("TARGET");
    // Beside the folders of all build scripts, so that it is kept from build to build.
    let folder = out.ancestors().nth(3).unwrap_or(out).join("wheel-program");
    let mut cargo = Command::new(of_cargo("CARGO"));
    cargo
        .args(["build", "--package", "jitc", "--bin", "jitc", "--locked"])
        .args(["--target", &target])
        .args(release.then_some("--release"))
        // It knows the stores that the extension knows.
        .args(of_own("REMOTE").then_some("--features=remote"))
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder);
    // What the outer cargo says about the extension alone.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "the program `jitc` could not be built: see above"
    );
    folder
        .join(target)
        .join(if release { "release" } else { "debug" })
        .join("jitc")
}
