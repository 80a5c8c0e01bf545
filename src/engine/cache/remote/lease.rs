//! Who of all machines builds a key.
//!
//! Invariant: a lease is a hint. Who has none, or loses it, may still build: equal keys give
//! equal bytes. Its length counts from when each who waits first sees it, so that clocks
//! need not agree; a holder that dies costs that length once.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::blobs::{Done, Put, Trouble};
use super::{Inner, lock};
use crate::engine::build::key::CacheKey;
use crate::engine::cache::tier::Lease;

/// The file of a lease is never longer.
const LIMIT: u64 = 512;
/// No holder is waited for longer, whatever it says.
const LONGEST: Duration = Duration::from_mins(10);

/// A lease of this process.
#[derive(Debug, Clone)]
pub(super) struct Held {
    holder: String,
    until: Instant,
}

/// What lies under the name of a lease.
#[derive(Serialize, Deserialize)]
struct Note {
    holder: String,
    for_ms: u64,
}

fn path_of(key: &CacheKey) -> String {
    format!("v2/leases/{}", key.hex())
}

impl Inner {
    pub(super) fn lease(&self, key: &CacheKey, longest: Duration) -> Lease {
        if !self.store.role().reads() || !self.store.takes_entries() {
            return Lease::None;
        }
        let Some(holder) = random_name() else {
            return Lease::None;
        };
        let for_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let note = Note {
            holder: holder.clone(),
            for_ms,
        };
        let bytes = serde_json::to_vec(&note).unwrap_or_default();
        let (path, deadline) = (path_of(key), self.store.timeout());
        let found = self.request(|blobs| {
            let put = blobs.put(&path, bytes, Put::IfAbsent, deadline)?;
            if put == Done::Put && blobs.creates_alone() {
                return Ok(None);
            }
            match blobs.get(&path, LIMIT, deadline) {
                Err(Trouble::TooLong(_)) => Ok(Some(Vec::new())),
                other => other.map(Option::unwrap_or_default).map(Some),
            }
        });
        match found {
            Err(_) => Lease::None,
            Ok(None) => self.leased(key, holder, longest),
            Ok(Some(bytes)) => match serde_json::from_slice::<Note>(&bytes) {
                Ok(note) if note.holder == holder => self.leased(key, holder, longest),
                Ok(note) => Lease::Theirs {
                    holder: note.holder,
                    longest: Duration::from_millis(note.for_ms).min(LONGEST),
                },
                // It went meanwhile, or is none: nobody who could be waited for.
                Err(_) if bytes.is_empty() => Lease::Theirs {
                    holder: String::new(),
                    longest: Duration::ZERO,
                },
                Err(_) => Lease::None,
            },
        }
    }

    fn leased(&self, key: &CacheKey, holder: String, longest: Duration) -> Lease {
        let until = Instant::now() + longest;
        lock(&self.state.leases).insert(*key, Held { holder, until });
        Lease::Ours
    }

    /// Lets go of a lease, if this process holds one.
    pub(super) fn let_go(&self, key: &CacheKey) {
        let Some(held) = lock(&self.state.leases).remove(key) else {
            return;
        };
        // After its time another may hold it.
        let may_be_anothers = Instant::now() >= held.until;
        self.break_lease(key, may_be_anothers.then_some(&*held.holder));
    }

    /// Removes a lease; one that may be another's only if it is of this holder.
    pub(super) fn break_lease(&self, key: &CacheKey, of: Option<&str>) {
        let (path, deadline) = (path_of(key), self.store.timeout());
        let removed = self.request(|blobs| {
            if let Some(holder) = of {
                let bytes = blobs.get(&path, LIMIT, deadline)?.unwrap_or_default();
                let note = serde_json::from_slice::<Note>(&bytes);
                if note.is_ok_and(|note| note.holder != *holder) {
                    return Ok(());
                }
            }
            blobs.delete(&path, deadline)
        });
        if let Err(error) = removed {
            // It costs others its length.
            tracing::debug!(key = %key.short(), store = %self.name, %error, "a lease stays");
        }
    }
}

/// A name that nobody else has.
fn random_name() -> Option<String> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| hex::encode(bytes))
}
