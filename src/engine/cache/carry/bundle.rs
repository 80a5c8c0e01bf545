//! Entries in one file: export, import, embed.
//!
//! Invariant: a bundle names no files. It holds the texts of headers by digest and then
//! keys, each with four lengths and bytes in a fixed order, so there is no path to traverse
//! and no link to follow. Digests and keys ascend, so there are no duplicates.
//! docs/CACHE.md has the format.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::engine::build::key::CacheKey;
use crate::engine::cache::store::entry::{Parts, Whole};
use crate::engine::cache::store::error::{CacheError, Fault};
use crate::engine::cache::store::manifest::HeaderText;
use crate::engine::cache::store::read::Load;
use crate::engine::cache::store::{Published, Store};
use crate::engine::sign::Admission;

pub(in crate::engine::cache) const MAGIC: [u8; 16] = *b"JITCBNDL\x02\0\0\0\0\0\0\0";
pub(in crate::engine::cache) const END: [u8; 8] = *b"JITCEND\n";
pub(in crate::engine::cache) const TAG_ENTRY: u8 = 1;
/// The text of a header, before all entries.
pub(in crate::engine::cache) const TAG_TEXT: u8 = 2;
const TAG_INDEX: u8 = 0;
/// What a bundle of the format before begins with.
const OLD_MAGIC: [u8; 16] = *b"JITCBNDL\x01\0\0\0\0\0\0\0";
/// Tag, digest or key, raw length, packed length.
pub(in crate::engine::cache) const HEAD_LENGTH: usize = 1 + 32 + 8 + 8;
/// Digest or key, offset.
pub(in crate::engine::cache) const INDEX_LENGTH: usize = 32 + 8;
/// Two counts, offset of the index, SHA-256 of all before it, end mark.
pub(in crate::engine::cache) const FOOTER_LENGTH: usize = 8 + 8 + 8 + 32 + END.len();
/// No honest entry is longer, unpacked.
const RAW_LIMIT: u64 = 256 << 20;
/// No honest entry's signatures are longer; as notes they fit, however they are written.
const SIGNATURES_LIMIT: usize = 8 << 10;
/// Part of the format: another level would give other bytes.
const ZSTD_LEVEL: i32 = 9;

/// What a text that is no header begins with: a note that a bundle carries beside its
/// entries, for whoever knows it.
pub(in crate::engine::cache) const NOTE: &str = "jitc note: ";

/// Why a bundle was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file does not begin as a bundle does.
    #[error("not a bundle of format 2")]
    Magic,
    /// An older jitc wrote it.
    #[error("a bundle of format 1, which this jitc does not read: export it anew from a warmed cache")]
    Old,
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

/// Whether a file begins as a bundle does, whatever its format.
pub(super) fn is_bundle(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC[..8])
}

/// What an export wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct Imported {
    /// Entries added.
    pub added: u64,
    /// Entries that were there already, and good.
    pub present: u64,
}

/// Writes a bundle of these entries of a folder; equal entries give equal bytes.
pub fn export(store: &Store, keys: &[CacheKey], out: &mut impl Write) -> Result<Exported, BundleError> {
    let entry = |key: &CacheKey| match store.whole(key) {
        Load::Found(whole) => Some(*whole),
        _ => None,
    };
    export_with(entry, keys, out)
}

/// As [`export`], from wherever `entry` finds them.
pub fn export_with(
    entry: impl Fn(&CacheKey) -> Option<Whole>,
    keys: &[CacheKey],
    out: &mut impl Write,
) -> Result<Exported, BundleError> {
    export_noting(entry, keys, &[], out)
}

/// The same with notes beside the entries; [`notes`] reads them.
pub fn export_noting(
    entry: impl Fn(&CacheKey) -> Option<Whole>,
    keys: &[CacheKey],
    notes: &[String],
    out: &mut impl Write,
) -> Result<Exported, BundleError> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    let mut exported = Exported::default();
    let mut out = Hashed::new(out);
    out.write_all(&MAGIC)?;
    // Read twice: texts come first, each once, and memory holds no more than these.
    let mut texts: BTreeMap<[u8; 32], Arc<str>> = BTreeMap::new();
    for key in &keys {
        for (_, text) in entry(key).iter().flat_map(|whole| &whole.texts().headers) {
            let digest = Sha256::digest(text.as_bytes()).into();
            texts.entry(digest).or_insert_with(|| Arc::clone(text));
        }
    }
    for note in notes {
        let text: Arc<str> = format!("{NOTE}{note}").into();
        texts.insert(Sha256::digest(text.as_bytes()).into(), text);
    }
    let mut index = Vec::new();
    for (digest, text) in texts {
        index.push((digest, out.at));
        write_record(&mut out, TAG_TEXT, &digest, text.as_bytes())?;
    }
    let count = index.len();
    for key in keys {
        let Some(whole) = entry(&key) else {
            exported.skipped.push(key);
            continue;
        };
        index.push((*key.as_bytes(), out.at));
        write_record(&mut out, TAG_ENTRY, key.as_bytes(), &raw_of(&whole.parts()))?;
    }
    let index_at = out.at;
    out.write_all(&[TAG_INDEX])?;
    for (key, at) in &index {
        out.write_all(key)?;
        out.write_all(&at.to_le_bytes())?;
    }
    exported.entries = (index.len() - count) as u64;
    out.write_all(&(count as u64).to_le_bytes())?;
    out.write_all(&exported.entries.to_le_bytes())?;
    out.write_all(&index_at.to_le_bytes())?;
    let digest = out.hash.clone().finalize();
    out.write_all(&digest)?;
    out.write_all(&END)?;
    out.inner.flush()?;
    exported.bytes = out.at;
    Ok(exported)
}

