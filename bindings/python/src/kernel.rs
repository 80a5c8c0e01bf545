//! Loaded kernels, as Python has them; `call` is how they are called.
//!
//! Invariant: what a launch passes was checked against the declaration, by the engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrayvec::ArrayVec;
use jitc::engine::request::signature::{Resolved, Signature};
use jitc::engine::request::template::ParameterKind;
use jitc::engine::run::bind::BoundKernel;
use jitc::engine::run::load::LoadedKernel;
use jitc::engine::run::tvm_ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::call::Plan;
use crate::errors;
use crate::stream::{self, Current};

/// A kernel in a GPU's memory.
#[pyclass(frozen, module = "jitc", weakref)]
pub(crate) struct Kernel {
    pub(crate) loaded: Arc<LoadedKernel>,
    pub(crate) signature: Signature,
    pub(crate) slots: Vec<Slot>,
    /// Launch sizes by place, and the slot that gives each, if one does.
    pub(crate) sizes: Vec<Option<usize>>,
    /// Slots that are given by place, in order.
    pub(crate) positional: Vec<usize>,
    pub(crate) entries: Vec<usize>,
    pub(crate) entry: Option<String>,
    /// SHA-256 of all that the compiler saw, in hex.
    #[pyo3(get)]
    key: String,
    /// Where its code comes from: `hit`, `built` or `built_uncached`.
    #[pyo3(get)]
    provenance: &'static str,
    /// Calls before, the last one for each launch sizes.
    pub(crate) plans: Mutex<Vec<Arc<Plan>>>,
}

/// A parameter, as a call fills it.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) resolved: Resolved,
    /// Whether a shape names it.
    pub(crate) in_shapes: bool,
}

impl Kernel {
    pub(crate) fn new(
        py: Python<'_>,
        loaded: Arc<LoadedKernel>,
        entry: Option<String>,
        key: String,
        provenance: &'static str,
    ) -> PyResult<Self> {
        // What cannot be bound is said now: binding nothing checks the names of entries.
        let bind = entry
            .as_deref()
            .map_or_else(|| loaded.bind(), |entry| loaded.bind_entry(entry));
        let entries: Vec<usize> = (loaded.entries().iter().enumerate())
            .filter(|(_, point)| entry.as_deref().is_none_or(|entry| point.name() == entry))
            .map(|(at, _)| at)
            .collect();
        let name = entries.first().map(|at| loaded.entries()[*at].name().to_owned());
        let signature = name.and_then(|name| loaded.signature(&name));
        let Some(signature) = signature else {
            return Err(match bind.finish() {
                Err(error) => errors::bind(py, &error),
                Ok(_) => errors::argument(py, None, "it declares no parameters".into()),
            });
        };
        let slots = signature.parameters().iter().map(|parameter| {
            let wrong = |why| errors::argument(py, Some(&parameter.name), why);
            Ok(Slot {
                name: parameter.name.clone(),
                resolved: signature.resolve(parameter).map_err(|why| wrong(why.into()))?,
                in_shapes: is_in_shapes(&signature, &parameter.name),
            })
        });
        let slots: Vec<Slot> = slots.collect::<PyResult<_>>()?;
        let of_size = |size| {
            let is =
                |slot: &Slot| matches!(slot.resolved, Resolved::Scalar { value: Some(at), .. } if at == size);
            slots.iter().position(is)
        };
        let by_place = |slot: &Slot| !matches!(slot.resolved, Resolved::Pointer { optional: true, .. });
        Ok(Self {
            sizes: (0..signature.sizes().len()).map(of_size).collect(),
            positional: (0..slots.len()).filter(|at| by_place(&slots[*at])).collect(),
            slots,
            entries,
            entry,
            loaded,
            signature,
            key,
            provenance,
            plans: Mutex::default(),
        })
    }

    pub(crate) fn device(&self) -> u32 {
        self.loaded.context().device().ordinal
    }

    pub(crate) fn wrong(&self, py: Python<'_>, name: &str, why: &str) -> PyErr {
        let (family, entry) = (self.signature.family(), self.signature.entry());
        errors::argument(
            py,
            Some(name),
            format!("{family}: `{entry}`: parameter `{name}`: {why}"),
        )
    }
}

