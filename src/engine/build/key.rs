//! The compile key: SHA-256 over everything that the compiler sees. Pure.
//!
//! Invariant: the key depends on nothing else. Never an absolute path, a
//! pointer, a run-time value, an mtime or the host; so equal inputs give equal
//! keys on another machine, in another folder, for another user.
//!
//! # Encoding
//! The hash runs over the fields of a [`Preimage`] in order, each as
//! `u8 len(tag), tag, u64le len(name), name, u64le len(value), value`.
//! Long texts (source, headers) stand in the preimage as the hex SHA-256 of
//! their bytes, so that a preimage stays small enough to keep in every entry.
//!
//! # Log of `KEY_VERSION`
//! * 1: key version, family, entry names, constants, rendered source, headers,
//!   options, arch, NVRTC and builtins identity, `NVRTC_*_FLAGS` in force.
//! * 2: the same fields. `--no-source-include` is among the options, and a quoted include
//!   of a header beside the including one is named in full: an entry of version 1 may hold
//!   what once lay in somebody's working folder. Of a family's entry points those are
//!   covered that the spec has (`when`); a family that was renamed has other keys.
//! * 3: the same fields. The compiler's file system is closed and its clock stands still: an
//!   entry of version 2 may hold what a path named, or when it was made. A compiler that is
//!   not the pinned one is known by the SHA-256 of its files, and no longer by a build-id.
//!   A family that uses header sets or names entry points in C++, which none did before,
//!   has a field for each.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::request::target::{Arch, ToolchainIdentity};

/// Bumped by every change of what a key covers or how it is encoded; the log
/// is in the module's documentation.
pub const KEY_VERSION: u32 = 3;

/// The first version whose preimages are encoded as today's: keys of these can be checked.
pub const ENCODED_ALIKE_SINCE: u32 = 1;

/// A compile key: 32 bytes, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CacheKey([u8; 32]);

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key: expected 64 lower-case hex digits")]
pub struct KeyError(String);

impl CacheKey {
    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 16 hex digits, as logs and tables show it.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..8])
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({}…)", self.short())
    }
}

impl FromStr for CacheKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if lower => Ok(Self(bytes)),
            _ => Err(KeyError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for CacheKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<CacheKey> for String {
    fn from(key: CacheKey) -> Self {
        key.hex()
    }
}

/// One component of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Field {
    /// What kind of component: one of the names in [`tag`].
    pub tag: String,
    /// Which one, where a tag has several: a constant's or a header's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The value, or the hex SHA-256 of a long one.
    pub value: String,
}

/// The tags of a preimage's fields, in the order in which they come.
pub mod tag {
    /// [`super::KEY_VERSION`].
    pub const KEY_VERSION: &str = "key_version";
    /// The family's name.
    pub const FAMILY: &str = "family";
    /// An entry point's name.
    pub const ENTRY: &str = "entry";
    /// The C++ that names an entry point, where it has no name of C.
    pub const EXPRESSION: &str = "expression";
    /// A constant; the value is its C++ literal.
    pub const CONSTANT: &str = "constant";
    /// Digest of the rendered source.
    pub const SOURCE: &str = "source";
    /// Digest of one header that the compiler is given.
    pub const HEADER: &str = "header";
    /// A header set that the compiler is given whole: its version, if it has one, and digest.
    pub const HEADER_SET: &str = "header_set";
    /// One compiler option.
    pub const OPTION: &str = "option";
    /// The arch.
    pub const ARCH: &str = "arch";
    /// Identity of libnvrtc.
    pub const NVRTC: &str = "nvrtc";
    /// Identity of libnvrtc-builtins.
    pub const BUILTINS: &str = "nvrtc_builtins";
    /// A variable of the environment from which NVRTC itself takes options.
    pub const COMPILER_ENV: &str = "compiler_env";
}

/// Everything that a key covers, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Preimage {
    /// The components.
    pub fields: Vec<Field>,
}

