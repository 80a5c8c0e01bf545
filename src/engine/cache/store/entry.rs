//! What one entry holds, and what makes it good.
//!
//! Invariant: an [`Entry`] exists only for a manifest and machine code that were
//! verified; a [`Whole`] only where source, log and every header were verified too.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Fault;
use super::layout::{ENTRY_LIMIT, FORMAT, HEADER_LENGTH, Kind, assemble};
use super::manifest::{HeaderText, Manifest, Section};
use crate::engine::build::artifact::{Artifact, reproducible_log};
use crate::engine::build::key::{CacheKey, digest, tag};
use crate::engine::build::request::CompileRequest;
use crate::engine::sign::{Admission, SecretKey, SignatureFault, Statement, add_signature};

/// What is worth knowing of an entry and differs between two builds of one key: no digest
/// of an entry, a bundle or a receipt covers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Notes {
    /// The jitc that wrote the file.
    pub jitc: String,
    /// When, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Time inside NVRTC, microseconds; of an entry that was imported nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile_us: Option<u64>,
    /// Signatures of key and manifest, as [`SecretKey::sign`] writes them; nothing is known
    /// of them until a trusted key verifies one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

/// A verified manifest with the machine code: what a hit reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) notes: Notes,
    pub(super) code: Vec<u8>,
}

/// The texts of an entry: what a hit does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Texts {
    /// The rendered source.
    pub source: String,
    /// The compiler's log.
    pub log: String,
    /// Names and texts of the headers that the compiler was given, sorted by name.
    pub headers: Vec<(String, Arc<str>)>,
}

/// An entry, all of it verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    entry: Entry,
    texts: Texts,
}

/// An entry on its way, not yet verified: in a bundle, or in a tier that is no folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parts {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The machine code.
    pub code: Vec<u8>,
    /// The rendered source.
    pub source: Vec<u8>,
    /// The compile log.
    pub log: Vec<u8>,
    /// Its signatures.
    pub signatures: Vec<String>,
}

impl Notes {
    pub(super) fn now(compile_us: Option<u64>) -> Self {
        Self {
            jitc: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix_ms: now_unix_ms(),
            compile_us,
            signatures: Vec::new(),
        }
    }

    /// Of an entry that came with these signatures.
    fn signed(signatures: Vec<String>) -> Self {
        Self {
            signatures,
            ..Self::now(None)
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(bytes).map_err(|e| Fault::Unparsable(e.to_string()))
    }
}

impl Entry {
    /// Verifies manifest and code against the key under which they were found.
    pub fn verify(key: &CacheKey, manifest: &[u8], code: Vec<u8>) -> Result<Self, Fault> {
        let parsed = Manifest::of_key(key, manifest)?;
        Self::with(parsed, manifest.to_vec(), Notes::now(None), code)
    }

    /// The same of an entry on its way, with its signatures.
    pub fn of_parts(key: &CacheKey, parts: Parts) -> Result<Self, Fault> {
        let manifest = Manifest::of_key(key, &parts.manifest)?;
        Self::with(
            manifest,
            parts.manifest,
            Notes::signed(parts.signatures),
            parts.code,
        )
    }

    pub(super) fn with(
        manifest: Manifest,
        bytes: Vec<u8>,
        notes: Notes,
        code: Vec<u8>,
    ) -> Result<Self, Fault> {
        if manifest.kind != Kind::Cubin {
            return Err(Fault::Kind(manifest.kind.name()));
        }
        manifest.code.verify("the code", &code)?;
        Ok(Self {
            manifest,
            bytes,
            notes,
            code,
        })
    }

    /// What the entry says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest: it stands for the whole entry, headers included.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// What its signatures are over.
    #[must_use]
    pub fn statement(&self) -> Statement {
        Statement::entry(self.manifest.key.as_bytes(), &self.digest())
    }

