//! A cache with a store, and what it told.

use std::sync::{Arc, Mutex, PoisonError};

use jitc::engine::cache::{Asked, Cache, CacheBuilder, Event};
use jitc::engine::config::remote::RemoteStore;

/// Everything that a cache told, in order.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.all().iter().filter(|event| which(event)).count()
    }

    /// How each request to a store was answered, in order.
    pub(crate) fn answers(&self) -> Vec<Asked> {
        let answer = |event: &Event| match event {
            Event::Asked { answer, .. } => Some(*answer),
            _ => None,
        };
        self.all().iter().filter_map(answer).collect()
    }

    /// Makes the cache.
    pub(crate) fn by(&self, cache: CacheBuilder) -> Cache {
        let told = Arc::clone(&self.0);
        let tell = move |event: &Event| {
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event.clone());
        };
        cache.listener(Arc::new(tell)).build()
    }
}

pub(crate) fn store(url: &str) -> RemoteStore {
    RemoteStore::parse(url).expect(url)
}
