//! What an entry says of itself, and that it says what its key says.
//!
//! Invariant: a verified manifest differs nowhere from its preimage, and its preimage
//! hashes to its key. Nothing in it varies between two builds of one key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::Fault;
use super::layout::{FORMAT, Kind};
use crate::engine::build::artifact::Resources;
use crate::engine::build::key::{CacheKey, ENCODED_ALIKE_SINCE, KEY_VERSION, Preimage, digest, tag};
use crate::engine::request::target::{Arch, ToolchainIdentity};

/// Everything that an entry says of itself and that digests and receipts cover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// What the code is.
    pub kind: Kind,
    /// The key, again: an entry filed under another key is no hit.
    pub key: CacheKey,
    /// The family's name.
    pub family: String,
    /// Its entry points, in declared order.
    pub entries: Vec<String>,
    /// Constants by name, as people write them.
    pub constants: BTreeMap<String, Value>,
    /// The arch.
    pub arch: Arch,
    /// Compiler options, in order.
    pub options: Vec<String>,
    /// The compiler.
    pub toolchain: ToolchainIdentity,
    /// What each entry point uses.
    pub resources: Vec<Resources>,
    /// Everything that the key covers.
    pub preimage: Preimage,
    /// The machine code.
    pub code: Section,
    /// The rendered source.
    pub source: Section,
    /// The compile log.
    pub log: Section,
    /// The headers that the compiler was given, sorted by name: kept once for all entries.
    pub headers: Vec<HeaderText>,
}

/// Length and digest of one part of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Section {
    /// Its length, bytes.
    pub length: u64,
    /// Hex SHA-256 of its bytes.
    pub sha256: String,
}

/// One header of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HeaderText {
    /// The name by which it is included.
    pub name: String,
    /// Its length, bytes.
    pub length: u64,
    /// Hex SHA-256 of its text, under which it is kept.
    pub sha256: String,
}

impl Section {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            sha256: digest(bytes),
        }
    }

    /// Whether these bytes are the ones; `part` names them.
    pub(super) fn verify(&self, part: &str, bytes: &[u8]) -> Result<(), Fault> {
        verify(part, self.length, &self.sha256, bytes)
    }
}

impl HeaderText {
    /// Whether this text is the one.
    pub(super) fn verify(&self, bytes: &[u8]) -> Result<(), Fault> {
        verify(&format!("header {}", self.name), self.length, &self.sha256, bytes)
    }
}

fn verify(part: &str, length: u64, sha256: &str, bytes: &[u8]) -> Result<(), Fault> {
    if length != bytes.len() as u64 {
        return Err(Fault::Length {
            file: part.to_owned(),
            expected: length,
            found: bytes.len() as u64,
        });
    }
    let mut found = [0; 64];
    // 32 bytes always fill 64 digits.
    let _ = hex::encode_to_slice(Sha256::digest(bytes), &mut found);
    if sha256.as_bytes() != found.as_slice() {
        return Err(Fault::Digest {
            file: part.to_owned(),
        });
    }
    Ok(())
}

impl Manifest {
    /// Its bytes: equal manifests give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in a manifest can fail to be written: its maps have text keys.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a manifest of this format that is bound to its preimage and its key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| unreadable(bytes, &e))?;
        if manifest.format != FORMAT {
            return Err(Fault::Format(manifest.format));
        }
        manifest.bind()?;
        Ok(manifest)
    }

    /// As [`Manifest::from_bytes`], of the key under which it was found.
    pub(super) fn of_key(key: &CacheKey, bytes: &[u8]) -> Result<Self, Fault> {
        let manifest = Self::from_bytes(bytes)?;
        if manifest.key != *key {
            return Err(Fault::Key(manifest.key));
        }
        Ok(manifest)
    }

    /// Bytes of all parts, the manifest's own and shared headers aside.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        let parts = [&self.code, &self.source, &self.log];
        parts.iter().fold(0, |sum, part| sum.saturating_add(part.length))
    }

    /// Everything that the manifest and the preimage both say is the same, and the
    /// preimage is the key's.
    fn bind(&self) -> Result<(), Fault> {
        let preimage = &self.preimage;
        let version = preimage.value(tag::KEY_VERSION);
        let version = version.ok_or(Fault::KeyVersion(String::new()))?;
        let known = |v: &u32| (ENCODED_ALIKE_SINCE..=KEY_VERSION).contains(v);
        if !version.parse().is_ok_and(|v: u32| known(&v)) {
            return Err(Fault::KeyVersion(version.to_owned()));
        }
        if preimage.key() != self.key {
            return Err(Fault::Preimage);
        }
        let is = |tag, value: &str| values_of(preimage, tag).eq([("", value)]);
        let all = |tag, list: &[String]| values_of(preimage, tag).eq(list.iter().map(|v| ("", v.as_str())));
        let constants = values_of(preimage, tag::CONSTANT).count() == self.constants.len()
            && values_of(preimage, tag::CONSTANT)
                .zip(&self.constants)
                .all(|((name, literal), (ours, value))| name == ours && is_literal_of(literal, value));
        let headers = self.headers.iter().map(|h| (h.name.as_str(), h.sha256.as_str()));
        let bound = [
            ("family", is(tag::FAMILY, &self.family)),
            ("entries", all(tag::ENTRY, &self.entries)),
            ("constants", constants),
            ("source", is(tag::SOURCE, &self.source.sha256)),
            ("headers", values_of(preimage, tag::HEADER).eq(headers)),
            ("options", all(tag::OPTION, &self.options)),
            ("arch", is(tag::ARCH, &self.arch.to_string())),
            ("toolchain", is(tag::NVRTC, &self.toolchain.nvrtc)),
            ("toolchain", is(tag::BUILTINS, &self.toolchain.builtins)),
        ];
        match bound.iter().find(|(_, holds)| !holds) {
            Some((member, _)) => Err(Fault::Unbound(member)),
            None => Ok(()),
        }
    }
}

/// Names and values of a preimage's fields of one tag.
fn values_of<'a>(preimage: &'a Preimage, tag: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let fields = preimage.fields.iter().filter(move |f| f.tag == tag);
    fields.map(|f| (f.name.as_str(), f.value.as_str()))
}

/// Whether a C++ literal is what the engine writes for a constant of this value.
fn is_literal_of(literal: &str, value: &Value) -> bool {
    match value {
        Value::Bool(value) => literal == value.to_string(),
        Value::String(name) => literal
            .strip_prefix("::")
            .and_then(|rest| rest.strip_suffix(name.as_str()))
            .is_some_and(|scope| scope.ends_with("::")),
        Value::Number(number) => match (number.as_u64(), literal.strip_suffix('f')) {
            (Some(integer), _) => literal == format!("{integer}u"),
            (None, Some(float)) => float.parse::<f32>().ok().map(f64::from) == number.as_f64(),
            (None, None) => false,
        },
        _ => false,
    }
}

/// A later format may have other members: say so, rather than "no such member".
fn unreadable(bytes: &[u8], error: &serde_json::Error) -> Fault {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    match serde_json::from_slice::<FormatOnly>(bytes) {
        Ok(FormatOnly { format }) if format != FORMAT => Fault::Format(format),
        _ => Fault::Unparsable(error.to_string()),
    }
}
