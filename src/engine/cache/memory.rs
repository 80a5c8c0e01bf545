//! Artifacts that this process still holds.
//!
//! Invariant: the memo keeps nothing alive. As long as anybody holds an artifact
//! its key answers from memory; after that the disk answers.

use std::sync::{Arc, Weak};

use crate::engine::build::artifact::Artifact;
use crate::engine::build::key::CacheKey;
use crate::engine::digest_hasher::DigestMap;

#[derive(Debug, Default)]
pub(super) struct Memo(DigestMap<CacheKey, Weak<Artifact>>);

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
