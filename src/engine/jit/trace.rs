//! The record of what had to be compiled, or was requested at all, so that it can be
//! warmed beforehand.
//!
//! Invariant: one line is one write to a file opened for appending, so the
//! processes of a fleet may share a file; and trouble with it never fails a
//! request.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::engine::build::key::CacheKey;
use crate::engine::build::request::CompileRequest;
use crate::engine::per_process::PerProcess;
use crate::engine::regular_file::{MAX_RECORDS, read_text_or_input};
use crate::engine::request::target::Arch;

/// One compile, or with `trace_hits` one request, as a line of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TraceLine {
    /// The key.
    pub key: CacheKey,
    /// The family's name.
    pub family: String,
    /// The arch.
    pub arch: Arch,
    /// Constants by name, as people write them.
    pub constants: BTreeMap<String, serde_json::Value>,
    /// Time inside the compiler, microseconds; of a hit, that of the compile which made
    /// its entry.
    pub compile_us: u64,
    /// Where it stands in its file, from 1; 0 of one that was not read from any.
    #[serde(skip)]
    pub line: usize,
}

impl TraceLine {
    /// The constants as texts, as a flag would give them.
    #[must_use]
    pub fn texts(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let constants = self.constants.iter();
        constants
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    }
}

/// Reads a trace; a line that is none is an error that gives its number.
pub fn read_trace(path: &Path) -> io::Result<Vec<TraceLine>> {
    let text = read_text_or_input(path, MAX_RECORDS)?;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(n, line)| {
            let parsed = serde_json::from_str(line).map(|parsed| TraceLine {
                line: n + 1,
                ..parsed
            });
            parsed.map_err(|e| {
                let reason = format!("{}, line {}: no line of a trace: {e}", path.display(), n + 1);
                io::Error::new(io::ErrorKind::InvalidData, reason)
            })
        })
        .collect()
}

/// Where compiles are recorded.
#[derive(Debug)]
pub(super) struct Trace {
    path: PathBuf,
    hits: bool,
    /// Keys that this process has recorded; kept only where hits are.
    recorded: PerProcess<Mutex<HashSet<CacheKey>>>,
    warned: AtomicBool,
}

impl Trace {
    /// `hits`: whether hits are recorded too, and so each key once a process.
    pub(super) fn new(path: PathBuf, hits: bool) -> Self {
        Self {
            path,
            hits,
            recorded: PerProcess::new(),
            warned: AtomicBool::new(false),
        }
    }

    /// As [`record`](Self::record), of a request that was not compiled.
    pub(super) fn record_hit(&self, request: &CompileRequest, compile_us: u64) {
        if self.hits {
            self.record(request, compile_us);
        }
    }

    pub(super) fn record(&self, request: &CompileRequest, compile_us: u64) {
        if self.hits {
            let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            if !recorded.insert(*request.key()) {
                return;
            }
        }
        let line = TraceLine {
            key: *request.key(),
            family: request.family().to_owned(),
            arch: request.arch(),
            constants: request.constants().clone(),
            compile_us,
            line: 0,
        };
        if let Err(reason) = self.append(&line)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%reason, "requests are not recorded");
        }
    }

    fn append(&self, line: &TraceLine) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let mut options = fs_err::OpenOptions::new();
        options
            .append(true)
            .create(true)
            // A pipe that nobody reads must not be waited for.
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0))
            .open(&self.path)?
            .write_all(&bytes)
    }
}
