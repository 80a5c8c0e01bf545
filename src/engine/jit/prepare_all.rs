//! Many requests at once: the one parallel preparation, for warming, checks and servers.
//!
//! Invariant: every spec is prepared whatever becomes of the others; what is told is told
//! on the caller's thread.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::machine::available_bytes;
use super::{Error, Jit, Prepared};
use crate::engine::request::spec::KernelSpec;
use crate::engine::threads::cores;

/// What NVRTC may need for one compile, with room for kernels much larger than the
/// largest that come with jitc, of which a whole process peaks at 92 MB.
const COMPILE_BYTES: u64 = 512 << 20;

/// How often a running request is told of.
const ALIVE: Duration = Duration::from_secs(10);

/// How many requests are prepared at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Jobs {
    /// As many as there are cores, as far as free memory allows: this process' own, in a
    /// container too.
    #[default]
    Auto,
    /// This many.
    Count(NonZeroUsize),
}

impl Jobs {
    /// The number of threads that it comes to on this machine, at least 1.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Auto => {
                let fit = available_bytes().map_or(u64::MAX, |bytes| bytes / COMPILE_BYTES);
                cores().min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
            }
            Self::Count(count) => count.get(),
        }
    }
}

/// What [`Jit::prepare_all`] tells while it works. Indices are into its list of specs.
#[derive(Debug)]
pub enum Progress {
    /// A request is done.
    Done {
        /// Index of the spec.
        index: usize,
        /// What became of it.
        result: Box<Result<Prepared, Error>>,
    },
    /// A request is still being prepared; told every 10 seconds.
    Running {
        /// Index of the spec.
        index: usize,
        /// For how long it has been running.
        elapsed: Duration,
    },
}

enum Message {
    Started(usize),
    Done(usize, Box<Result<Prepared, Error>>),
}

impl Jit {
    /// Prepares every spec, `jobs` at once, and tells of each as it ends, on this thread. A
    /// failure stops none of the others, and threads that cannot be made cost only time.
    pub fn prepare_all(&self, specs: &[&KernelSpec], jobs: Jobs, tell: &mut dyn FnMut(Progress)) {
        let queue: Mutex<VecDeque<usize>> = Mutex::new((0..specs.len()).collect());
        let (send, receive) = mpsc::channel();
        std::thread::scope(|scope| {
            let mut started = 0;
            for _ in 0..jobs.count().min(specs.len()) {
                let (queue, send) = (&queue, send.clone());
                let work = move || {
                    while let Some(index) = next(queue) {
                        let _ = send.send(Message::Started(index));
                        let _ = send.send(Message::Done(index, Box::new(self.prepare(specs[index]))));
                    }
                };
                if let Err(reason) = std::thread::Builder::new().spawn_scoped(scope, work) {
                    tracing::warn!(%reason, started, "fewer threads than requested: it takes longer");
                    break;
                }
                started += 1;
            }
            drop(send);
            // No thread at all could be made: this one does it.
            while started == 0
                && let Some(index) = next(&queue)
            {
                let result = Box::new(self.prepare(specs[index]));
                tell(Progress::Done { index, result });
            }
            let mut running: Vec<(usize, Instant, u64)> = Vec::new();
            loop {
                match receive.recv_timeout(Duration::from_secs(1)) {
                    Ok(Message::Started(index)) => running.push((index, Instant::now(), 0)),
                    Ok(Message::Done(index, result)) => {
                        running.retain(|(i, ..)| *i != index);
                        tell(Progress::Done { index, result });
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
                for (index, since, last_reported) in &mut running {
                    let (index, elapsed) = (*index, since.elapsed());
                    let times = elapsed.as_secs() / ALIVE.as_secs();
                    if times > *last_reported {
                        *last_reported = times;
                        tell(Progress::Running { index, elapsed });
                    }
                }
            }
        });
    }

    /// Prepares every spec, and fails with the first failure in the order of the list once
    /// all have ended: for checks and servers, which need all of them.
    pub fn prepare_each<'s>(&self, specs: impl IntoIterator<Item = &'s KernelSpec>) -> Result<(), Error> {
        let specs: Vec<&KernelSpec> = specs.into_iter().collect();
        let mut failed: Option<(usize, Error)> = None;
        self.prepare_all(&specs, Jobs::Auto, &mut |progress| {
            if let Progress::Done { index, result } = progress
                && let Err(error) = *result
                && failed.as_ref().is_none_or(|(earlier, _)| index < *earlier)
            {
                failed = Some((index, error));
            }
        });
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// The next of a queue of indices.
fn next(queue: &Mutex<VecDeque<usize>>) -> Option<usize> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}
