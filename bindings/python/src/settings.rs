//! What keywords say, as the engine has it.

use std::ffi::OsString;

use jitc::engine::config::{Environment, MissPolicy};
use jitc::engine::sign::{Requirements, TrustedKeys};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyList, PyString, PyTuple};

use crate::errors;

/// The process's environment, with the interpreter's own environment as the active one.
pub(crate) fn environment(prefix: OsString) -> Environment {
    let inherited = std::env::vars_os().filter(|(name, _)| name != "VIRTUAL_ENV");
    let own = (OsString::from("VIRTUAL_ENV"), prefix);
    inherited.chain([own]).collect()
}

/// Public keys, one or several.
pub(crate) fn trusted_keys(py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<TrustedKeys> {
    let keys = text_of(keys)?.parse();
    keys.map_err(|e| errors::config(py, format!("trusted_keys: {e}")))
}

/// What must be signed.
pub(crate) fn requirements(py: Python<'_>, text: &str) -> PyResult<Requirements> {
    let parsed = text.parse::<Requirements>();
    parsed.map_err(|e| errors::config(py, format!("require: `{text}`: {e}")))
}

/// The URLs of stores, one or several.
pub(crate) fn stores(urls: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<String>> {
    match urls {
        None => Ok(Vec::new()),
        Some(url) if url.is_instance_of::<PyString>() => Ok(vec![url.extract()?]),
        Some(urls) => urls.extract(),
    }
}

pub(crate) fn policy(py: Python<'_>, word: &str) -> PyResult<MissPolicy> {
    match word {
        "compile" => Ok(MissPolicy::Compile),
        "warn" => Ok(MissPolicy::Warn),
        "forbid" => Ok(MissPolicy::Forbid),
        other => {
            let why = format!("miss: `{other}`: expected compile, warn or forbid");
            Err(errors::request(py, why))
        }
    }
}

/// A constant's value as the command line would have it; of a list or a range, its items.
pub(crate) fn text_of(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyTuple>()
        || value.get_type().name()? == "range"
    {
        let items = value.try_iter()?.map(|item| text_of(&item?));
        return Ok(items.collect::<PyResult<Vec<_>>>()?.join(","));
    }
    if value.is_instance_of::<PyBool>() {
        return Ok(if value.extract()? { "true" } else { "false" }.to_owned());
    }
    if value.is_instance_of::<PyString>() {
        return value.extract();
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(value.repr()?.to_string());
    }
    Ok(value.str()?.to_string())
}
