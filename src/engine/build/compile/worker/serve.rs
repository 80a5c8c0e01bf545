//! The worker's own side.
//!
//! Invariant: once the compiler is open, nothing of this process reaches a file, and it
//! ends when whoever started it is gone or has had nothing to ask for a while.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::{CompileError, Nvrtc, STACK, sandbox, stay_inside};
use super::protocol::{self, Answer, FileFacts, Greeting, Received, Sets};
use crate::engine::build::toolchain::Toolchain;

/// The word after the program's name that makes it a worker.
pub const ROLE: &str = "compile-worker";

/// How long a worker with nothing to do stays.
const IDLE: Duration = Duration::from_secs(30);

/// Makes this process a worker if it was started as one; for programs that embed the
/// library and are to be their own workers, at the very start of `main`.
#[must_use]
pub fn serve_if_asked() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let asked = words.next().is_some_and(|word| word == ROLE) && words.next().is_none();
    asked.then(serve)
}

/// Serves what comes over the socket that is its standard input, until that is closed.
#[must_use]
pub fn serve() -> ExitCode {
    keep_standard_files_alone();
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    match socket.and_then(|socket| run(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "{ROLE}: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Closes what whoever started this process left open for its children: a listening
/// socket of a server, say, that this process has no business to keep alive.
fn keep_standard_files_alone() {
    // SAFETY: nothing of this process has opened a file yet but the three standard ones.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

fn run(mut socket: &UnixStream) -> io::Result<()> {
    if socket.peer_addr().is_err() {
        let words = "is started by jitc itself, over a socket: there is nothing to run by hand";
        return Err(io::Error::other(words));
    }
    let Some((greeting, _)) = protocol::read::<Greeting>(&mut socket)? else {
        return Ok(());
    };
    let memory = greeting.memory;
    let (nvrtc, files) = match opened(greeting) {
        Ok(opened) => opened,
        Err(reason) => return protocol::write(&mut socket, &Answer::Library(reason), &[]),
    };
    // Without it, it ends with its compile.
    let _ = watch(socket.try_clone()?);
    limit(Resource::Core, 0);
    limit(Resource::As, memory.saturating_add(STACK as u64));
    let (version, build) = protocol::this_build();
    let ready = Answer::Ready {
        version: version.to_owned(),
        build: build.to_owned(),
        files,
    };
    protocol::write(&mut socket, &ready, &[])?;
    socket.set_read_timeout(Some(IDLE))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("compile".into())
            .stack_size(STACK);
        let worker = thread.spawn_scoped(scope, || work(socket, &nvrtc))?;
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("panicked")))
    })
}

/// The compiler, and which files were opened. What they are was judged by who started
/// this process, which compares.
fn opened(greeting: Greeting) -> Result<(Nvrtc, [FileFacts; 2]), String> {
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    let toolchain = Toolchain {
        nvrtc: path(greeting.nvrtc),
        builtins: path(greeting.builtins),
        origin: "worker".into(),
        identity: greeting.identity,
    };
    let nvrtc = Nvrtc::open(&toolchain).map_err(|e| e.to_string())?;
    let files = FileFacts::of_both(&toolchain).map_err(|e| e.to_string())?;
    Ok((nvrtc, files))
}

fn work(mut socket: &UnixStream, nvrtc: &Nvrtc) -> io::Result<()> {
    let closed = sandbox::close().closed();
    let mut sets = Sets::default();
    loop {
        let (task, sent) = match protocol::read::<Received>(&mut socket) {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        limit_cpu(task.cpu_seconds);
        let ptx = task.ptx;
        let rendered = task.into_rendered(&sent, &mut sets)?;
        let inside = if closed {
            Ok(())
        } else {
            stay_inside::check(&rendered)
        };
        let (answer, bytes) = match inside {
            Err(log) => (
                Answer::Refused {
                    first: log.clone(),
                    log,
                },
                Vec::new(),
            ),
            Ok(()) if ptx => match nvrtc.ptx(&rendered) {
                Ok(text) => (Answer::Ptx, text.into_bytes()),
                Err(error) => (failure(error), Vec::new()),
            },
            Ok(()) => match nvrtc.compile(&rendered) {
                Ok(artifact) => (
                    Answer::Built {
                        resources: artifact.resources,
                        log: artifact.compile_log,
                        compile_us: artifact.compile_us,
                    },
                    artifact.cubin,
                ),
                Err(error) => (failure(error), Vec::new()),
            },
        };
        protocol::write(&mut socket, &answer, &bytes)?;
    }
}

fn failure(error: CompileError) -> Answer {
    match error {
        CompileError::Refused { first, log } => Answer::Refused { first, log },
        CompileError::OutOfMemory { .. } => Answer::OutOfMemory,
        other => Answer::Library(other.to_string()),
    }
}

/// Ends this process as soon as the other end of its socket is closed, in the middle of a
/// compile too: the kernel closes it when whoever started this ends in any way.
fn watch(socket: UnixStream) -> io::Result<()> {
    let watching = move || {
        loop {
            let mut ends = [PollFd::new(&socket, PollFlags::RDHUP)];
            let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            if poll(&mut ends, None).is_ok() && ends[0].revents().intersects(gone) {
                // SAFETY: ends the process without running anything of it.
                unsafe { libc::_exit(0) };
            }
        }
    };
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(watching)
        .map(drop)
}

fn limit(resource: Resource, most: u64) {
    // What cannot be limited is left as it is: the host's own deadline stands behind.
    let _ = setrlimit(
        resource,
        Rlimit {
            current: Some(most),
            maximum: Some(most),
        },
    );
}

/// Limits the processor time from here on. The hard limit stays, so that it can be moved on.
fn limit_cpu(seconds: u64) {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
    let most = u64::try_from(used)
        .unwrap_or(0)
        .saturating_add(seconds)
        .saturating_add(1);
    let maximum = getrlimit(Resource::Cpu).maximum;
    let _ = setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(most),
            maximum,
        },
    );
}
