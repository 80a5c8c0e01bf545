//! `__constant__` and `__device__` variables of a loaded kernel, set and read by name.
//!
//! Invariant: a variable is written and read whole, and only by as many bytes as it has.

use std::ffi::{CString, c_void};

use cudarc::driver::{DeviceRepr, result, sys};

use crate::engine::build::image;
use crate::engine::run::device::DeviceError;
use crate::engine::run::driver_error::DriverError;
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::engine::suggest::did_you_mean;

/// Why a variable could not be set or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VariableError {
    /// The machine code has no variable of this name.
    #[error(
        "{family} has no variable `{variable}`{hint}: {known}; one that no kernel uses is left out of the code"
    )]
    Unknown {
        /// The family.
        family: String,
        /// What was asked for.
        variable: String,
        /// A suggestion, or nothing.
        hint: String,
        /// Every variable, for people.
        known: String,
    },
    /// Another number of bytes.
    #[error("{family}: variable `{variable}` has {bytes} bytes, not {given}")]
    Size {
        /// The family.
        family: String,
        /// The variable.
        variable: String,
        /// Bytes that it has.
        bytes: usize,
        /// Those of the values.
        given: usize,
    },
    /// The context could not be made current.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The driver said no.
    #[error("{family}: variable `{variable}`: {reason}")]
    Driver {
        /// The family.
        family: String,
        /// The variable.
        variable: String,
        /// The driver's word.
        reason: DriverError,
    },
}

/// A variable in a context. Every launch of the kernel there sees it, whoever launches.
#[derive(Debug)]
pub struct Variable<'k> {
    kernel: &'k LoadedKernel,
    name: String,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl LoadedKernel {
    /// The variable of this name: as the source spells it, `coefficients` or
    /// `ns::coefficients`. Makes the kernel's context current on this thread.
    pub fn variable(&self, name: &str) -> Result<Variable<'_>, VariableError> {
        let mangled = image::mangled(name);
        let mut known = self.variables().iter();
        let Some((symbol, _)) = known.find(|(known, _)| known == name || *known == mangled) else {
            let names = || self.variables().iter().map(|(name, _)| name.as_str());
            return Err(VariableError::Unknown {
                family: self.family(),
                variable: name.to_owned(),
                hint: did_you_mean(name, names()),
                known: match names().collect::<Vec<_>>() {
                    none if none.is_empty() => "it has none".to_owned(),
                    some => format!("it has {}", some.join(", ")),
                },
            });
        };
        self.context().bind()?;
        let mut variable = Variable {
            kernel: self,
            name: name.to_owned(),
            address: 0,
            bytes: 0,
        };
        let symbol = CString::new(symbol.as_str()).unwrap_or_default();
        // SAFETY: the module is loaded, and all pointers outlive the call.
        let found = unsafe {
            sys::cuModuleGetGlobal_v2(
                &raw mut variable.address,
                &raw mut variable.bytes,
                self.module(),
                symbol.as_ptr(),
            )
        };
        found.result().map_err(|reason| variable.refused(reason))?;
        Ok(variable)
    }

    fn family(&self) -> String {
        self.spec().family().name.clone()
    }
}

impl Variable<'_> {
    /// The name that it was asked for by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its memory, as elements of a type: for copies on a stream of one's own. Good as long as
    /// the kernel is loaded.
    #[must_use]
    pub fn tensor(&self, dtype: Dtype) -> Tensor {
        Tensor::flat(self.address, dtype, self.bytes / dtype.bytes())
    }

    /// Writes all of it, and is done when it returns. It is not ordered with kernels on streams
    /// that do not wait for the default one: those may see the old values, or some of each.
    pub fn set<T: DeviceRepr>(&self, values: &[T]) -> Result<(), VariableError> {
        self.sized(size_of_val(values))?;
        self.kernel.context().bind()?;
        // SAFETY: both are of so many bytes, and alive during the call, which waits.
        let copied =
            unsafe { sys::cuMemcpyHtoD_v2(self.address, values.as_ptr().cast::<c_void>(), self.bytes) };
        copied.result().map_err(|reason| self.refused(reason))
    }

    /// Reads all of it into values, and is done when it returns; ordered as [`set`](Self::set).
    pub fn read<T: DeviceRepr>(&self, values: &mut [T]) -> Result<(), VariableError> {
        self.sized(size_of_val(values))?;
        self.kernel.context().bind()?;
        // SAFETY: both are of so many bytes, and alive during the call, which waits; what a
        // device may hold is a value of such a type.
        let copied =
            unsafe { sys::cuMemcpyDtoH_v2(values.as_mut_ptr().cast::<c_void>(), self.address, self.bytes) };
        copied.result().map_err(|reason| self.refused(reason))
    }

    fn sized(&self, given: usize) -> Result<(), VariableError> {
        if given == self.bytes {
            return Ok(());
        }
        Err(VariableError::Size {
            family: self.kernel.family(),
            variable: self.name.clone(),
            bytes: self.bytes,
            given,
        })
    }

    fn refused(&self, reason: result::DriverError) -> VariableError {
        VariableError::Driver {
            family: self.kernel.family(),
            variable: self.name.clone(),
            reason: DriverError::of(reason),
        }
    }
}
