//! The pinned NVRTC: fetched by pip, checked by hash, unpacked atomically.
//!
//! Invariant: the managed folder appears by one rename and holds the pinned
//! libraries whole, or it does not exist. Two processes may install at once.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::identity::HashWriter;
use super::{Toolchain, ToolchainError, identify};
use crate::engine::config::Config;
use crate::engine::request::target::ToolchainIdentity;

/// The version of NVRTC that jitc installs where none is found.
pub const PINNED_VERSION: &str = "13.0.88";

struct Pin<'a> {
    wheel_sha256: &'a str,
    nvrtc: &'a str,
    builtins: &'a str,
}

const X86_64: Pin<'_> = Pin {
    wheel_sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    nvrtc: "build-id:65be0db342ad51a06876e71e210bccc5aa8322cf",
    builtins: "build-id:08d17e32084d3171cc6e296843a5e09fbd20a331",
};

/// The builtins of this wheel have no build-id.
const AARCH64: Pin<'_> = Pin {
    wheel_sha256: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
    nvrtc: "build-id:31b78904841e67069f791b61c43083f2a983fffb",
    builtins: "sha256:84f1c5031bfe1146375b367b2c7fb8d31ea00430be7172177eeb5d04ab813b69",
};

impl Pin<'_> {
    fn identity(&self) -> ToolchainIdentity {
        ToolchainIdentity {
            version: PINNED_VERSION.into(),
            nvrtc: self.nvrtc.into(),
            builtins: self.builtins.into(),
        }
    }
}

fn pin() -> Result<&'static Pin<'static>, ToolchainError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(&X86_64),
        "aarch64" => Ok(&AARCH64),
        other => Err(ToolchainError::NotPinned(other)),
    }
}

/// The identity that the pinned NVRTC has, installed or not: keys can be worked
/// out, and a warmed cache hit, on a machine that has no compiler at all.
#[must_use]
pub fn pinned_identity() -> Option<ToolchainIdentity> {
    pin().ok().map(Pin::identity)
}

/// Fetches and installs the pinned NVRTC into the managed folder.
pub fn install(config: &Config) -> Result<Toolchain, ToolchainError> {
    let root = config.toolchain_dir().ok_or(ToolchainError::NoFolder)?;
    let pin = pin()?;
    if let Ok(there) = opened(&root.join(PINNED_VERSION), pin) {
        return Ok(there);
    }
    if config.offline()? {
        return Err(ToolchainError::Offline {
            managed: root.join(PINNED_VERSION).display().to_string(),
        });
    }
    fs_err::create_dir_all(&root)?;
    let download = tempfile::tempdir_in(&root)?;
    let requirements = download.path().join("requirements.txt");
    let line = format!(
        "nvidia-cuda-nvrtc=={PINNED_VERSION} --hash=sha256:{}\n",
        pin.wheel_sha256
    );
    fs_err::write(&requirements, line)?;
    let output = Command::new("python3")
        .args([
            // Else a pip.py of the working folder would be run in pip's place.
            "-I",
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ])
        .args(["--no-input", "--disable-pip-version-check", "--quiet", "--dest"])
        .arg(download.path())
        .arg("-r")
        .arg(&requirements)
        .output()
        .map_err(|e| ToolchainError::Fetch(format!("python3 could not be started: {e}")))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("it said nothing");
        return Err(ToolchainError::Fetch(last.trim().to_owned()));
    }
    let wheel = fs_err::read_dir(download.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| ToolchainError::Fetch("pip left no wheel".into()))?;
    install_pinned(&root, pin, &wheel)
}

/// Installs from a wheel that is already here.
pub fn install_wheel(config: &Config, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    let root = config.toolchain_dir().ok_or(ToolchainError::NoFolder)?;
    install_pinned(&root, pin()?, wheel)
}

fn install_pinned(root: &Path, pin: &Pin<'_>, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    let mut hash = Sha256::new();
    std::io::copy(&mut fs_err::File::open(wheel)?, &mut HashWriter(&mut hash))?;
    let actual = hex::encode(hash.finalize());
    if actual != pin.wheel_sha256 {
        return Err(ToolchainError::Hash {
            path: wheel.to_path_buf(),
            actual,
            expected: pin.wheel_sha256.to_owned(),
        });
    }
    fs_err::create_dir_all(root)?;
    let staging = tempfile::tempdir_in(root)?;
    unpack(wheel, staging.path())?;
    let folder = root.join(PINNED_VERSION);
    // A folder that is there and whole was put there by another process: use it.
    // One that is not whole was tampered with, since it appears by one rename.
    if opened(&folder, pin).is_err()
        && fs_err::rename(staging.path(), &folder).is_err()
        && opened(&folder, pin).is_err()
    {
        fs_err::remove_dir_all(&folder)?;
        fs_err::rename(staging.path(), &folder)?;
    }
    opened(&folder, pin)
}

