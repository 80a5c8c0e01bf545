//! Kernels of strings.
//!
//! Invariant: a source is a request like a family's variant, made once: what is asked of
//! it names an arch or a GPU and nothing else.

use std::collections::BTreeMap;

use jitc::engine::jit::{Error, Jit, SourceKernel};
use jitc::engine::request::spec::KernelSpec;
use jitc::engine::request::target::Arch;
use jitc::engine::request::template::Access;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes};

use crate::errors;
use crate::jit::PyJit;
use crate::kernel::Kernel;
use crate::reports::{Report, Why};
use crate::settings::text_of;

/// The arch for which a source is checked when it is made; every request names its own.
const ANY: &str = "sm_90a";

/// A kernel of a string, not loaded.
#[pyclass(frozen, module = "jitc")]
pub(crate) struct Source {
    jit: Py<PyJit>,
    spec: KernelSpec,
}

/// `scale` of `ns::scale<float, 8>`.
fn base(expression: &str) -> &str {
    let name = expression.split('<').next().unwrap_or_default();
    name.rsplit("::").next().unwrap_or_default().trim()
}

/// Name, type and access of a parameter; what it does is `in` unless it is said.
fn three(parameter: &Bound<'_, PyAny>) -> PyResult<(String, String, String)> {
    if let Ok((name, written)) = parameter.extract() {
        return Ok((name, written, Access::In.name().to_owned()));
    }
    parameter.extract()
}

/// One number or expression, or several.
fn axes(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if let Ok(items) = given.extract::<Vec<Bound<'_, PyAny>>>() {
        return items.iter().map(text_of).collect();
    }
    Ok(vec![text_of(given)?])
}

#[pymethods]
#[expect(
    clippy::needless_pass_by_value,
    reason = "arguments come from Python as values"
)]
impl Source {
    #[new]
    #[pyo3(signature = (jit, text, *, name = "source", entry = None, expression = None, parameters = Vec::new(),
        sizes = Vec::new(), grid = None, block = None, shared_mem_bytes = 0, cooperative = false,
        define = BTreeMap::new(), headers = BTreeMap::new(), r#use = Vec::new(), options = Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "keywords, each a declaration")]
    fn new(
        jit: &Bound<'_, PyJit>,
        text: String,
        name: &str,
        entry: Option<String>,
        expression: Option<String>,
        parameters: Vec<Bound<'_, PyAny>>,
        sizes: Vec<String>,
        grid: Option<Bound<'_, PyAny>>,
        block: Option<Bound<'_, PyAny>>,
        shared_mem_bytes: u32,
        cooperative: bool,
        define: BTreeMap<String, Bound<'_, PyAny>>,
        headers: BTreeMap<String, String>,
        r#use: Vec<String>,
        options: Vec<String>,
    ) -> PyResult<Self> {
        let py = jit.py();
        let wrong = |why: String| errors::request(py, format!("{name}: {why}"));
        let mut source = jit.get().jit().source(text).name(name);
        source = match (entry, expression) {
            (Some(entry), Some(expression)) => source.expression(entry, expression),
            (Some(entry), None) => source.entry(entry),
            (None, Some(expression)) => source.expression(base(&expression), expression.clone()),
            (None, None) => {
                return Err(wrong(
                    "no entry point: expected entry=, the name of an `extern \"C\"` kernel, or \
                     expression=, C++ that names one"
                        .into(),
                ));
            }
        };
        for parameter in &parameters {
            let Ok((name, written, access)) = three(parameter) else {
                let given = parameter.repr()?;
                return Err(wrong(format!(
                    "parameter {given}: expected (name, type) or (name, type, access), such as \
                     (\"y\", \"f32[n]\", \"out\")"
                )));
            };
            let known = [Access::In, Access::Out, Access::InOut, Access::Workspace];
            // As `Kernel.params` calls it of a number.
            let access = if access == "value" { "in" } else { &access };
            let access = known
                .into_iter()
                .find(|one| one.name() == access)
                .ok_or_else(|| {
                    wrong(format!(
                        "parameter `{name}`: access `{access}`: expected in, out, inout or workspace"
                    ))
                })?;
            source = source.parameter(name, written, access);
        }
        source = sizes.into_iter().fold(source, SourceKernel::size);
        if let Some(grid) = grid {
            source = source.grid(axes(&grid)?);
        }
        if let Some(block) = block {
            let given = axes(&block)?;
            let threads: Result<Vec<u32>, _> = given.iter().map(|text| text.parse()).collect();
            let (Ok(threads), 1..=3) = (threads, given.len()) else {
                let given = block.repr()?;
                return Err(wrong(format!(
                    "block {given}: expected up to three numbers of threads"
                )));
            };
            let axis = |at: usize| threads.get(at).copied().unwrap_or(1);
            source = source.block_of([axis(0), axis(1), axis(2)]);
        }
        source = source.shared_mem_bytes(shared_mem_bytes);
        if cooperative {
            source = source.cooperative();
        }
        for (name, value) in &define {
            let value = if value.is_instance_of::<PyBool>() {
                // C and C++ alike.
                u8::from(value.extract::<bool>()?).to_string()
            } else {
                text_of(value)?
            };
            source = source.define(name, value);
        }
        source = (headers.into_iter()).fold(source, |source, (name, text)| source.header(name, text));
        source = r#use.into_iter().fold(source, SourceKernel::use_set);
        source = options.into_iter().fold(source, SourceKernel::option);
        let arch: Arch = ANY.parse().map_err(|_| wrong("no arch".into()))?;
        let spec = source.spec(arch).map_err(|e| errors::engine(py, &e))?;
        Ok(Self {
            jit: jit.clone().unbind(),
            spec,
        })
    }

