//! Signing an entry where it lies.
//!
//! Invariant: only what this user or root wrote, or a trusted key signed already, is signed:
//! a signature never makes somebody else's bytes ours. The signed file replaces the other by
//! one rename, so a reader finds one of the two.

use super::Store;
use super::entry::Whole;
use super::error::{CacheError, Fault, FindError};
use super::lock::{Claim, Wait};
use super::read::Load;
use super::shutdown::Permit;
use crate::engine::build::key::CacheKey;
use crate::engine::sign::SecretKey;

impl Store {
    /// Signs the entry of a key; `false` where a builder has it in use.
    pub fn sign(&self, key: &CacheKey, secret: &SecretKey) -> Result<bool, FindError> {
        self.check_writable()?;
        let _permit = Permit::take().ok_or(CacheError::Quiesced)?;
        let claim = self.claim(key, &Wait::none());
        if matches!(claim, Claim::TimedOut) {
            return Ok(false);
        }
        let whole = self.to_sign(key)?.sign(secret).map_err(|fault| FindError::Bad {
            key: *key,
            fault: Fault::Signature(fault),
        })?;
        self.replace_file(key, &whole.to_bytes(), "sign")?;
        Ok(true)
    }

    fn to_sign(&self, key: &CacheKey) -> Result<Whole, FindError> {
        match self.own_or_signed(key) {
            Load::Found(whole) => Ok(*whole),
            Load::Absent => Err(FindError::None(key.hex())),
            Load::Bad(fault) => Err(FindError::Bad { key: *key, fault }),
            Load::Unavailable(error) => Err(error.into()),
        }
    }
}
