//! What a cache is made of.
//!
//! Invariant: building a [`Cache`] touches no disk; whether its folders exist is
//! found out by the first lookup.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::carry::Embedded;
use super::event::Event;
use super::guarded::guarded;
use super::lookup::{Cache, Listener};
#[cfg(feature = "remote")]
use super::remote::Remote;
use super::store::Store;
use super::store::prune::Limits;
use super::tier::{Folder, Tier};
use crate::engine::config::CacheTrust;
#[cfg(feature = "remote")]
use crate::engine::config::remote::RemoteStore;
use crate::engine::sign::{Place, Signing};

/// How long a build of this process may take, where nobody says it.
const BUILD_TIMEOUT: Duration = Duration::from_mins(5);

/// What a [`Cache`] is made of. Building one touches no disk.
#[derive(Default)]
#[must_use]
pub struct CacheBuilder {
    before: Vec<Arc<dyn Tier>>,
    read_only: Vec<PathBuf>,
    user: Option<PathBuf>,
    after: Vec<Arc<dyn Tier>>,
    #[cfg(feature = "remote")]
    remotes: Vec<Remote>,
    lock_timeout: Option<Duration>,
    build_timeout: Option<Duration>,
    trust: CacheTrust,
    signing: Signing,
    limits: Limits,
    listener: Option<Listener>,
}

impl Cache {
    /// What a cache is made of.
    pub fn builder() -> CacheBuilder {
        CacheBuilder::default()
    }
}

impl CacheBuilder {
    /// A bundle in the program's own image, from `include_bytes!`; asked first.
    pub fn embedded(mut self, bundle: &'static [u8]) -> Self {
        self.before.push(Arc::new(Embedded::new(bundle)));
        self
    }

    /// A folder that is only read from; several are asked in the order given.
    pub fn read_only(mut self, path: impl Into<PathBuf>) -> Self {
        self.read_only.push(path.into());
        self
    }

    /// The user's folder, which is written to.
    pub fn user(mut self, path: impl Into<PathBuf>) -> Self {
        self.user = Some(path.into());
        self
    }

    /// A store that the fleet shares, asked after all tiers of this machine.
    #[cfg(feature = "remote")]
    pub fn remote(mut self, store: RemoteStore) -> Self {
        let remote = Remote::new(store);
        self.remotes.push(remote.clone());
        self.tier(Arc::new(remote))
    }

    /// A tier of another kind, asked after the folders.
    pub fn tier(mut self, tier: Arc<dyn Tier>) -> Self {
        self.after.push(tier);
        self
    }

    /// How long a build may take (5 min): others wait for it as long as that.
    pub fn build_timeout(mut self, timeout: Duration) -> Self {
        self.build_timeout = Some(timeout);
        self
    }

    /// How long to wait for another builder of the same key before taking over (as long
    /// as that one may take, and 10 s).
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// The most bytes that the user's folder may hold (4 GiB).
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_bytes = bytes;
        self
    }

    /// The most entries that it may hold (50,000).
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.limits.max_entries = entries;
        self
    }

    /// Whose files to load, beside this user's and root's; `true` is anybody's.
    pub fn trust(mut self, trust: impl Into<CacheTrust>) -> Self {
        self.trust = trust.into();
        self
    }

    /// Which keys are trusted, and what must be signed by one.
    pub fn signing(mut self, signing: Signing) -> Self {
        self.signing = signing;
        self
    }

    /// Who is told of every event, on the thread on which it happens.
    pub fn listener(mut self, listener: Arc<dyn Fn(&Event) + Send + Sync>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The cache.
    #[must_use]
    pub fn build(self) -> Cache {
        let signed = |tiers: Vec<Arc<dyn Tier>>, place| {
            let admission = self.signing.of(place);
            tiers.into_iter().map(move |tier| guarded(tier, &admission))
        };
        let mut tiers: Vec<_> = signed(self.before, Place::Bundle).collect();
        for path in self.read_only {
            let name = format!("read-only {}", path.display());
            let store = Store::read_only(path)
                .with_trust(self.trust)
                .with_admission(self.signing.of(Place::ReadOnly));
            tiers.push(Arc::new(Folder::new(&name, store)));
        }
        if let Some(path) = self.user {
            let store = Store::new(path)
                .with_trust(self.trust)
                .with_admission(self.signing.of(Place::User));
            tiers.push(Arc::new(Folder::new("user", store)));
        }
        tiers.extend(signed(self.after, Place::Other));
        let cache = Cache::new(
            tiers,
            self.limits,
            self.lock_timeout,
            self.build_timeout.unwrap_or(BUILD_TIMEOUT),
            self.listener,
        );
        #[cfg(feature = "remote")]
        let cache = cache.with_remotes(self.remotes);
        cache
    }
}
