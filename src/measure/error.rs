//! What can stop a measurement.
//!
//! Invariant: an error is passed on as what it is. A family's own stands in
//! [`MeasureError::Family`], whole, and is never told as the driver's or the engine's.

use crate::engine::jit;
use crate::engine::request::regions::TableError;
use crate::engine::run::bind_error::BindError;
use crate::engine::run::device::DeviceError;
use crate::engine::run::driver_error::DriverError;
use crate::engine::run::launch::LaunchError;
use crate::measure::region::RegionError;
use crate::measure::timing::TimingError;

/// What stops a measurement: the engine, the GPU, the request, or the family.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// Making or loading a kernel.
    #[error(transparent)]
    Engine(jit::Error),
    /// There is no GPU to measure on.
    #[error("measuring takes a GPU, and there is none to use: {0}")]
    Device(#[from] DeviceError),
    /// Memory that a kernel does not take.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Launching.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Taking times.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// Region timings.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The driver refused something else.
    #[error("{}", DriverError::of(*.0))]
    Driver(#[from] cudarc::driver::DriverError),
    /// A file of results.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// What was asked for cannot be measured: why, and what could be.
    #[error("{0}")]
    Request(String),
    /// A reference refused a kernel, so nothing was timed: what differs.
    #[error("{0}")]
    Refused(String),
    /// A family's own error.
    #[error(transparent)]
    Family(Box<dyn std::error::Error + Send + Sync>),
}

impl From<TableError> for MeasureError {
    fn from(error: TableError) -> Self {
        Self::Region(error.into())
    }
}

/// Whatever the engine folds into its own error.
impl<E> From<E> for MeasureError
where
    jit::Error: From<E>,
{
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

impl MeasureError {
    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Launch(error) => error.hint(),
            Self::Driver(said) => DriverError::of(*said).hint(),
            _ => None,
        }
    }

    /// The engine's error, where it is one.
    #[must_use]
    pub fn engine(&self) -> Option<&jit::Error> {
        match self {
            Self::Engine(error) => Some(error),
            _ => None,
        }
    }
}
