//! What the fuzzer and the replay of its corpus run: readers of bytes that
//! somebody else may have written. Each says which outcome it came to.

use jitc::engine::build::key::CacheKey;
use jitc::engine::cache::bundle::{BundleError, read};
use jitc::engine::cache::{Embedded, Fault, Load, Manifest, Parts, Tier};
use sha2::{Digest, Sha256};

/// Reads a manifest; what reads well must read back the same.
pub(crate) fn manifest(bytes: &[u8]) -> String {
    match Manifest::from_bytes(bytes) {
        Ok(manifest) => {
            assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
            "good".into()
        }
        Err(fault) => fault_name(&fault),
    }
}

/// Reads a bundle as `import` does, and as the tier of an embedding program does.
/// What the first takes whole the second must find, key by key.
pub(crate) fn bundle(bytes: &[u8]) -> String {
    let mut keys = Vec::new();
    let outcome = read(&mut &bytes[..], |entry| {
        keys.push(entry.entry().manifest().key);
        Ok(())
    });
    let tier = Embedded::new(bytes.to_vec());
    let mut listed = 0;
    tier.visit(&mut |_| listed += 1);
    for key in keys.iter().chain([&CacheKey::from_bytes([0; 32])]) {
        let found = matches!(
            (tier.load(key), tier.whole(key)),
            (Load::Found(_), Load::Found(_))
        );
        assert!(found || outcome.is_err() || !keys.contains(key));
    }
    match outcome {
        Ok(entries) => {
            assert_eq!((entries, listed), (keys.len() as u64, keys.len()));
            format!("good-{entries}")
        }
        Err(BundleError::Entry { fault, .. }) => format!("entry-{}", fault_name(&fault)),
        Err(BundleError::Damaged(what)) => what.replace(' ', "-"),
        Err(BundleError::Magic) => "magic".into(),
        Err(BundleError::Old) => "old".into(),
        Err(BundleError::Truncated) => "truncated".into(),
        Err(BundleError::Digest) => "digest".into(),
        Err(error) => panic!("memory cannot fail to be read: {error}"),
    }
}

fn fault_name(fault: &Fault) -> String {
    let debug = format!("{fault:?}");
    let name = debug.split(['(', ' ', '{']).next().unwrap_or_default();
    name.to_lowercase()
}

/// Makes the digest in a bundle's footer fit again.
pub(crate) fn mend(bundle: &mut [u8]) {
    if let Some(at) = bundle.len().checked_sub(32 + 8) {
        let digest = Sha256::digest(&bundle[..at]);
        bundle[at..at + 32].copy_from_slice(&digest);
    }
}

/// A bundle as docs/CACHE.md describes it, written apart from the library.
pub(crate) fn pack(texts: &[&str], entries: &[([u8; 32], &Parts)]) -> Vec<u8> {
    let mut out = b"JITCBNDL\x02\0\0\0\0\0\0\0".to_vec();
    let mut index = Vec::new();
    let mut texts: Vec<([u8; 32], &str)> = texts.iter().map(|t| (Sha256::digest(t).into(), *t)).collect();
    texts.sort_unstable();
    let mut record = |tag: u8, name: &[u8; 32], raw: &[u8]| {
        let packed = zstd::bulk::compress(raw, 1).unwrap_or_default();
        index.extend_from_slice(name);
        index.extend_from_slice(&(out.len() as u64).to_le_bytes());
        out.push(tag);
        out.extend_from_slice(name);
        out.extend_from_slice(&(raw.len() as u64).to_le_bytes());
        out.extend_from_slice(&(packed.len() as u64).to_le_bytes());
        out.extend_from_slice(&packed);
    };
    for (digest, text) in &texts {
        record(2, digest, text.as_bytes());
    }
    for (key, parts) in entries {
        let mut raw = Vec::new();
        for bytes in [&parts.manifest, &parts.code, &parts.source, &parts.log] {
            raw.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            raw.extend_from_slice(bytes);
        }
        record(1, key, &raw);
    }
    let index_at = out.len() as u64;
    out.push(0);
    out.extend_from_slice(&index);
    out.extend_from_slice(&(texts.len() as u64).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    out.extend_from_slice(&index_at.to_le_bytes());
    out.extend_from_slice(&[0; 32]);
    out.extend_from_slice(b"JITCEND\n");
    mend(&mut out);
    out
}
