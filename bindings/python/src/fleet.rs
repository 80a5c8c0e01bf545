//! Entries and releases on their way to a fleet's stores, and from them.
//!
//! Invariant: the GIL is released for whatever is sent or taken, and while an engine that
//! goes, or an interpreter that ends, waits for what is still to be sent: who sends may
//! have something to tell to a listener.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use jitc::engine::jit::Jit;
use pyo3::prelude::*;

use crate::errors;
use crate::reports::Report;

/// What became of a push.
#[pyclass(frozen, get_all, module = "jitc")]
pub(crate) struct Pushed {
    /// Entries that a store took, each store counted.
    pub(crate) sent: u64,
    /// The same that were there already.
    pub(crate) present: u64,
    /// A line for each that was not sent.
    pub(crate) failed: Vec<String>,
    /// `sha256:` and the digest of a release.
    pub(crate) digest: Option<String>,
}

#[pymethods]
impl Pushed {
    fn __repr__(&self) -> String {
        let Self { sent, present, .. } = self;
        let failed = self.failed.len();
        format!("<jitc.Pushed {sent} sent, {present} were there already, {failed} failed>")
    }
}

/// What a pull brought.
#[pyclass(frozen, get_all, module = "jitc")]
pub(crate) struct Pulled {
    /// Entries that are new here.
    pub(crate) added: u64,
    /// Entries that were there already.
    pub(crate) present: u64,
    /// Measured winners that are new here.
    pub(crate) tuned: usize,
}

#[pymethods]
impl Pulled {
    fn __repr__(&self) -> String {
        let Self {
            added,
            present,
            tuned,
        } = self;
        format!("<jitc.Pulled {added} added, {present} were there already, {tuned} tuned>")
    }
}

/// The keys of a report, or those that are given.
pub(crate) fn keys(what: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let Ok(report) = what.cast::<Report>() else {
        return what.extract();
    };
    let variants = report.get().variants.iter();
    Ok(variants.filter_map(|variant| variant.get().key.clone()).collect())
}

/// Sends entries, one by one, or as one release under a name.
#[cfg(feature = "remote")]
pub(crate) fn push(py: Python<'_>, jit: &Jit, keys: &[String], name: Option<&str>) -> PyResult<Pushed> {
    use jitc::engine::cache::Release;
    use jitc::engine::jit::FleetError;

    let parsed = keys.iter().map(|key| {
        let parsed = key.parse::<jitc::engine::build::key::CacheKey>();
        parsed.map_err(|e| errors::request(py, e.to_string()))
    });
    let keys = parsed.collect::<PyResult<Vec<_>>>()?;
    let name = name.map(Release::name).transpose();
    let name = name.map_err(|e| errors::request(py, format!("name: {e}")))?;
    let work = || -> Result<Pushed, FleetError> {
        let Some(name) = name else {
            let pushed = jit.push(&keys)?;
            return Ok(Pushed {
                sent: pushed.sent,
                present: pushed.present,
                failed: pushed.complaints().collect(),
                digest: None,
            });
        };
        let release = jit.push_release(&name, &keys)?;
        Ok(Pushed {
            sent: release.entries,
            present: 0,
            failed: Vec::new(),
            digest: Some(release.digest),
        })
    };
    py.detach(work).map_err(|e| errors::engine(py, &e.into()))
}

/// Takes a release, by its name or digest, into the folder that is written to.
#[cfg(feature = "remote")]
pub(crate) fn pull(py: Python<'_>, jit: &Jit, release: &str) -> PyResult<Pulled> {
    let parsed = release.parse();
    let release = parsed.map_err(|e| errors::request(py, format!("`{release}`: {e}")))?;
    let Some(store) = jit.cache().written_store() else {
        let why = "there is no cache folder: set HOME, JITC_CACHE_DIR or cache_dir=";
        return Err(errors::config(py, why.to_owned()));
    };
    let pulled = py.detach(|| jit.pull_release(&release, store));
    let (imported, tuned) = pulled.map_err(|e| errors::engine(py, &e.into()))?;
    Ok(Pulled {
        added: imported.added,
        present: imported.present,
        tuned,
    })
}

/// Engines that may have something to send when the interpreter ends.
static OPEN: Mutex<Vec<Weak<Jit>>> = Mutex::new(Vec::new());

/// Remembers an engine for the interpreter's end, where it knows stores.
pub(crate) fn remember(py: Python<'_>, jit: &Arc<Jit>) -> PyResult<()> {
    if !has_stores(jit) {
        return Ok(());
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_first = open.is_empty();
    open.retain(|known| known.strong_count() > 0);
    open.push(Arc::downgrade(jit));
    drop(open);
    if is_first {
        let at_exit = wrap_pyfunction!(drain_all, py)?;
        py.import("atexit")?.call_method1("register", (at_exit,))?;
    }
    Ok(())
}

/// Waits for a moment until what every engine has to send is sent.
#[pyfunction]
fn drain_all(py: Python<'_>) {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    py.detach(|| open.iter().filter_map(Weak::upgrade).for_each(|jit| drain(&jit)));
}

/// The same of one, which goes.
pub(crate) fn leave(jit: &Jit) {
    if has_stores(jit) {
        // Once the interpreter has ended nobody listens any more.
        Python::try_attach(|py| py.detach(|| drain(jit)));
    }
}

#[cfg(feature = "remote")]
fn has_stores(jit: &Jit) -> bool {
    !jit.cache().remotes().is_empty()
}

#[cfg(feature = "remote")]
fn drain(jit: &Jit) {
    use jitc::engine::cache::Tier;
    jit.cache().remotes().iter().for_each(Tier::drain);
}

#[cfg(not(feature = "remote"))]
fn has_stores(_: &Jit) -> bool {
    false
}

#[cfg(not(feature = "remote"))]
fn drain(_: &Jit) {}

#[cfg(not(feature = "remote"))]
const NO_STORES: &str =
    "this jitc was built without stores that a fleet shares: build the wheel with the feature `remote`";

#[cfg(not(feature = "remote"))]
pub(crate) fn push(py: Python<'_>, _: &Jit, _: &[String], _: Option<&str>) -> PyResult<Pushed> {
    Err(errors::config(py, NO_STORES.to_owned()))
}

#[cfg(not(feature = "remote"))]
pub(crate) fn pull(py: Python<'_>, _: &Jit, _: &str) -> PyResult<Pulled> {
    Err(errors::config(py, NO_STORES.to_owned()))
}
