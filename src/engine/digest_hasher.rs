//! A hasher of what begins with a digest, for maps in memory.
//!
//! Invariant: the first bytes that are written are those of a SHA-256, so eight of them are
//! spread as a hash is, whoever chose what was digested.

use std::hash::{BuildHasherDefault, Hasher};

use dashmap::DashMap;

/// A concurrent map whose keys begin with a digest.
pub(crate) type DigestMap<K, V> = DashMap<K, V, BuildHasherDefault<DigestHasher>>;

/// Takes eight bytes of each digest, and what numbers follow it.
#[derive(Debug, Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    // Lengths of digests, which are all the same, and small numbers: spread over all bits,
    // as the map takes its shard from some and its place from others.
    fn write_usize(&mut self, number: usize) {
        self.0 ^= (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;

    #[test]
    fn digests_and_the_numbers_behind_them_tell_keys_apart() {
        let hash = |digest: [u8; 32], number: usize| {
            BuildHasherDefault::<DigestHasher>::default().hash_one((digest, number))
        };
        let (one, mut other) = ([7; 32], [7; 32]);
        other[0] = 8;
        assert_eq!(hash(one, 1), hash(one, 1));
        assert_ne!(hash(one, 1), hash(other, 1));
        assert_ne!(hash(one, 1), hash(one, 2));
        // Neighboring numbers differ in the bits that choose a shard, too.
        assert_ne!(hash(one, 1) >> 57, hash(one, 2) >> 57);
    }
}
