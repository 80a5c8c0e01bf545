//! Entries in one file: export, import, embed.
//!
//! Invariant: a bundle names no files. It holds keys and, for each, five lengths
//! with bytes in a fixed order, so there is no path to traverse and no link to
//! follow. Keys ascend, so there are no duplicates. docs/CACHE.md has the format.

use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::engine::build::key::CacheKey;
use crate::engine::cache::store::entry::{Entry, EntryFiles};
use crate::engine::cache::store::error::{CacheError, Fault};
use crate::engine::cache::store::read::Load;
use crate::engine::cache::store::{Published, Store};

pub(in crate::engine::cache) const MAGIC: [u8; 16] = *b"JITCBNDL\x01\0\0\0\0\0\0\0";
pub(in crate::engine::cache) const END: [u8; 8] = *b"JITCEND\n";
pub(in crate::engine::cache) const TAG_ENTRY: u8 = 1;
const TAG_INDEX: u8 = 0;
/// Tag, key, raw length, packed length.
pub(in crate::engine::cache) const HEAD_LENGTH: usize = 1 + 32 + 8 + 8;
/// Key, offset.
pub(in crate::engine::cache) const INDEX_LENGTH: usize = 32 + 8;
/// Count, offset of the index, SHA-256 of all before it, end mark.
pub(in crate::engine::cache) const FOOTER_LENGTH: usize = 8 + 8 + 32 + END.len();
/// No honest entry is longer, unpacked.
const RAW_LIMIT: u64 = 256 << 20;
/// Part of the format: another level would give other bytes.
const ZSTD_LEVEL: i32 = 9;

/// Why a bundle was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file could not be read or written.
    #[error("cannot read or write the bundle: {0}")]
    Io(#[from] io::Error),
    /// The file does not begin as a bundle does.
    #[error("not a bundle of format 1")]
    Magic,
    /// The file ends before the bundle does.
    #[error("the bundle is truncated")]
    Truncated,
    /// Something in it cannot be.
    #[error("the bundle is damaged: {0}")]
    Damaged(&'static str),
    /// Its bytes are not those that were written.
    #[error("the bundle does not fit its digest")]
    Digest,
    /// An entry in it does not verify.
    #[error("the bundle's entry of {key} is bad: {fault}")]
    Entry {
        /// Key of the entry.
        key: CacheKey,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The entries could not be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What an export wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Entries written.
    pub entries: u64,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Entries that were asked for but are missing or bad.
    pub skipped: Vec<CacheKey>,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Entries added.
    pub added: u64,
    /// Entries that were there already, and good.
    pub present: u64,
}

/// Writes a bundle of these entries of a folder; equal entries give equal bytes.
pub fn export(store: &Store, keys: &[CacheKey], out: &mut impl Write) -> Result<Exported, BundleError> {
    let entry = |key: &CacheKey| match store.peek(key) {
        Load::Found(entry) => Some(*entry),
        _ => None,
    };
    export_with(entry, keys, out)
}

/// As [`export`], from wherever `entry` finds them.
pub fn export_with(
    entry: impl Fn(&CacheKey) -> Option<Entry>,
    keys: &[CacheKey],
    out: &mut impl Write,
) -> Result<Exported, BundleError> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    let mut exported = Exported::default();
    let mut out = Hashed::new(out);
    out.write_all(&MAGIC)?;
    let mut index = Vec::new();
    for key in keys {
        let Some(entry) = entry(&key) else {
            exported.skipped.push(key);
            continue;
        };
        index.push((key, out.at));
        write_entry(&mut out, &key, entry.files())?;
    }
    let index_at = out.at;
    out.write_all(&[TAG_INDEX])?;
    for (key, at) in &index {
        out.write_all(key.as_bytes())?;
        out.write_all(&at.to_le_bytes())?;
    }
    exported.entries = index.len() as u64;
    out.write_all(&exported.entries.to_le_bytes())?;
    out.write_all(&index_at.to_le_bytes())?;
    let digest = out.hash.clone().finalize();
    out.write_all(&digest)?;
    out.write_all(&END)?;
    out.inner.flush()?;
    exported.bytes = out.at;
    Ok(exported)
}

fn write_entry(out: &mut impl Write, key: &CacheKey, files: &EntryFiles) -> io::Result<()> {
    let mut raw = Vec::new();
    for bytes in std::iter::once(&files.manifest).chain(&files.payload) {
        raw.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        raw.extend_from_slice(bytes);
    }
    let packed = zstd::bulk::compress(&raw, ZSTD_LEVEL)?;
    out.write_all(&[TAG_ENTRY])?;
    out.write_all(key.as_bytes())?;
    out.write_all(&(raw.len() as u64).to_le_bytes())?;
    out.write_all(&(packed.len() as u64).to_le_bytes())?;
    out.write_all(&packed)
}

/// Takes a bundle's entries into a folder.
///
/// Reads it twice: once to verify all of it, so that a bad one changes nothing,
/// and once to publish. A good entry that is there already stays.
pub fn import(store: &Store, input: &mut (impl Read + Seek)) -> Result<Imported, BundleError> {
    let start = input.stream_position()?;
    read(input, |_| Ok(()))?;
    input.seek(SeekFrom::Start(start))?;
    let mut imported = Imported::default();
    read(input, |entry| {
        // A publish meets a bad entry by moving it away, and a good one by
        // leaving it; it is asked first, since writing costs more.
        let present = matches!(store.peek(&entry.manifest().key), Load::Found(_));
        if !present && store.publish(&entry)? == Published::Ours {
            imported.added += 1;
        } else {
            imported.present += 1;
        }
        Ok(())
    })?;
    Ok(imported)
}

/// Reads a whole bundle, entry by entry, each verified; and then its end.
pub fn read(
    input: &mut impl Read,
    mut each: impl FnMut(Entry) -> Result<(), BundleError>,
) -> Result<u64, BundleError> {
    let mut input = Hashed::new(io::BufReader::new(input));
    if input.array::<16>()? != MAGIC {
        return Err(BundleError::Magic);
    }
    let mut index: Vec<(CacheKey, u64)> = Vec::new();
    loop {
        let at = input.at;
        match input.array::<1>()? {
            [TAG_ENTRY] => {}
            [TAG_INDEX] => {
                read_end(&mut input, &index, at)?;
                return Ok(index.len() as u64);
            }
            _ => return Err(BundleError::Damaged("an unknown tag")),
        }
        let key = CacheKey::from_bytes(input.array()?);
        if index.last().is_some_and(|(last, _)| *last >= key) {
            return Err(BundleError::Damaged("keys do not ascend"));
        }
        let raw_length = u64::from_le_bytes(input.array()?);
        let packed_length = u64::from_le_bytes(input.array()?);
        check_lengths(raw_length, packed_length)?;
        let packed = input.bytes(packed_length)?;
        each(unpack(&key, &packed, raw_length)?)?;
        index.push((key, at));
    }
}

fn read_end(
    input: &mut Hashed<impl Read>,
    index: &[(CacheKey, u64)],
    index_at: u64,
) -> Result<(), BundleError> {
    for (key, at) in index {
        let listed: [u8; 32] = input.array()?;
        if listed != *key.as_bytes() || u64::from_le_bytes(input.array()?) != *at {
            return Err(BundleError::Damaged("the index differs from the entries"));
        }
    }
    let count = u64::from_le_bytes(input.array()?);
    let listed_at = u64::from_le_bytes(input.array()?);
    if count != index.len() as u64 || listed_at != index_at {
        return Err(BundleError::Damaged("the footer differs from the entries"));
    }
    let digest: [u8; 32] = input.hash.clone().finalize().into();
    if input.array::<32>()? != digest {
        return Err(BundleError::Digest);
    }
    if input.array::<8>()? != END {
        return Err(BundleError::Damaged("no end mark"));
    }
    match input.inner.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(BundleError::Damaged("bytes after the end")),
    }
}

