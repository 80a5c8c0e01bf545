//! Find, identify and, if need be, install NVRTC.
//!
//! Invariant: a [`Toolchain`] names two files by absolute path together with
//! the identity of just those files. Nothing is opened as a library here.

mod identity;
mod install;

use std::path::{Path, PathBuf};

pub use identity::identify;
pub use install::{PINNED_VERSION, install, install_wheel, pinned_identity};

use crate::config::{Config, ConfigError};
use crate::target::ToolchainIdentity;

/// Why there is no usable NVRTC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolchainError {
    /// What was explicitly named holds none.
    #[error(
        "no NVRTC in {path} (from --nvrtc, JITC_NVRTC or jitc.toml): \
         expected libnvrtc.so.* with libnvrtc-builtins.so.* beside it"
    )]
    NotThere {
        /// What was named.
        path: PathBuf,
    },
    /// Nothing was found, and fetching is forbidden.
    #[error(
        "no NVRTC found, and --offline (JITC_OFFLINE) forbids fetching it: name one with JITC_NVRTC or CUDA_HOME, \
         or run `jitc toolchain install` where there is a network and copy the folder {managed}"
    )]
    Offline {
        /// The managed toolchain's folder.
        managed: String,
    },
    /// There is no home folder to install into.
    #[error("no NVRTC found and no folder to install it into: set HOME or XDG_DATA_HOME, or JITC_NVRTC")]
    NoFolder,
    /// This machine's kind has no pinned package.
    #[error("no NVRTC found, and none is pinned for {0}: name one with JITC_NVRTC or CUDA_HOME")]
    NotPinned(&'static str),
    /// pip did not deliver.
    #[error("fetching nvidia-cuda-nvrtc {PINNED_VERSION} with `python3 -m pip download` failed: {0}")]
    Fetch(String),
    /// What was delivered is not what is pinned.
    #[error("{path}: SHA-256 is {actual}, pinned is {expected}")]
    Hash {
        /// The file.
        path: PathBuf,
        /// What it is.
        actual: String,
        /// What it should be.
        expected: String,
    },
    /// A wheel could not be unpacked.
    #[error("{path}: {reason}")]
    Unpack {
        /// The wheel.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("toolchain: {0}")]
    Io(#[from] std::io::Error),
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// An NVRTC on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// libnvrtc.
    pub nvrtc: PathBuf,
    /// libnvrtc-builtins.
    pub builtins: PathBuf,
    /// How it was found, for people.
    pub origin: String,
    /// What the key knows of it.
    pub identity: ToolchainIdentity,
}

/// A place that was looked at.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Why it was looked at.
    pub origin: String,
    /// The folder.
    pub folder: PathBuf,
    /// libnvrtc and libnvrtc-builtins, if both are there.
    pub found: Option<(PathBuf, PathBuf)>,
}

/// Every place that is looked at, strongest first: what was named; the managed
/// folder; `CUDA_HOME`, `CUDA_PATH`; the loader's usual folders; the active Python
/// environments.
#[must_use]
pub fn candidates(config: &Config) -> Vec<Candidate> {
    let mut places: Vec<(String, PathBuf)> = Vec::new();
    if let Some(named) = config.nvrtc() {
        places.push(("named".into(), named));
    }
    if let Some(root) = config.toolchain_dir() {
        places.push(("managed".into(), root.join(PINNED_VERSION)));
    }
    for (name, home) in config.cuda_homes() {
        for below in [
            "lib64",
            "lib",
            "targets/x86_64-linux/lib",
            "targets/sbsa-linux/lib",
        ] {
            places.push((name.clone(), home.join(below)));
        }
    }
    for folder in config.library_path() {
        places.push(("LD_LIBRARY_PATH".into(), folder));
    }
    for folder in [
        "/usr/local/cuda/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ] {
        places.push(("the loader's path".into(), folder.into()));
    }
    for prefix in config.python_prefixes() {
        let versions = fs_err::read_dir(prefix.join("lib"))
            .into_iter()
            .flatten()
            .flatten();
        for version in versions {
            let folder = version.path().join("site-packages/nvidia/cu13/lib");
            if folder.is_dir() {
                places.push(("Python environment".into(), folder));
            }
        }
    }
    places
        .into_iter()
        .map(|(origin, folder)| Candidate {
            found: libraries_in(&folder),
            origin,
            folder,
        })
        .collect()
}

/// The strongest NVRTC at hand. `None`: there is none yet.
pub fn find(config: &Config) -> Result<Option<Toolchain>, ToolchainError> {
    for candidate in candidates(config) {
        match candidate.found {
            Some((nvrtc, builtins)) => {
                return Ok(Some(Toolchain {
                    identity: identify(&nvrtc, &builtins)?,
                    nvrtc,
                    builtins,
                    origin: candidate.origin,
                }));
            }
            None if candidate.origin == "named" => {
                return Err(ToolchainError::NotThere {
                    path: candidate.folder,
                });
            }
            None => {}
        }
    }
    Ok(None)
}

/// libnvrtc and its builtins in a folder, or at a file and beside it. Of several
/// versions the highest; 12.8 and older do not know every arch that jitc makes
/// and are passed over by their missing major version 13 or 12.
fn libraries_in(place: &Path) -> Option<(PathBuf, PathBuf)> {
    let folder = if place.is_file() { place.parent()? } else { place };
    let names: Vec<String> = fs_err::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let mut builtins: Vec<&String> = names
        .iter()
        .filter(|n| n.starts_with("libnvrtc-builtins.so.") && !n.contains(".alt."))
        .collect();
    // The shortest name is the soname that libnvrtc itself asks for: `.so.13.0`.
    builtins.sort_by_key(|n| n.len());
    let nvrtc = if place.is_file() {
        place.to_path_buf()
    } else {
        ["libnvrtc.so.13", "libnvrtc.so.12"]
            .iter()
            .find(|n| names.iter().any(|have| have == *n))
            .map(|n| folder.join(n))?
    };
    let major = nvrtc
        .file_name()?
        .to_str()?
        .strip_prefix("libnvrtc.so.")?
        .split('.')
        .next()?
        .to_owned();
    let wanted = format!("libnvrtc-builtins.so.{major}");
    let builtins = builtins.into_iter().find(|n| n.starts_with(&wanted))?;
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Some((absolute(nvrtc), absolute(folder.join(builtins))))
}
