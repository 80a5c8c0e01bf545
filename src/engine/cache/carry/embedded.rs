//! A bundle in the program's own image, as a tier.
//!
//! Invariant: whatever the image holds, a lookup ends in a verified entry or in
//! none; no offset or length in it is taken on trust.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::bundle::{
    BundleError, END, FOOTER_LENGTH, HEAD_LENGTH, INDEX_LENGTH, MAGIC, NOTE, TAG_ENTRY, TAG_TEXT,
    check_lengths, digest_of, unpack, unpack_text,
};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::store::entry::{Entry, Whole};
use crate::engine::cache::store::error::{CacheError, Fault};
use crate::engine::cache::store::manifest::{HeaderText, Manifest};
use crate::engine::cache::store::read::Load;
use crate::engine::cache::tier::{Tier, TierName};
use crate::engine::request::target::ToolchainIdentity;

/// A bundle from `include_bytes!`, or one that a program read itself.
///
/// Nothing is read before the first lookup, and then only the index and the
/// entry that is asked for. A damaged bundle is a tier that cannot be read.
#[derive(Debug)]
pub struct Embedded {
    name: TierName,
    bytes: Cow<'static, [u8]>,
    index: OnceLock<Option<Index>>,
    toolchains: OnceLock<Vec<ToolchainIdentity>>,
}

/// Where the index lies, and how many of its lines are texts.
#[derive(Debug)]
struct Index {
    place: Range<usize>,
    texts: usize,
}

type Lines<'a> = &'a [[u8; INDEX_LENGTH]];

impl Embedded {
    /// The bundle.
    #[must_use]
    pub fn new(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            name: TierName::new("embedded"),
            bytes: bytes.into(),
            index: OnceLock::new(),
            toolchains: OnceLock::new(),
        }
    }

    /// The index's lines of texts and those of entries.
    fn index(&self) -> Option<(Lines<'_>, Lines<'_>)> {
        let index = self.index.get_or_init(|| {
            let body = self.bytes.strip_suffix(&END)?;
            let at = body.len().checked_sub(FOOTER_LENGTH - END.len())?;
            let (texts, rest) = body[at..].split_first_chunk()?;
            let (entries, _) = rest.split_first_chunk()?;
            let texts = u64::from_le_bytes(*texts);
            let count = texts.checked_add(u64::from_le_bytes(*entries))?;
            let length = count.checked_mul(INDEX_LENGTH as u64)?;
            let start = at.checked_sub(usize::try_from(length).ok()?)?;
            let fits = self.bytes.starts_with(&MAGIC) && start >= MAGIC.len();
            let texts = usize::try_from(texts).ok()?;
            fits.then_some(Index {
                place: start..at,
                texts,
            })
        });
        let index = index.as_ref()?;
        let (lines, _) = self.bytes[index.place.clone()].as_chunks();
        lines.split_at_checked(index.texts)
    }

    /// A record of the bundle: its packed bytes and their unpacked length.
    fn record(
        &self,
        lines: Lines<'_>,
        tag: u8,
        name: &[u8; 32],
    ) -> Result<Option<(&[u8], u64)>, BundleError> {
        let found = lines.binary_search_by(|line| line[..32].cmp(name));
        let Ok(n) = found else { return Ok(None) };
        let offset = lines[n].last_chunk().map_or(0, |at| u64::from_le_bytes(*at));
        let head = usize::try_from(offset)
            .ok()
            .and_then(|at| self.bytes.get(at..))
            .and_then(<[u8]>::split_first_chunk::<HEAD_LENGTH>);
        let (head, body) = head.ok_or(BundleError::Truncated)?;
        if head[0] != tag || head[1..33] != *name {
            return Err(BundleError::Damaged("the index differs from the entries"));
        }
        let length = |at: usize| {
            let bytes = head[at..].first_chunk();
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let (raw, packed) = (length(33), length(41));
        check_lengths(raw, packed)?;
        let packed = usize::try_from(packed).ok().and_then(|n| body.get(..n));
        Ok(Some((packed.ok_or(BundleError::Truncated)?, raw)))
    }

    fn entry(&self, key: &CacheKey) -> Result<Option<Entry>, BundleError> {
        let (_, lines) = self.index().ok_or(BundleError::Magic)?;
        let Some((packed, raw)) = self.record(lines, TAG_ENTRY, key.as_bytes())? else {
            return Ok(None);
        };
        let entry = Entry::of_parts(key, unpack(packed, raw)?);
        entry
            .map(Some)
            .map_err(|fault| BundleError::Entry { key: *key, fault })
    }

    fn whole_entry(&self, key: &CacheKey) -> Result<Option<Whole>, BundleError> {
        let (texts, lines) = self.index().ok_or(BundleError::Magic)?;
        let Some((packed, raw)) = self.record(lines, TAG_ENTRY, key.as_bytes())? else {
            return Ok(None);
        };
        let text = |header: &HeaderText| self.text(texts, header);
        let whole = Whole::verify(key, unpack(packed, raw)?, text);
        whole
            .map(Some)
            .map_err(|fault| BundleError::Entry { key: *key, fault })
    }

    fn text(&self, lines: Lines<'_>, header: &HeaderText) -> Result<Arc<str>, Fault> {
        let missing = || Fault::Missing(format!("header {}", header.name));
        let digest = digest_of(header).ok_or_else(missing)?;
        let record = self.record(lines, TAG_TEXT, &digest).ok().flatten();
        let (packed, raw) = record.ok_or_else(missing)?;
        unpack_text(&digest, packed, raw).map_err(|_| Fault::Digest {
            file: format!("header {}", header.name),
        })
    }
}