/// What the compiler sees, as the preimage needs it.
#[derive(Debug, Clone)]
pub struct KeyInputs<'a> {
    /// The family's name.
    pub family: &'a str,
    /// Its entry points, in declared order.
    pub entries: Vec<&'a str>,
    /// Constants by name (sorted), with their C++ literals.
    pub constants: Vec<(&'a str, String)>,
    /// The rendered source.
    pub source: &'a str,
    /// Names and texts of the headers handed to the compiler, sorted by name.
    pub headers: &'a [(String, Arc<str>)],
    /// Names and identities of header sets, in the order in which they are looked through.
    pub sets: Vec<(&'a str, &'a str)>,
    /// Entry points that C++ names: the declared name, and the expression.
    pub expressions: Vec<(&'a str, &'a str)>,
    /// Compiler options, in order.
    pub options: &'a [String],
    /// The arch.
    pub arch: Arch,
    /// The compiler.
    pub toolchain: &'a ToolchainIdentity,
    /// Variables that NVRTC reads options from, where they are set.
    pub compiler_env: &'a [(String, String)],
}

impl Preimage {
    /// The preimage of a compile.
    #[must_use]
    pub fn new(inputs: &KeyInputs<'_>) -> Self {
        let mut fields = Vec::new();
        let mut push = |tag: &str, name: &str, value: String| {
            fields.push(Field {
                tag: tag.to_owned(),
                name: name.to_owned(),
                value,
            });
        };
        push(tag::KEY_VERSION, "", KEY_VERSION.to_string());
        push(tag::FAMILY, "", inputs.family.to_owned());
        for entry in &inputs.entries {
            push(tag::ENTRY, "", (*entry).to_owned());
        }
        for (entry, expression) in &inputs.expressions {
            push(tag::EXPRESSION, entry, (*expression).to_owned());
        }
        for (name, literal) in &inputs.constants {
            push(tag::CONSTANT, name, literal.clone());
        }
        push(tag::SOURCE, "", digest(inputs.source.as_bytes()));
        for (name, text) in inputs.headers {
            push(tag::HEADER, name, digest(text.as_bytes()));
        }
        for (name, identity) in &inputs.sets {
            push(tag::HEADER_SET, name, (*identity).to_owned());
        }
        for option in inputs.options {
            push(tag::OPTION, "", option.clone());
        }
        push(tag::ARCH, "", inputs.arch.to_string());
        push(tag::NVRTC, "", inputs.toolchain.nvrtc.clone());
        push(tag::BUILTINS, "", inputs.toolchain.builtins.clone());
        for (name, value) in inputs.compiler_env {
            push(tag::COMPILER_ENV, name, value.clone());
        }
        Self { fields }
    }

    /// The key: SHA-256 over the encoding that the module's page describes.
    #[must_use]
    pub fn key(&self) -> CacheKey {
        let mut hash = Sha256::new();
        for field in &self.fields {
            // Tags are our own short words, so one byte of length is enough; a
            // foreign preimage with a longer tag cannot equal one of ours.
            hash.update([u8::try_from(field.tag.len()).unwrap_or(u8::MAX)]);
            hash.update(field.tag.as_bytes());
            for text in [&field.name, &field.value] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        CacheKey(hash.finalize().into())
    }

    /// The value of the first field with this tag.
    #[must_use]
    pub fn value(&self, tag: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|f| f.tag == tag)
            .map(|f| f.value.as_str())
    }
}

