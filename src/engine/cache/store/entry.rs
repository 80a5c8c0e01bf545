//! What one entry holds, how it is written, and what makes it good.
//!
//! Invariant: an [`Entry`] exists only for bytes that were verified, all of
//! them: the manifest's checksum, its format, the key, and length and SHA-256 of
//! every file. docs/CACHE.md gives the format byte by byte.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Fault;
use crate::engine::build::artifact::{Artifact, Resources};
use crate::engine::build::key::{CacheKey, ENCODED_ALIKE_SINCE, KEY_VERSION, Preimage, tag};
use crate::engine::build::request::CompileRequest;
use crate::engine::request::target::{Arch, ToolchainIdentity};

/// The number of the entry format; part of the path (`v1`) and of the manifest.
pub const FORMAT: u32 = 1;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The machine code's file name.
pub const CUBIN: &str = "kernel.cubin";
/// The rendered source's file name.
pub const SOURCE: &str = "kernel.cu";
/// The file of the in-memory headers: a JSON object, name to text.
pub const HEADERS: &str = "headers.json";
/// The compile log's file name.
pub const LOG: &str = "compile.log";

/// The files beside the manifest, in the manifest's order.
pub const PAYLOAD: [&str; 4] = [CUBIN, SOURCE, HEADERS, LOG];

/// No honest manifest is longer.
pub(super) const MANIFEST_LIMIT: u64 = 4 << 20;
/// No honest file of an entry is longer.
pub(super) const FILE_LIMIT: u64 = 1 << 30;

/// The format calls the member so.
const CHECKSUM_OPEN: &str = ",\n  \"seal\": \"";
const CHECKSUM_CLOSE: &str = "\"\n}\n";
const CHECKSUM_LENGTH: usize = CHECKSUM_OPEN.len() + 64 + CHECKSUM_CLOSE.len();

/// Everything that an entry says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The key, again: an entry filed under another key is no hit.
    pub key: CacheKey,
    /// The jitc that wrote it.
    pub jitc: String,
    /// When, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The family's name.
    pub family: String,
    /// Constants by name, as people write them.
    pub constants: BTreeMap<String, serde_json::Value>,
    /// The arch.
    pub arch: Arch,
    /// Compiler options, in order.
    pub options: Vec<String>,
    /// The compiler.
    pub toolchain: ToolchainIdentity,
    /// What each entry point uses.
    pub resources: Vec<Resources>,
    /// Time inside NVRTC, microseconds.
    pub compile_us: u64,
    /// Everything that the key covers.
    pub preimage: Preimage,
    /// The other files: exactly [`PAYLOAD`], in order.
    pub files: Vec<FileRecord>,
}

/// What the manifest says of one other file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Name of the file in its entry.
    pub name: String,
    /// Its length, bytes.
    pub length: u64,
    /// Hex SHA-256 of its bytes.
    pub sha256: String,
}

/// The bytes of an entry's five files, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFiles {
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// `kernel.cubin`, `kernel.cu`, `headers.json`, `compile.log`: as in [`PAYLOAD`].
    pub payload: [Vec<u8>; 4],
}

/// A verified entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    manifest: Manifest,
    files: EntryFiles,
}

impl Manifest {
    /// Its file's bytes, with the checksum.
    ///
    /// The checksum is the last member: the SHA-256 of every byte before it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in a manifest can fail to be written: its maps have text keys.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.truncate(bytes.len().saturating_sub("\n}".len()));
        let checksum = hex::encode(Sha256::digest(&bytes));
        bytes.extend_from_slice(CHECKSUM_OPEN.as_bytes());
        bytes.extend_from_slice(checksum.as_bytes());
        bytes.extend_from_slice(CHECKSUM_CLOSE.as_bytes());
        bytes
    }

    /// Reads a manifest whose checksum holds and whose format is known.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        check_checksum(bytes)?;
        Self::parse(bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let manifest: Self = match serde_json::from_slice(bytes) {
            Ok(manifest) => manifest,
            Err(e) => return Err(unreadable(bytes, &e)),
        };
        if manifest.format != FORMAT {
            return Err(Fault::Format(manifest.format));
        }
        let names = manifest.files.iter().map(|f| f.name.as_str());
        if !names.eq(PAYLOAD) {
            return Err(Fault::FileList);
        }
        Ok(manifest)
    }

    /// Bytes of all files, without the manifest's own.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, f| sum.saturating_add(f.length))
    }
}