pub(in crate::engine::cache) fn check_lengths(raw: u64, packed: u64) -> Result<(), BundleError> {
    if raw > RAW_LIMIT || packed > RAW_LIMIT {
        return Err(BundleError::Damaged("an entry longer than any honest one"));
    }
    Ok(())
}

/// Unpacks and verifies one entry; memory grows with what is really there.
pub(in crate::engine::cache) fn unpack(
    key: &CacheKey,
    packed: &[u8],
    raw_length: u64,
) -> Result<Entry, BundleError> {
    let damaged = BundleError::Damaged;
    let mut raw = Vec::new();
    zstd::stream::read::Decoder::with_buffer(packed)
        .and_then(|decoder| decoder.take(raw_length + 1).read_to_end(&mut raw))
        .map_err(|_| damaged("an entry that cannot be unpacked"))?;
    if raw.len() as u64 != raw_length {
        return Err(damaged("an entry of another length than it says"));
    }
    let mut rest = raw.as_slice();
    let mut next = || -> Option<Vec<u8>> {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (bytes, after) = after.split_at_checked(length)?;
        rest = after;
        Some(bytes.to_vec())
    };
    let mut files = || {
        let manifest = next()?;
        let payload = [next()?, next()?, next()?, next()?];
        Some(EntryFiles { manifest, payload })
    };
    let files = files().ok_or(damaged("an entry that ends early"))?;
    if !rest.is_empty() {
        return Err(damaged("an entry with more than its files"));
    }
    Entry::verify(key, files).map_err(|fault| BundleError::Entry { key: *key, fault })
}

/// Counts and hashes what passes through.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
    at: u64,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            at: 0,
        }
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
    }
}

impl<T: Write> Hashed<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.passed(bytes);
        Ok(())
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.passed(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Hashed<T> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BundleError> {
        let mut bytes = [0; N];
        match self.inner.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(BundleError::Truncated);
            }
            Err(e) => return Err(e.into()),
        }
        self.passed(&bytes);
        Ok(bytes)
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, BundleError> {
        let mut bytes = Vec::new();
        // Grows with what is there, whatever length is claimed.
        (&mut self.inner).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(BundleError::Truncated);
        }
        self.passed(&bytes);
        Ok(bytes)
    }
}
