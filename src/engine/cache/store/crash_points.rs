//! The named steps of publishing, where the crash tests stop a writer.
//!
//! Invariant: outside this crate's own tests, reaching a step does nothing.

/// A point in [`super::Store::publish`] at which a writer may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The lock is held, nothing is written.
    Claimed,
    /// The staged file exists, empty.
    Staged,
    /// The headers' texts are kept.
    Texts,
    /// The staged file is written.
    Written,
    /// The staged file is on disk.
    Synced,
    /// The entry has its name.
    Renamed,
    /// The shard folder is on disk.
    Published,
    /// A bad entry was moved out of the way.
    Quarantined,
}

/// Says that a step was reached.
#[inline]
#[cfg_attr(not(test), expect(unused_variables))]
pub(super) fn reach(step: Step) {
    #[cfg(test)]
    hook::reach(step);
}

#[cfg(test)]
pub(super) mod hook {
    //! Where a test's child process says what a step shall do.
    use std::sync::OnceLock;

    use super::Step;

    type Hook = Box<dyn Fn(Step) + Send + Sync>;

    static HOOK: OnceLock<Hook> = OnceLock::new();

    pub(crate) fn set(hook: impl Fn(Step) + Send + Sync + 'static) {
        let _ = HOOK.set(Box::new(hook));
    }

    pub(super) fn reach(step: Step) {
        if let Some(hook) = HOOK.get() {
            hook(step);
        }
    }
}
