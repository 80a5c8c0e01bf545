//! What GPUs are here.
//!
//! Invariant: the driver's absence is a typed answer, found out before cudarc is
//! called: cudarc panics where libcuda is missing.

use cudarc::driver::{result, sys};

/// Facts of one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name, as the driver gives it.
    pub name: String,
    /// Compute capability, before the point.
    pub major: u16,
    /// Compute capability, after the point.
    pub minor: u16,
    /// Streaming multiprocessors.
    pub sm_count: u32,
}

/// Why there is no GPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No driver library on the loader's path.
    #[error("libcuda is not installed")]
    NoDriver,
    /// The driver said no.
    #[error("the CUDA driver said {0:?}")]
    Driver(result::DriverError),
}

/// The GPUs of this machine, in the driver's order.
pub fn list() -> Result<Vec<Device>, DeviceError> {
    // SAFETY: only tries to open the driver's library.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver);
    }
    result::init().map_err(DeviceError::Driver)?;
    let count = result::device::get_count().map_err(DeviceError::Driver)?;
    (0..count)
        .map(|ordinal| describe(ordinal).map_err(DeviceError::Driver))
        .collect()
}

fn describe(ordinal: i32) -> Result<Device, result::DriverError> {
    use sys::CUdevice_attribute_enum as Attribute;
    let device = result::device::get(ordinal)?;
    let attribute = |which| {
        // SAFETY: the device handle was just given by the driver.
        unsafe { result::device::get_attribute(device, which) }
    };
    let small = |value: i32| u16::try_from(value).unwrap_or(0);
    Ok(Device {
        name: result::device::get_name(device)?,
        major: small(attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        )?),
        minor: small(attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )?),
        sm_count: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.unsigned_abs(),
    })
}
