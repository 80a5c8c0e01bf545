//! Artifacts that this process still holds.
//!
//! Invariant: the memo keeps nothing alive. As long as anybody holds an artifact
//! its key answers from memory; after that the disk answers.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::engine::build::artifact::Artifact;
use crate::engine::build::key::CacheKey;

#[derive(Debug, Default)]
pub(super) struct Memo(DashMap<CacheKey, Weak<Artifact>, BuildHasherDefault<KeyHasher>>);

impl Memo {
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<Artifact>> {
        self.0.get(key)?.upgrade()
    }

    pub(super) fn insert(&self, key: CacheKey, artifact: &Arc<Artifact>) {
        self.0.insert(key, Arc::downgrade(artifact));
    }

    pub(super) fn remove(&self, key: &CacheKey) {
        self.0.remove(key);
    }
}

/// A key is a SHA-256 already: eight of its bytes are the hash.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length of a key, which is always the same.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
