//! Whose bytes are loaded: this user's and root's, which nobody else can write.
//!
//! Invariant: a checksum that lies beside the bytes says nothing about who wrote
//! both; owner and mode do.

use rustix::fs::Stat;

use super::error::Distrust;

const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whether only this user and root can have written it.
pub(super) fn trusted(stat: &Stat) -> Result<(), Distrust> {
    let owner = stat.st_uid;
    if owner != 0 && owner != euid() {
        Err(Distrust::Owner(owner))
    } else if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        Err(Distrust::Writable(stat.st_mode & 0o777))
    } else {
        Ok(())
    }
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}
