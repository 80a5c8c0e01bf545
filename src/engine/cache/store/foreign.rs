//! Bytes that another cache's client keeps here, by a name of its own.
//!
//! Invariant: what is foreign has a kind, a manifest and a folder of its own: no look for an
//! entry of jitc finds it, and none of its kind finds an entry of jitc. Its bytes are verified
//! by every look, as an entry's are.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Store;
use super::entry::Notes;
use super::error::{CacheError, Fault};
use super::layout::{ENTRY_LIMIT, FORMAT, Kind, assemble};
use super::manifest::Section;
use super::read::{Load, read_at};
use super::shutdown::Permit;
use crate::engine::build::key::CacheKey;
use crate::engine::sign::{Require, SecretKey, SignatureFault, Statement, add_signature};

/// The folder of a root whose entries are foreign: laid out as a root is.
const FOLDER: &str = "foreign";
/// No name of a client is longer, bytes.
const NAME_LIMIT: usize = 32 << 10;
/// Manifest, notes and padding are never more.
const AROUND: u64 = 256 << 10;

/// What a foreign entry says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForeignManifest {
    format: u32,
    kind: Kind,
    key: CacheKey,
    /// Whose cache this is, `triton`.
    client: String,
    /// Its name of the bytes, in hex.
    name: String,
    code: Section,
}

/// Bytes of another cache's client, verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    manifest: ForeignManifest,
    /// The manifest's bytes.
    written: Vec<u8>,
    notes: Notes,
    code: Vec<u8>,
}

/// What stands for a client's name of bytes: no key of jitc's own, which begins otherwise.
fn key_of(client: &str, name: &[u8]) -> CacheKey {
    let mut hash = Sha256::new();
    hash.update(b"jitc-foreign-v1\n");
    for part in [client.as_bytes(), name] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    CacheKey::from_bytes(hash.finalize().into())
}

impl Foreign {
    /// Bytes under a name. `client`: whose cache this is, of small letters, digits, `.`, `_`
    /// and `-`.
    ///
    /// # Errors
    /// [`Fault::Client`] of a client that is none; [`Fault::TooLong`] of a name over 32 KiB and of bytes
    /// that no entry has room for, 256 MiB.
    pub fn new(client: &str, name: &[u8], bytes: Vec<u8>) -> Result<Self, Fault> {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if client.is_empty() || client.len() > 64 || !client.chars().all(is_part) {
            return Err(Fault::Client(client.chars().take(64).collect()));
        }
        if name.len() > NAME_LIMIT {
            return Err(Fault::TooLong("the name".to_owned()));
        }
        if (bytes.len() as u64).saturating_add(AROUND) > ENTRY_LIMIT {
            return Err(Fault::TooLong("the entry".to_owned()));
        }
        let manifest = ForeignManifest {
            format: FORMAT,
            kind: Kind::Foreign,
            key: key_of(client, name),
            client: client.to_owned(),
            name: hex::encode(name),
            code: Section::of(&bytes),
        };
        Ok(Self {
            written: serde_json::to_vec(&manifest).unwrap_or_default(),
            manifest,
            notes: Notes::now(None),
            code: bytes,
        })
    }

    fn verify(key: &CacheKey, manifest: &[u8]) -> Result<ForeignManifest, Fault> {
        let parsed: Result<ForeignManifest, _> = serde_json::from_slice(manifest);
        let parsed = parsed.map_err(|e| Fault::Unparsable(e.to_string()))?;
        if parsed.format != FORMAT {
            return Err(Fault::Format(parsed.format));
        }
        let name = hex::decode(&parsed.name).map_err(|e| Fault::Unparsable(e.to_string()))?;
        if parsed.kind != Kind::Foreign {
            return Err(Fault::Unbound("kind"));
        }
        if parsed.key != *key || key_of(&parsed.client, &name) != *key {
            return Err(Fault::Preimage);
        }
        Ok(parsed)
    }

    /// The client's name of the bytes.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        hex::decode(&self.manifest.name).unwrap_or_default()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.code
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.code
    }

    fn statement(&self) -> Statement {
        Statement::entry(
            self.manifest.key.as_bytes(),
            &Sha256::digest(&self.written).into(),
        )
    }

    /// The same with a signature by this key, instead of an earlier one of its name.
    pub fn sign(mut self, key: &SecretKey) -> Result<Self, SignatureFault> {
        let statement = self.statement();
        add_signature(&mut self.notes.signatures, key, &statement)?;
        Ok(self)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let notes = serde_json::to_vec(&self.notes).unwrap_or_default();
        let parts: [&[u8]; 3] = [&self.code, &[], &[]];
        assemble(&self.manifest.key, Kind::Foreign, &self.written, &notes, parts)
    }
}

impl Store {
    /// The folder of this root for what is foreign: read, trusted and signed as this one is.
    #[must_use]
    pub fn foreign(&self) -> Self {
        Self {
            root: self.root.join(FOLDER),
            ..self.clone()
        }
    }

    /// Reads and verifies what a client has under a name, and marks it as used. Of the folder
    /// for what is foreign.
    #[must_use]
    pub fn load_foreign(&self, client: &str, name: &[u8]) -> Load<Foreign> {
        let key = key_of(client, name);
        self.load_by_rule(|view| view.look_foreign(&key, true))
    }

    fn look_foreign(&self, key: &CacheKey, used: bool) -> Load<Foreign> {
        self.look_as(key, |shard| {
            let opened = self.open_kind(shard, key, Kind::Foreign)?;
            let manifest = Foreign::verify(key, &opened.bytes)?;
            let header = opened.header;
            if [manifest.code.length, 0, 0] != [header.code, header.source, header.log] {
                return Err(Fault::Unbound("lengths").into());
            }
            let code = read_at(&opened.file, header.code_at(), header.code)?;
            manifest.code.verify("the code", &code)?;
            if used {
                self.stamp(shard, key, &opened.stat);
            }
            Ok(Foreign {
                manifest,
                written: opened.bytes,
                notes: opened.notes,
                code,
            })
        })
    }

    /// Keeps bytes under their name, in the place of what was there: a client's cache may
    /// give one name to other bytes. Staged, forced to disk, renamed. Of the folder for what
    /// is foreign.
    pub fn keep_foreign(&self, foreign: &Foreign) -> Result<(), CacheError> {
        self.check_writable()?;
        let _permit = Permit::take().ok_or(CacheError::Quiesced)?;
        if self.admission.in_force() == Require::Signed {
            let signed = (self.admission).admit(&foreign.statement(), &foreign.notes.signatures);
            signed.map_err(|fault| CacheError::Refused(Fault::Signature(fault)))?;
        }
        let key = &foreign.manifest.key;
        self.replace_file(key, &foreign.to_bytes(), "publish")
    }

    /// Removes what a client has under a name; says whether there was anything.
    pub fn remove_foreign(&self, client: &str, name: &[u8]) -> Result<bool, CacheError> {
        self.check_writable()?;
        let key = key_of(client, name);
        let was = !matches!(self.look_foreign(&key, false), Load::Absent);
        self.remove(&key)?;
        Ok(was)
    }

    /// The names under which a client has good bytes. Reads every one of them.
    pub fn foreign_names(&self, client: &str) -> Result<Vec<Vec<u8>>, CacheError> {
        let all = self.keys()?.into_iter().filter_map(|key| {
            match self.load_by_rule(|view| view.look_foreign(&key, false)) {
                Load::Found(found) if found.manifest.client == client => Some(found.name()),
                _ => None,
            }
        });
        Ok(all.collect())
    }
}
