//! Find, identify and, if need be, install NVRTC.
//!
//! Invariant: a [`Toolchain`] names two files by absolute path together with
//! the identity of just those files. Nothing is opened as a library here. The pinned
//! identity is that of the pinned bytes and of no others.

mod contents;
mod failure;
mod header_sets;
mod held;
mod identity;
mod install;
mod lock;
mod managed;
mod pin;
mod pip;
mod remove;
mod search;
mod stamp;
mod trust;
mod wheel;

use std::path::PathBuf;

pub use header_sets::{
    header_set, header_set_file, install_header_set, install_header_wheels, is_header_wheel,
};
pub use held::abandon_installs;
pub use identity::identify;
pub use install::{install, install_once, install_wheel};
pub use pin::{PINNED_VERSION, pinned_identity};
pub use pip::FETCH_LIMIT;
pub use remove::{Removed, remove};
pub use search::{Candidate, Found, OLDEST, candidates, find, find_afresh};

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
    /// pip did not deliver the headers.
    #[error("fetching the header set `{set}` with `python3 -I -m pip download` failed: {reason}")]
    FetchHeaders {
        /// The set.
        set: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// A header set is not here, and fetching is forbidden.
    #[error(
        "the header set `{set}` is not here, and --offline (JITC_OFFLINE) forbids fetching it: run \
         `jitc toolchain install --headers {set}` where there is a network and copy the file {file}"
    )]
    OfflineHeaders {
        /// The set.
        set: &'static str,
        /// Where it would be.
        file: String,
    },
    /// Of the wheels of a header set some were not named.
    #[error("of the header set `{set}` these wheels are missing: {missing}")]
    MissingWheels {
        /// The set.
        set: &'static str,
        /// Names and versions.
        missing: String,
    },
    /// A wheel that is not one of the pinned ones.
    #[error("{path}: SHA-256 is {actual}, which is that of no pinned wheel")]
    UnknownWheel {
        /// The wheel.
        path: PathBuf,
        /// What it is.
        actual: String,
    },
    /// There is no header set of this name and content.
    #[error("the header set `{set}` ({identity}) is not here")]
    NoHeaderSet {
        /// The set.
        set: String,
        /// Its version, if it has one, and digest.
        identity: String,
    },
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
    /// A file of the managed toolchain is not what is pinned.
    #[error(
        "{path} is not the pinned file and is not used: its SHA-256 is {actual}, pinned is {expected}; \
         `jitc toolchain install` puts the pinned one back"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What it is.
        actual: String,
        /// What it should be.
        expected: String,
    },
    /// Others could have written the managed toolchain.
    #[error("{path} is not trusted: {reason}; {remedy}")]
    Untrusted {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A file is another one than a moment ago.
    #[error("{path} was changed while it was in use: try again when nobody writes to it")]
    Written {
        /// The file.
        path: PathBuf,
    },
    /// Another process is at work in the managed folder.
    #[error("another process is installing into {path}: try again when it has ended")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// This process is ending and installs no more.
    #[error("the process is ending")]
    Ending,
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
#[non_exhaustive]
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

impl Toolchain {
    /// Whether the files are still those that were identified: asked just before they
    /// are opened.
    pub fn confirm(&self) -> Result<(), ToolchainError> {
        let now = identify(&self.nvrtc, &self.builtins)?;
        for (path, now, then) in [
            (&self.nvrtc, now.nvrtc, &self.identity.nvrtc),
            (&self.builtins, now.builtins, &self.identity.builtins),
        ] {
            if now != *then {
                return Err(ToolchainError::Written { path: path.clone() });
            }
        }
        Ok(())
    }
}

/// The version of the pip that a fetch would run, as it says it; `None` where there is
/// no python3 with pip.
#[must_use]
pub fn pip_version() -> Option<String> {
    pip::Pip::default().version()
}
