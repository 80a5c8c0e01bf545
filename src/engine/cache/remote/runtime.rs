//! The threads on which requests are carried out.
//!
//! Invariant: who asks waits on a channel and never inside the runtime, so that a program
//! with a runtime of its own may ask too, and waits no longer than the deadline.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::blobs::Trouble;
use crate::engine::per_process::PerProcess;

/// What the runtime may need to notice that the time is up.
const SLACK: Duration = Duration::from_millis(100);

/// A forked child has its own.
static RUNTIME: PerProcess<OnceLock<io::Result<Runtime>>> = PerProcess::new();

/// Why work was not done.
pub(super) enum Failed<E> {
    /// It says so.
    Error(E),
    /// It had no chance to.
    Trouble(Trouble),
}

/// Carries work out on the runtime, and waits for it no longer than this.
pub(super) fn within<T: Send + 'static, E: Send + 'static>(
    deadline: Duration,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Failed<E>> {
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads(2)
            .thread_name("jitc store")
            .enable_all()
            .build()
    });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Err(Failed::Trouble(Trouble::Failed(error.kind().to_string()))),
    };
    let (send, receive) = sync_channel(1);
    let task = runtime.spawn(async move {
        // Nobody listens any more where it took too long.
        let _ = send.send(tokio::time::timeout(deadline, work).await);
    });
    match receive.recv_timeout(deadline + SLACK) {
        Ok(Ok(done)) => done.map_err(Failed::Error),
        Ok(Err(_)) => Err(Failed::Trouble(Trouble::Deadline(deadline))),
        Err(RecvTimeoutError::Timeout) => {
            task.abort();
            Err(Failed::Trouble(Trouble::Deadline(deadline)))
        }
        Err(RecvTimeoutError::Disconnected) => Err(Failed::Trouble(Trouble::Failed(
            "the request panicked".to_owned(),
        ))),
    }
}
