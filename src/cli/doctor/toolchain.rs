//! The compiler that would be used, and whether it can be.

use std::process::Command;

use super::Fact;
use crate::engine::build::compile::Nvrtc;
use crate::engine::build::toolchain::{Found, OLDEST, ToolchainError, candidates, find};
use crate::engine::config::Config;
use crate::engine::jit::Error;

pub(super) fn pip_version() -> Option<String> {
    let output = Command::new("python3")
        .args(["-I", "-m", "pip", "--version"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

pub(super) fn facts(config: &Config, pip: bool) -> Result<Fact, Error> {
    let found = match find(config) {
        // What was named and is not there is a fact, and no failure of this verb.
        Err(error @ (ToolchainError::NotThere { .. } | ToolchainError::TooOld { .. })) => {
            let fix = "name another, or none: the pinned one is then fetched";
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
                "install what it misses, or run `jitc toolchain install`",
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
            "install python3 with pip, or set JITC_NVRTC or CUDA_HOME",
        )
    })
}