    /// Finds or compiles it, and loads it on a GPU.
    #[pyo3(signature = (*, device = None, arch = None))]
    fn load(&self, py: Python<'_>, device: Option<u32>, arch: Option<Bound<'_, PyAny>>) -> PyResult<Kernel> {
        let jit = self.jit.get();
        let context = jit.context(py, device)?;
        let arch = match arch {
            Some(arch) => one(py, &jit.archs(py, Some(arch))?)?,
            None => context.device().arch(),
        };
        let spec = self.of(py, arch)?;
        jit.load_spec(py, &spec, &context, None)
    }

    /// Finds or compiles it for some archs, whatever becomes of each.
    #[pyo3(signature = (*, arch = None))]
    fn warm(&self, py: Python<'_>, arch: Option<Bound<'_, PyAny>>) -> PyResult<Report> {
        let jit = self.jit.get();
        let archs = jit.archs(py, arch)?;
        let specs = archs.into_iter().map(|arch| self.of(py, arch));
        let specs: Vec<KernelSpec> = specs.collect::<PyResult<_>>()?;
        jit.report(py, &specs, None)
    }

    /// The key for an arch: SHA-256 of all that the compiler would see, in hex.
    #[pyo3(signature = (*, arch = None))]
    fn key(&self, py: Python<'_>, arch: Option<Bound<'_, PyAny>>) -> PyResult<String> {
        let described = self.ask(py, arch, Jit::describe)?;
        Ok(described.0.key().to_string())
    }

    /// Whether it is a hit; if not, what stands in its way.
    #[pyo3(signature = (*, arch = None))]
    fn why(&self, py: Python<'_>, arch: Option<Bound<'_, PyAny>>) -> PyResult<Why> {
        let said = self.ask(py, arch, Jit::why)?;
        Ok(Why::of(said.0.key().to_string(), &said.1))
    }

    /// The machine code for an arch, compiled if need be.
    #[pyo3(signature = (*, arch = None))]
    fn cubin<'py>(&self, py: Python<'py>, arch: Option<Bound<'_, PyAny>>) -> PyResult<Bound<'py, PyBytes>> {
        let prepared = self.ask(py, arch, Jit::prepare)?;
        Ok(PyBytes::new(py, &prepared.fetched.artifact.cubin))
    }

    /// What messages and `jitc cache ls` call it.
    #[getter]
    fn name(&self) -> &str {
        &self.spec.family().name
    }

    fn __repr__(&self) -> String {
        format!("<jitc.Source {}>", self.name())
    }
}

impl Source {
    fn of(&self, py: Python<'_>, arch: Arch) -> PyResult<KernelSpec> {
        let spec = self.spec.for_arch(arch).map_err(Error::from);
        spec.map_err(|e| errors::engine(py, &e))
    }

    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        arch: Option<Bound<'_, PyAny>>,
        ask: impl FnOnce(&Jit, &KernelSpec) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let jit = self.jit.get();
        let spec = self.of(py, one(py, &jit.archs(py, arch)?)?)?;
        let asked = py.detach(|| ask(jit.jit(), &spec));
        asked.map_err(|e| errors::engine(py, &e))
    }
}

fn one(py: Python<'_>, archs: &[Arch]) -> PyResult<Arch> {
    let first = archs.first().copied();
    first.ok_or_else(|| errors::request(py, "arch: expected one, such as sm_90a".into()))
}
