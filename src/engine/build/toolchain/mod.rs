//! Find, identify and, if need be, install NVRTC.
//!
//! Invariant: a [`Toolchain`] names two files by absolute path together with
//! the identity of just those files. Nothing is opened as a library here.

mod identity;
mod install;
mod search;

use std::path::PathBuf;

pub use identity::identify;
pub use install::{PINNED_VERSION, install, install_wheel, pinned_identity};
pub use search::{Candidate, Found, OLDEST, candidates, find};

use crate::engine::config::ConfigError;
use crate::engine::request::target::ToolchainIdentity;

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
    /// What was explicitly named is too old.
    #[error(
        "NVRTC {version} in {path} (from --nvrtc, JITC_NVRTC or jitc.toml) is too old: \
         expected {}.{} or newer", OLDEST.0, OLDEST.1
    )]
    TooOld {
        /// What was named.
        path: PathBuf,
        /// Its version.
        version: String,
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
    #[error("fetching nvidia-cuda-nvrtc {PINNED_VERSION} with `python3 -I -m pip download` failed: {0}")]
    Fetch(String),
    /// What was found cannot be opened as a library.
    #[error("the NVRTC at {path} cannot be opened: {reason}")]
    Unopenable {
        /// libnvrtc.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
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
    /// What is wanted only the very compiler that made an entry can give.
    #[error(
        "this entry was built with {made_by}, but {at_hand} is in use: pass the former with --nvrtc or JITC_NVRTC"
    )]
    Other {
        /// The compiler of the entry.
        made_by: String,
        /// The one that would be used.
        at_hand: String,
    },
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