/// Whether the last bytes are the checksum over all that come before them.
pub(super) fn check_checksum(bytes: &[u8]) -> Result<(), Fault> {
    let at = bytes.len().checked_sub(CHECKSUM_LENGTH).ok_or(Fault::Checksum)?;
    let (body, trailer) = bytes.split_at(at);
    let mut checksum = [0; 64];
    // 32 bytes always fill 64 digits.
    let _ = hex::encode_to_slice(Sha256::digest(body), &mut checksum);
    let inner = trailer
        .strip_prefix(CHECKSUM_OPEN.as_bytes())
        .and_then(|t| t.strip_suffix(CHECKSUM_CLOSE.as_bytes()));
    if inner == Some(checksum.as_slice()) {
        Ok(())
    } else {
        Err(Fault::Checksum)
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

impl Entry {
    /// The entry of a fresh compile.
    #[must_use]
    pub fn new(request: &CompileRequest, artifact: &Artifact) -> Self {
        let headers: BTreeMap<&str, &str> = request
            .headers()
            .iter()
            .map(|(name, text)| (name.as_str(), &**text))
            .collect();
        let payload = [
            artifact.cubin.clone(),
            request.source().as_bytes().to_vec(),
            serde_json::to_vec(&headers).unwrap_or_default(),
            artifact.compile_log.clone().into_bytes(),
        ];
        let files = PAYLOAD.iter().zip(&payload).map(|(name, bytes)| FileRecord {
            name: (*name).to_owned(),
            length: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
        });
        let manifest = Manifest {
            format: FORMAT,
            key: *request.key(),
            jitc: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix_ms: now_unix_ms(),
            family: request.family().to_owned(),
            constants: request.constants().clone(),
            arch: request.arch(),
            options: request.options().to_vec(),
            toolchain: request.toolchain().clone(),
            resources: artifact.resources.clone(),
            compile_us: artifact.compile_us,
            preimage: request.preimage().clone(),
            files: files.collect(),
        };
        let files = EntryFiles {
            manifest: manifest.to_bytes(),
            payload,
        };
        Self { manifest, files }
    }

    /// Verifies an entry's bytes against the key under which they were found.
    pub fn verify(key: &CacheKey, files: EntryFiles) -> Result<Self, Fault> {
        let manifest = Manifest::from_bytes(&files.manifest)?;
        if manifest.key != *key {
            return Err(Fault::Key(manifest.key));
        }
        // An older key version may have encoded its preimage in another way.
        let version = manifest.preimage.value(tag::KEY_VERSION);
        let version: Option<u32> = version.and_then(|text| text.parse().ok());
        let alike = version.is_some_and(|v| (ENCODED_ALIKE_SINCE..=KEY_VERSION).contains(&v));
        if alike && manifest.preimage.key() != *key {
            return Err(Fault::Preimage);
        }
        for (record, bytes) in manifest.files.iter().zip(&files.payload) {
            record.verify(bytes)?;
        }
        if std::str::from_utf8(&files.payload[3]).is_err() {
            return Err(Fault::Unparsable(format!("{LOG} is not UTF-8")));
        }
        Ok(Self { manifest, files })
    }

    /// What the entry says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes of its files.
    #[must_use]
    pub fn files(&self) -> &EntryFiles {
        &self.files
    }

    /// The machine code and what belongs to it.
    #[must_use]
    pub fn into_artifact(self) -> Artifact {
        let [cubin, _, _, log] = self.files.payload;
        Artifact {
            cubin,
            resources: self.manifest.resources,
            // Verified to be UTF-8.
            compile_log: String::from_utf8(log).unwrap_or_default(),
            compile_us: self.manifest.compile_us,
        }
    }

    /// The rendered source.
    #[must_use]
    pub fn source(&self) -> String {
        String::from_utf8_lossy(&self.files.payload[1]).into_owned()
    }

    /// The headers that the compiler was given, by name.
    #[must_use]
    pub fn headers(&self) -> BTreeMap<String, String> {
        serde_json::from_slice(&self.files.payload[2]).unwrap_or_default()
    }

    /// The compiler's log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.files.payload[3]).into_owned()
    }
}

impl FileRecord {
    fn verify(&self, bytes: &[u8]) -> Result<(), Fault> {
        if self.length != bytes.len() as u64 {
            return Err(Fault::Length {
                file: self.name.clone(),
                expected: self.length,
                found: bytes.len() as u64,
            });
        }
        let mut digest = [0; 64];
        let _ = hex::encode_to_slice(Sha256::digest(bytes), &mut digest);
        if self.sha256.as_bytes() != digest.as_slice() {
            return Err(Fault::Digest {
                file: self.name.clone(),
            });
        }
        Ok(())
    }
}

/// Milliseconds since 1970; 0 on a clock that stands before it.
pub(super) fn now_unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