    /// Whether it is signed as a place demands of what nobody knows the owner of.
    pub fn admit(&self, admission: &Admission) -> Result<(), Fault> {
        let admitted = admission.admit(&self.statement(), &self.notes.signatures);
        admitted.map_err(Fault::Signature)
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What differs between two builds.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The machine code.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// The machine code and what belongs to it; the log stays with the entry.
    #[must_use]
    pub fn into_artifact(self) -> Artifact {
        Artifact {
            cubin: self.code,
            resources: self.manifest.resources,
            compile_log: String::new(),
            compile_us: self.notes.compile_us.unwrap_or(0),
        }
    }
}

impl Whole {
    /// The entry of a fresh compile.
    #[must_use]
    pub fn new(request: &CompileRequest, artifact: &Artifact) -> Self {
        let texts = Texts {
            source: request.source().to_owned(),
            log: reproducible_log(&artifact.compile_log),
            headers: request.headers().to_vec(),
        };
        let headers = texts.headers.iter().map(|(name, text)| HeaderText {
            name: name.clone(),
            length: text.len() as u64,
            sha256: digest(text.as_bytes()),
        });
        let entries = request.preimage().fields.iter().filter(|f| f.tag == tag::ENTRY);
        let manifest = Manifest {
            format: FORMAT,
            kind: Kind::Cubin,
            key: *request.key(),
            family: request.family().to_owned(),
            entries: entries.map(|f| f.value.clone()).collect(),
            constants: request.constants().clone(),
            arch: request.arch(),
            options: request.options().to_vec(),
            toolchain: request.toolchain().clone(),
            resources: artifact.resources.clone(),
            preimage: request.preimage().clone(),
            code: Section::of(&artifact.cubin),
            source: Section::of(texts.source.as_bytes()),
            log: Section::of(texts.log.as_bytes()),
            headers: headers.collect(),
        };
        let entry = Entry {
            bytes: manifest.to_bytes(),
            manifest,
            notes: Notes::now(Some(artifact.compile_us)),
            code: artifact.cubin.clone(),
        };
        Self { entry, texts }
    }

    /// Verifies an entry on its way; `header` gives the text of a digest.
    pub fn verify(
        key: &CacheKey,
        parts: Parts,
        header: impl FnMut(&HeaderText) -> Result<Arc<str>, Fault>,
    ) -> Result<Self, Fault> {
        let manifest = Manifest::of_key(key, &parts.manifest)?;
        // Compared before anything is hashed.
        for (part, section, bytes) in [
            ("the code", &manifest.code, &parts.code),
            ("the source", &manifest.source, &parts.source),
            ("the log", &manifest.log, &parts.log),
        ] {
            if section.length != bytes.len() as u64 {
                section.verify(part, bytes)?;
            }
        }
        let notes = Notes::signed(parts.signatures);
        let entry = Entry::with(manifest, parts.manifest, notes, parts.code)?;
        let whole = Self::of(entry, parts.source, parts.log, header)?;
        whole.check_size().map(|()| whole)
    }

    /// The entry with its texts, which are verified here.
    pub(super) fn of(
        entry: Entry,
        source: Vec<u8>,
        log: Vec<u8>,
        mut header: impl FnMut(&HeaderText) -> Result<Arc<str>, Fault>,
    ) -> Result<Self, Fault> {
        let manifest = &entry.manifest;
        manifest.source.verify("the source", &source)?;
        manifest.log.verify("the log", &log)?;
        let mut headers = Vec::with_capacity(manifest.headers.len());
        for record in &manifest.headers {
            let text = header(record)?;
            record.verify(text.as_bytes())?;
            headers.push((record.name.clone(), text));
        }
        let texts = Texts {
            source: text_of("the source", source)?,
            log: text_of("the log", log)?,
            headers,
        };
        Ok(Self { entry, texts })
    }

    /// Whether a load would take a file of this length.
    pub(in crate::engine::cache) fn check_size(&self) -> Result<(), Fault> {
        let manifest = &self.entry.manifest;
        // Padding and notes are never more than this.
        let most = HEADER_LENGTH as u64 + manifest.to_bytes().len() as u64 + (128 << 10);
        if most.saturating_add(manifest.payload_bytes()) > ENTRY_LIMIT {
            return Err(Fault::TooLong("the entry".to_owned()));
        }
        Ok(())
    }

    /// Manifest and code alone.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The texts.
    #[must_use]
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Manifest and code alone.
    #[must_use]
    pub fn into_entry(self) -> Entry {
        self.entry
    }

    /// As it travels; its headers travel beside it.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            manifest: self.entry.bytes.clone(),
            code: self.entry.code.clone(),
            source: self.texts.source.clone().into_bytes(),
            log: self.texts.log.clone().into_bytes(),
            signatures: self.entry.notes.signatures.clone(),
        }
    }

    /// The same with a signature by this key, instead of an earlier one of its name.
    pub fn sign(mut self, key: &SecretKey) -> Result<Self, SignatureFault> {
        let statement = self.entry.statement();
        add_signature(&mut self.entry.notes.signatures, key, &statement)?;
        Ok(self)
    }

    /// The bytes of its file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let entry = &self.entry;
        let notes = serde_json::to_vec(&entry.notes).unwrap_or_default();
        let texts = [self.texts.source.as_bytes(), self.texts.log.as_bytes()];
        assemble(
            &entry.manifest.key,
            entry.manifest.kind,
            &entry.bytes,
            &notes,
            [&entry.code, texts[0], texts[1]],
        )
    }
}

fn text_of(part: &str, bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault::Unparsable(format!("{part} is not UTF-8")))
}

/// Milliseconds since 1970; 0 on a clock that stands before it.
pub(in crate::engine::cache) fn now_unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