fn raw_of(parts: &Parts) -> Vec<u8> {
    let mut raw = Vec::new();
    for bytes in [&parts.manifest, &parts.code, &parts.source, &parts.log] {
        raw.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        raw.extend_from_slice(bytes);
    }
    // What nobody signed has the same bytes as ever.
    if !parts.signatures.is_empty() {
        let lines = parts.signatures.join("\n");
        raw.extend_from_slice(&(lines.len() as u64).to_le_bytes());
        raw.extend_from_slice(lines.as_bytes());
    }
    raw
}

fn write_record(out: &mut impl Write, tag: u8, name: &[u8; 32], raw: &[u8]) -> io::Result<()> {
    let packed = zstd::bulk::compress(raw, ZSTD_LEVEL)?;
    out.write_all(&[tag])?;
    out.write_all(name)?;
    out.write_all(&(raw.len() as u64).to_le_bytes())?;
    out.write_all(&(packed.len() as u64).to_le_bytes())?;
    out.write_all(&packed)
}

/// Takes a bundle's entries into a folder.
///
/// Reads it twice: once to verify all of it, so that a bad one changes nothing,
/// and once to publish. A good entry that is there already stays.
pub fn import(store: &Store, input: &mut (impl Read + Seek)) -> Result<Imported, BundleError> {
    import_signed(store, store.admission(), input)
}

/// As [`import`], of what is signed as demanded: its entries become this user's own.
pub fn import_signed(
    store: &Store,
    admission: &Admission,
    input: &mut (impl Read + Seek),
) -> Result<Imported, BundleError> {
    let admit = |entry: &Whole| {
        let admitted = entry.entry().admit(admission);
        admitted.map_err(|fault| BundleError::Entry {
            key: entry.entry().manifest().key,
            fault,
        })
    };
    let start = input.stream_position()?;
    read(input, |entry| admit(&entry))?;
    input.seek(SeekFrom::Start(start))?;
    let mut imported = Imported::default();
    read(input, |entry| {
        // Again: somebody may write to the file meanwhile.
        admit(&entry)?;
        // A publish meets a bad entry by moving it away, and a good one by
        // leaving it; it is asked first, since writing costs more.
        let present = matches!(store.whole(&entry.entry().manifest().key), Load::Found(_));
        if !present && store.publish(&entry)? == Published::Ours {
            imported.added += 1;
        } else {
            imported.present += 1;
        }
        Ok(())
    })?;
    Ok(imported)
}

/// The notes of a bundle, each verified by its own digest. Reads the texts, which come first,
/// and no entry.
pub fn notes(input: &mut impl Read) -> Result<Vec<String>, BundleError> {
    let mut input = Hashed::new(io::BufReader::new(input));
    if input.array::<16>()? != MAGIC {
        return Err(BundleError::Magic);
    }
    let mut notes = Vec::new();
    while input.array()? == [TAG_TEXT] {
        let digest = input.array()?;
        let [raw_length, packed_length] = [input.array()?, input.array()?].map(u64::from_le_bytes);
        check_lengths(raw_length, packed_length)?;
        let text = unpack_text(&digest, &input.bytes(packed_length)?, raw_length)?;
        notes.extend(text.strip_prefix(NOTE).map(str::to_owned));
    }
    Ok(notes)
}

/// Reads a whole bundle, entry by entry, each verified; and then its end.
pub fn read(
    input: &mut impl Read,
    each: impl FnMut(Whole) -> Result<(), BundleError>,
) -> Result<u64, BundleError> {
    read_within(input, u64::MAX, each)
}

