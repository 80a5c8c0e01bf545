//! Whose bytes are loaded: this user's and root's, and their groups' where that is meant.
//!
//! Invariant: a checksum that lies beside the bytes says nothing about who wrote
//! both; owner, group and mode do. What anybody may write to is nobody's word.

use rustix::fs::{Mode, Stat};

use super::error::Distrust;
use crate::engine::config::CacheTrust;

const BY_GROUP: u32 = 0o020;
const BY_ANYBODY: u32 = 0o002;

/// Modes of what is made in a cache; the umask takes its share of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modes {
    pub(super) root: Mode,
    pub(super) folder: Mode,
    pub(super) file: Mode,
    pub(super) lock: Mode,
}

impl Modes {
    /// Inner folders and files are open to readers: the root's 0700 keeps others out, and
    /// a copy into a shared place needs no chmod. A group that fills a cache together gets
    /// what the umask leaves it; nobody ever gets the right to write for all.
    pub(super) fn of(trust: CacheTrust) -> Self {
        let [root, folder, file, lock] = match trust {
            CacheTrust::Group => [0o770, 0o775, 0o664, 0o660],
            CacheTrust::Own | CacheTrust::Anybody => [0o700, 0o755, 0o644, 0o600],
        };
        Self {
            root: Mode::from_raw_mode(root),
            folder: Mode::from_raw_mode(folder),
            file: Mode::from_raw_mode(file),
            lock: Mode::from_raw_mode(lock),
        }
    }
}

/// Whether only those who are trusted can have written it.
pub(super) fn judge(stat: &Stat, trust: CacheTrust) -> Result<(), Distrust> {
    decide(stat.st_uid, stat.st_gid, stat.st_mode, trust, euid(), &is_of_ours)
}

/// Whether the one who made a symlink is trusted; everybody's mode is on every symlink.
pub(super) fn judge_link(stat: &Stat, trust: CacheTrust) -> Result<(), Distrust> {
    decide(stat.st_uid, stat.st_gid, 0, trust, euid(), &is_of_ours)
}

fn decide(
    uid: u32,
    gid: u32,
    mode: u32,
    trust: CacheTrust,
    own: u32,
    is_of_ours: &dyn Fn(u32) -> bool,
) -> Result<(), Distrust> {
    if trust == CacheTrust::Anybody {
        return Ok(());
    }
    let by_group = trust == CacheTrust::Group && is_of_ours(gid);
    if mode & BY_ANYBODY != 0 {
        Err(Distrust::Writable(mode & 0o777))
    } else if uid != 0 && uid != own && !by_group {
        let ours = is_of_ours(gid);
        Err(Distrust::Owner { uid, gid, ours })
    } else if mode & BY_GROUP != 0 && gid != 0 && !by_group {
        let (mode, ours) = (mode & 0o777, is_of_ours(gid));
        Err(Distrust::Group { mode, gid, ours })
    } else {
        Ok(())
    }
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process is of a group.
fn is_of_ours(gid: u32) -> bool {
    let more = || rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == gid || more().iter().any(|group| group.as_raw() == gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(uid: u32, gid: u32, mode: u32, trust: CacheTrust) -> bool {
        // User 1000, of the groups 1000 and 2000.
        decide(uid, gid, mode, trust, 1000, &|gid| [1000, 2000].contains(&gid)).is_ok()
    }

    #[test]
    fn this_user_and_root_are_trusted_and_so_is_roots_group() {
        for (uid, gid, mode) in [
            (1000, 2000, 0o755),
            (0, 5, 0o644),
            (0, 0, 0o775),
            (1000, 0, 0o2775),
        ] {
            assert!(admitted(uid, gid, mode, CacheTrust::Own), "{uid}:{gid} {mode:o}");
        }
        for (uid, gid, mode) in [
            (1001, 0, 0o755),
            (1001, 2000, 0o755),
            (1000, 2000, 0o775),
            (0, 5, 0o664),
        ] {
            assert!(!admitted(uid, gid, mode, CacheTrust::Own), "{uid}:{gid} {mode:o}");
        }
    }

    #[test]
    fn a_trusted_group_is_one_of_this_process_and_nobody_elses() {
        for (uid, gid, mode) in [(1001, 2000, 0o2775), (1000, 2000, 0o664), (1001, 1000, 0o644)] {
            assert!(
                admitted(uid, gid, mode, CacheTrust::Group),
                "{uid}:{gid} {mode:o}"
            );
        }
        for (uid, gid, mode) in [(1001, 3000, 0o755), (1000, 3000, 0o775), (1001, 0, 0o755)] {
            assert!(
                !admitted(uid, gid, mode, CacheTrust::Group),
                "{uid}:{gid} {mode:o}"
            );
        }
    }

    #[test]
    fn what_anybody_may_write_to_is_refused_whoever_owns_it() {
        for trust in [CacheTrust::Own, CacheTrust::Group] {
            for (uid, gid) in [(0, 0), (1000, 1000), (1000, 2000)] {
                assert!(!admitted(uid, gid, 0o1777, trust));
            }
        }
    }

    #[test]
    fn nothing_that_is_made_may_be_written_by_all() {
        for trust in [CacheTrust::Own, CacheTrust::Group, CacheTrust::Anybody] {
            let modes = Modes::of(trust);
            for mode in [modes.root, modes.folder, modes.file, modes.lock] {
                assert_eq!(mode.as_raw_mode() & BY_ANYBODY, 0);
            }
        }
    }
}
