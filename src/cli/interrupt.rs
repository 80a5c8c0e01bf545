//! What ends the program from outside: Ctrl-C, and the SIGTERM of whoever runs it.
//!
//! Invariant: it ends as its sender expects: by the signal itself, or, where the kernel
//! lets no signal end it (the first process of a container), with 128 and the signal's
//! number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use super::output;
use crate::engine::build::toolchain::abandon_installs;
use crate::engine::cache::shutdown;

/// The signals that mean: end.
const ENDING: [i32; 2] = [SIGINT, SIGTERM];

/// Whether there is a cache to leave clean.
static WRITING: AtomicBool = AtomicBool::new(false);

/// Whether a signal has come that ends the program.
static ENDING_NOW: AtomicBool = AtomicBool::new(false);

/// Does not return once such a signal has come: how the program ends is the signal's to
/// say, and not that of the work which it cut short.
pub(super) fn wait_if_ending() {
    while ENDING_NOW.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// The kernel delivers signals to the first process of a container only where it
/// handles them: without this, Ctrl-C and `docker stop` would do nothing.
pub(super) fn end_as_first_process() {
    if is_first_process() {
        handle_signals();
    }
}

/// The first Ctrl-C lets a publish in progress end, ends a fetch, and leaves a clean cache.
pub(super) fn leave_a_clean_cache() {
    WRITING.store(true, Ordering::Relaxed);
    if !is_first_process() {
        handle_signals();
    }
}

fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Waits on a thread of its own, from before this returns. Where none can be made,
/// signals do what they do by default, and end a first process all the same.
fn handle_signals() {
    let (registered, wait_for) = std::sync::mpsc::channel();
    let wait = move || {
        let signals = Signals::new(ENDING);
        // The receiver waits: it is there.
        let _ = registered.send(());
        let Ok(mut signals) = signals else {
            return;
        };
        let Some(signal) = signals.forever().next() else {
            return;
        };
        ENDING_NOW.store(true, Ordering::SeqCst);
        if WRITING.load(Ordering::Relaxed) {
            shutdown();
            abandon_installs();
            output::note("interrupted; the cache is clean, and what was built so far is kept");
        }
        if !is_first_process() {
            let _ = low_level::emulate_default_handler(signal);
        }
        // At once: other threads may be in the middle of a compile, and must not meet what
        // exit handlers have torn down.
        low_level::exit(128 + signal);
    };
    // In the thread: a handler that nobody listens to would swallow the signal.
    if std::thread::Builder::new().spawn(wait).is_ok() {
        // What follows may be interrupted at once. A thread that ended has sent.
        let _ = wait_for.recv();
    } else if is_first_process() {
        for signal in ENDING {
            let always = Arc::new(AtomicBool::new(true));
            let _ = flag::register_conditional_shutdown(signal, 128 + signal, always);
        }
    }
}
