//! State that a forked child starts anew.
//!
//! Invariant: nothing that a thread of the parent holds is waited for in a child, where
//! that thread does not exist: the child never touches what it inherited.
//!
//! A fork is noticed where it goes through the C library's `fork`, as those of Python and
//! of Rust's own `Command` do; a bare system call that makes a process is not.

use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// Forks between this process and the first of its line that asked.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static WATCHED: AtomicBool = AtomicBool::new(false);

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Tells this process from those that it was forked from; costs one load.
#[must_use]
pub fn generation() -> u64 {
    if !WATCHED.load(Ordering::Relaxed) && !WATCHED.swap(true, Ordering::Relaxed) {
        // SAFETY: the handler adds to an atomic, which a forked child may do. Where there
        // is no memory to note it, forks are not noticed, as before.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
    GENERATION.load(Ordering::Relaxed)
}

/// A value that is made anew, by default, in a forked child. What the child inherited is
/// neither used nor dropped there: another thread may have been at it.
#[derive(Debug)]
pub struct PerProcess<T> {
    newest: AtomicPtr<Made<T>>,
}

#[derive(Debug)]
struct Made<T> {
    generation: u64,
    value: T,
}

impl<T> PerProcess<T> {
    /// Nothing yet: the value is made when it is first used.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            newest: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Default> Deref for PerProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let generation = generation();
        let mut seen = self.newest.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or a value that was leaked below, and is freed by `drop` alone.
            if let Some(made) = unsafe { seen.as_ref() }
                && made.generation == generation
            {
                return &made.value;
            }
            let value = T::default();
            let made = Box::into_raw(Box::new(Made { generation, value }));
            match self
                .newest
                .compare_exchange(seen, made, Ordering::AcqRel, Ordering::Acquire)
            {
                // The parent's value is left where it is: the child cannot know its state.
                Ok(_) => seen = made,
                Err(other) => {
                    // SAFETY: made above, and seen by nobody else.
                    drop(unsafe { Box::from_raw(made) });
                    seen = other;
                }
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let newest = *self.newest.get_mut();
        // SAFETY: null, or leaked by `deref`.
        if unsafe { newest.as_ref() }.is_some_and(|made| made.generation == generation()) {
            // SAFETY: leaked by `deref`, and borrowed by nobody any more.
            drop(unsafe { Box::from_raw(newest) });
        }
    }
}

// SAFETY: it owns a `T`, as a box does.
unsafe impl<T: Send> Send for PerProcess<T> {}
// SAFETY: it gives out `&T`, and may make and drop a `T` on any thread.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Default)]
    struct Counted(Mutex<Option<Arc<()>>>);

    #[test]
    fn within_one_process_it_is_one_value_which_is_dropped_with_it() {
        let held = Arc::new(());
        let state = PerProcess::<Counted>::new();
        *state.0.lock().expect("unlocked") = Some(Arc::clone(&held));
        assert!(state.0.lock().expect("unlocked").is_some());
        assert_eq!(Arc::strong_count(&held), 2);
        drop(state);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn threads_that_ask_at_once_get_the_same_value() {
        let state = PerProcess::<Mutex<u32>>::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| *state.lock().expect("unlocked") += 1);
            }
        });
        assert_eq!(*state.lock().expect("unlocked"), 8);
    }
}
