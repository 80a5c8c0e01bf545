//! A store that a fleet shares, as a tier.
//!
//! Invariant: a store that is slow, down, full or hostile costs a miss and never more: every
//! request has a deadline, a store that fails is left alone for a while, and what it sends
//! is verified whole before anything is made of it.

mod answers;
mod blobs;
mod breaker;
mod dal;
mod folder;
mod lease;
mod object;
mod oci;
mod probe;
mod queue;
mod redis;
mod registry;
mod release;
mod runtime;
mod send;
mod web_client;

pub use probe::Probed;
pub(super) use queue::drain_all;
pub use release::Release;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use answers::{Answers, Said};
use blobs::{Blobs, Trouble};
use breaker::{Breaker, Turn};
use dal::Dal;
use folder::SharedFolder;
use lease::Held;
use oci::Oci;
use queue::Queue;
use redis::Redis;

use super::event::{Asked, Event, Teller};
use super::store::entry::Whole;
use super::store::error::{CacheError, Fault};
use super::store::read::Load;
use super::tier::{Lease, Tier, TierName};
use crate::engine::build::key::CacheKey;
use crate::engine::config::remote::{RemotePlace, RemoteStore};
use crate::engine::per_process::PerProcess;

/// A store that a fleet shares. Nothing is opened before it is first asked.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    name: TierName,
    store: RemoteStore,
    /// A forked child has connections, and a memory, of its own.
    state: PerProcess<State>,
    teller: OnceLock<Teller>,
}

#[derive(Default)]
struct State {
    breaker: Mutex<Breaker>,
    answers: Mutex<Answers>,
    blobs: OnceLock<Result<Box<dyn Blobs>, String>>,
    queue: Arc<Queue>,
    leases: Mutex<HashMap<CacheKey, Held>>,
}

impl Remote {
    /// The store as a tier. Touches no network and no disk.
    #[must_use]
    pub fn new(store: RemoteStore) -> Self {
        Self(Arc::new(Inner {
            name: TierName::new(store.name()),
            store,
            state: PerProcess::new(),
            teller: OnceLock::new(),
        }))
    }

    /// The store.
    #[must_use]
    pub fn remote_store(&self) -> &RemoteStore {
        &self.0.store
    }
}

impl Inner {
    fn blobs(&self) -> Result<&dyn Blobs, Trouble> {
        let opened = self.state.blobs.get_or_init(|| match self.store.place() {
            RemotePlace::Folder(folder) => Ok(Box::new(SharedFolder::new(folder))),
            RemotePlace::Redis {
                endpoint, database, ..
            } => {
                let redis = Redis::new(endpoint, *database, self.store.login())?;
                Ok(Box::new(redis))
            }
            RemotePlace::Registry { .. } => Ok(Box::new(Oci::new(&self.store)?)),
            RemotePlace::Bucket { .. } | RemotePlace::Web { .. } => Ok(Box::new(Dal::new(&self.store)?)),
        });
        match opened {
            Ok(blobs) => Ok(&**blobs),
            Err(reason) => Err(Trouble::Failed(reason.clone())),
        }
    }

    /// One request, unless the store is left alone; what becomes of it counts.
    fn request<T>(&self, work: impl FnOnce(&dyn Blobs) -> Result<T, Trouble>) -> Result<T, CacheError> {
        let admitted = lock(&self.state.breaker).admit(Instant::now(), self.store.cool_down());
        if let Err(reason) = admitted {
            return Err(CacheError::Tier(format!(
                "it is left alone for a while: {reason}"
            )));
        }
        let done = self.blobs().and_then(work);
        let mut breaker = lock(&self.state.breaker);
        let turn = match &done {
            Err(trouble) if trouble.is_the_stores() => {
                let at_once = matches!(trouble, Trouble::Deadline(_));
                breaker.failed(Instant::now(), &trouble.to_string(), at_once)
            }
            _ => breaker.worked(),
        };
        drop(breaker);
        let tier = self.name.clone();
        match (turn, &done) {
            (Turn::Opened, Err(trouble)) => self.tell(&Event::StoreLeftAlone {
                tier,
                reason: trouble.to_string(),
            }),
            (Turn::Closed, _) => self.tell(&Event::StoreAskedAgain { tier }),
            _ => {}
        }
        done.map_err(|trouble| CacheError::Tier(trouble.to_string()))
    }