fn load<T>(found: Result<Option<T>, BundleError>) -> Load<T> {
    match found {
        Ok(Some(found)) => Load::Found(Box::new(found)),
        Ok(None) => Load::Absent,
        Err(BundleError::Entry { fault, .. }) => Load::Bad(fault),
        Err(e) => Load::Unavailable(CacheError::Tier(e.to_string())),
    }
}

impl Tier for Embedded {
    fn name(&self) -> &TierName {
        &self.name
    }

    fn load(&self, key: &CacheKey) -> Load {
        load(self.entry(key))
    }

    fn whole(&self, key: &CacheKey) -> Load<Whole> {
        load(self.whole_entry(key))
    }

    /// Reads every entry, once.
    fn toolchains(&self) -> Vec<ToolchainIdentity> {
        let named = || {
            let mut named = Vec::new();
            self.visit(&mut |manifest| {
                if !named.contains(&manifest.toolchain) {
                    named.push(manifest.toolchain);
                }
            });
            named
        };
        self.toolchains.get_or_init(named).clone()
    }

    /// Unpacks the beginning of every text.
    fn notes(&self) -> Vec<String> {
        let (texts, _) = self.index().unwrap_or_default();
        let note = |line: &[u8; INDEX_LENGTH]| {
            let digest = line.first_chunk()?;
            let (packed, raw) = self.record(texts, TAG_TEXT, digest).ok().flatten()?;
            let mut begin = [0; NOTE.len()];
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
            decoder.read_exact(&mut begin).ok()?;
            if begin != NOTE.as_bytes() {
                return None;
            }
            let text = unpack_text(digest, packed, raw).ok()?;
            text.strip_prefix(NOTE).map(str::to_owned)
        };
        texts.iter().filter_map(note).collect()
    }

    fn visit(&self, each: &mut dyn FnMut(Manifest)) {
        for line in self.index().unwrap_or_default().1 {
            if let Some(key) = line.first_chunk()
                && let Ok(Some(entry)) = self.entry(&CacheKey::from_bytes(*key))
            {
                each(entry.manifest().clone());
            }
        }
    }
}
