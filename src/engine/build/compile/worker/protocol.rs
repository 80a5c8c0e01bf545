//! What goes through the pipe: one message a way, each a JSON head and raw bytes.
//!
//! Invariant: both ends are the same build, which the first messages show; so there are
//! no versions, and whatever does not parse is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::build::artifact::Resources;
use crate::engine::build::compile::Limits;
use crate::engine::build::render::RenderedSource;
use crate::engine::build::toolchain::Toolchain;
use crate::engine::request::header_set::{HeaderSet, SetUse};
use crate::engine::request::target::ToolchainIdentity;

/// The largest part of a message, bytes: what is longer is no message.
const LARGEST: u64 = 1 << 30;

/// What a worker is told at its start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// The library, as bytes: a path need not be UTF-8.
    pub(super) nvrtc: Vec<u8>,
    pub(super) builtins: Vec<u8>,
    pub(super) identity: ToolchainIdentity,
    pub(super) memory: u64,
}

/// Which file it is that lies under a path, and which state of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileFacts {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileFacts {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs_err::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Of the toolchain's two libraries.
    pub(super) fn of_both(toolchain: &Toolchain) -> io::Result<[Self; 2]> {
        Ok([Self::of(&toolchain.nvrtc)?, Self::of(&toolchain.builtins)?])
    }
}

/// What a worker is asked.
#[derive(Debug, Serialize)]
pub(super) struct Task<'a> {
    ptx: bool,
    name: &'a str,
    source: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    sets: Vec<SetHead>,
    expressions: &'a [(String, String)],
    options: &'a [String],
    /// Seconds of processor time that it may take.
    cpu_seconds: u64,
}

/// As [`Task`], where it arrives.
#[derive(Debug, Deserialize)]
pub(super) struct Received {
    pub(super) ptx: bool,
    name: String,
    source: String,
    headers: Vec<(String, String)>,
    sets: Vec<SetHead>,
    expressions: Vec<(String, String)>,
    options: Vec<String>,
    pub(super) cpu_seconds: u64,
}

/// A header set of a task. A worker keeps those that it was sent: only the first task that
/// uses one brings its bytes, which stand in the message's raw part, one behind the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SetHead {
    name: String,
    identity: String,
    digest: String,
    /// How many bytes of it come with this task; none if it was sent before.
    bytes: usize,
}

/// The sets that a worker has, by digest.
#[derive(Debug, Default)]
pub(super) struct Sets(BTreeMap<String, Arc<HeaderSet>>);

/// What a worker says. Machine code and PTX are the raw bytes beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Ready {
        version: String,
        build: String,
        /// The libraries that it opened.
        files: [FileFacts; 2],
    },
    Built {
        resources: Vec<Resources>,
        log: String,
        compile_us: u64,
    },
    Ptx,
    Refused {
        first: String,
        log: String,
    },
    OutOfMemory,
    Library(String),
}

impl<'a> Task<'a> {
    pub(super) fn compile(rendered: &'a RenderedSource, limits: Limits) -> Self {
        Self {
            ptx: false,
            name: &rendered.name,
            source: &rendered.source,
            headers: rendered
                .headers
                .iter()
                .map(|(name, text)| (name.as_str(), &**text))
                .collect(),
            sets: Vec::new(),
            expressions: &rendered.expressions,
            options: &rendered.options,
            cpu_seconds: limits.timeout.as_secs().saturating_add(1),
        }
    }

    pub(super) fn ptx(rendered: &'a RenderedSource, limits: Limits) -> Self {
        Self {
            ptx: true,
            ..Self::compile(rendered, limits)
        }
    }

    /// The same for a worker that has these sets, and the bytes of those that it lacks.
    pub(super) fn with_sets(&self, sets: &[SetUse], has: &BTreeSet<String>) -> (Self, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut coming = BTreeSet::new();
        let heads = sets.iter().filter_map(|used| {
            let set = used.set.as_ref()?;
            let lacks = !has.contains(set.digest()) && coming.insert(set.digest());
            if lacks {
                bytes.extend_from_slice(set.bytes());
            }
            Some(SetHead {
                name: used.name.clone(),
                identity: used.identity.clone(),
                digest: set.digest().to_owned(),
                bytes: if lacks { set.bytes().len() } else { 0 },
            })
        });
        let sets = heads.collect();
        (
            Self {
                sets,
                headers: self.headers.clone(),
                ..*self
            },
            bytes,
        )
    }
}

