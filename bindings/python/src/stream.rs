//! The stream of a launch: the caller's, else the framework's current one.

use cudarc::driver::sys::CUstream;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::errors;
use crate::tensors::Origin;

/// What a caller gave: a number, a stream of torch or `CuPy`, or anything with
/// `__cuda_stream__`.
pub(crate) fn given(stream: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = stream.py();
    if let Ok(number) = stream.extract::<u64>() {
        return Ok(number);
    }
    if let Some(protocol) = stream.getattr_opt(intern!(py, "__cuda_stream__"))? {
        // A method by the protocol; a property in early versions of cuda.core.
        let answer = if protocol.is_callable() {
            protocol.call0()?
        } else {
            protocol
        };
        let (_version, handle): (u64, u64) = answer.extract()?;
        return Ok(handle);
    }
    for name in [intern!(py, "cuda_stream"), intern!(py, "ptr")] {
        if let Some(handle) = stream.getattr_opt(name)? {
            return handle.extract();
        }
    }
    let class = stream.get_type().name()?.to_string();
    let expected = "expected a stream of torch, CuPy or cuda.core, or a CUstream as a number";
    Err(errors::argument(
        py,
        Some("stream"),
        format!("stream: {expected}, got {class}"),
    ))
}

/// Where the current stream is asked for, found once for a kernel's first tensor.
pub(crate) enum Current {
    /// By the framework's exchange API.
    Origin(Origin),
    /// `torch._C._cuda_getCurrentRawStream`.
    Torch(Py<PyAny>),
    /// `cupy.cuda.get_current_stream`.
    Cupy(Py<PyAny>),
    /// Of nobody: the legacy default stream.
    Default,
}

impl Current {
    /// Of the framework that a tensor is of.
    pub(crate) fn of(class: &Bound<'_, PyType>, origin: Origin) -> PyResult<Self> {
        if !matches!(origin, Origin::Type) {
            return Ok(Self::Origin(origin));
        }
        let py = class.py();
        let module = class.module()?.to_string();
        Ok(match module.split('.').next() {
            Some("torch") => Self::Torch(
                py.import("torch._C")?
                    .getattr("_cuda_getCurrentRawStream")?
                    .unbind(),
            ),
            Some("cupy") => Self::Cupy(py.import("cupy.cuda")?.getattr("get_current_stream")?.unbind()),
            _ => Self::Default,
        })
    }

    /// The current stream on a GPU.
    pub(crate) fn get(&self, py: Python<'_>, device: u32) -> PyResult<u64> {
        match self {
            Self::Origin(Origin::Api(api)) => api.stream(py, device),
            Self::Origin(Origin::Named(stream)) => Ok(*stream),
            Self::Torch(current) => current.bind(py).call1((device,))?.extract(),
            Self::Cupy(current) => current.bind(py).call0()?.getattr(intern!(py, "ptr"))?.extract(),
            Self::Origin(Origin::Type) | Self::Default => Ok(0),
        }
    }
}

/// The keyword `stream`, which no parameter can have for a name.
pub(crate) fn take(kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Option<u64>> {
    let Some(kwargs) = kwargs else { return Ok(None) };
    let Some(stream) = kwargs.get_item(intern!(kwargs.py(), "stream"))? else {
        return Ok(None);
    };
    // The dict is this call's own.
    kwargs.del_item(intern!(kwargs.py(), "stream"))?;
    if stream.is_none() {
        return Ok(None);
    }
    given(&stream).map(Some)
}

/// As the driver knows it.
pub(crate) fn handle(stream: u64) -> CUstream {
    let address = usize::try_from(stream).unwrap_or(0);
    std::ptr::with_exposed_provenance_mut(address)
}