fn opened(folder: &Path, pin: &Pin<'_>) -> Result<Toolchain, ToolchainError> {
    let (nvrtc, builtins) = super::search::libraries_in(folder).ok_or_else(|| ToolchainError::NotThere {
        path: folder.to_path_buf(),
    })?;
    let identity = identify(&nvrtc, &builtins)?;
    if identity != pin.identity() {
        return Err(ToolchainError::NotThere {
            path: folder.to_path_buf(),
        });
    }
    Ok(Toolchain {
        nvrtc,
        builtins,
        origin: "managed".into(),
        identity,
    })
}

/// Takes the two libraries and the licence out of a wheel, to disk for good.
fn unpack(wheel: &Path, into: &Path) -> Result<(), ToolchainError> {
    let bad = |reason: String| ToolchainError::Unpack {
        path: wheel.to_path_buf(),
        reason,
    };
    let mut archive = zip::ZipArchive::new(fs_err::File::open(wheel)?).map_err(|e| bad(e.to_string()))?;
    let mut taken = 0;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(|e| bad(e.to_string()))?;
        let name = PathBuf::from(file.name().map_err(|e| bad(e.to_string()))?.into_owned());
        // Only the bare file name is used, so no path of the archive can escape.
        let Some(base) = name.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
            continue;
        };
        if !["libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "License.txt"].contains(&base.as_str()) {
            continue;
        }
        let mut out = fs_err::File::create(into.join(&base))?;
        std::io::copy(&mut file, &mut out)?;
        out.sync_all()?;
        taken += usize::from(base.starts_with("lib"));
    }
    if taken == 2 {
        Ok(())
    } else {
        Err(bad(
            "libnvrtc.so.13 and libnvrtc-builtins.so.13.0 are not both in it".into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NVRTC: &[u8] = b"not an ELF, so its content is its identity";
    const BUILTINS: &[u8] = b"neither is this";

    fn sha256(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    fn wheel(at: &Path, members: &[(&str, &[u8])]) -> String {
        let mut zip = zip::ZipWriter::new(fs_err::File::create(at).expect("file"));
        for (name, bytes) in members {
            zip.start_file(*name, zip::write::SimpleFileOptions::default())
                .expect("member");
            zip.write_all(bytes).expect("bytes");
        }
        zip.finish().expect("zip");
        sha256(&fs_err::read(at).expect("wheel"))
    }

    fn good_wheel(at: &Path) -> String {
        let members: [(&str, &[u8]); 4] = [
            ("nvidia/cu13/lib/libnvrtc.so.13", NVRTC),
            ("nvidia/cu13/lib/libnvrtc-builtins.so.13.0", BUILTINS),
            (
                "../../escape.so",
                b"only bare names of the two libraries are used",
            ),
            ("x.dist-info/License.txt", b"licence"),
        ];
        wheel(at, &members)
    }

    #[test]
    fn installing_from_many_threads_at_once_leaves_one_whole_folder() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (at, root) = (dir.path().join("a.whl"), dir.path().join("toolchain"));
        let hash = good_wheel(&at);
        let (nvrtc, builtins) = (
            format!("sha256:{}", sha256(NVRTC)),
            format!("sha256:{}", sha256(BUILTINS)),
        );
        let pin = Pin {
            wheel_sha256: &hash,
            nvrtc: &nvrtc,
            builtins: &builtins,
        };
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let toolchain = install_pinned(&root, &pin, &at).expect("installed");
                    assert_eq!(toolchain.identity, pin.identity());
                });
            }
        });
        let names = |path: &Path| {
            let mut names: Vec<_> = fs_err::read_dir(path)
                .expect("folder")
                .map(|e| e.expect("entry").file_name().into_string().expect("name"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&root), [PINNED_VERSION], "no staging folder is left");
        assert_eq!(
            names(&root.join(PINNED_VERSION)),
            ["License.txt", "libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]
        );
        // A folder that was tampered with is replaced.
        let library = root.join(PINNED_VERSION).join("libnvrtc.so.13");
        fs_err::write(&library, b"changed behind our back").expect("write");
        install_pinned(&root, &pin, &at).expect("replaced");
        assert_eq!(fs_err::read(&library).expect("library"), NVRTC);
    }

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (at, root) = (dir.path().join("a.whl"), dir.path().join("toolchain"));
        good_wheel(&at);
        let pin = Pin {
            wheel_sha256: "00",
            nvrtc: "",
            builtins: "",
        };
        let error = install_pinned(&root, &pin, &at).expect_err("refused");
        assert!(matches!(error, ToolchainError::Hash { .. }), "{error}");
        assert!(!root.exists());
    }

    #[test]
    fn a_wheel_without_both_libraries_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (at, root) = (dir.path().join("a.whl"), dir.path().join("toolchain"));
        let hash = wheel(&at, &[("lib/libnvrtc.so.13", NVRTC)]);
        let pin = Pin {
            wheel_sha256: &hash,
            nvrtc: "",
            builtins: "",
        };
        let error = install_pinned(&root, &pin, &at).expect_err("refused");
        assert!(error.to_string().contains("are not both in it"), "{error}");
        assert_eq!(fs_err::read_dir(&root).expect("folder").count(), 0);
    }
}
