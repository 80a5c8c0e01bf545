//! Bundles whose entries are signed, and files of either kind that are.
//!
//! Invariant: signing changes nothing of a bundle but the signatures of its entries, each of
//! which was verified just now.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Embedded;
use super::bundle::{BundleError, Exported, export_noting, is_bundle, notes, read};
use super::receipt::{Receipt, ReceiptError};
use crate::engine::atomic_file::write_atomically;
use crate::engine::build::key::CacheKey;
use crate::engine::cache::store::entry::Whole;
use crate::engine::cache::store::error::Fault;
use crate::engine::cache::store::read::Load;
use crate::engine::cache::tier::Tier;
use crate::engine::regular_file::{self, MAX_DATA};
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
    let notes = notes(&mut bytes.as_slice())?;
    let bundle = Embedded::new(bytes);
    let entry = |key: &CacheKey| -> Option<Whole> {
        match bundle.whole(key) {
            Load::Found(whole) => whole.sign(secret).ok(),
            _ => None,
        }
    };
    export_noting(entry, &keys, &notes, out)
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

/// What a file that carries signatures is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignedFile {
    /// A bundle, of this many entries.
    Bundle {
        /// Number of entries.
        entries: u64,
    },
    /// A receipt.
    Receipt,
}

/// Why a file could not be signed, or read for its signatures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileSignError {
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It begins as neither of both kinds does.
    #[error("neither a bundle nor a receipt")]
    Neither,
    /// A bundle that is not good, or could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A receipt that is not good.
    #[error(transparent)]
    Receipt(ReceiptError),
    /// It has as many signatures as it may.
    #[error(transparent)]
    Signature(#[from] SignatureFault),
}

/// Signs a file in its place: every entry of a bundle, or a receipt. A failure leaves it as
/// it was.
///
/// # Errors
/// It cannot be read or written, is neither, is not good, or takes no more signatures.
pub fn sign_file(path: &Path, secret: &SecretKey) -> Result<SignedFile, FileSignError> {
    let bytes = regular_file::read(path, MAX_DATA)?;
    if is_bundle(&bytes) {
        let exported = write_atomically(path, 0o644, |file| -> Result<_, BundleError> {
            let mut out = BufWriter::new(file);
            let exported = sign_bundle(bytes, secret, &mut out)?;
            out.flush()?;
            Ok(exported)
        })?;
        let entries = exported.entries;
        return Ok(SignedFile::Bundle { entries });
    }
    let mut receipt = receipt_of(&bytes)?;
    receipt.sign(secret)?;
    let bytes = receipt.to_bytes();
    write_atomically(path, 0o644, |file| file.write_all(&bytes))?;
    Ok(SignedFile::Receipt)
}

/// Who signed what a file holds: each entry of a bundle, by its key, or a receipt, by none.
///
/// # Errors
/// It cannot be read, is neither, or is not good.
pub fn signers_of_file(
    path: &Path,
    trusted: &TrustedKeys,
) -> Result<Vec<(Option<CacheKey>, Signer)>, FileSignError> {
    let bytes = regular_file::read(path, MAX_DATA)?;
    if is_bundle(&bytes) {
        let found = signers(&bytes, trusted)?.into_iter();
        return Ok(found.map(|(key, signer)| (Some(key), signer)).collect());
    }
    let receipt = receipt_of(&bytes)?;
    let signer = trusted.verify(&receipt.statement(), &receipt.signatures);
    Ok(vec![(None, signer.map(|key| key.name().to_owned()))])
}

fn receipt_of(bytes: &[u8]) -> Result<Receipt, FileSignError> {
    Receipt::from_bytes(bytes).map_err(|error| match error {
        ReceiptError::Unparsable(_) => FileSignError::Neither,
        other => FileSignError::Receipt(other),
    })
}
