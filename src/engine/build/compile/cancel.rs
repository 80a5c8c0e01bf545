//! Giving up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cancels what it was given to, from any thread. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that nobody has canceled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels. There is no way back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was canceled.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
