//! Sending entries to a store.
//!
//! Invariant: nothing is overwritten by something worse: a name that is taken stays, unless
//! what lies there is broken, or has fewer signatures of the same entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::Said;
use super::blobs::{Blobs, Done, Put, Trouble};
use super::{Inner, Remote, lock, object};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::event::Event;
use crate::engine::cache::store::entry::Whole;
use crate::engine::cache::store::error::{CacheError, Fault};

/// How long who ends waits for what is still to be sent.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(10);
/// Nobody waits for a put, so it may take so many times as long as a get.
const PUT_PATIENCE: u32 = 5;

impl Remote {
    /// Sends an entry now; says whether it was not there before.
    ///
    /// # Errors
    /// The store did not take it.
    pub fn send(&self, entry: &Whole) -> Result<bool, CacheError> {
        self.0.send(entry)
    }

    pub(super) fn send_later(&self, entry: &Whole) -> Result<(), CacheError> {
        if !self.0.store.takes_entries() {
            return Ok(());
        }
        let inner = Arc::clone(&self.0);
        let send = move |entry: &Whole| {
            // Told as an event.
            let _ = inner.send(entry);
        };
        let queued = self.0.state.queue.push(entry.clone(), send);
        queued.map_err(|why| CacheError::Tier(why.to_owned()))
    }
}

impl Inner {
    fn send(&self, entry: &Whole) -> Result<bool, CacheError> {
        let started = Instant::now();
        let key = entry.entry().manifest().key;
        let _span = tracing::info_span!("send", tier = %self.name, key = %key.short()).entered();
        let sent = match object::pack(entry) {
            Ok(bytes) => {
                let length = bytes.len() as u64;
                self.put(entry, bytes).map(|done| (done, length))
            }
            Err(reason) => Err(CacheError::Tier(reason)),
        };
        // Others see what became of it, or build it themselves.
        self.let_go(&key);
        let tier = self.name.clone();
        match sent {
            Ok((done, bytes)) => {
                lock(&self.state.answers).forget(&key);
                self.tell(&Event::Sent {
                    key,
                    tier,
                    bytes,
                    elapsed: started.elapsed(),
                });
                Ok(done == Done::Put)
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::debug!(key = %key.short(), store = %tier, %reason, "not sent");
                self.tell(&Event::NotSent { key, tier, reason });
                Err(error)
            }
        }
    }

    fn put(&self, entry: &Whole, bytes: Vec<u8>) -> Result<Done, CacheError> {
        let key = &entry.entry().manifest().key;
        let path = object::path_of(key);
        let deadline = self.store.timeout() * PUT_PATIENCE;
        let said = lock(&self.state.answers).get(Instant::now(), key);
        let is_broken = matches!(&said, Some(Said::Bad(fault)) if !matches!(fault, Fault::Signature(_)));
        self.request(|blobs| {
            if is_broken {
                return blobs.put(&path, bytes, Put::Replace, deadline);
            }
            // Where the store cannot tell whether a name is taken, it is looked at first.
            if !blobs.creates_alone() && is_as_good(blobs, key, entry, deadline)? {
                return Ok(Done::WasThere);
            }
            let again = (!entry.entry().notes().signatures.is_empty()).then(|| bytes.clone());
            match (blobs.put(&path, bytes, Put::IfAbsent, deadline)?, again) {
                (Done::WasThere, Some(bytes)) if !is_as_good(blobs, key, entry, deadline)? => {
                    blobs.put(&path, bytes, Put::Replace, deadline)
                }
                (done, _) => Ok(done),
            }
        })
    }
}

/// Whether what lies under a key is good, and lacks no signature of this entry.
fn is_as_good(blobs: &dyn Blobs, key: &CacheKey, entry: &Whole, deadline: Duration) -> Result<bool, Trouble> {
    let found = match blobs.get(&object::path_of(key), object::OBJECT_LIMIT, deadline) {
        Err(Trouble::TooLong(_)) => return Ok(false),
        other => other?,
    };
    let Some(Ok(found)) = found.map(|bytes| object::unpack(key, &bytes)) else {
        return Ok(false);
    };
    let (ours, theirs) = (entry.entry(), found.entry());
    // Another build of the same key is none of ours to replace.
    let is_same = ours.digest() == theirs.digest();
    let (ours, theirs) = (&ours.notes().signatures, &theirs.notes().signatures);
    let has_more = ours.len() > theirs.len() && theirs.iter().all(|one| ours.contains(one));
    Ok(!(is_same && has_more))
}
