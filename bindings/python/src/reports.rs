//! Answers of `warm`, `why` and `families`, for Python.

use jitc::engine::cache::Why as Said;
use jitc::engine::jit::Prepared;
use jitc::engine::request::spec::KernelSpec;
use pyo3::prelude::*;

/// One variant that was warmed, or not.
#[pyclass(frozen, get_all, module = "jitc")]
#[expect(clippy::struct_field_names, reason = "as the command line calls it")]
pub(crate) struct Variant {
    /// The family's name.
    pub(crate) family: String,
    /// The constants that differ from their defaults, `name=value ..`.
    pub(crate) variant: String,
    /// What it was made for, `sm_90a`.
    pub(crate) arch: String,
    /// SHA-256 of all that the compiler saw, in hex; none of a failure.
    pub(crate) key: Option<String>,
    /// `hit`, `built`, `built_uncached` or `failed`.
    pub(crate) outcome: &'static str,
    /// Time inside the compiler when it was made, seconds.
    pub(crate) compile_seconds: Option<f64>,
    /// The exception of a failure.
    pub(crate) error: Option<Py<PyAny>>,
}

impl Variant {
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of a compile are far below 2^52"
    )]
    pub(crate) fn of(spec: &KernelSpec, prepared: &Prepared) -> Self {
        Self {
            key: Some(prepared.request.key().to_string()),
            outcome: prepared.fetched.provenance.label(),
            compile_seconds: Some(prepared.fetched.artifact.compile_us as f64 / 1e6),
            ..Self::failed(spec, None)
        }
    }

    pub(crate) fn failed(spec: &KernelSpec, error: Option<Py<PyAny>>) -> Self {
        Self {
            family: spec.family().name.clone(),
            variant: spec.variant(),
            arch: spec.arch().to_string(),
            key: None,
            outcome: "failed",
            compile_seconds: None,
            error,
        }
    }
}

#[pymethods]
impl Variant {
    fn __repr__(&self) -> String {
        format!(
            "<jitc.Variant {} {} {}: {}>",
            self.family, self.variant, self.arch, self.outcome
        )
    }
}

/// What became of a `warm`.
#[pyclass(frozen, get_all, module = "jitc")]
pub(crate) struct Report {
    /// Every variant, in the order of the request.
    pub(crate) variants: Vec<Py<Variant>>,
}

#[pymethods]
impl Report {
    /// How many were found.
    #[getter]
    fn hit(&self, py: Python<'_>) -> usize {
        self.count(py, |outcome| outcome == "hit")
    }

    /// How many were compiled.
    #[getter]
    fn built(&self, py: Python<'_>) -> usize {
        self.count(py, |outcome| outcome.starts_with("built"))
    }

    /// Those that failed; each has an `error`.
    #[getter]
    fn failed(&self, py: Python<'_>) -> Vec<Py<Variant>> {
        let failed = self.variants.iter().filter(|v| v.get().outcome == "failed");
        failed.map(|v| v.clone_ref(py)).collect()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let failed = self.count(py, |outcome| outcome == "failed");
        format!(
            "<jitc.Report {} hit, {} built, {failed} failed>",
            self.hit(py),
            self.built(py)
        )
    }
}

impl Report {
    fn count(&self, _py: Python<'_>, which: impl Fn(&str) -> bool) -> usize {
        self.variants.iter().filter(|v| which(v.get().outcome)).count()
    }
}

/// Whether a request is a hit, and why not.
#[pyclass(frozen, get_all, module = "jitc")]
pub(crate) struct Why {
    /// `hit`, `miss`, `bad` or `refused`.
    answer: &'static str,
    /// The key of the request, in hex.
    key: String,
    /// The tier that has it.
    tier: Option<String>,
    /// What is wrong, in one line.
    reason: Option<String>,
    /// The key of the entry that differs least.
    nearest: Option<String>,
    /// What differs from it, a line each.
    differences: Vec<String>,
}

#[pymethods]
impl Why {
    fn __bool__(&self) -> bool {
        self.answer == "hit"
    }

    fn __repr__(&self) -> String {
        format!("<jitc.Why {}>", self.answer)
    }
}

impl Why {
    pub(crate) fn of(key: String, said: &Said) -> Self {
        let bare = |answer| Self {
            answer,
            key,
            tier: None,
            reason: None,
            nearest: None,
            differences: Vec::new(),
        };
        match said {
            Said::Hit(tier) => Self {
                tier: Some(tier.to_string()),
                ..bare("hit")
            },
            Said::Bad { tier, fault } => Self {
                tier: Some(tier.to_string()),
                reason: Some(fault.to_string()),
                ..bare("bad")
            },
            Said::Refused(drift) => Self {
                reason: Some(drift.to_string()),
                ..bare("refused")
            },
            Said::Miss(Some(nearest)) => Self {
                nearest: Some(nearest.key.to_string()),
                differences: nearest.differences.iter().map(ToString::to_string).collect(),
                ..bare("miss")
            },
            _ => bare("miss"),
        }
    }
}