#[pymethods]
impl Kernel {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        self.call(args, kwargs)
    }

    /// Checks all values now, for launches that check nothing but their sizes. What it
    /// returns holds the tensors.
    #[pyo3(signature = (*args, **kwargs))]
    fn bind(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Prebound> {
        self.bound(args, kwargs)
    }

    /// Makes this kernel a global function of tvm-ffi, which is imported for it, and returns
    /// that.
    #[pyo3(signature = (name, *, replace = false))]
    fn tvm_ffi<'py>(&self, py: Python<'py>, name: &str, replace: bool) -> PyResult<Bound<'py, PyAny>> {
        let module = py.import("tvm_ffi")?;
        tvm_ffi::register(&self.loaded, self.entry.as_deref(), name, replace)
            .map_err(|e| errors::tvm_ffi(py, &e))?;
        module.call_method1("get_global_func", (name,))
    }

    /// The family's name.
    #[getter]
    fn family(&self) -> &str {
        self.signature.family()
    }

    /// The entry point's name; of several that are launched together, the first one's.
    #[getter]
    fn entry(&self) -> &str {
        self.signature.entry()
    }

    /// What the code was made for, `sm_90a`.
    #[getter]
    fn arch(&self) -> String {
        self.loaded.spec().arch().to_string()
    }

    /// The GPU that it is loaded on, by its place in the driver's order.
    #[getter(device)]
    fn device_(&self) -> u32 {
        self.device()
    }

    /// Registers a thread, of the entry point.
    #[getter]
    fn registers(&self) -> u32 {
        self.first().map_or(0, |entry| entry.registers)
    }

    /// Blocks of it that the whole GPU holds at once.
    #[getter]
    fn capacity(&self) -> u32 {
        self.first().map_or(0, |entry| entry.capacity)
    }

    /// Threads a block.
    #[getter]
    fn block_threads(&self) -> u32 {
        self.first().map_or(0, |entry| entry.block_threads)
    }

    /// Dynamic shared memory, bytes a block.
    #[getter]
    fn shared_mem_bytes(&self) -> u32 {
        self.first().map_or(0, |entry| entry.shared_mem_bytes)
    }

    /// The declared parameters, in order: name, type with shape, and what the kernel does
    /// with it: `in`, `out`, `inout`, `workspace`, or `value` of a number.
    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let sizes = self.signature.sizes();
        let rows = self
            .signature
            .parameters()
            .iter()
            .zip(&self.slots)
            .map(|(parameter, slot)| {
                let access = match slot.resolved {
                    Resolved::Pointer { access, .. } => access.name(),
                    Resolved::Scalar { .. } | Resolved::Bytes { .. } => "value",
                };
                (slot.name.clone(), parameter.type_text(sizes), access)
            });
        PyList::new(py, rows.collect::<Vec<_>>())
    }

    /// Type and shape of a pointer's memory for these launch sizes and whole numbers;
    /// `None` for a dimension of any length.
    #[pyo3(signature = (parameter, **numbers))]
    fn shape(
        &self,
        py: Python<'_>,
        parameter: &str,
        numbers: Option<BTreeMap<String, u64>>,
    ) -> PyResult<(&'static str, Vec<Option<u64>>)> {
        let wrong = |why: &str| self.wrong(py, parameter, why);
        let at = self.slots.iter().position(|slot| slot.name == parameter);
        let at = at.ok_or_else(|| wrong("there is no such parameter"))?;
        let Resolved::Pointer { dtype, .. } = self.slots[at].resolved else {
            return Err(wrong("it is no pointer, and has no shape"));
        };
        let declared = &self.signature.parameters()[at];
        let shape = self.signature.shape(declared, &numbers.unwrap_or_default());
        Ok((dtype.name(), shape.map_err(|why| wrong(&why.to_string()))?))
    }

    /// The parameters that may be left out, in declared order.
    #[getter]
    fn optional(&self) -> Vec<String> {
        let optional = |slot: &&Slot| matches!(slot.resolved, Resolved::Pointer { optional: true, .. });
        self.slots
            .iter()
            .filter(optional)
            .map(|slot| slot.name.clone())
            .collect()
    }

    fn __repr__(&self) -> String {
        let (family, entry, arch) = (self.family(), self.entry(), self.arch());
        format!("<jitc.Kernel {family} `{entry}` {arch} on GPU {}>", self.device())
    }
}

impl Kernel {
    fn first(&self) -> Option<&jitc::engine::run::load::EntryPoint> {
        self.entries.first().map(|at| &self.loaded.entries()[*at])
    }
}

/// Whether the shape of any parameter names a number.
fn is_in_shapes(signature: &Signature, name: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = |text: &str| text.split(|c| !is_name(c)).any(|word| word == name);
    signature
        .parameters()
        .iter()
        .any(|parameter| match &parameter.kind {
            ParameterKind::Pointer { shape, .. } => shape.iter().any(|dim| names(&dim.text)),
            _ => false,
        })
}

/// A kernel with its values: called with launch sizes only.
#[pyclass(frozen, module = "jitc", name = "BoundKernel", weakref)]
pub(crate) struct Prebound {
    pub(crate) bound: BoundKernel,
    pub(crate) current: Current,
    pub(crate) stream: Option<u64>,
    pub(crate) device: u32,
    /// What the values lie in.
    pub(crate) _kept: Vec<Py<PyAny>>,
}

#[pymethods]
impl Prebound {
    /// Launches it. `sizes`: the launch sizes in declared order, each from 1 to what was
    /// bound; none for those that were bound.
    #[pyo3(signature = (*sizes, stream = None))]
    fn __call__(&self, sizes: &Bound<'_, PyTuple>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = sizes.py();
        let mut given: ArrayVec<u32, 4> = ArrayVec::new();
        if sizes.is_empty() {
            given.extend(self.bound.most().iter().copied());
        }
        for size in sizes.iter_borrowed() {
            let fits = given.try_push(size.extract::<u32>()?);
            fits.map_err(|_| errors::argument(py, None, "at most 4 launch sizes".into()))?;
        }
        let stream = match (stream, self.stream) {
            (Some(stream), _) => stream::given(stream)?,
            (None, Some(bound)) => bound,
            (None, None) => self.current.get(py, self.device)?,
        };
        let context = self.bound.kernel().context();
        let _entered = context.enter().map_err(|e| errors::device(py, e))?;
        // SAFETY: as in `Kernel::launch`; the tensors are held here.
        let launched = unsafe { self.bound.launch(&given, stream::handle(stream)) };
        launched.map_err(|e| errors::launch(py, &e))
    }

    /// The largest launch sizes that it was bound for, in declared order.
    #[getter]
    fn most(&self) -> Vec<u32> {
        self.bound.most().to_vec()
    }
}
