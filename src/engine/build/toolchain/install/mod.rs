//! The pinned NVRTC: fetched by pip, checked by hash, unpacked atomically.
//!
//! Invariant: the managed folder appears by one rename and holds the pinned
//! libraries whole, or it does not exist. Of processes that want it at once one
//! fetches, and the others take what came of that.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags};

use super::contents::sha256_of;
use super::held::{Held, is_ending};
use super::lock::{Claim, claim};
use super::managed::{FETCHING, UNPACKING, close_to_others, collect, folder, make, managed, work};
use super::pin::{PINNED_VERSION, Pin, pin};
use super::pip::{FETCH_LIMIT, Pip, Requirement};
use super::{Toolchain, ToolchainError, failure, wheel};
use crate::engine::config::Config;

/// The longest wait for another process's install: its fetch, and its unpacking.
pub(super) const WAIT_LIMIT: Duration = FETCH_LIMIT.saturating_add(Duration::from_mins(2));

/// Who wants it installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A person or program, by name: what is there is read afresh and repaired, and a
    /// fetch that failed before is tried again.
    ByName,
    /// A compile that has no compiler.
    ByCompile,
}

/// Fetches and installs the pinned NVRTC into the managed folder. What is there
/// already is read whole, and replaced where it is not what is pinned.
pub fn install(config: &Config) -> Result<Toolchain, ToolchainError> {
    install_by(config, Asked::ByName)
}

/// The same for a compile that has found no NVRTC: a fetch is tried once a process,
/// and once by processes that want it at the same time.
pub fn install_once(config: &Config) -> Result<Toolchain, ToolchainError> {
    install_by(config, Asked::ByCompile)
}

fn install_by(config: &Config, asked: Asked) -> Result<Toolchain, ToolchainError> {
    let root = config.toolchain_dir().ok_or(ToolchainError::NoFolder)?;
    let offline = config.offline()?;
    install_into(&root, pin()?, &Pip::default(), asked, offline)
}

fn install_into(
    root: &Path,
    pin: &Pin<'_>,
    pip: &Pip,
    asked: Asked,
    offline: bool,
) -> Result<Toolchain, ToolchainError> {
    let by_name = asked == Asked::ByName;
    let since = if by_name {
        SystemTime::now()
    } else {
        failure::process_started()
    };
    if by_name {
        close_to_others(root)?;
    }
    let there = || match managed(root, pin, by_name) {
        // It is about to be replaced.
        Err(ToolchainError::Changed { .. } | ToolchainError::Untrusted { .. }) if by_name => Ok(None),
        other => other,
    };
    if let Some(there) = there()? {
        if by_name && let Ok(Claim::Held(_alone)) = claim(root, Duration::ZERO) {
            collect(root, true);
        }
        return Ok(there);
    }
    if !by_name && let Some(reason) = failure::own(root) {
        return Err(ToolchainError::Fetch(reason));
    }
    if offline {
        // One that is there and may not be used is not missing.
        managed(root, pin, by_name)?;
        return Err(ToolchainError::Offline {
            managed: root.join(PINNED_VERSION).display().to_string(),
        });
    }
    make(root)?;
    let lock = match claim(root, WAIT_LIMIT)? {
        Claim::Held(lock) => Some(lock),
        Claim::Unsupported => None,
        Claim::Taken => return Err(ToolchainError::Busy { path: root.into() }),
    };
    // What a process did that was waited for.
    if let Some(there) = there()? {
        return Ok(there);
    }
    if let Some(reason) = failure::told(root, since) {
        failure::keep(root, &reason);
        return Err(ToolchainError::Fetch(reason));
    }
    collect(root, lock.is_some());
    let fetched = fetch(root, pin, pip);
    match &fetched {
        Ok(_) => failure::forget(root),
        Err(ToolchainError::Fetch(reason)) if !is_ending() => {
            failure::keep(root, reason);
            failure::tell(root, reason);
        }
        Err(_) => {}
    }
    fetched
}

fn fetch(root: &Path, pin: &Pin<'_>, pip: &Pip) -> Result<Toolchain, ToolchainError> {
    let work = work(root, FETCHING)?;
    let wanted = Requirement {
        name: "nvidia-cuda-nvrtc",
        version: PINNED_VERSION,
        sha256: &[pin.wheel_sha256],
    };
    let downloaded = pip.download(&work, &[wanted]);
    if is_ending() {
        return Err(ToolchainError::Ending);
    }
    let wheels = downloaded.map_err(ToolchainError::Fetch)?;
    check(pin, &wheels[0])?;
    place(root, pin, &work, &wheels[0])
}

/// Installs from a wheel that is already here: neither Python nor a network is
/// needed, and nobody is waited for.
pub fn install_wheel(config: &Config, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    let root = config.toolchain_dir().ok_or(ToolchainError::NoFolder)?;
    install_pinned(&root, pin()?, wheel)
}

fn install_pinned(root: &Path, pin: &Pin<'_>, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    check(pin, wheel)?;
    close_to_others(root)?;
    make(root)?;
    let work = work(root, UNPACKING)?;
    let toolchain = place(root, pin, &work, wheel)?;
    failure::forget(root);
    if let Ok(Claim::Held(_alone)) = claim(root, Duration::ZERO) {
        collect(root, true);
    }
    Ok(toolchain)
}

fn check(pin: &Pin<'_>, wheel: &Path) -> Result<(), ToolchainError> {
    let actual = sha256_of(wheel)?;
    if actual == pin.wheel_sha256 {
        return Ok(());
    }
    Err(ToolchainError::Hash {
        path: wheel.to_path_buf(),
        actual,
        expected: pin.wheel_sha256.to_owned(),
    })
}

/// Unpacks the wheel and puts it where it belongs. What stands there and is not what
/// is pinned ends up in the working folder, and goes with it.
fn place(root: &Path, pin: &Pin<'_>, work: &Held, wheel: &Path) -> Result<Toolchain, ToolchainError> {
    let unpacked = work.path().join("unpacked");
    folder(&unpacked)?;
    wheel::unpack(wheel, &unpacked)?;
    let home = root.join(PINNED_VERSION);
    let there = || managed(root, pin, true).ok().flatten();
    if let Some(there) = there() {
        return Ok(there);
    }
    if fs_err::rename(&unpacked, &home).is_err() {
        // Another process may have been first.
        if let Some(there) = there() {
            return Ok(there);
        }
        if rustix::fs::renameat_with(CWD, &unpacked, CWD, &home, RenameFlags::EXCHANGE).is_err() {
            // Not every file system exchanges.
            fs_err::rename(&home, work.path().join("replaced"))?;
            fs_err::rename(&unpacked, &home)?;
        }
    }
    managed(root, pin, false)?.ok_or(ToolchainError::Written { path: home })
}

#[cfg(test)]
mod tests;
