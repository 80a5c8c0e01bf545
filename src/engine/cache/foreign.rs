//! The folders of a cache as the cache of something else: bytes in, bytes out.
//!
//! Invariant: what comes out was put in by that client under that name, and was verified as
//! an entry is: digests, owner and mode, and a trusted key's signature where one is demanded.

use super::Cache;
use super::store::Store;
use super::store::error::CacheError;
use super::store::foreign::Foreign;
use super::store::prune::{Limits, Schedule};
use super::store::read::Load;
use crate::engine::per_process::PerProcess;
use crate::engine::sign::SecretKey;

/// What a client of another cache, Triton say, keeps in the folders of this one. Tiers that
/// are no folders have nothing of it.
pub struct ForeignCache {
    client: String,
    /// In the order in which they are asked.
    stores: Vec<Store>,
    limits: Limits,
    schedule: PerProcess<Schedule>,
    key: Option<SecretKey>,
}

impl Cache {
    /// The folders of this cache for a client's bytes. `client`: of small letters, digits,
    /// `.`, `_` and `-`. Touches no disk.
    ///
    /// ```no_run
    /// # use jitc::engine::cache::Cache;
    /// let cache = Cache::builder().user("/var/cache/jitc").build();
    /// let triton = cache.foreign("triton");
    /// triton.put(b"ABC/add.cubin", b"bytes".to_vec())?;
    /// assert_eq!(triton.get(b"ABC/add.cubin").as_deref(), Some(&b"bytes"[..]));
    /// # Ok::<(), jitc::engine::cache::CacheError>(())
    /// ```
    #[must_use]
    pub fn foreign(&self, client: &str) -> ForeignCache {
        let folders = self.tiers().iter().filter_map(|tier| tier.store());
        ForeignCache {
            client: client.to_owned(),
            stores: folders.map(Store::foreign).collect(),
            limits: *self.limits(),
            schedule: PerProcess::new(),
            key: None,
        }
    }
}

impl ForeignCache {
    /// Signs with this key whatever is put.
    #[must_use]
    pub fn signed_by(self, key: SecretKey) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// The bytes under a name, of the first folder that has good ones. What is bad is passed
    /// over, with a warning: a client puts it again.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Vec<u8>> {
        for store in &self.stores {
            match store.load_foreign(&self.client, name) {
                Load::Found(found) => return Some(found.into_bytes()),
                Load::Absent => {}
                Load::Bad(fault) => {
                    tracing::warn!(client = %self.client, root = %store.root().display(), %fault, "passed over");
                }
                Load::Unavailable(error) => {
                    tracing::debug!(client = %self.client, %error, "not looked into");
                }
            }
        }
        None
    }

    /// Keeps bytes under a name in the folder that is written to, in the place of others.
    ///
    /// # Errors
    /// A client or name that cannot be, no folder that is written to, and what the folder says.
    pub fn put(&self, name: &[u8], bytes: Vec<u8>) -> Result<(), CacheError> {
        let mut foreign = Foreign::new(&self.client, name, bytes).map_err(CacheError::Refused)?;
        if let Some(key) = &self.key {
            foreign = foreign
                .sign(key)
                .map_err(|fault| CacheError::Refused(super::Fault::Signature(fault)))?;
        }
        let store = self.written()?;
        store.keep_foreign(&foreign)?;
        if self.schedule.is_due(&self.limits, foreign.bytes().len() as u64) {
            // One that fails is tried again later; the bytes are kept already.
            let _ = store.prune(&self.limits, false);
        }
        Ok(())
    }

    /// Removes what is under a name in the folder that is written to; says whether there was
    /// anything.
    ///
    /// # Errors
    /// No folder that is written to, and what the folder says.
    pub fn remove(&self, name: &[u8]) -> Result<bool, CacheError> {
        self.written()?.remove_foreign(&self.client, name)
    }

    /// The names under which this client has good bytes, each once, sorted. Reads them all.
    ///
    /// # Errors
    /// What a folder says.
    pub fn names(&self) -> Result<Vec<Vec<u8>>, CacheError> {
        let mut names = Vec::new();
        for store in &self.stores {
            names.extend(store.foreign_names(&self.client)?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn written(&self) -> Result<&Store, CacheError> {
        let mut writable = self.stores.iter().filter(|store| store.is_writable());
        writable.next().ok_or(CacheError::NoWritableTier)
    }
}
