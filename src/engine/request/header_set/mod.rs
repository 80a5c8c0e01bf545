//! Header sets: trees of headers that the compiler is given whole, from memory.
//!
//! Invariant: a set is what its digest says, and the digest is of the very bytes that the
//! compiler reads. So a key has one field a set, an entry names it, and includes that are
//! computed, asked for (`__has_include`) or relative need nobody who scans for them.

mod includes;
mod pinned;
mod tree;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

pub(crate) use includes::{included, name_in_full};
pub use pinned::{PINNED_SETS, PinnedSet};
pub(crate) use tree::Walk;

/// The name of the set of small C and C++ headers that comes with jitc.
pub const STANDARD: &str = "std";

static STANDARD_FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/src/engine/request/header_set/std");

/// Every header of a set by its name: a name and a text each, both ended by a NUL, names
/// ascending. Its digest is the SHA-256 of these bytes; the compiler reads them in place.
#[derive(Debug)]
pub struct HeaderSet {
    bytes: Vec<u8>,
    /// Where each name and each text begins.
    files: Vec<(usize, usize)>,
    digest: String,
}

/// A set that a family uses: its name, and the folder that it lies in, below that of the
/// family, where it is one of the family's own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetName {
    /// By this name the family, its key and its messages know it.
    pub name: String,
    /// Relative to the folder of templates, with `/` between its parts.
    pub folder: Option<String>,
}

/// A set that a compile is given: what the key says of it and, as soon as they are needed,
/// its headers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SetUse {
    /// The name that the family gives it.
    pub name: String,
    /// The digest, after the version where it has one.
    pub identity: String,
    /// Of a pinned one nothing, until a compile reads it.
    pub set: Option<Arc<HeaderSet>>,
}

impl PartialEq for SetUse {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.identity) == (&other.name, &other.identity)
    }
}

impl Eq for SetUse {}

/// Why bytes or files are no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderSetError {
    /// A file that no compiler could be given.
    #[error("`{0}` has a NUL byte, so it is not a header: expected a folder of headers alone")]
    Nul(String),
    /// Not what was written.
    #[error("it is cut off, or no header set")]
    Broken,
    /// Nothing in it.
    #[error("there is no file in it: expected headers")]
    Empty,
}

impl HeaderSet {
    /// A set of texts by name. A quoted include of a header that lies beside the including
    /// one is named in full; everything else stays as it is.
    pub fn from_texts(texts: &BTreeMap<String, String>) -> Result<Self, HeaderSetError> {
        let mut bytes = Vec::with_capacity(texts.iter().map(|(n, t)| n.len() + t.len() + 2).sum());
        for (name, text) in texts {
            let text = name_in_full(name, text, |name| texts.contains_key(name));
            if name.contains('\0') || text.contains('\0') {
                return Err(HeaderSetError::Nul(name.escape_default().to_string()));
            }
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        let digest = hex::encode(Sha256::digest(&bytes));
        Self::split(bytes, digest)
    }

    /// The set of these [`bytes`](Self::bytes).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, HeaderSetError> {
        let digest = hex::encode(Sha256::digest(&bytes));
        Self::split(bytes, digest)
    }

    /// All files of a folder, at every depth and whatever their names end in, but for
    /// those whose names begin with a dot.
    ///
    /// # Errors
    /// One that names the file or folder: it is of another kind, too large, not UTF-8, or
    /// has a NUL byte.
    pub fn read(folder: &Path) -> std::io::Result<Self> {
        let mut walk = Walk::below(folder);
        walk.tree(folder, "it", &|name, _| !name.starts_with('.'))?;
        Self::from_texts(&walk.files).map_err(|e| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("{}: {e}", folder.display()),
            )
        })
    }

    /// The set `std`: `stdint.h`, `cassert`, `type_traits` and their like, for device code.
    /// Those of C++ take what they have from `cuda/std`.
    #[must_use]
    pub fn standard() -> &'static Arc<Self> {
        static SET: LazyLock<Arc<HeaderSet>> = LazyLock::new(|| {
            let below = STANDARD_FILES.dirs().flat_map(Dir::files);
            let files = STANDARD_FILES.files().chain(below);
            let texts = files.filter_map(|file| {
                Some((file.path().to_str()?.to_owned(), file.contents_utf8()?.to_owned()))
            });
            // A test reads it: it is none of the things that make an error.
            let empty = || HeaderSet {
                bytes: Vec::new(),
                files: Vec::new(),
                digest: String::new(),
            };
            Arc::new(HeaderSet::from_texts(&texts.collect()).unwrap_or_else(|_| empty()))
        });
        &SET
    }

    /// Cuts bytes into names and texts.
    fn split(bytes: Vec<u8>, digest: String) -> Result<Self, HeaderSetError> {
        let mut files = Vec::new();
        let mut at = 0;
        let end_of = |from: usize| {
            let text = CStr::from_bytes_until_nul(bytes.get(from..)?).ok()?;
            Some(from + text.to_bytes().len() + 1)
        };
        while at < bytes.len() {
            let text = end_of(at).ok_or(HeaderSetError::Broken)?;
            let next = end_of(text).ok_or(HeaderSetError::Broken)?;
            files.push((at, text));
            at = next;
        }
        if files.is_empty() {
            return Err(HeaderSetError::Empty);
        }
        Ok(Self { bytes, files, digest })
    }

    /// The SHA-256 of its bytes, 64 lower-case hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// All of it, as it is hashed, kept and sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Never: a set has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Names and texts, names ascending.
    pub fn files(&self) -> impl Iterator<Item = (&CStr, &CStr)> {
        let text = |at: usize| CStr::from_bytes_until_nul(&self.bytes[at..]).unwrap_or_default();
        self.files.iter().map(move |(name, at)| (text(*name), text(*at)))
    }

    /// Whether there is a header of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let found = self.files.binary_search_by(|(at, text)| {
            let held = &self.bytes[*at..text.saturating_sub(1)];
            held.cmp(name.as_bytes())
        });
        found.is_ok()
    }
}

impl SetUse {
    /// A set whose headers are at hand; its digest is what a key says of it.
    #[must_use]
    pub fn of(name: &str, set: Arc<HeaderSet>) -> Self {
        Self {
            name: name.to_owned(),
            identity: set.digest().to_owned(),
            set: Some(set),
        }
    }

    /// A pinned set, known before it is read or even fetched.
    #[must_use]
    pub fn pinned(pinned: &PinnedSet) -> Self {
        Self {
            name: pinned.name.to_owned(),
            identity: pinned.identity(),
            set: None,
        }
    }
}

#[cfg(test)]
mod tests;
