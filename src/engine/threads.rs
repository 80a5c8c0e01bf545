//! Work on several threads.
//!
//! Invariant: the caller's thread works too, so threads that the system will not make
//! (`RLIMIT_NPROC`, a control group's `pids.max`) cost speed and never the work.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Does something for every item on up to so many threads, the caller's among them. The
/// results are in the order of the items.
///
/// # Panics
/// Where `each` does.
pub fn for_each_on<I: Send, T: Send>(
    threads: usize,
    items: impl IntoIterator<Item = I>,
    each: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    let items: Vec<I> = items.into_iter().collect();
    let threads = threads.min(items.len());
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let queue = Mutex::new(items.into_iter().enumerate());
    let work = || {
        loop {
            let next = lock(&queue).next();
            let Some((at, item)) = next else { return };
            let result = each(item);
            lock(&done).push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if let Err(reason) = std::thread::Builder::new().spawn_scoped(scope, work) {
                tracing::debug!(%reason, "fewer threads than there are cores");
                break;
            }
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in `each` holds no lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_whatever_the_threads() {
        for threads in [0, 1, 2, 7, 1000] {
            assert_eq!(
                for_each_on(threads, 0..20, |i| i * i),
                (0..20).map(|i| i * i).collect::<Vec<_>>()
            );
        }
        assert!(for_each_on(4, Vec::<u32>::new(), |i| i).is_empty());
    }
}
