//! Fetches that failed: tried once a process, and once for all that wait together.
//!
//! Invariant: only who was already there when a fetch failed takes that failure for
//! its own. A process that is started afterwards tries again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::ClockId;

/// The name of the file that tells waiting processes: when, in nanoseconds since the
/// epoch, and why.
pub(super) const FAILED: &str = ".fetch-failed";

/// After this a process that has been running all the time tries for itself.
const HOLDS: Duration = Duration::from_mins(1);

/// Why this process's fetch failed, by folder.
static OWN: Mutex<Option<HashMap<PathBuf, String>>> = Mutex::new(None);

/// Why the fetch into a folder failed in this process.
pub(super) fn own(root: &Path) -> Option<String> {
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    own.as_ref()?.get(root).cloned()
}

/// Keeps it for this process.
pub(super) fn keep(root: &Path, reason: &str) {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    own.get_or_insert_default()
        .insert(root.to_path_buf(), reason.to_owned());
}

/// Tells the other processes.
pub(super) fn tell(root: &Path, reason: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Where it cannot be written each of them tries for itself.
    let _ = fs_err::write(root.join(FAILED), format!("{}\n{reason}\n", now.as_nanos()));
}

/// Why another process's fetch failed, at or after `since`.
pub(super) fn told(root: &Path, since: SystemTime) -> Option<String> {
    let text = fs_err::read_to_string(root.join(FAILED)).ok()?;
    let (at, reason) = text.split_once('\n')?;
    let at = UNIX_EPOCH + Duration::from_nanos(at.parse().ok()?);
    let age = SystemTime::now().duration_since(at).ok()?;
    (at >= since && age < HOLDS).then(|| reason.trim().to_owned())
}

/// It is there now, whatever failed before.
pub(super) fn forget(root: &Path) {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(own) = own.as_mut() {
        own.remove(root);
    }
    let _ = fs_err::remove_file(root.join(FAILED));
}

/// When this process was started, at the latest; now, where the system does not say.
pub(super) fn process_started() -> SystemTime {
    let now = SystemTime::now();
    running_for().and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

fn running_for() -> Option<Duration> {
    let stat = fs_err::read_to_string("/proc/self/stat").ok()?;
    // The program's name stands in brackets and may hold anything; the start is the
    // twentieth number after it, in ticks since the machine was.
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let second = rustix::param::clock_ticks_per_second();
    // Ticks are rounded down: it began before the next one. Else a failure of the same
    // tick, of who came before, would be taken for this process's.
    let started = Duration::from_millis((ticks + 1).checked_mul(1000)?.checked_div(second)?);
    let now = Duration::try_from(rustix::time::clock_gettime(ClockId::Boottime)).ok()?;
    Some(now.saturating_sub(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_that_of_who_was_there_and_not_of_who_comes_after() {
        let dir = tempfile::tempdir().expect("tempdir");
        let before = SystemTime::now();
        assert_eq!(told(dir.path(), before), None);
        tell(dir.path(), "no network");
        assert_eq!(told(dir.path(), before).as_deref(), Some("no network"));
        assert_eq!(told(dir.path(), SystemTime::now()), None);
        fs_err::write(dir.path().join(FAILED), "nonsense").expect("write");
        assert_eq!(told(dir.path(), before), None);
        // Long ago, and of a clock that runs ahead.
        for at in ["1", "99999999999999999999", "9999999999999999999"] {
            fs_err::write(dir.path().join(FAILED), format!("{at}\nx\n")).expect("write");
            assert_eq!(told(dir.path(), UNIX_EPOCH), None, "{at}");
        }
    }

    #[test]
    fn a_process_knows_when_it_was_started() {
        let started = process_started();
        assert!(running_for().is_some(), "/proc/self/stat was not understood");
        assert!(started <= SystemTime::now());
        let boot = SystemTime::now() - Duration::from_hours(24 * 365 * 20);
        assert!(started > boot);
    }
}
