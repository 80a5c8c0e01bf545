//! An entry as an object of a store: a bundle of one.
//!
//! Invariant: what is read as an entry was verified in all its parts, and is of the key
//! under which it lay; no object takes more memory than the longest honest entry.

use crate::engine::build::key::CacheKey;
use crate::engine::cache::bundle::{BundleError, export_with, read_within};
use crate::engine::cache::store::entry::Whole;
use crate::engine::cache::store::error::Fault;

/// No object is longer, packed.
pub(super) const OBJECT_LIMIT: u64 = 64 << 20;
/// What it may be unpacked, texts of headers included.
const UNPACKED_LIMIT: u64 = 256 << 20;

/// Where the entry of a key lies.
pub(super) fn path_of(key: &CacheKey) -> String {
    let hex = key.hex();
    format!("v2/{}/{hex}", &hex[..2])
}

/// The key whose entry lies there, if one does.
pub(super) fn key_of(path: &str) -> Option<CacheKey> {
    let (_, hex) = path.rsplit_once('/')?;
    hex.parse().ok().filter(|key| path_of(key) == path)
}

/// The object of an entry; equal entries give equal bytes.
pub(super) fn pack(whole: &Whole) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let key = whole.entry().manifest().key;
    export_with(|_| Some(whole.clone()), &[key], &mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > OBJECT_LIMIT {
        return Err(format!("{} bytes are more than an object may have", bytes.len()));
    }
    Ok(bytes)
}

/// The entry of an object that lay under this key.
pub(super) fn unpack(key: &CacheKey, bytes: &[u8]) -> Result<Whole, Fault> {
    let mut found = None;
    let read = read_within(&mut &*bytes, UNPACKED_LIMIT, |whole| {
        found = Some(whole);
        Ok(())
    });
    match (read, found) {
        (Ok(1), Some(whole)) if whole.entry().manifest().key == *key => Ok(whole),
        (Ok(_), Some(whole)) => Err(Fault::Key(whole.entry().manifest().key)),
        (Ok(_), None) => Err(Fault::Object("a bundle without an entry".to_owned())),
        (Err(BundleError::Entry { fault, .. }), _) => Err(fault),
        (Err(error), _) => Err(Fault::Object(error.to_string())),
    }
}
