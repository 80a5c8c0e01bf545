//! The compiler that would be used, and whether it can be.

use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use super::Fact;
use crate::engine::build::compile::Nvrtc;
pub(super) use crate::engine::build::toolchain::pip_version;
use crate::engine::build::toolchain::{
    Found, OLDEST, ToolchainError, candidates, find_afresh, header_set_file,
};
use crate::engine::config::Config;
use crate::engine::jit::Error;
use crate::engine::request::header_set::{PINNED_SETS, STANDARD};

pub(super) fn facts(config: &Config, pip: bool) -> Result<Fact, Error> {
    let found = match find_afresh(config) {
        // What was named and is not there, or is not what it should be, is a fact, and
        // no failure of this verb.
        Err(error @ (ToolchainError::NotThere { .. } | ToolchainError::TooOld { .. })) => {
            let fix = "name another, or none: the pinned one is then fetched";
            return Ok(Fact::missing("nvrtc", error.to_string(), fix));
        }
        Err(error @ ToolchainError::Changed { .. }) => {
            let fix = "run `jitc toolchain install`, and find out who changed it";
            return Ok(Fact::missing("nvrtc", error.to_string(), fix));
        }
        Err(ToolchainError::Untrusted { path, reason, remedy }) => {
            let text = format!("{} is not trusted: {reason}", path.display());
            return Ok(Fact::missing("nvrtc", text, remedy));
        }
        Err(error @ ToolchainError::Io(_)) => {
            let fix = "make it readable, or name another with JITC_NVRTC";
            return Ok(Fact::missing("nvrtc", error.to_string(), fix));
        }
        other => other?,
    };
    if let Some(toolchain) = found {
        let text = format!(
            "{} at {} ({})",
            toolchain.identity,
            toolchain.nvrtc.display(),
            toolchain.origin
        );
        return Ok(match Nvrtc::open(&toolchain) {
            Ok(_) => Fact::good("nvrtc", text),
            Err(error) => Fact::missing(
                "nvrtc",
                format!("{text} cannot be opened: {error}"),
                why_not_opened(&toolchain.nvrtc, &error.to_string()),
            ),
        });
    }
    let old = candidates(config).find_map(|c| match c.found {
        Found::TooOld(version) => Some(format!(
            "; {version} in {} is older than {}.{}",
            c.place.display(),
            OLDEST.0,
            OLDEST.1
        )),
        _ => None,
    });
    let old = old.unwrap_or_default();
    Ok(if config.offline()? {
        Fact::missing(
            "nvrtc",
            format!("none{old}, and JITC_OFFLINE forbids fetching it"),
            "set JITC_NVRTC or CUDA_HOME, or run `jitc toolchain install` with a network",
        )
    } else if pip {
        Fact::good(
            "nvrtc",
            format!("none yet{old}: the first compile fetches the pinned one with pip"),
        )
    } else {
        Fact::missing(
            "nvrtc",
            format!("none{old}, and without python3 with pip it cannot be fetched"),
            "install python3 with pip, or run `jitc toolchain install --wheel FILE`, or set JITC_NVRTC or CUDA_HOME",
        )
    })
}

/// Which header sets are here. None has to be: a compile that uses one fetches it.
pub(super) fn header_sets(config: &Config) -> Fact {
    let mut sets = vec![format!("{STANDARD} (built in)")];
    for set in &PINNED_SETS {
        sets.push(match header_set_file(config, set) {
            Some((file, true)) => format!("{} {} at {}", set.name, set.version, file.display()),
            _ => format!(
                "{} {} (none yet: the first compile that uses it fetches it)",
                set.name, set.version
            ),
        });
    }
    Fact::good("headers", sets.join(", "))
}

/// What to do where the loader will not have a library that is what it should be.
fn why_not_opened(nvrtc: &Path, words: &str) -> String {
    let mounted_noexec =
        rustix::fs::statvfs(nvrtc).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::NOEXEC));
    if mounted_noexec {
        "it lies on a file system that is mounted noexec: set XDG_DATA_HOME to a folder on another one and \
         run `jitc toolchain install`, or name an NVRTC elsewhere with JITC_NVRTC"
            .into()
    } else if words.contains("cannot open shared object file") {
        "install the library that is named".into()
    } else if words.contains("not found (required by") {
        "it needs a newer C library than this system's: use a newer system or image".into()
    } else {
        "run `jitc toolchain install`, or name another with JITC_NVRTC".into()
    }
}
