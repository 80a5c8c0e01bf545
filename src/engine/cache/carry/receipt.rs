//! Receipts: what was asked for, byte for byte, so that it can be insisted on.
//!
//! Invariant: fail closed. What a receipt does not list, or lists with other
//! bytes, is refused; nothing is compiled in its place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::build::key::CacheKey;
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::lookup::Cache;
use crate::engine::cache::store::entry::Entry;
use crate::engine::cache::{Fetched, Provenance};
use crate::engine::config::why_not_ours;
use crate::engine::regular_file::{self, MAX_RECORDS};
use crate::engine::request::target::{Arch, ToolchainIdentity};
use crate::engine::sign::{Admission, Require, SecretKey, SignatureFault, Statement, add_signature};

/// The number of the receipt format.
const FORMAT: u32 = 2;

/// What was asked for, key by key, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Receipt {
    format: u32,
    /// The jitc that wrote it.
    pub jitc: String,
    /// The compilers that made what it lists, each once; older receipts name none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub toolchains: Vec<ToolchainIdentity>,
    /// What was asked, in the words of the asker.
    pub asked: Vec<String>,
    /// One line for each key.
    pub entries: BTreeMap<CacheKey, ReceiptLine>,
    /// Signatures of all else, as [`SecretKey::sign`] writes them; nothing is known of them
    /// until a trusted key verifies one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

/// One key of a receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ReceiptLine {
    /// The family's name.
    pub family: String,
    /// Constants by name, as people write them.
    pub constants: BTreeMap<String, serde_json::Value>,
    /// The arch.
    pub arch: Arch,
    /// How it ended.
    pub outcome: Outcome,
    /// What the entry is; left out where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Listed>,
}

/// What a receipt says of an entry: hex SHA-256 of manifest and code. The manifest has the
/// digests of all else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Listed {
    /// Of the manifest.
    pub manifest: String,
    /// Of the machine code.
    pub code: String,
}

/// How a key of a receipt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An entry is kept, found or built: which of them differs between two machines.
    Kept,
    /// It was built, and not kept: why.
    BuiltUncached(String),
    /// It could not be built: why.
    Failed(String),
}

/// Why a receipt cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It is not what a receipt looks like.
    #[error("not a receipt: {0}")]
    Unparsable(#[from] serde_json::Error),
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A trusted key's signature is demanded of it.
    #[error(
        "{whose}, and {fault}: sign it with `jitc sign sign`, or allow it with JITC_REQUIRE=receipt=none"
    )]
    Signature {
        /// Why it must be signed.
        whose: Box<str>,
        /// Why it is not taken as signed.
        fault: Box<SignatureFault>,
    },
    /// Another jitc wrote it.
    #[error(
        "receipt format {0} is not known here, where it is {FORMAT}: write a new one with `jitc warm --receipt`"
    )]
    Format(u32),
}

/// How a cache differs from a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Drift {
    /// A key that the receipt does not list.
    #[error("{0} is not in the receipt")]
    NotListed(CacheKey),
    /// A key that the receipt does not list, as it was written when the family had another
    /// name, which is in every key.
    #[error(
        "{key} is not in the receipt, which was written when the family was called `{former}`: write a new one \
         with `jitc warm --receipt`"
    )]
    FormerName {
        /// The key.
        key: CacheKey,
        /// The name that the receipt has.
        former: String,
    },
    /// A key that the receipt lists without an entry.
    #[error("{0} has no entry in the receipt: it failed or was not kept")]
    NotKept(CacheKey),
    /// No tier has a good entry.
    #[error("{0} is in the receipt but not in the cache")]
    Missing(CacheKey),
    /// A part has other bytes.
    #[error("the {file} of {key} is not what the receipt lists")]
    File {
        /// Key of the entry.
        key: CacheKey,
        /// Which part: `code`, or `manifest` for all else.
        file: String,
    },
}

impl Drift {
    /// Key of the entry that differs.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        match self {
            Self::NotListed(key)
            | Self::NotKept(key)
            | Self::Missing(key)
            | Self::FormerName { key, .. }
            | Self::File { key, .. } => key,
        }
    }

    /// Which part has other bytes, if that is it.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::File { file, .. } => Some(file),
            _ => None,
        }
    }
}

impl Receipt {
    /// An empty receipt for what was asked.
    #[must_use]
    pub fn new(asked: Vec<String>) -> Self {
        Self {
            format: FORMAT,
            jitc: env!("CARGO_PKG_VERSION").to_owned(),
            toolchains: Vec::new(),
            asked,
            entries: BTreeMap::new(),
            signatures: Vec::new(),
        }
    }

    /// What its signatures are over: all of it but themselves, as JSON without spaces.
    #[must_use]
    pub fn statement(&self) -> Statement {
        let unsigned = Self {
            signatures: Vec::new(),
            ..self.clone()
        };
        // Keys of its maps are text, so this cannot fail.
        let bytes = serde_json::to_vec(&unsigned).unwrap_or_default();
        Statement::receipt(&Sha256::digest(bytes).into())
    }

