//! Entries that are sent behind the back of whoever built them.
//!
//! Invariant: it is bounded in number and bytes, and nobody waits for it but who ends: what
//! does not fit is not sent, and what a crash loses costs others a compile.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::engine::cache::store::entry::Whole;
use crate::engine::per_process::PerProcess;

/// So many entries wait at most,
const MOST: usize = 256;
/// with so many bytes.
const MOST_BYTES: u64 = 256 << 20;
/// A thread without work ends after so long.
const IDLE: Duration = Duration::from_secs(5);

/// How long a process that is ending by a signal goes on sending.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Those that have had a thread; a forked child has none.
static QUEUES: PerProcess<Mutex<Vec<Weak<Queue>>>> = PerProcess::new();

/// Waits for a moment until all queues of this process are empty.
pub(in crate::engine::cache) fn drain_all() {
    let queues = std::mem::take(&mut *QUEUES.lock().unwrap_or_else(PoisonError::into_inner));
    let deadline = Instant::now() + LAST_MOMENT;
    for queue in queues.iter().filter_map(Weak::upgrade) {
        queue.drain(deadline.saturating_duration_since(Instant::now()));
    }
}

/// What waits to be sent, and the thread that sends it while there is anything.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Whole>,
    bytes: u64,
    /// Whether the thread is there, and whether it is sending.
    has_thread: bool,
    is_sending: bool,
}

impl Queue {
    /// Puts an entry at the end; `send` is what the thread does with each.
    pub(super) fn push(
        self: &Arc<Self>,
        entry: Whole,
        send: impl Fn(&Whole) + Send + 'static,
    ) -> Result<(), &'static str> {
        let mut waiting = self.lock();
        let bytes = entry.entry().manifest().payload_bytes();
        if waiting.entries.len() >= MOST || waiting.bytes.saturating_add(bytes) > MOST_BYTES {
            return Err("too much waits to be sent");
        }
        if !waiting.has_thread {
            let queue = Arc::clone(self);
            let name = "jitc write-behind".to_owned();
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || queue.work(&send));
            thread.map_err(|_| "there is no thread to send it")?;
            waiting.has_thread = true;
            let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
            queues.retain(|known| known.upgrade().is_some_and(|known| !Arc::ptr_eq(&known, self)));
            queues.push(Arc::downgrade(self));
        }
        waiting.bytes += bytes;
        waiting.entries.push_back(entry);
        drop(waiting);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until all is sent, but no longer than this; what is left then is forgotten.
    pub(super) fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut waiting = self.lock();
        while waiting.is_sending || !waiting.entries.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let entries = waiting.entries.len() + usize::from(waiting.is_sending);
                tracing::warn!("{entries} entries were not sent in time");
                waiting.entries.clear();
                waiting.bytes = 0;
                return;
            }
            waiting = self.wait(waiting, left);
        }
    }

    fn work(&self, send: &impl Fn(&Whole)) {
        let mut idle_since = Instant::now();
        let mut waiting = self.lock();
        loop {
            if let Some(entry) = waiting.entries.pop_front() {
                waiting.bytes -= entry.entry().manifest().payload_bytes();
                waiting.is_sending = true;
                drop(waiting);
                send(&entry);
                waiting = self.lock();
                waiting.is_sending = false;
                self.changed.notify_all();
                idle_since = Instant::now();
                continue;
            }
            let left = IDLE.saturating_sub(idle_since.elapsed());
            if left.is_zero() {
                waiting.has_thread = false;
                return;
            }
            waiting = self.wait(waiting, left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, waiting: MutexGuard<'a, Waiting>, longest: Duration) -> MutexGuard<'a, Waiting> {
        let woken = self.changed.wait_timeout(waiting, longest);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}
