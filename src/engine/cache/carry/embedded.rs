//! A bundle in the program's own image, as a tier.
//!
//! Invariant: whatever the image holds, a lookup ends in a verified entry or in
//! none; no offset or length in it is taken on trust.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use super::bundle::{
    BundleError, END, FOOTER_LENGTH, HEAD_LENGTH, INDEX_LENGTH, MAGIC, TAG_ENTRY, check_lengths, unpack,
};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::store::entry::{Entry, Manifest};
use crate::engine::cache::store::error::CacheError;
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
    index: OnceLock<Option<Range<usize>>>,
    toolchains: OnceLock<Vec<ToolchainIdentity>>,
}

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

    fn index(&self) -> Option<&[[u8; INDEX_LENGTH]]> {
        let place = self.index.get_or_init(|| {
            let body = self.bytes.strip_suffix(&END)?;
            let at = body.len().checked_sub(FOOTER_LENGTH - END.len())?;
            let (count, _) = body[at..].split_first_chunk()?;
            let length = u64::from_le_bytes(*count).checked_mul(INDEX_LENGTH as u64)?;
            let start = at.checked_sub(usize::try_from(length).ok()?)?;
            (self.bytes.starts_with(&MAGIC) && start >= MAGIC.len()).then_some(start..at)
        });
        let (index, _) = self.bytes[place.clone()?].as_chunks();
        Some(index)
    }

    fn entry(&self, key: &CacheKey) -> Result<Option<Entry>, BundleError> {
        let index = self.index().ok_or(BundleError::Magic)?;
        let found = index.binary_search_by(|line| line[..32].cmp(key.as_bytes()));
        let Ok(n) = found else { return Ok(None) };
        let offset = index[n].last_chunk().map_or(0, |at| u64::from_le_bytes(*at));
        let head = usize::try_from(offset)
            .ok()
            .and_then(|at| self.bytes.get(at..))
            .and_then(<[u8]>::split_first_chunk::<HEAD_LENGTH>);
        let (head, body) = head.ok_or(BundleError::Truncated)?;
        if head[0] != TAG_ENTRY || head[1..33] != *key.as_bytes() {
            return Err(BundleError::Damaged("the index differs from the entries"));
        }
        let length = |at: usize| {
            let bytes = head[at..].first_chunk();
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let (raw, packed) = (length(33), length(41));
        check_lengths(raw, packed)?;
        let packed = usize::try_from(packed).ok().and_then(|n| body.get(..n));
        unpack(key, packed.ok_or(BundleError::Truncated)?, raw).map(Some)
    }
}

impl Tier for Embedded {
    fn name(&self) -> &TierName {
        &self.name
    }

    fn load(&self, key: &CacheKey) -> Load {
        match self.entry(key) {
            Ok(Some(entry)) => Load::Found(Box::new(entry)),
            Ok(None) => Load::Absent,
            Err(BundleError::Entry { fault, .. }) => Load::Bad(fault),
            Err(e) => Load::Unavailable(CacheError::Tier(e.to_string())),
        }
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

    fn visit(&self, each: &mut dyn FnMut(Manifest)) {
        for line in self.index().unwrap_or_default() {
            if let Some(key) = line.first_chunk()
                && let Ok(Some(entry)) = self.entry(&CacheKey::from_bytes(*key))
            {
                each(entry.manifest().clone());
            }
        }
    }
}