/// Hex SHA-256.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> ToolchainIdentity {
        ToolchainIdentity {
            version: "13.0.88".into(),
            nvrtc: "build-id:aa".into(),
            builtins: "build-id:bb".into(),
        }
    }

    // The defaults are leaked so that a test may mix in borrows of its own.
    fn key_of<'a>(change: impl FnOnce(&mut KeyInputs<'a>)) -> CacheKey {
        let mut inputs = KeyInputs {
            family: "f",
            entries: vec!["e"],
            constants: vec![("n", "8u".into())],
            source: "int s;",
            headers: Box::leak(Box::new([("a.cuh".to_owned(), "int a;".into())])),
            sets: vec![("s", "1 aa"), ("t", "bb")],
            expressions: vec![("e", "f<1>")],
            options: Box::leak(Box::new(["--std=c++17".to_owned()])),
            arch: "sm_80".parse().expect("arch"),
            toolchain: Box::leak(Box::new(identity())),
            compiler_env: &[],
        };
        change(&mut inputs);
        Preimage::new(&inputs).key()
    }

    #[test]
    fn every_component_alone_changes_the_key() {
        let other_toolchains = [
            ToolchainIdentity {
                nvrtc: "build-id:ab".into(),
                ..identity()
            },
            ToolchainIdentity {
                builtins: "build-id:bc".into(),
                ..identity()
            },
        ];
        let renamed = [("b.cuh".to_owned(), "int a;".into())];
        let edited = [("a.cuh".to_owned(), "int b;".into())];
        let more = ["--std=c++17".to_owned(), "--fmad=false".to_owned()];
        let swapped = ["--fmad=false".to_owned(), "--std=c++17".to_owned()];
        let env = [("NVRTC_APPEND_FLAGS".to_owned(), "-G".to_owned())];
        let keys = [
            key_of(|_| {}),
            key_of(|i| i.family = "g"),
            key_of(|i| i.entries = vec!["e", "e2"]),
            key_of(|i| i.constants = vec![("n", "9u".into())]),
            key_of(|i| i.constants = vec![("m", "8u".into())]),
            key_of(|i| i.source = "int t;"),
            key_of(|i| i.headers = &renamed),
            key_of(|i| i.headers = &edited),
            key_of(|i| i.sets = vec![("s", "1 aa"), ("t", "bc")]),
            key_of(|i| i.sets = vec![("s", "2 aa"), ("t", "bb")]),
            key_of(|i| i.sets = vec![("u", "1 aa"), ("t", "bb")]),
            key_of(|i| i.sets = vec![("t", "bb"), ("s", "1 aa")]),
            key_of(|i| i.sets = vec![("s", "1 aa")]),
            key_of(|i| i.expressions = vec![("e", "f<2>")]),
            key_of(|i| i.expressions = vec![("g", "f<1>")]),
            key_of(|i| i.expressions = Vec::new()),
            key_of(|i| i.options = &more),
            key_of(|i| i.options = &swapped),
            key_of(|i| i.options = &[]),
            key_of(|i| i.arch = "sm_90a".parse().expect("arch")),
            key_of(|i| i.toolchain = &other_toolchains[0]),
            key_of(|i| i.toolchain = &other_toolchains[1]),
            key_of(|i| i.compiler_env = &env),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn the_version_number_is_for_people_and_not_in_the_key() {
        let same = ToolchainIdentity {
            version: "13.0".into(),
            ..identity()
        };
        assert_eq!(key_of(|_| {}), key_of(|i| i.toolchain = &same));
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        let ab = Preimage {
            fields: vec![field("t", "a", "b")],
        };
        let ba = Preimage {
            fields: vec![field("t", "ab", "")],
        };
        assert_ne!(ab.key(), ba.key());
    }

    #[test]
    fn the_encoding_is_fixed() {
        // Worked out apart from this code, with sha256sum over the bytes
        // 01 't' 01 00.. 'a' 01 00.. 'b'.
        let preimage = Preimage {
            fields: vec![field("t", "a", "b")],
        };
        assert_eq!(preimage.key().hex(), FIXED);
    }

    const FIXED: &str = "eb054ba521503f844284956af35012ca8e5af4bd577aecdad0e91dcc86cdd258";

    fn field(tag: &str, name: &str, value: &str) -> Field {
        Field {
            tag: tag.into(),
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn only_64_lower_case_hex_digits_are_a_key() {
        let key = key_of(|_| {});
        assert_eq!(key.hex().parse::<CacheKey>(), Ok(key));
        assert!(key.hex().to_uppercase().parse::<CacheKey>().is_err());
        assert!(key.short().parse::<CacheKey>().is_err());
    }

    #[test]
    fn a_key_is_its_bytes_and_is_shown_by_its_first_digits() {
        let key = CacheKey::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap_or(0)));
        assert_eq!(key.as_bytes()[..4], [0, 1, 2, 3]);
        assert_eq!(key.short(), "0001020304050607");
        assert_eq!(format!("{key:?}"), "CacheKey(0001020304050607…)");
        assert_eq!(key.to_string(), key.hex());
    }
}
