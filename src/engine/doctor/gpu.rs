//! The driver and its GPUs: whether what is compiled here would be loaded here.
//!
//! Invariant: the absence of a driver is no fault, since compiling needs none; a driver
//! that is here and is of no use is one.

use super::Fact;
use crate::engine::build::compile::Nvrtc;
use crate::engine::build::toolchain;
use crate::engine::jit::{Error, Jit, newer_driver};
use crate::engine::run::device::{self, Device, DeviceError};

const NOT_NEEDED: &str = "not needed to compile";

pub(super) fn facts(jit: &Jit) -> Result<Vec<Fact>, Error> {
    let driver = match device::driver_version() {
        Ok(version) => match jit.driver_too_old()? {
            None => Fact::good("driver", format!("knows CUDA up to {version}")),
            Some((driver, text)) => Fact::missing("driver", text, newer_driver(driver)),
        },
        Err(DeviceError::NoDriver) => {
            let reason = DeviceError::NoDriver;
            Fact::good("driver", format!("none ({reason}); {NOT_NEEDED}"))
        }
        Err(error) => unusable("driver", &error),
    };
    let mut facts = vec![driver];
    match device::list() {
        Ok(devices) if devices.is_empty() => facts.push(unusable("gpu", &DeviceError::NoGpu)),
        Ok(devices) => {
            let known = archs_of_nvrtc(jit);
            facts.extend(devices.iter().map(|device| gpu(jit, device, known.as_deref())));
        }
        Err(reason @ DeviceError::NoDriver) => {
            facts.push(Fact::good("gpu", format!("none ({reason}); {NOT_NEEDED}")));
        }
        Err(error) => facts.push(unusable("gpu", &error)),
    }
    Ok(facts)
}

fn unusable(what: &'static str, error: &DeviceError) -> Fact {
    let fix = error.hint().unwrap_or("`nvidia-smi` says more");
    Fact::missing(what, format!("none can be used: {error}"), fix)
}

fn gpu(jit: &Jit, device: &Device, known: Option<&[u32]>) -> Fact {
    let arch = device.arch();
    let text = format!(
        "{} {}: compute capability {}.{}, {} SMs",
        device.ordinal, device.name, device.major, device.minor, device.sm_count
    );
    let oldest = jit.registry().families().filter_map(|f| f.oldest_arch).min();
    if !jit.registry().families().any(|family| family.does(arch)) {
        let oldest = oldest.map_or_else(String::new, |oldest| format!(": they need {oldest} or newer"));
        return Fact::missing(
            "gpu",
            format!("{text}; no family runs on it{oldest}"),
            "leave it out with CUDA_VISIBLE_DEVICES, or compile for other GPUs with --arch",
        );
    }
    let newest = known.and_then(|known| known.iter().max());
    if let Some(newest) = newest
        && known.is_some_and(|known| !known.contains(&u32::from(arch.number())))
    {
        return Fact::missing(
            "gpu",
            format!("{text}; NVRTC makes no code for {arch}: the newest that it knows is sm_{newest}"),
            "name an NVRTC that knows it: --nvrtc, JITC_NVRTC, CUDA_HOME",
        );
    }
    Fact::good("gpu", text)
}

/// The numbers of the archs that the compiler at hand knows; `None` without one.
fn archs_of_nvrtc(jit: &Jit) -> Option<Vec<u32>> {
    let toolchain = toolchain::find(jit.config()).ok()??;
    // A changed library is not run, not even to ask it.
    toolchain.confirm().ok()?;
    Nvrtc::open(&toolchain).ok()?.archs().ok()
}
