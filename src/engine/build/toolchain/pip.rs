//! The fetch itself: `python3 -I -m pip download`, in a folder of its own.
//!
//! Invariant: nothing of the working folder is run or read, no fetch outlives its
//! limit or this process, and all that it writes lies in the folder that it is given.
//! Where the packages come from, and how that is reached, is the user's to say
//! (`pip.conf`, `PIP_INDEX_URL`, `PIP_CERT`, `PIP_PROXY` ...); what comes is checked by
//! hash. Paths in these settings have to be absolute.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use super::held::Held;

/// A package to fetch: its name, version, and the SHA-256 of every wheel that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Requirement<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) sha256: &'a [&'a str],
}

impl Requirement<'_> {
    /// The line of pip's requirements file.
    fn line(&self) -> String {
        let hashes = self
            .sha256
            .iter()
            .map(|sha256| format!(" --hash=sha256:{sha256}"));
        format!("{}=={}{}\n", self.name, self.version, hashes.collect::<String>())
    }
}

/// The longest that a fetch may take: 90 MB at 150 kB/s.
pub const FETCH_LIMIT: Duration = Duration::from_mins(10);

/// Settings of pip that would have it fetch something else, for another machine, or
/// say nothing of why it failed.
const NOT_OURS: [&str; 14] = [
    "PIP_ABI",
    "PIP_BUILD_CONSTRAINT",
    "PIP_CONSTRAINT",
    "PIP_DEST",
    "PIP_EDITABLE",
    "PIP_GROUP",
    "PIP_IMPLEMENTATION",
    "PIP_NO_BINARY",
    "PIP_PLATFORM",
    "PIP_PYTHON",
    "PIP_PYTHON_VERSION",
    "PIP_QUIET",
    "PIP_REQUIREMENT",
    "PIP_VERBOSE",
];

/// How pip is run.
#[derive(Debug)]
pub(super) struct Pip {
    pub(super) python: OsString,
    pub(super) limit: Duration,
}

impl Default for Pip {
    fn default() -> Self {
        Self {
            python: "python3".into(),
            limit: FETCH_LIMIT,
        }
    }
}

impl Pip {
    /// The version that it says it has, where there is one.
    pub(super) fn version(&self) -> Option<String> {
        let mut command = self.command(Path::new("/"));
        let output = command.arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Fetches wheels into a working folder; their paths, at least one, or why not.
    pub(super) fn download(&self, work: &Held, wanted: &[Requirement<'_>]) -> Result<Vec<PathBuf>, String> {
        let text = |e: std::io::Error| e.to_string();
        let [here, temporary, wheels] = ["here", "tmp", "wheels"].map(|name| work.path().join(name));
        for folder in [&here, &temporary, &wheels] {
            fs_err::create_dir(folder).map_err(text)?;
        }
        let requirements = work.path().join("requirements.txt");
        let lines: String = wanted.iter().map(Requirement::line).collect();
        fs_err::write(&requirements, lines).map_err(text)?;
        // A file, not a pipe: a grandchild that keeps it open holds nobody up.
        let log = work.path().join("log");
        let (said, _) = fs_err::File::create_new(&log).map_err(text)?.into_parts();
        let mut command = self.command(&here);
        command
            .env("TMPDIR", &temporary)
            .args(["download", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--no-input", "--disable-pip-version-check", "--quiet", "--dest"])
            .arg(&wheels)
            .arg("-r")
            .arg(&requirements)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        self.run(command, work)?
            .map_err(|()| last_words(&tail(&log).unwrap_or_default()))?;
        let paths = fs_err::read_dir(&wheels).map_err(text)?.flatten();
        let mut found: Vec<PathBuf> = paths
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "whl"))
            .collect();
        found.sort();
        if found.is_empty() {
            return Err("pip left no wheel".into());
        }
        Ok(found)
    }

    /// Whether it ended well, if it ended by itself.
    fn run(&self, mut command: Command, work: &Held) -> Result<Result<(), ()>, String> {
        let name = self.python.to_string_lossy();
        let cannot = |e: std::io::Error| format!("{name} could not be started: {e}");
        let mut child = command.spawn().map_err(cannot)?;
        work.works_here(&child);
        let started = Instant::now();
        loop {
            match work.ended(&mut child) {
                Ok(Some(status)) => return Ok(if status.success() { Ok(()) } else { Err(()) }),
                Ok(None) if started.elapsed() < self.limit => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(None) => {
                    work.kill(&mut child);
                    return Err(format!("it was ended after {} s", self.limit.as_secs()));
                }
                Err(error) => {
                    work.kill(&mut child);
                    return Err(error.to_string());
                }
            }
        }
    }

    /// pip, alone in a folder, ended with the thread that starts it.
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.python);
        // -I: else a pip.py of the working folder would be run in pip's place.
        command.args(["-I", "-m", "pip"]).current_dir(folder);
        // Nothing is installed into any environment.
        command.env("PIP_REQUIRE_VIRTUALENV", "0");
        for name in NOT_OURS {
            command.env_remove(name);
        }
        // A group of its own, so that all of it can be ended at once.
        command.process_group(0);
        let parent = getpid();
        let end_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(rustix::io::Errno::SRCH.into())
            }
        };
        // SAFETY: between fork and exec it makes two system calls; it allocates
        // nothing and takes no lock.
        unsafe { command.pre_exec(end_with_parent) };
        command
    }
}

/// The end of a log.
fn tail(log: &Path) -> std::io::Result<String> {
    const LONGEST: u64 = 64 << 10;
    let mut log = fs_err::File::open(log)?;
    let length = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let mut bytes = Vec::new();
    log.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What pip said last that says why: its last error, with the connection's trouble
/// where that is why it found nothing; else its last line.
fn last_words(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| is_telling(line)).rev();
    let error = lines().find(|line| line.starts_with("ERROR:"));
    let Some(last) = error.or_else(|| lines().next()) else {
        return "it said nothing".into();
    };
    let broken = lines().find_map(|line| Some(line.split_once("connection broken by ")?.1));
    match broken {
        Some(broken) if !last.contains(broken) => format!("{last} (connection broken by {broken})"),
        _ => last.to_owned(),
    }
}

fn is_telling(line: &str) -> bool {
    let aside = ["[notice]", "hint:", "note:", "WARNING: You are using pip version"];
    !line.is_empty() && !aside.iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_pip_says_the_last_error_is_kept_with_its_cause() {
        let said = "WARNING: Retrying (Retry(total=0)) after connection broken by 'no name': /simple/x/\n\
                    ERROR: Could not find a version that satisfies the requirement x\n\
                    ERROR: No matching distribution found for x\n\
                    \n[notice] A new release of pip is available\n";
        let expected =
            "ERROR: No matching distribution found for x (connection broken by 'no name': /simple/x/)";
        assert_eq!(last_words(said), expected);
        assert_eq!(last_words("Traceback:\nKeyError: 'x'\n\n"), "KeyError: 'x'");
        assert_eq!(
            last_words("/usr/bin/python3: No module named pip\n"),
            "/usr/bin/python3: No module named pip"
        );
        assert_eq!(last_words("\n"), "it said nothing");
    }
}
