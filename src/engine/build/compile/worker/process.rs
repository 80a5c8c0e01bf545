//! One worker, from the side that asks.
//!
//! Invariant: no call waits longer than the compile's limit and some seconds, and a
//! process whose answer was not read whole is never asked again.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::protocol::{self, Answer, FileFacts, Greeting, Task};
use super::{ROLE, WorkerSetup};
use crate::engine::build::compile::{Cancel, CompileError, Limits};
use crate::engine::request::header_set::SetUse;

/// How often a wait looks whether it was canceled.
const LOOK: Duration = Duration::from_millis(20);

/// How long a worker may take to open the compiler.
const START: Duration = Duration::from_secs(30);

/// Why a worker is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program could not be started.
    #[error("{program}: the compile worker could not be started: {reason}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's words.
        reason: io::Error,
    },
    /// It said nothing that a worker says.
    #[error("{program}: it is not a compile worker of this version ({how})")]
    NoWorker {
        /// The program.
        program: String,
        /// How it ended.
        how: String,
    },
    /// It is another build.
    #[error("{program}: it is {found}, and this is {ours}: a worker has to be of the same build")]
    OtherBuild {
        /// The program.
        program: String,
        /// What it is.
        found: String,
        /// What this is.
        ours: String,
    },
    /// It would use another compiler, or none.
    #[error("{program}: {reason}")]
    Compiler {
        /// The program.
        program: String,
        /// Its words.
        reason: String,
    },
}

/// How a worker failed its task.
pub(super) enum Ended {
    /// It had gone away before the task reached it.
    Idle,
    /// With this task.
    Failed(CompileError),
}

/// A worker that waits for its next task.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    socket: UnixStream,
    /// What it wrote to its standard error, as far as it wrote any.
    words: Option<OwnedFd>,
    /// Who started it: after a fork the child has a copy, and no right to it.
    owner: u32,
    /// Digests of the header sets that it was sent.
    has: BTreeSet<String>,
}

