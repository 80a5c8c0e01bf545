//! Bundles whose entries are signed.
//!
//! Invariant: signing changes nothing of a bundle but the signatures of its entries, each of
//! which was verified just now.

use std::io::Write;

use super::Embedded;
use super::bundle::{BundleError, Exported, export_with, read};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::store::entry::Whole;
use crate::engine::cache::store::error::Fault;
use crate::engine::cache::store::read::Load;
use crate::engine::cache::tier::Tier;
use crate::engine::sign::{SecretKey, SignatureFault, TrustedKeys};

/// Writes this bundle with every entry signed by this key.
pub fn sign_bundle(
    bytes: Vec<u8>,
    secret: &SecretKey,
    out: &mut impl Write,
) -> Result<Exported, BundleError> {
    let mut keys: Vec<CacheKey> = Vec::new();
    let mut full = None;
    read(&mut bytes.as_slice(), |whole| {
        let key = whole.entry().manifest().key;
        if let Err(fault) = whole.sign(secret) {
            full = Some(BundleError::Entry {
                key,
                fault: Fault::Signature(fault),
            });
        }
        keys.push(key);
        Ok(())
    })?;
    if let Some(error) = full {
        return Err(error);
    }
    let bundle = Embedded::new(bytes);
    let entry = |key: &CacheKey| -> Option<Whole> {
        match bundle.whole(key) {
            Load::Found(whole) => whole.sign(secret).ok(),
            _ => None,
        }
    };
    export_with(entry, &keys, out)
}

/// The name of the trusted key that signed something, or why none did.
pub type Signer = Result<String, SignatureFault>;

/// Each entry of a bundle, all verified, and who signed it.
pub fn signers(bytes: &[u8], trusted: &TrustedKeys) -> Result<Vec<(CacheKey, Signer)>, BundleError> {
    let mut found = Vec::new();
    read(&mut { bytes }, |whole| {
        let entry = whole.entry();
        let signer = trusted.verify(&entry.statement(), &entry.notes().signatures);
        found.push((entry.manifest().key, signer.map(|key| key.name().to_owned())));
        Ok(())
    })?;
    Ok(found)
}
