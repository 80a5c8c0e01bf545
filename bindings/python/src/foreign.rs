//! The cache's folders as the cache of something else.
//!
//! Invariant: the GIL is released for whatever reads and writes.

use std::path::PathBuf;

use jitc::engine::cache::{CacheError, ForeignCache as Engine};
use jitc::engine::sign::read_secret;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors;
use crate::jit::PyJit;

/// What a client of another cache keeps: bytes by name.
#[pyclass(frozen, module = "jitc")]
pub(crate) struct ForeignCache {
    cache: Engine,
}

#[pymethods]
impl ForeignCache {
    #[new]
    #[pyo3(signature = (jit, client, *, key = None))]
    fn new(py: Python<'_>, jit: &Bound<'_, PyJit>, client: &str, key: Option<PathBuf>) -> PyResult<Self> {
        let mut cache = jit.get().jit().cache().foreign(client);
        if let Some(path) = key {
            let secret = py.detach(|| read_secret(&path));
            cache = cache.signed_by(secret.map_err(|e| errors::cache(py, e.to_string()))?);
        }
        Ok(Self { cache })
    }

    /// The bytes under a name, verified; `None` where there are none, or bad ones.
    fn get<'py>(&self, py: Python<'py>, name: &[u8]) -> Option<Bound<'py, PyBytes>> {
        let found = py.detach(|| self.cache.get(name));
        found.map(|bytes| PyBytes::new(py, &bytes))
    }

    /// Keeps bytes under a name, in the place of others.
    fn put(&self, py: Python<'_>, name: &[u8], data: Vec<u8>) -> PyResult<()> {
        said(py, py.detach(|| self.cache.put(name, data)))
    }

    /// Removes what is under a name; says whether there was anything.
    fn remove(&self, py: Python<'_>, name: &[u8]) -> PyResult<bool> {
        said(py, py.detach(|| self.cache.remove(name)))
    }

    /// The names under which there is something good, sorted. Reads it all.
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let names = said(py, py.detach(|| self.cache.names()))?;
        Ok(names.iter().map(|name| PyBytes::new(py, name)).collect())
    }
}

fn said<T>(py: Python<'_>, result: Result<T, CacheError>) -> PyResult<T> {
    result.map_err(|error| errors::cache(py, error.to_string()))
}
