//! Which versions are in play: what a report of trouble needs first.

use crate::engine::build::key::KEY_VERSION;
use crate::engine::build::toolchain::{PINNED_VERSION, find};
use crate::engine::cache::FORMAT;
use crate::engine::jit::Jit;
use crate::engine::run::device::driver_version;

/// Names and what they are: of this program, its keys and formats, the compiler that is here
/// and the driver. What cannot be had says why; nothing is fetched.
#[must_use]
pub fn versions(jit: &Jit) -> Vec<(&'static str, String)> {
    let compiler = match find(jit.config()) {
        Ok(Some(toolchain)) => toolchain.identity.to_string(),
        Ok(None) => "not here".to_owned(),
        Err(error) => error.to_string(),
    };
    let driver = match driver_version() {
        Ok(version) => format!("CUDA {version}"),
        Err(error) => error.to_string(),
    };
    let stores = if cfg!(feature = "remote") {
        "with"
    } else {
        "without"
    };
    vec![
        ("jitc", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "build",
            format!("{}, {stores} stores of a fleet", env!("JITC_BUILD")),
        ),
        ("key", KEY_VERSION.to_string()),
        ("entry", FORMAT.to_string()),
        ("pinned", format!("NVRTC {PINNED_VERSION}")),
        ("compiler", compiler),
        ("driver", driver),
        (
            "host",
            format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        ),
    ]
}
