//! Everything known of a compile before it happens: what the cache is asked for.
//!
//! Invariant: the key is that of the preimage; nothing of a request can be changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::key::{CacheKey, Preimage};
use crate::engine::request::target::{Arch, ToolchainIdentity};

/// What a [`CompileRequest`] is made of.
#[derive(Debug, Clone)]
pub struct RequestParts {
    /// Everything that the key covers.
    pub preimage: Preimage,
    /// Name of the family.
    pub family: String,
    /// Constants by name, as people write them.
    pub constants: BTreeMap<String, serde_json::Value>,
    /// What is compiled for.
    pub arch: Arch,
    /// Compiler options, in order.
    pub options: Vec<String>,
    /// The compiler.
    pub toolchain: ToolchainIdentity,
    /// The rendered source.
    pub source: String,
    /// Names and texts of the in-memory headers.
    pub headers: Vec<(String, Arc<str>)>,
}

/// A compile that is asked for; kept beside its artifact.
#[derive(Debug, Clone)]
pub struct CompileRequest {
    key: CacheKey,
    parts: RequestParts,
}

impl CompileRequest {
    /// Works out the key.
    #[must_use]
    pub fn new(parts: RequestParts) -> Self {
        Self {
            key: parts.preimage.key(),
            parts,
        }
    }

    /// Key of the request.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Everything that the key covers.
    #[must_use]
    pub fn preimage(&self) -> &Preimage {
        &self.parts.preimage
    }

    /// Name of the family.
    #[must_use]
    pub fn family(&self) -> &str {
        &self.parts.family
    }

    /// Constants by name, as people write them.
    #[must_use]
    pub fn constants(&self) -> &BTreeMap<String, serde_json::Value> {
        &self.parts.constants
    }

    /// What is compiled for.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.parts.arch
    }

    /// Compiler options, in order.
    #[must_use]
    pub fn options(&self) -> &[String] {
        &self.parts.options
    }

    /// The compiler.
    #[must_use]
    pub fn toolchain(&self) -> &ToolchainIdentity {
        &self.parts.toolchain
    }

    /// The rendered source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.parts.source
    }

    /// Names and texts of the in-memory headers.
    #[must_use]
    pub fn headers(&self) -> &[(String, Arc<str>)] {
        &self.parts.headers
    }
}
