//! The driver and its GPUs.

use super::Fact;
use crate::engine::run::device;

pub(super) fn facts() -> Vec<Fact> {
    let mut facts = Vec::new();
    facts.push(match device::driver_version() {
        Ok((major, minor)) => Fact::good("driver", format!("knows CUDA up to {major}.{minor}")),
        Err(reason) => Fact::good("driver", format!("none ({reason}); not needed to compile")),
    });
    match device::list() {
        Ok(devices) => facts.extend(devices.iter().map(|d| {
            Fact::good(
                "gpu",
                format!(
                    "{} {}: compute capability {}.{}, {} SMs",
                    d.ordinal, d.name, d.major, d.minor, d.sm_count
                ),
            )
        })),
        Err(reason) => facts.push(Fact::good(
            "gpu",
            format!("none ({reason}); not needed to compile"),
        )),
    }
    facts
}
