//! The bytes of an entry's file: a fixed header, the manifest, notes, code, texts.
//!
//! Invariant: everything here is pure, and no length is believed before it was compared
//! with the file's. docs/CACHE.md gives the layout byte by byte.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Fault;
use crate::engine::build::key::CacheKey;

/// The number of the entry format; part of the path (`v2`), of the file and its manifest.
pub const FORMAT: u32 = 2;
/// Every entry's file begins so.
const MAGIC: [u8; 8] = *b"JITCENTR";
/// Bytes of the header.
pub(super) const HEADER_LENGTH: usize = 160;
/// Code starts at a multiple of this, so that it can be mapped.
const ALIGNMENT: u64 = PAGE as u64;
const PAGE: usize = 4096;

/// No honest file of an entry is longer.
pub(in crate::engine::cache) const ENTRY_LIMIT: u64 = 256 << 20;
/// No honest manifest is longer.
pub(super) const MANIFEST_LIMIT: u64 = 4 << 20;
/// No honest notes are longer.
const NOTES_LIMIT: u64 = 64 << 10;
/// What the checksum covers of the header.
const CHECKED: usize = 128;

/// What an entry's code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Machine code of one arch: the only kind that is ever loaded.
    Cubin,
    /// PTX.
    Ptx,
    /// Bytes of another cache's client, which are never loaded as jitc's.
    Foreign,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Cubin => 1,
            Self::Ptx => 2,
            Self::Foreign => 3,
        }
    }

    /// Its name, as the manifest has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubin => "cubin",
            Self::Ptx => "ptx",
            Self::Foreign => "foreign",
        }
    }
}

/// The header of an entry's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// What the code is.
    pub kind: Kind,
    /// The entry's key.
    pub key: CacheKey,
    /// Bytes of the manifest.
    pub manifest: u64,
    /// Bytes of the notes.
    pub notes: u64,
    /// Bytes of the code.
    pub code: u64,
    /// Bytes of the source.
    pub source: u64,
    /// Bytes of the compile log.
    pub log: u64,
    /// SHA-256 of the manifest.
    pub digest: [u8; 32],
}

impl Header {
    /// Where the code begins: the first multiple of 4096 after the notes.
    #[must_use]
    pub fn code_at(&self) -> u64 {
        (HEADER_LENGTH as u64 + self.manifest + self.notes).next_multiple_of(ALIGNMENT)
    }

    /// Where the source begins.
    #[must_use]
    pub fn source_at(&self) -> u64 {
        self.code_at() + self.code
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.source_at() + self.source + self.log
    }

    fn checked_bytes(&self) -> [u8; CHECKED] {
        let mut bytes = [0; CHECKED];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.kind.number().to_le_bytes());
        bytes[16..48].copy_from_slice(self.key.as_bytes());
        let lengths = [
            self.manifest,
            self.notes,
            self.code_at(),
            self.code,
            self.source,
            self.log,
        ];
        for (place, length) in bytes[48..96].chunks_exact_mut(8).zip(lengths) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        bytes[96..].copy_from_slice(&self.digest);
        bytes
    }

    /// The header's bytes; its checksum covers the notes too.
    #[must_use]
    pub fn to_bytes(&self, notes: &[u8]) -> [u8; HEADER_LENGTH] {
        let checked = self.checked_bytes();
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..CHECKED].copy_from_slice(&checked);
        bytes[CHECKED..].copy_from_slice(&checksum(&checked, notes));
        bytes
    }

    /// Reads a header of a file that has `length` bytes. The checksum is not looked at yet.
    pub fn from_bytes(bytes: &[u8], length: u64) -> Result<Self, Fault> {
        let number = |at: usize| {
            let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
            word.map_or(0, |word| u64::from_le_bytes(*word))
        };
        let short = |at: usize| {
            let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
            word.map_or(0, |word| u32::from_le_bytes(*word))
        };
        let array = |at: usize| {
            let array = bytes.get(at..).and_then(<[u8]>::first_chunk::<32>);
            array.copied().unwrap_or_default()
        };
        if bytes.len() < HEADER_LENGTH || !bytes.starts_with(&MAGIC) {
            return Err(Fault::Magic);
        }
        if short(8) != FORMAT {
            return Err(Fault::Format(short(8)));
        }
        let kinds = [Kind::Cubin, Kind::Ptx, Kind::Foreign];
        let kind = kinds.into_iter().find(|kind| kind.number() == short(12));
        let (manifest, notes) = (number(48), number(56));
        let parts = [number(72), number(80), number(88)];
        if manifest > MANIFEST_LIMIT || notes > NOTES_LIMIT || parts.iter().any(|part| *part > ENTRY_LIMIT) {
            return Err(Fault::TooLong("a part".to_owned()));
        }
        let [code, source, log] = parts;
        let header = Self {
            kind: kind.ok_or(Fault::UnknownKind(short(12)))?,
            key: CacheKey::from_bytes(array(16)),
            manifest,
            notes,
            code,
            source,
            log,
            digest: array(96),
        };
        if header.total() > ENTRY_LIMIT {
            return Err(Fault::TooLong("the entry".to_owned()));
        }
        if number(64) != header.code_at() {
            return Err(Fault::Checksum);
        }
        if header.total() != length {
            return Err(Fault::Length {
                file: "the entry".to_owned(),
                expected: header.total(),
                found: length,
            });
        }
        Ok(header)
    }
}

