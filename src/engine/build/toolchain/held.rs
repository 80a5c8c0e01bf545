//! What an install of this process holds: its lock file, its working folder, and pip.
//!
//! Invariant: once [`abandon_installs`] has returned, none of them is left, and no
//! install of this process begins. A process that dies without calling it leaves at
//! most files, which the next install removes: pip dies with it, see [`super::pip`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};

#[derive(Debug)]
struct Thing {
    path: PathBuf,
    /// The process group that works in the folder.
    group: Option<Pid>,
}

#[derive(Debug)]
struct State {
    ending: bool,
    next: u64,
    things: BTreeMap<u64, Thing>,
}

static STATE: Mutex<State> = Mutex::new(State {
    ending: false,
    next: 0,
    things: BTreeMap::new(),
});

/// Ends every install of this process, with the pip that one runs, and removes what
/// they left. For a program that is about to exit, on a signal say. There is no way
/// back.
pub fn abandon_installs() {
    let mut state = state();
    state.ending = true;
    for thing in state.things.values() {
        if let Some(group) = thing.group {
            kill(group);
            wait_for(group);
        }
        // Whoever unpacks into a folder at this moment may need a second try.
        let _ = (0..3).find(|_| remove(&thing.path).is_ok());
    }
}

fn state() -> MutexGuard<'static, State> {
    // The state is names and numbers: good whoever panicked.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn is_ending() -> bool {
    state().ending
}

/// A file or folder that is removed when dropped, or when the process ends.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    id: u64,
}

impl Held {
    /// From now on; `None` once the process is ending.
    pub(super) fn new(path: PathBuf) -> Option<Self> {
        let mut state = state();
        if state.ending {
            let _ = remove(&path);
            return None;
        }
        let id = state.next;
        state.next += 1;
        let thing = Thing {
            path: path.clone(),
            group: None,
        };
        state.things.insert(id, thing);
        Some(Self { path, id })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the leader of a process group that works here; kills it if the process
    /// is ending.
    pub(super) fn works_here(&self, child: &Child) {
        let mut state = state();
        let group = Pid::from_child(child);
        if state.ending {
            kill(group);
        }
        if let Some(thing) = state.things.get_mut(&self.id) {
            thing.group = Some(group);
        }
    }

    /// How it ended, if it has. Its number is forgotten before anybody else can get it.
    pub(super) fn ended(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let mut state = state();
        let status = child.try_wait()?;
        if let (Some(_), Some(thing)) = (status, state.things.get_mut(&self.id)) {
            thing.group = None;
        }
        Ok(status)
    }

    /// Kills the group and waits for its leader.
    pub(super) fn kill(&self, child: &mut Child) {
        let mut state = state();
        if state.ending {
            // It was killed and waited for: its number may be another's.
            return;
        }
        kill(Pid::from_child(child));
        // It was killed: the wait is short, and nothing follows from how it went.
        let _ = child.wait();
        if let Some(thing) = state.things.get_mut(&self.id) {
            thing.group = None;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What cannot be removed now is left to the next install.
        let _ = remove(&self.path);
        state().things.remove(&self.id);
    }
}

fn kill(group: Pid) {
    // One that has ended already is as good.
    let _ = kill_process_group(group, Signal::KILL);
}

/// Takes notice of the leader's end, which is near: it was killed. Nobody else will
/// once this process has ended, and not every init does.
fn wait_for(group: Pid) {
    for _ in 0..50 {
        match waitpid(Some(group), WaitOptions::NOHANG) {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
}

/// Removes a file, or a folder with all that is in it. What is not there is removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs_err::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs_err::remove_dir_all(path),
        Ok(_) => fs_err::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