impl Received {
    /// The source as it was sent, with the sets that came with it or before it.
    pub(super) fn into_rendered(self, raw: &[u8], known: &mut Sets) -> io::Result<RenderedSource> {
        let broken = |what: &str| io::Error::other(format!("header sets of a task: {what}"));
        let mut rest = raw;
        let mut sets = Vec::new();
        for head in self.sets {
            if head.bytes > 0 {
                let (bytes, behind) = rest
                    .split_at_checked(head.bytes)
                    .ok_or_else(|| broken("cut off"))?;
                let set = HeaderSet::from_bytes(bytes.to_vec()).map_err(|e| broken(&e.to_string()))?;
                known.0.insert(set.digest().to_owned(), Arc::new(set));
                rest = behind;
            }
            let set = known
                .0
                .get(&head.digest)
                .ok_or_else(|| broken("one that was not sent"))?;
            sets.push(SetUse {
                name: head.name,
                identity: head.identity,
                set: Some(Arc::clone(set)),
            });
        }
        Ok(RenderedSource {
            name: self.name,
            source: self.source,
            headers: self
                .headers
                .into_iter()
                .map(|(name, text)| (name, text.into()))
                .collect(),
            sets,
            expressions: self.expressions,
            options: self.options,
        })
    }
}

/// What a program says that it is: its version, and a digest of the sources of its build.
pub(super) fn this_build() -> (&'static str, &'static str) {
    (env!("CARGO_PKG_VERSION"), env!("JITC_BUILD"))
}

pub(super) fn write(into: &mut impl Write, head: &impl Serialize, bytes: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let mut message = Vec::with_capacity(16 + head.len() + bytes.len());
    for part in [&head[..], bytes] {
        message.extend((part.len() as u64).to_le_bytes());
        message.extend(part);
    }
    into.write_all(&message)
}

/// The next message; `None` where the other end closed the pipe between two.
pub(super) fn read<T: serde::de::DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut first = [0_u8; 1];
    if from.read(&mut first)? == 0 {
        return Ok(None);
    }
    let head = part(from, Some(first[0]))?;
    let bytes = part(from, None)?;
    Ok(Some((serde_json::from_slice(&head)?, bytes)))
}

fn part(from: &mut impl Read, first: Option<u8>) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    let begun = usize::from(first.is_some());
    length[0] = first.unwrap_or(0);
    from.read_exact(&mut length[begun..])?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    // A length alone reserves little.
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(1 << 20)).unwrap_or(0));
    let read = from.take(length).read_to_end(&mut bytes)?;
    if read as u64 == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let mut pipe = Vec::new();
        write(&mut pipe, &Answer::Library("x".into()), b"\0bytes").expect("written");
        let mut from = &pipe[..];
        let (answer, bytes) = read::<Answer>(&mut from).expect("read").expect("a message");
        assert!(matches!(answer, Answer::Library(text) if text == "x"));
        assert_eq!(bytes, b"\0bytes");
        assert!(read::<Answer>(&mut from).expect("the end").is_none());
    }

    #[test]
    fn a_header_set_is_sent_once_and_used_by_every_later_task() {
        let set = Arc::clone(HeaderSet::standard());
        let rendered = RenderedSource {
            name: "k".into(),
            source: "int s;".into(),
            headers: vec![("a.h".into(), "int a;".into())],
            sets: vec![
                SetUse::of("std", set),
                SetUse::of("again", Arc::clone(HeaderSet::standard())),
            ],
            expressions: vec![("k".into(), "n::k<1>".into())],
            options: vec!["-w".into()],
        };
        let task = Task::compile(&rendered, Limits::default());
        let (mut has, mut known) = (BTreeSet::new(), Sets::default());
        let mut lengths = Vec::new();
        for _ in 0..2 {
            let (task, bytes) = task.with_sets(&rendered.sets, &has);
            lengths.push(bytes.len());
            has.insert(HeaderSet::standard().digest().to_owned());
            let mut pipe = Vec::new();
            write(&mut pipe, &task, &bytes).expect("written");
            let (received, raw) = read::<Received>(&mut &pipe[..]).expect("read").expect("a task");
            let came = received.into_rendered(&raw, &mut known).expect("whole");
            assert_eq!(came, rendered);
            let sets = came
                .sets
                .iter()
                .map(|used| used.set.as_ref().expect("its headers").digest());
            assert!(sets.eq([HeaderSet::standard().digest(); 2]));
        }
        assert_eq!(lengths, [HeaderSet::standard().bytes().len(), 0]);
        let (task, bytes) = task.with_sets(&rendered.sets, &BTreeSet::new());
        let mut pipe = Vec::new();
        write(&mut pipe, &task, &bytes[1..]).expect("written");
        let (received, raw) = read::<Received>(&mut &pipe[..]).expect("read").expect("a task");
        received
            .into_rendered(&raw, &mut Sets::default())
            .expect_err("cut off");
    }

    #[test]
    fn what_is_cut_or_too_long_is_an_error() {
        let mut pipe = Vec::new();
        write(&mut pipe, &Answer::OutOfMemory, b"bytes").expect("written");
        for end in 1..pipe.len() {
            assert!(read::<Answer>(&mut &pipe[..end]).is_err(), "cut at {end}");
        }
        assert!(read::<Answer>(&mut &[255_u8; 64][..]).is_err());
    }
}