/// All that lies before the code, verified: header, manifest, notes, padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) manifest: &'a [u8],
    pub(super) notes: &'a [u8],
}

impl<'a> Head<'a> {
    /// Verifies the first [`Header::code_at`] bytes of a file, whose header was read.
    pub(super) fn verify(header: Header, bytes: &'a [u8]) -> Result<Self, Fault> {
        let part = |from: u64, length: u64| {
            let from = usize::try_from(from).ok()?;
            let to = from.checked_add(usize::try_from(length).ok()?)?;
            bytes.get(from..to)
        };
        let start = HEADER_LENGTH as u64;
        let notes_at = start + header.manifest;
        let end = notes_at + header.notes;
        let manifest = part(start, header.manifest).ok_or(Fault::Checksum)?;
        let notes = part(notes_at, header.notes).ok_or(Fault::Checksum)?;
        let padding = part(end, header.code_at() - end).ok_or(Fault::Checksum)?;
        let found = bytes.get(CHECKED..HEADER_LENGTH);
        let matches = found == Some(&checksum(&header.checked_bytes(), notes)[..]);
        if !matches || padding.iter().any(|byte| *byte != 0) {
            return Err(Fault::Checksum);
        }
        if Sha256::digest(manifest)[..] != header.digest {
            return Err(Fault::Digest {
                file: "the manifest".to_owned(),
            });
        }
        Ok(Self { manifest, notes })
    }
}

fn checksum(header: &[u8], notes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(header);
    hash.update(notes);
    hash.finalize().into()
}

/// The whole file of an entry.
pub(super) fn assemble(
    key: &CacheKey,
    kind: Kind,
    manifest: &[u8],
    notes: &[u8],
    [code, source, log]: [&[u8]; 3],
) -> Vec<u8> {
    let header = Header {
        kind,
        key: *key,
        manifest: manifest.len() as u64,
        notes: notes.len() as u64,
        code: code.len() as u64,
        source: source.len() as u64,
        log: log.len() as u64,
        digest: Sha256::digest(manifest).into(),
    };
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&header.to_bytes(notes));
    bytes.extend_from_slice(manifest);
    bytes.extend_from_slice(notes);
    let padded = bytes.len().next_multiple_of(PAGE);
    bytes.resize(padded, 0);
    for part in [code, source, log] {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let key = CacheKey::from_bytes([7; 32]);
        assemble(
            &key,
            Kind::Cubin,
            b"{manifest}",
            b"{notes}",
            [b"code", b"source", b"log"],
        )
    }

    fn verify(bytes: &[u8]) -> Result<Header, Fault> {
        let header = Header::from_bytes(bytes, bytes.len() as u64)?;
        Head::verify(header, bytes).map(|_| header)
    }

    #[test]
    fn the_layout_is_fixed_and_code_starts_on_a_page() {
        let bytes = sample();
        let header = verify(&bytes).expect("good");
        assert_eq!((header.code_at(), header.total()), (4096, 4096 + 13));
        assert_eq!(&bytes[4096..], b"codesourcelog");
        assert_eq!(&bytes[..16], b"JITCENTR\x02\0\0\0\x01\0\0\0");
        assert_eq!(&bytes[160..177], b"{manifest}{notes}");
    }

    #[test]
    fn every_flipped_bit_before_the_code_and_every_other_length_is_found() {
        let good = sample();
        for at in 0..4096 {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                assert!(verify(&bytes).is_err(), "bit {bit} of byte {at}");
            }
        }
        for length in (0..good.len()).step_by(7) {
            assert!(verify(&good[..length]).is_err(), "cut at {length}");
        }
        let longer = [good, vec![0]].concat();
        assert!(matches!(verify(&longer), Err(Fault::Length { .. })));
    }

    #[test]
    fn a_length_that_no_entry_has_is_refused_before_anything_is_read() {
        for at in [48, 56, 72, 80, 88] {
            let mut bytes = sample();
            bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            let refused = Header::from_bytes(&bytes, bytes.len() as u64);
            assert!(matches!(refused, Err(Fault::TooLong(_))), "{refused:?}");
        }
    }

    #[test]
    fn another_format_or_kind_is_refused_by_name() {
        for (at, fault) in [(8, Fault::Format(9)), (12, Fault::UnknownKind(9))] {
            let mut bytes = sample();
            bytes[at] = 9;
            assert_eq!(verify(&bytes), Err(fault));
        }
    }
}