impl Process {
    pub(super) fn start(setup: &WorkerSetup) -> Result<Self, StartError> {
        let program = || setup.program.display().to_string();
        let spawn = |reason: io::Error| StartError::Spawn {
            program: program(),
            reason,
        };
        let changed = |reason: String| StartError::Compiler {
            program: program(),
            reason,
        };
        setup.toolchain.confirm().map_err(|e| changed(e.to_string()))?;
        let ours_of = FileFacts::of_both(&setup.toolchain).map_err(|e| changed(e.to_string()))?;
        let (ours, theirs) = UnixStream::pair().map_err(spawn)?;
        let words = words().ok();
        let stderr = words.as_ref().and_then(|file| file.try_clone().ok());
        // It starts in another folder than this process is in.
        let path = std::path::absolute(&setup.program).map_err(spawn)?;
        let child = Command::new(path)
            .arg(ROLE)
            // What is set in this process cannot reach the code, but for what the key covers.
            .env_clear()
            .envs(setup.compiler_env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(stderr.map_or_else(Stdio::null, Stdio::from))
            // A Ctrl-C of the terminal is for this process to act on.
            .process_group(0)
            .spawn()
            .map_err(spawn)?;
        let mut process = Self {
            child,
            socket: ours,
            words,
            owner: std::process::id(),
            has: BTreeSet::new(),
        };
        let greeting = Greeting {
            nvrtc: setup.toolchain.nvrtc.as_os_str().as_bytes().to_vec(),
            builtins: setup.toolchain.builtins.as_os_str().as_bytes().to_vec(),
            identity: setup.toolchain.identity.clone(),
            memory: setup.limits.memory,
        };
        let greeted = protocol::write(&mut process.socket, &greeting, &[])
            .and_then(|()| protocol::read(&mut Patient::new(&process.socket, START, &Cancel::new())));
        match greeted {
            Ok(Some((
                Answer::Ready {
                    version,
                    build,
                    files,
                },
                _,
            ))) => {
                let (our_version, our_build) = protocol::this_build();
                if (version.as_str(), build.as_str()) != (our_version, our_build) {
                    return Err(StartError::OtherBuild {
                        program: program(),
                        found: format!("{version} ({build})"),
                        ours: format!("{our_version} ({our_build})"),
                    });
                }
                if files != ours_of {
                    return Err(changed(
                        "it opened other files than were found: they changed meanwhile".into(),
                    ));
                }
                Ok(process)
            }
            Ok(Some((Answer::Library(reason), _))) => Err(StartError::Compiler {
                program: program(),
                reason,
            }),
            Ok(_) | Err(_) => Err(StartError::NoWorker {
                program: program(),
                how: process.end(),
            }),
        }
    }

    /// Whether this process started it.
    pub(super) fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Sends a task, and waits for its answer, at most as long as a compile may take.
    pub(super) fn ask(
        &mut self,
        task: &Task<'_>,
        sets: &[SetUse],
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<(Answer, Vec<u8>), Ended> {
        let started = Instant::now();
        let _ = self.socket.set_write_timeout(Some(limits.timeout));
        let (task, bytes) = task.with_sets(sets, &self.has);
        if protocol::write(&mut self.socket, &task, &bytes).is_err() {
            return Err(Ended::Idle);
        }
        // A worker that does not read all of it is never asked again.
        let sent = sets.iter().filter_map(|used| used.set.as_ref());
        self.has.extend(sent.map(|set| set.digest().to_owned()));
        let mut patient = Patient::new(&self.socket, limits.timeout, cancel);
        let answer = protocol::read(&mut patient);
        let (given_up, heard) = (patient.given_up, patient.heard);
        match (answer, given_up) {
            (Ok(Some(answer)), _) => Ok(answer),
            (_, Some(GivenUp::Canceled)) => Err(Ended::Failed(CompileError::Canceled)),
            (_, Some(GivenUp::Late)) => Err(Ended::Failed(CompileError::TimedOut {
                after: limits.timeout,
            })),
            (Err(error), None) if error.kind() == io::ErrorKind::InvalidData => Err(Ended::Failed(
                CompileError::Library(format!("the worker's answer does not parse: {error}")),
            )),
            _ => {
                let status = self.child.wait();
                match status {
                    Ok(status) if status.success() && !heard => Err(Ended::Idle),
                    // Whoever ignores SIGCHLD, or waits for every child, learns no more.
                    Err(_) if !heard => Err(Ended::Idle),
                    status => Err(Ended::Failed(self.crash(status.ok(), limits, started.elapsed()))),
                }
            }
        }
    }

    /// What became of a worker that ended in the middle of a compile.
    fn crash(&mut self, status: Option<ExitStatus>, limits: Limits, after: Duration) -> CompileError {
        let last = self.last_words();
        let signal = status.and_then(|s| s.signal());
        let memory = |text: &str| text.contains("bad_alloc") || text.contains("memory allocation of");
        // Where it is not this process that killed it, it is the system, for its memory.
        if memory(&last) || signal == Some(libc::SIGKILL) {
            return CompileError::OutOfMemory {
                limit: (signal != Some(libc::SIGKILL)).then_some(limits.memory),
            };
        }
        if signal == Some(libc::SIGXCPU) {
            return CompileError::TimedOut {
                after: limits.timeout.min(after),
            };
        }
        let how = status.map_or_else(|| "its process is gone".to_owned(), |s| s.to_string());
        let overflow = last.contains("has overflowed its stack") || last.contains("stack overflow");
        CompileError::Crashed {
            how: match (overflow, last.lines().next_back()) {
                (true, _) => format!("the source is nested too deeply for its stack ({how})"),
                (false, Some(words)) if !words.trim().is_empty() => format!("{how}: {}", words.trim()),
                _ => how,
            },
        }
    }

    /// Ends it, and says how it ended.
    fn end(&mut self) -> String {
        // It may be about to end by itself, and say more about it.
        for _ in 0..10 {
            if let Ok(Some(_)) = self.child.try_wait() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        let status = self.child.wait();
        let how = status.map_or_else(|e| e.to_string(), |status| status.to_string());
        match self.last_words().lines().next() {
            Some(words) if !words.trim().is_empty() => format!("{how}: {}", words.trim()),
            _ => how,
        }
    }

    fn kill(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// The end of what it wrote to its standard error.
    fn last_words(&self) -> String {
        let mut bytes = vec![0; 4096];
        let Some(file) = &self.words else {
            return String::new();
        };
        let length = rustix::fs::fstat(file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let from = length.saturating_sub(bytes.len() as u64);
        let read = rustix::io::pread(file, &mut bytes, from).unwrap_or(0);
        bytes.truncate(read);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        // It ends by itself as soon as the socket is closed; killed, it ends at once.
        if let Ok(None) = self.child.try_wait() {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where a worker may write its last words: memory, that nobody has to read meanwhile.
fn words() -> rustix::io::Result<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("jitc-worker-stderr", flags)
}

enum GivenUp {
    Canceled,
    Late,
}

/// Reads with a deadline, and looks meanwhile whether it was canceled.
struct Patient<'a> {
    socket: &'a UnixStream,
    deadline: Option<Instant>,
    cancel: &'a Cancel,
    given_up: Option<GivenUp>,
    /// Whether anything came.
    heard: bool,
}

impl<'a> Patient<'a> {
    fn new(socket: &'a UnixStream, patience: Duration, cancel: &'a Cancel) -> Self {
        Self {
            socket,
            deadline: Instant::now().checked_add(patience),
            cancel,
            given_up: None,
            heard: false,
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_canceled() {
                self.given_up = Some(GivenUp::Canceled);
                return Err(io::Error::other("canceled"));
            }
            let left = self
                .deadline
                .map_or(LOOK, |d| d.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                self.given_up = Some(GivenUp::Late);
                return Err(io::Error::other("late"));
            }
            self.socket
                .set_read_timeout(Some(left.min(LOOK).max(Duration::from_micros(1))))?;
            match self.socket.read(into) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                other => {
                    self.heard |= matches!(other, Ok(read) if read > 0);
                    return other;
                }
            }
        }
    }
}
