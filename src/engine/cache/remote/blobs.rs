//! What a store can do, whatever it is.
//!
//! Invariant: every request ends within its deadline, and gives no more bytes than were
//! allowed; what a server says is never repeated, since it may hold anything.

use std::time::Duration;

use super::release::Release;

/// Bytes by name, somewhere else.
pub(super) trait Blobs: Send + Sync {
    /// The bytes under a name; `None`: there are none.
    fn get(&self, path: &str, limit: u64, deadline: Duration) -> Result<Option<Vec<u8>>, Trouble>;

    /// Puts bytes under a name, whole or not at all.
    fn put(&self, path: &str, bytes: Vec<u8>, how: Put, deadline: Duration) -> Result<Done, Trouble>;

    /// Removes a name, if it is there.
    fn delete(&self, path: &str, deadline: Duration) -> Result<(), Trouble>;

    /// Whether of those who create one name at once one alone is told that it did.
    fn creates_alone(&self) -> bool;

    /// Where it keeps whole releases in a way of its own, and takes no single names.
    fn releases(&self) -> Option<&dyn Releases> {
        None
    }
}

/// Whole releases by name, as registries keep them.
pub(super) trait Releases {
    /// Puts a bundle there, and then lets the name lead to it; gives the hex SHA-256 of
    /// what the name leads to.
    fn push(&self, name: &str, bundle: &[u8], deadline: Duration) -> Result<String, Trouble>;

    /// The bundle of a release; `None`: there is none.
    fn pull(&self, release: &Release, deadline: Duration) -> Result<Option<Vec<u8>>, Trouble>;

    /// Whether it can be written to.
    fn probe(&self, deadline: Duration) -> Result<(), Trouble>;
}

/// What a put does where the name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Nothing, where the store can tell; else the bytes are replaced.
    IfAbsent,
    /// The bytes are replaced.
    Replace,
}

/// How a put ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// The bytes are there.
    Put,
    /// The name was taken.
    WasThere,
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    #[error("it did not answer within {}", seconds(*.0))]
    Deadline(Duration),
    #[error("it refuses these credentials, or that there are none")]
    Denied,
    #[error("it sends more than {0} bytes")]
    TooLong(u64),
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Failed(String),
}

impl Trouble {
    /// Whether it says something of the store, not only of one object.
    pub(super) fn is_the_stores(&self) -> bool {
        !matches!(self, Self::TooLong(_) | Self::Damaged(_))
    }
}

fn seconds(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}