    fn ask(&self, key: &CacheKey) -> Load<Whole> {
        if !self.store.role().reads() {
            return Load::Absent;
        }
        match lock(&self.state.answers).get(Instant::now(), key) {
            Some(Said::Bad(fault)) => return Load::Bad(fault),
            Some(Said::Absent) => return Load::Absent,
            None => {}
        }
        let _span = tracing::info_span!("store", tier = %self.name, key = %key.short()).entered();
        let started = Instant::now();
        let path = object::path_of(key);
        let deadline = self.store.timeout();
        let found = self.request(|blobs| match blobs.get(&path, object::OBJECT_LIMIT, deadline) {
            // It says something of this object, not of the store.
            Err(Trouble::TooLong(_)) => Ok(Err(Fault::TooLong("the object".to_owned()))),
            Err(Trouble::Damaged(why)) => Ok(Err(Fault::Object(why))),
            other => other.map(Ok),
        });
        let (answer, bytes, load) = match found {
            Err(error) => (Asked::Unreachable, 0, Load::Unavailable(error)),
            Ok(Err(fault)) => (Asked::Refused, 0, Load::Bad(fault)),
            Ok(Ok(None)) => (Asked::Absent, 0, Load::Absent),
            Ok(Ok(Some(bytes))) => match object::unpack(key, &bytes) {
                Ok(whole) => (Asked::Found, bytes.len(), Load::Found(Box::new(whole))),
                Err(fault) => (Asked::Refused, bytes.len(), Load::Bad(fault)),
            },
        };
        match &load {
            Load::Absent => self.remember(key, Said::Absent),
            Load::Bad(fault) => self.remember(key, Said::Bad(fault.clone())),
            Load::Found(_) | Load::Unavailable(_) => {}
        }
        tracing::debug!(answer = answer.label(), bytes, elapsed = ?started.elapsed(), "asked");
        self.tell(&Event::Asked {
            key: *key,
            tier: self.name.clone(),
            answer,
            bytes: bytes as u64,
            elapsed: started.elapsed(),
        });
        load
    }

    fn remember(&self, key: &CacheKey, said: Said) {
        lock(&self.state.answers).keep(Instant::now(), key, said);
    }

    fn tell(&self, event: &Event) {
        if let Some(teller) = self.teller.get() {
            teller.tell(event);
        }
    }
}

impl Tier for Remote {
    fn name(&self) -> &TierName {
        &self.0.name
    }

    fn load(&self, key: &CacheKey) -> Load {
        match self.0.ask(key) {
            Load::Found(whole) => Load::Found(Box::new(whole.into_entry())),
            Load::Absent => Load::Absent,
            Load::Bad(fault) => Load::Bad(fault),
            Load::Unavailable(error) => Load::Unavailable(error),
        }
    }

    fn whole(&self, key: &CacheKey) -> Load<Whole> {
        self.0.ask(key)
    }

    fn is_far(&self) -> bool {
        true
    }

    /// Nobody here removes what others may load: it is not asked for again.
    fn expel(&self, key: &CacheKey) -> Result<(), CacheError> {
        let fault = Fault::Rejected("its code was refused here before".to_owned());
        lock(&self.0.state.answers).refuse(Instant::now(), key, fault);
        Err(CacheError::ReadOnly(self.0.name.to_string()))
    }

    fn offer(&self, entry: &Whole) -> Result<(), CacheError> {
        self.send_later(entry)
    }

    fn whole_anew(&self, key: &CacheKey) -> Load<Whole> {
        lock(&self.0.state.answers).forget(key);
        self.0.ask(key)
    }

    fn lease(&self, key: &CacheKey, longest: Duration) -> Lease {
        self.0.lease(key, longest)
    }

    fn unlease(&self, key: &CacheKey) {
        self.0.let_go(key);
    }

    fn break_lease(&self, key: &CacheKey, holder: &str) {
        self.0.break_lease(key, Some(holder));
    }

    fn drain(&self) {
        self.0.state.queue.drain(send::LAST_WORDS);
    }

    fn told_by(&self, teller: &Teller) {
        // A tier of several caches tells the first.
        let _ = self.0.teller.set(teller.clone());
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("store", &self.0.store)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