/// The same of one that has at most so many bytes, unpacked.
pub(in crate::engine::cache) fn read_within(
    input: &mut impl Read,
    most: u64,
    mut each: impl FnMut(Whole) -> Result<(), BundleError>,
) -> Result<u64, BundleError> {
    let mut left = most;
    let mut input = Hashed::new(io::BufReader::new(input));
    match input.array::<16>()? {
        MAGIC => {}
        OLD_MAGIC => return Err(BundleError::Old),
        _ => return Err(BundleError::Magic),
    }
    let mut texts: BTreeMap<[u8; 32], Arc<str>> = BTreeMap::new();
    let mut index: Vec<([u8; 32], u64)> = Vec::new();
    loop {
        let at = input.at;
        let tag = match input.array::<1>()? {
            [TAG_INDEX] => {
                read_end(&mut input, &index, texts.len(), at)?;
                return Ok((index.len() - texts.len()) as u64);
            }
            [tag @ (TAG_ENTRY | TAG_TEXT)] => tag,
            _ => return Err(BundleError::Damaged("an unknown tag")),
        };
        let name: [u8; 32] = input.array()?;
        // Texts come before entries, and both ascend.
        let first = tag == TAG_ENTRY && index.len() == texts.len();
        if !first && index.last().is_some_and(|(last, _)| *last >= name) {
            return Err(BundleError::Damaged("keys do not ascend"));
        }
        if tag == TAG_TEXT && index.len() != texts.len() {
            return Err(BundleError::Damaged("a text after an entry"));
        }
        let raw_length = u64::from_le_bytes(input.array()?);
        let packed_length = u64::from_le_bytes(input.array()?);
        check_lengths(raw_length, packed_length)?;
        left = left
            .checked_sub(raw_length)
            .ok_or(BundleError::Damaged("more bytes than its entries may have"))?;
        let packed = input.bytes(packed_length)?;
        if tag == TAG_TEXT {
            texts.insert(name, unpack_text(&name, &packed, raw_length)?);
        } else {
            let text = |header: &HeaderText| {
                let text = digest_of(header).and_then(|digest| texts.get(&digest).cloned());
                text.ok_or_else(|| Fault::Missing(format!("header {}", header.name)))
            };
            let key = CacheKey::from_bytes(name);
            let parts = unpack(&packed, raw_length)?;
            let whole = Whole::verify(&key, parts, text);
            each(whole.map_err(|fault| BundleError::Entry { key, fault })?)?;
        }
        index.push((name, at));
    }
}

/// The digest that a header is kept under.
pub(in crate::engine::cache) fn digest_of(header: &HeaderText) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(&header.sha256, &mut digest).ok()?;
    Some(digest)
}

fn read_end(
    input: &mut Hashed<impl Read>,
    index: &[([u8; 32], u64)],
    texts: usize,
    index_at: u64,
) -> Result<(), BundleError> {
    for (key, at) in index {
        let listed: [u8; 32] = input.array()?;
        if listed != *key || u64::from_le_bytes(input.array()?) != *at {
            return Err(BundleError::Damaged("the index differs from the entries"));
        }
    }
    let counts = [input.array()?, input.array()?].map(u64::from_le_bytes);
    let listed_at = u64::from_le_bytes(input.array()?);
    if counts != [texts as u64, (index.len() - texts) as u64] || listed_at != index_at {
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

/// Unpacks one entry, which is not verified yet.
pub(in crate::engine::cache) fn unpack(packed: &[u8], raw_length: u64) -> Result<Parts, BundleError> {
    let raw = unpack_raw(packed, raw_length)?;
    let mut rest = raw.as_slice();
    let mut next = || next_part(&mut rest);
    let mut parts = || {
        Some(Parts {
            manifest: next()?,
            code: next()?,
            source: next()?,
            log: next()?,
            signatures: Vec::new(),
        })
    };
    let mut parts = parts().ok_or(BundleError::Damaged("an entry that ends early"))?;
    if !rest.is_empty() {
        let lines = next_part(&mut rest);
        let lines = lines.ok_or(BundleError::Damaged("an entry with more than its parts"))?;
        if lines.len() > SIGNATURES_LIMIT {
            return Err(BundleError::Damaged("signatures longer than any honest ones"));
        }
        let lines = String::from_utf8(lines);
        let lines = lines.map_err(|_| BundleError::Damaged("signatures that are not UTF-8"))?;
        parts.signatures = lines.split('\n').map(str::to_owned).collect();
    }
    if !rest.is_empty() {
        return Err(BundleError::Damaged("an entry with more than its parts"));
    }
    Ok(parts)
}

/// The next part of an unpacked entry: its length, and so many bytes.
fn next_part(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (bytes, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(bytes.to_vec())
}

/// Unpacks and verifies the text of a header.
pub(in crate::engine::cache) fn unpack_text(
    digest: &[u8; 32],
    packed: &[u8],
    raw_length: u64,
) -> Result<Arc<str>, BundleError> {
    let raw = unpack_raw(packed, raw_length)?;
    if Sha256::digest(&raw)[..] != *digest {
        return Err(BundleError::Damaged("a text with another digest than it says"));
    }
    let text = String::from_utf8(raw).map_err(|_| BundleError::Damaged("a text that is not UTF-8"))?;
    Ok(text.into())
}

/// Unpacks a record; memory grows with what is really there.
fn unpack_raw(packed: &[u8], raw_length: u64) -> Result<Vec<u8>, BundleError> {
    let mut raw = Vec::new();
    zstd::stream::read::Decoder::with_buffer(packed)
        .and_then(|decoder| decoder.take(raw_length + 1).read_to_end(&mut raw))
        .map_err(|_| BundleError::Damaged("a record that cannot be unpacked"))?;
    if raw.len() as u64 != raw_length {
        return Err(BundleError::Damaged("a record of another length than it says"));
    }
    Ok(raw)
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
