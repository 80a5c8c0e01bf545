//! The archs of this machine's GPUs, for verbs whose settings name none.
//!
//! Invariant: a GPU that is here is compiled for, or is named as left out; a driver that
//! cannot be used is an error, and never taken for a machine without a GPU.

use std::collections::BTreeMap;

use super::{Error, Jit};
use crate::engine::config::Config;
use crate::engine::request::spec::SpecError;
use crate::engine::request::target::{Arch, CudaVersion};
use crate::engine::request::template::Family;
use crate::engine::run::device::{self, Device, DeviceError};

/// What to compile for where nobody said.
#[derive(Debug, Clone)]
pub struct UsualArchs {
    devices: Vec<Device>,
    archs: Vec<Arch>,
}

impl UsualArchs {
    /// Looks for GPUs; `None` where the settings name archs, and no GPU matters.
    ///
    /// # Errors
    /// The driver is there and cannot be used.
    pub fn of(config: &Config) -> Result<Option<Self>, Error> {
        if config.arch().is_some() {
            return Ok(None);
        }
        let devices = device::here().map_err(Error::Device)?;
        let archs = device::default_archs(&devices);
        Ok(Some(Self { devices, archs }))
    }

    /// Those of these GPUs, which somebody named.
    #[must_use]
    pub fn named(devices: Vec<Device>) -> Self {
        let mut archs: Vec<Arch> = devices.iter().map(Device::arch).collect();
        archs.sort_unstable();
        archs.dedup();
        Self { devices, archs }
    }

    /// The architectures, each once.
    #[must_use]
    pub fn archs(&self) -> Vec<Arch> {
        self.archs.clone()
    }

    /// A line where there is a driver, and not the GPU that one would expect with it.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        (self.devices.is_empty() && device::driver_version().is_ok()).then(|| {
            let list: Vec<String> = self.archs.iter().map(ToString::to_string).collect();
            format!(
                "the driver shows no GPU: taking {}; --arch names others",
                list.join(", ")
            )
        })
    }

    /// A line for each GPU that some of these families cannot do.
    ///
    /// # Errors
    /// None of the families can do any of the GPUs.
    pub fn skipped<'f>(&self, families: impl IntoIterator<Item = &'f Family>) -> Result<Vec<String>, Error> {
        let families: Vec<&Family> = families.into_iter().collect();
        let unable = |arch: Arch| families.iter().filter(move |f| !f.does(arch));
        let all_unable = |arch: &Arch| unable(*arch).count() == families.len();
        if families.is_empty() || !self.archs.iter().all(all_unable) {
            let skipped = |device: &Device| {
                let needs = needs(unable(device.arch()))?;
                Some(format!("left out: {}: {needs}", device.label()))
            };
            return Ok(self.devices.iter().filter_map(skipped).collect());
        }
        let gpus: Vec<String> = self.devices.iter().map(Device::label).collect();
        Err(
            match (gpus.is_empty(), families[0].oldest_arch, self.archs.last()) {
                (true, Some(oldest), Some(arch)) => Error::Spec(SpecError::TooOld {
                    family: families[0].name.clone(),
                    arch: *arch,
                    oldest,
                }),
                _ => Error::Device(DeviceError::Unsupported {
                    gpus: gpus.join(", "),
                    needs: needs(families.iter()).unwrap_or_default(),
                }),
            },
        )
    }
}

/// `axpy, stream: sm_80 or newer`, by the oldest arch that families do with.
fn needs<'f>(families: impl Iterator<Item = &'f &'f Family>) -> Option<String> {
    let mut by_oldest: BTreeMap<Arch, Vec<&str>> = BTreeMap::new();
    for family in families {
        if let Some(oldest) = family.oldest_arch {
            by_oldest.entry(oldest).or_default().push(&family.name);
        }
    }
    let each = by_oldest.iter().map(|(oldest, names)| {
        let verb = if names.len() == 1 { "needs" } else { "need" };
        format!("{} {verb} {oldest} or newer", names.join(", "))
    });
    let text = each.collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then_some(text)
}

impl Jit {
    /// Why the driver of this machine loads no code of the compiler's, if it does not: the
    /// newest CUDA that it knows, and a sentence.
    ///
    /// # Errors
    /// The compiler's identity could not be worked out.
    pub fn driver_too_old(&self) -> Result<Option<(CudaVersion, String)>, Error> {
        let Ok(driver) = device::driver_version() else {
            return Ok(None);
        };
        let version = self.identity()?.version;
        let made_by = CudaVersion::at_start_of(&version);
        Ok(made_by.filter(|made_by| !driver.loads_code_of(*made_by)).map(|made_by| {
            let text = format!(
                "it knows CUDA up to {driver}, and loads no code made by NVRTC {version}, which takes a driver of \
                 CUDA {}.0 or newer",
                made_by.major
            );
            (driver, text)
        }))
    }
}

/// What helps against that.
#[must_use]
pub fn newer_driver(driver: CudaVersion) -> String {
    format!(
        "update the driver, or name an NVRTC of CUDA {}: --nvrtc, JITC_NVRTC, CUDA_HOME",
        driver.major
    )
}
