//! What can be wrong with an entry, with a root, and with a request to look.
//!
//! Invariant: nothing here ever fails a build. A [`Fault`] makes a miss, and a
//! [`CacheError`] makes an artifact that is built but not kept.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::engine::build::key::CacheKey;
use crate::engine::sign::SignatureFault;

/// What to do about what is not signed.
const SIGN: &str =
    "sign it with `jitc sign sign`, add its key to JITC_TRUSTED_KEYS, or allow it with JITC_REQUIRE";

/// Why the bytes that were found under a key are not an entry for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A header of the entry is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// A symlink, pipe or folder stands where the entry should.
    #[error("it is not a regular file")]
    NotRegular,
    /// A file that the disk does not give back.
    #[error("it cannot be read")]
    Unreadable,
    /// Something longer than in any honest entry.
    #[error("{0} is too long")]
    TooLong(String),
    /// A part shorter or longer than it is said to be.
    #[error("{file} has {found} bytes, not {expected}")]
    Length {
        /// The part.
        file: String,
        /// What header or manifest say.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// A part with other bytes than those that were written.
    #[error("{file}: SHA-256 mismatch")]
    Digest {
        /// The part.
        file: String,
    },
    /// A file that does not begin as an entry does.
    #[error("it is not an entry of a cache")]
    Magic,
    /// The header's checksum does not fit its bytes.
    #[error("header: checksum mismatch")]
    Checksum,
    /// An entry of another format.
    #[error("format {0} is not known here")]
    Format(u32),
    /// A kind of code that this jitc does not know.
    #[error("kind {0} is not known here")]
    UnknownKind(u32),
    /// Something that is no machine code, and is never loaded as such.
    #[error("it holds no machine code but is of kind {0}")]
    Kind(&'static str),
    /// A manifest with a good digest that does not say what one says.
    #[error("the manifest cannot be understood: {0}")]
    Unparsable(String),
    /// A manifest that says something else than the preimage of its key.
    #[error("the manifest's {0} differ from what its key covers")]
    Unbound(&'static str),
    /// A preimage of no key version that this jitc knows.
    #[error("key version `{0}` is not known here")]
    KeyVersion(String),
    /// What no client of another cache is called.
    #[error("client `{0}`: expected 1 to 64 small letters, digits, `.`, `_` and `-`")]
    Client(String),
    /// The entry of another key.
    #[error("it is the entry of {0}")]
    Key(CacheKey),
    /// A preimage that does not hash to the key.
    #[error("key does not match the preimage")]
    Preimage,
    /// Somebody else could have written it.
    #[error("its file is not trusted: {0}; {remedy}", remedy = .0.remedy())]
    Untrusted(Distrust),
    /// A trusted key's signature is demanded of it.
    #[error("{0}, and a trusted key's signature is required of it: {SIGN}")]
    Signature(SignatureFault),
    /// What a store sent is no entry.
    #[error("what was sent is not an entry: {0}")]
    Object(String),
    /// The driver would not load it.
    #[error("the driver rejected it: {0}")]
    Rejected(String),
}

/// Why a file or folder is not loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// Its owner is neither this user nor root.
    #[error("it belongs to user {uid}")]
    Owner {
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
        /// Whether this process is of the group.
        ours: bool,
    },
    /// A group that is not root's may write to it.
    #[error("all of group {gid} may write to it (mode {mode:03o})")]
    Group {
        /// The mode.
        mode: u32,
        /// The group.
        gid: u32,
        /// Whether this process is of the group.
        ours: bool,
    },
    /// Anybody may write to it.
    #[error("others may write to it (mode {0:03o})")]
    Writable(u32),
}

impl Distrust {
    /// What to do about it, as a command's words: in the image, at the volume, or here.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Owner { ours: true, .. } => {
                "set JITC_CACHE_TRUST=group if its group may fill it (a volume, a team's cache), or give it to \
                 this user or root with chown -R"
            }
            Self::Owner { ours: false, .. } => {
                "use a cache folder of your own, give it to this user or root (chown -R; in an image \
                 COPY --chown=0:0), or set JITC_CACHE_TRUST=1"
            }
            Self::Group { ours: true, .. } => {
                "set JITC_CACHE_TRUST=group if that is meant (fsGroup, a team's cache), else run \
                 chmod -R g-w on it"
            }
            Self::Group { ours: false, .. } => {
                "run chmod -R g-w or chgrp -R 0 on it (in an image: where it is built), or set \
                 JITC_CACHE_TRUST=1"
            }
            Self::Writable(_) => {
                "run chmod -R go-w on it (in an image: where it is built), or set JITC_CACHE_TRUST=1"
            }
        }
    }
}

/// Why a tier could not be read from or written to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The operating system said no.
    #[error("cannot {action} {}: {}", path.display(), std::io::Error::from(*errno))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        errno: Errno,
    },
    /// The folder could have been written by somebody else.
    #[error("{} is not trusted: {why}; {}", path.display(), why.remedy())]
    Untrusted {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        why: Distrust,
    },
    /// A symlink in the place of a folder of the cache, which is not followed.
    #[error("{} is a symlink that is not followed: {why}; make it a folder, or name its target's cache in \
             JITC_CACHE_DIR or JITC_CACHE_RO", path.display())]
    Link {
        /// The symlink.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A folder of other things, which is not made a cache.
    #[error("{} is not a cache of jitc's, and holds {holds}: name an empty or new folder in JITC_CACHE_DIR or --cache-dir", path.display())]
    NotACache {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        holds: String,
    },
    /// A tier that is not written to.
    #[error("{0} is read-only")]
    ReadOnly(String),
    /// An entry that no load would take.
    #[error("not kept: {0}")]
    Refused(Fault),
    /// There is no tier that could be written to.
    #[error("no tier of the cache is writable; name a folder that is in JITC_CACHE_DIR or --cache-dir")]
    NoWritableTier,
    /// This process is ending and publishes no more.
    #[error("the process is ending")]
    Quiesced,
    /// A tier that is not on disk has its own reasons.
    #[error("{0}")]
    Tier(String),
}

/// A kind of trouble, whatever the path.
pub(in crate::engine::cache) type Sort = (std::mem::Discriminant<CacheError>, Option<Errno>);

impl CacheError {
    /// What it is apart from the path: warnings of the same kind are given once.
    pub(in crate::engine::cache) fn sort(&self) -> Sort {
        (std::mem::discriminant(self), self.errno())
    }

    /// Whether this process has run out of something, which may be over at the next try.
    pub(in crate::engine::cache) fn is_passing(&self) -> bool {
        matches!(self.errno(), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }

    /// What the operating system answered, where it was asked.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Why a prefix of a key names no entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// Not a prefix of hex digits at all.
    #[error("`{0}` is not a key prefix: expected 1 to 64 lower-case hex digits")]
    NotAPrefix(String),
    /// No entry's key starts so.
    #[error("no entry's key starts with {0}")]
    None(String),
    /// More than one does.
    #[error("{} entries' keys start with {prefix}", keys.len())]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// The keys, sorted.
        keys: Vec<CacheKey>,
    },
    /// The entry is there but not good.
    #[error("the entry of {key} is bad: {fault}")]
    Bad {
        /// The entry.
        key: CacheKey,
        /// What is wrong.
        fault: Fault,
    },
    /// The tier cannot be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
