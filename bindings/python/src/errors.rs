//! Errors of the engine as exceptions of `jitc._errors`, with hint, key and log.
//!
//! Invariant: every error of the engine becomes a subclass of `jitc.Error` whose text is
//! the engine's one line.

use jitc::engine::jit::{Error, ErrorKind};
use jitc::engine::run::bind_error::BindError;
use jitc::engine::run::device::DeviceError;
use jitc::engine::run::launch::LaunchError;
use jitc::engine::run::load::LoadError;
use jitc::engine::run::tvm_ffi::TvmFfiError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What an exception carries besides its class.
#[derive(Default)]
struct Facts {
    message: String,
    hint: Option<String>,
    key: Option<String>,
    log: Option<String>,
    command: Option<String>,
    parameter: Option<String>,
}

/// An exception of this class of `jitc._errors`.
fn raise(py: Python<'_>, class: &str, facts: Facts) -> PyErr {
    let make = || {
        let class = py.import("jitc._errors")?.getattr(class)?;
        let more = PyDict::new(py);
        more.set_item("hint", facts.hint)?;
        more.set_item("key", facts.key)?;
        more.set_item("log", facts.log)?;
        if let Some(command) = facts.command {
            more.set_item("command", command)?;
        }
        if let Some(parameter) = facts.parameter {
            more.set_item("parameter", parameter)?;
        }
        class.call((facts.message,), Some(&more))
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// An error of the engine.
pub(crate) fn engine(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Load(LoadError::Capturing { .. }) => "CaptureError",
        Error::Load(LoadError::Device(DeviceError::Forked)) | Error::Device(DeviceError::Forked) => {
            "ForkedError"
        }
        Error::Forbidden { .. } => "Forbidden",
        _ => match error.kind() {
            ErrorKind::Config => "ConfigError",
            ErrorKind::Template | ErrorKind::Render => "TemplateError",
            ErrorKind::Spec => "SpecError",
            ErrorKind::Toolchain => "ToolchainError",
            ErrorKind::Cache => "CacheError",
            ErrorKind::Compile => "CompileError",
            ErrorKind::Load => "LoadError",
            ErrorKind::Device => "DeviceError",
            ErrorKind::Policy => "PolicyError",
            _ => "Error",
        },
    };
    let hints = error.hints();
    let (key, command) = match error {
        Error::Forbidden { key, command, .. } => (Some(key.to_string()), Some(command.clone())),
        _ => (None, None),
    };
    let facts = Facts {
        message: error.to_string(),
        hint: (!hints.is_empty()).then(|| hints.join("\n")),
        key,
        log: error.log().map(str::to_owned),
        command,
        parameter: None,
    };
    raise(py, class, facts)
}

/// Something wrong with what a kernel was called with.
pub(crate) fn bind(py: Python<'_>, error: &BindError) -> PyErr {
    let (class, parameter, hint) = match error {
        BindError::Device(DeviceError::Forked) => ("ForkedError", None, None),
        BindError::Device(device) => ("DeviceError", None, device.hint()),
        BindError::Parameter { parameter, .. } | BindError::Unknown { parameter, .. } => {
            ("ArgumentError", Some(parameter.clone()), None)
        }
        BindError::Size { size, .. } => ("ArgumentError", Some(size.clone()), None),
        _ => ("ArgumentError", None, None),
    };
    let facts = Facts {
        message: error.to_string(),
        hint: hint.map(str::to_owned),
        parameter,
        ..Facts::default()
    };
    raise(py, class, facts)
}

/// A launch that did not happen.
pub(crate) fn launch(py: Python<'_>, error: &LaunchError) -> PyErr {
    let class = match error {
        LaunchError::Forked { .. } => "ForkedError",
        LaunchError::Size { .. } | LaunchError::SizeCount { .. } => "ArgumentError",
        _ => "LaunchError",
    };
    let facts = Facts {
        message: error.to_string(),
        hint: error.hint().map(str::to_owned),
        ..Facts::default()
    };
    raise(py, class, facts)
}

/// A kernel that did not become a function of tvm-ffi.
pub(crate) fn tvm_ffi(py: Python<'_>, error: &TvmFfiError) -> PyErr {
    let class = match error {
        TvmFfiError::Taken(_) | TvmFfiError::Kernel(_) => "ArgumentError",
        _ => "LoadError",
    };
    let facts = Facts {
        message: error.to_string(),
        ..Facts::default()
    };
    raise(py, class, facts)
}

/// A GPU that cannot be used.
pub(crate) fn device(py: Python<'_>, error: DeviceError) -> PyErr {
    engine(py, &Error::Device(error))
}

/// An argument that the engine never saw; `parameter` names it.
pub(crate) fn argument(py: Python<'_>, parameter: Option<&str>, message: String) -> PyErr {
    let facts = Facts {
        message,
        parameter: parameter.map(str::to_owned),
        ..Facts::default()
    };
    raise(py, "ArgumentError", facts)
}

/// A request that the engine never saw.
pub(crate) fn request(py: Python<'_>, message: String) -> PyErr {
    let facts = Facts {
        message,
        ..Facts::default()
    };
    raise(py, "SpecError", facts)
}

/// A setting that cannot be what it is.
pub(crate) fn config(py: Python<'_>, message: String) -> PyErr {
    let facts = Facts {
        message,
        ..Facts::default()
    };
    raise(py, "ConfigError", facts)
}

/// Loading while torch captures a graph.
pub(crate) fn capturing(py: Python<'_>, variant: &str) -> PyErr {
    let facts = Facts {
        message: format!("{variant} was not loaded: torch is capturing a graph on this stream"),
        hint: Some("load every kernel before the capture begins; launching a loaded one is captured".into()),
        ..Facts::default()
    };
    raise(py, "CaptureError", facts)
}

/// Trouble of the cache with what is not jitc's own.
pub(crate) fn cache(py: Python<'_>, message: String) -> PyErr {
    let facts = Facts {
        message,
        ..Facts::default()
    };
    raise(py, "CacheError", facts)
}

/// A decode layer that cannot be.
pub(crate) fn layer(py: Python<'_>, message: String) -> PyErr {
    let facts = Facts {
        message,
        ..Facts::default()
    };
    raise(py, "LoadError", facts)
}
