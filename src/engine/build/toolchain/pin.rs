//! The one NVRTC that jitc installs: its version, wheel and files, by SHA-256.
//!
//! Invariant: the pinned identity is that of exactly these bytes. It stands in
//! keys, so it is never changed: another compiler is another pin.

use super::ToolchainError;
use super::contents::Contents;
use crate::engine::request::target::ToolchainIdentity;

/// The version of NVRTC that jitc installs where none is found.
pub const PINNED_VERSION: &str = "13.0.88";

/// The pinned libnvrtc, as its wheel names it.
pub(super) const NVRTC_FILE: &str = "libnvrtc.so.13";
/// The pinned builtins; the name is the one that libnvrtc asks for.
pub(super) const BUILTINS_FILE: &str = "libnvrtc-builtins.so.13.0";

/// What is pinned for one kind of machine.
#[derive(Debug)]
pub(super) struct Pin<'a> {
    /// SHA-256 of the wheel, lower-case hex.
    pub(super) wheel_sha256: &'a str,
    /// SHA-256 of the two files in it.
    pub(super) contents: Contents<&'a str>,
    /// What keys say of the two files: their build-ids, where they have one.
    pub(super) nvrtc: &'a str,
    pub(super) builtins: &'a str,
}

const X86_64: Pin<'_> = Pin {
    wheel_sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    contents: Contents {
        nvrtc: "a49e67e8e74590f1e98de55c39c6287efd3f59e3c3797464d7bbe0fe01349b11",
        builtins: "91dcd944d01da9c0f08fff5d779db136a47f6d62bdb63bae900d2f481e92c3a2",
    },
    nvrtc: "build-id:65be0db342ad51a06876e71e210bccc5aa8322cf",
    builtins: "build-id:08d17e32084d3171cc6e296843a5e09fbd20a331",
};

/// The builtins of this wheel have no build-id.
const AARCH64: Pin<'_> = Pin {
    wheel_sha256: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
    contents: Contents {
        nvrtc: "64db9c3fc128f4a57a22c314fda08831a8e3a725d439a70076a0fb98f7bea1b7",
        builtins: "84f1c5031bfe1146375b367b2c7fb8d31ea00430be7172177eeb5d04ab813b69",
    },
    nvrtc: "build-id:31b78904841e67069f791b61c43083f2a983fffb",
    builtins: "sha256:84f1c5031bfe1146375b367b2c7fb8d31ea00430be7172177eeb5d04ab813b69",
};

impl Pin<'_> {
    pub(super) fn identity(&self) -> ToolchainIdentity {
        ToolchainIdentity {
            version: PINNED_VERSION.into(),
            nvrtc: self.nvrtc.into(),
            builtins: self.builtins.into(),
        }
    }

    /// Whether files of these contents are the pinned ones.
    pub(super) fn is(&self, contents: &Contents<String>) -> bool {
        contents.nvrtc == self.contents.nvrtc && contents.builtins == self.contents.builtins
    }
}

pub(super) fn pin() -> Result<&'static Pin<'static>, ToolchainError> {
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