    /// Signs it as it is now, instead of an earlier signature of the key's name.
    pub fn sign(&mut self, key: &SecretKey) -> Result<(), SignatureFault> {
        let statement = self.statement();
        add_signature(&mut self.signatures, key, &statement)
    }

    /// Reads a receipt's file as a place demands: one that somebody else may have written
    /// must be signed once a key is trusted.
    pub fn read(path: &Path, admission: &Admission) -> Result<Self, ReceiptError> {
        let file = regular_file::open(path)?;
        let metadata = file.metadata()?;
        let receipt = Self::from_bytes(&regular_file::read_opened(file, MAX_RECORDS)?)?;
        let whose = match admission.in_force() {
            Require::None => return Ok(receipt),
            Require::Signed => "it must be signed".to_owned(),
            Require::Others => match why_not_ours(path, &metadata)? {
                None => return Ok(receipt),
                Some(reason) => format!("it {reason}, so it must be signed"),
            },
        };
        match admission.verify(&receipt.statement(), &receipt.signatures) {
            Ok(()) => Ok(receipt),
            Err(fault) => Err(ReceiptError::Signature {
                whose: whose.into(),
                fault: fault.into(),
            }),
        }
    }

    /// Adds how a request ended, with what the cache now holds of it.
    pub fn add(&mut self, cache: &Cache, request: &CompileRequest, provenance: &Provenance) {
        let kept = cache.peek(request.key());
        let outcome = match provenance {
            Provenance::Hit(_) | Provenance::Compatible { .. } | Provenance::Built => Outcome::Kept,
            Provenance::BuiltUncached(reason) => Outcome::BuiltUncached(reason.clone()),
        };
        if kept.is_some() && !self.toolchains.contains(request.toolchain()) {
            self.toolchains.push(request.toolchain().clone());
        }
        self.insert(request, outcome, kept.as_ref().map(listed_of));
    }

    /// Adds a request that failed.
    pub fn add_failure(&mut self, request: &CompileRequest, reason: &str) {
        self.insert(request, Outcome::Failed(reason.to_owned()), None);
    }

    fn insert(&mut self, request: &CompileRequest, outcome: Outcome, entry: Option<Listed>) {
        let line = ReceiptLine {
            family: request.family().to_owned(),
            constants: request.constants().clone(),
            arch: request.arch(),
            outcome,
            entry,
        };
        self.entries.insert(*request.key(), line);
    }

    /// Its file's bytes; equal receipts give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Keys of its maps are text, so this cannot fail.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a receipt.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReceiptError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        // Asked first: another format has other members.
        let FormatOnly { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(ReceiptError::Format(format));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The first of these names that a line of it has for its family.
    pub(crate) fn names_one_of<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let mut names = names.into_iter();
        names.find(|name| self.entries.values().any(|line| line.family == *name))
    }

    /// Whether an entry is, byte for byte, what the receipt lists.
    pub fn admit(&self, entry: &Entry) -> Result<(), Drift> {
        let key = entry.manifest().key;
        let listed = self.listed(&key)?;
        let found = listed_of(entry);
        let part = if found.code != listed.code {
            "code"
        } else if found.manifest != listed.manifest {
            "manifest"
        } else {
            return Ok(());
        };
        let file = part.to_owned();
        Err(Drift::File { key, file })
    }

    /// Every way in which a cache differs from what the receipt lists.
    #[must_use]
    pub fn drifts(&self, cache: &Cache) -> Vec<Drift> {
        let check = |key: &CacheKey| match cache.peek(key) {
            _ if self.listed(key).is_err() => Err(Drift::NotKept(*key)),
            Some(entry) => self.admit(&entry),
            None => Err(Drift::Missing(*key)),
        };
        self.entries.keys().filter_map(|key| check(key).err()).collect()
    }

    /// Whether it lists an entry of this key.
    pub fn lists(&self, key: &CacheKey) -> Result<(), Drift> {
        self.listed(key).map(drop)
    }

    fn listed(&self, key: &CacheKey) -> Result<&Listed, Drift> {
        let line = self.entries.get(key).ok_or(Drift::NotListed(*key))?;
        line.entry.as_ref().ok_or(Drift::NotKept(*key))
    }
}

impl Cache {
    /// As [`Cache::lookup`], but only what the receipt lists byte for byte.
    ///
    /// Asks the tiers anew, past this process's memory, which may hold what was
    /// loaded without a receipt.
    pub fn lookup_listed(&self, key: &CacheKey, receipt: &Receipt) -> Result<Fetched, Drift> {
        receipt.listed(key)?;
        let (entry, tier) = self.lookup_entry(key).ok_or(Drift::Missing(*key))?;
        receipt.admit(&entry)?;
        Ok(Fetched {
            artifact: Arc::new(entry.into_artifact()),
            provenance: Provenance::Hit(tier),
        })
    }
}

fn listed_of(entry: &Entry) -> Listed {
    Listed {
        manifest: hex::encode(entry.digest()),
        code: entry.manifest().code.sha256.clone(),
    }
}
