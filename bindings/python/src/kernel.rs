//! Loaded kernels, called with tensors.
//!
//! Invariant: what a launch passes was checked against the declaration, by the engine: in
//! full when a kernel is called with tensors of a kind that the call before did not have,
//! and by comparison with that call otherwise. A launch keeps the GIL: it waits for nothing.

use std::sync::{Arc, Mutex, TryLockError};

use arrayvec::ArrayVec;
use jitc::engine::request::signature::{Resolved, Signature};
use jitc::engine::request::template::MAX_PARAMETERS;
use jitc::engine::run::arguments::{Argument, Arguments};
use jitc::engine::run::bind::BoundKernel;
use jitc::engine::run::launch::{How, launch_as};
use jitc::engine::run::load::LoadedKernel;
use jitc::engine::run::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::errors;
use crate::scalars;
use crate::stream::{self, Current};
use crate::tensors::{self, Facts, View};

/// A kernel in a GPU's memory.
#[pyclass(frozen, module = "jitc", weakref)]
pub(crate) struct Kernel {
    loaded: Arc<LoadedKernel>,
    signature: Signature,
    slots: Vec<Slot>,
    /// Launch sizes by place, and the slot that gives each, if one does.
    sizes: Vec<Option<usize>>,
    /// Slots that are given by place, in order.
    positional: Vec<usize>,
    entries: Vec<usize>,
    entry: Option<String>,
    /// SHA-256 of all that the compiler saw, in hex.
    #[pyo3(get)]
    key: String,
    /// Where its code comes from: `hit`, `built` or `built_uncached`.
    #[pyo3(get)]
    provenance: &'static str,
    plan: Mutex<Option<Arc<Plan>>>,
}

/// A parameter, as a call fills it.
struct Slot {
    name: String,
    resolved: Resolved,
}

/// The call before: what it was given, and what came out of the checks.
struct Plan {
    values: Vec<Value>,
    sizes: Vec<u32>,
    words: Vec<u64>,
    current: Current,
    in_struct: bool,
}

/// A value, but for an address.
#[derive(Clone, PartialEq)]
enum Value {
    Tensor(Facts),
    Null,
    Scalar(Argument),
    /// Of a launch size, which is among the sizes.
    Size,
    /// Not given.
    Missing,
}

/// What a call was given, in the order of the declaration.
struct Given {
    values: ArrayVec<Value, MAX_PARAMETERS>,
    addresses: ArrayVec<u64, MAX_PARAMETERS>,
    sizes: ArrayVec<u32, 4>,
    /// The slot of the first tensor, and whose current stream is meant.
    first: Option<(usize, tensors::Origin)>,
    devices_known: bool,
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
                resolved: signature.resolve(parameter).map_err(wrong)?,
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
            plan: Mutex::new(None),
        })
    }

    fn device(&self) -> u32 {
        self.loaded.context().device().ordinal
    }

    fn wrong(&self, py: Python<'_>, name: &str, why: &str) -> PyErr {
        let (family, entry) = (self.signature.family(), self.signature.entry());
        errors::argument(
            py,
            Some(name),
            format!("{family}: `{entry}`: parameter `{name}`: {why}"),
        )
    }

    /// Sorts a call's arguments by parameter and reads each.
    fn read(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Given> {
        let py = args.py();
        let mut objects: ArrayVec<Option<Bound<'_, PyAny>>, MAX_PARAMETERS> = ArrayVec::new();
        objects.extend(self.slots.iter().map(|_| None));
        let mut extra: ArrayVec<Option<Bound<'_, PyAny>>, 4> = self.sizes.iter().map(|_| None).collect();
        if args.len() > self.positional.len() {
            return Err(self.count(py, args.len()));
        }
        for (slot, object) in self.positional.iter().zip(args.iter_borrowed()) {
            objects[*slot] = Some(object.to_owned());
        }
        for (name, object) in kwargs.into_iter().flatten() {
            let name: String = name.extract()?;
            let slot = self.slots.iter().position(|slot| slot.name == name);
            let size = self.signature.sizes().iter().position(|size| *size == name);
            let place = match (slot, size) {
                (Some(slot), _) => &mut objects[slot],
                (None, Some(size)) => match self.sizes[size] {
                    Some(slot) => &mut objects[slot],
                    None => &mut extra[size],
                },
                (None, None) => {
                    // The engine says it with what there is instead.
                    let unknown = Arguments::new().arg(&name, Argument::Null);
                    let error = sized(unknown, &self.signature).pack(&self.signature);
                    return Err(
                        error.map_or_else(|e| errors::bind(py, &e), |_| self.wrong(py, &name, "unknown"))
                    );
                }
            };
            if place.replace(object).is_some() {
                return Err(self.wrong(py, &name, "it is given twice"));
            }
        }
        let mut given = Given {
            values: ArrayVec::new(),
            addresses: ArrayVec::new(),
            sizes: ArrayVec::new(),
            first: None,
            devices_known: true,
        };
        for (at, (slot, object)) in self.slots.iter().zip(&objects).enumerate() {
            let (value, address) = match (object, slot.resolved) {
                (_, Resolved::Scalar { value: Some(_), .. }) => (Value::Size, 0),
                // Words and parameters are no longer one to one with these.
                (_, Resolved::Bytes { .. }) => {
                    return Err(self.wrong(py, &slot.name, "a struct by value cannot be given from Python"));
                }
                (None, _) => (Value::Missing, 0),
                (Some(object), Resolved::Scalar { dtype, .. }) => {
                    let scalar =
                        scalars::of(object, dtype).map_err(|why| self.wrong(py, &slot.name, &why))?;
                    (Value::Scalar(scalar), 0)
                }
                (Some(object), Resolved::Pointer { .. }) if object.is_none() => (Value::Null, 0),
                (Some(object), Resolved::Pointer { .. }) => {
                    let view = self.tensor(slot, object)?;
                    given.first.get_or_insert((at, view.origin));
                    given.devices_known &= view.device_known;
                    (Value::Tensor(view.facts), view.address)
                }
            };
            given.values.push(value);
            given.addresses.push(address);
        }
        for (size, slot) in self.sizes.iter().enumerate() {
            let name = &self.signature.sizes()[size];
            let object = slot.map_or(extra[size].as_ref(), |slot| objects[slot].as_ref());
            let number = match object {
                Some(object) => object.extract::<u32>().map_err(|_| {
                    self.wrong(
                        py,
                        name,
                        "expected the launch size, a whole number from 1 to 4294967295",
                    )
                })?,
                None => return Err(self.wrong(py, name, "expected the launch size, got nothing")),
            };
            given.sizes.push(number);
        }
        Ok(given)
    }

    fn tensor(&self, slot: &Slot, object: &Bound<'_, PyAny>) -> PyResult<View> {
        let py = object.py();
        if tensors::is_number(object) {
            return Err(self.wrong(py, &slot.name, "expected a tensor, got a number"));
        }
        let view = tensors::view(object);
        let view = view.map_err(|e| {
            let said = self.wrong(py, &slot.name, &e.value(py).to_string());
            said.set_cause(py, Some(e));
            said
        })?;
        match view.facts.device {
            Some(device) if device != self.device() => {
                let why = format!(
                    "expected memory of GPU {}, got memory of GPU {device}",
                    self.device()
                );
                Err(self.wrong(py, &slot.name, &why))
            }
            _ => Ok(view),
        }
    }

    fn count(&self, py: Python<'_>, given: usize) -> PyErr {
        let names: Vec<&str> = self
            .positional
            .iter()
            .map(|at| self.slots[*at].name.as_str())
            .collect();
        let (family, entry) = (self.signature.family(), self.signature.entry());
        let takes = names.len();
        let by_place = names.join(", ");
        errors::argument(
            py,
            None,
            format!("{family}: `{entry}` takes {takes} arguments by place ({by_place}), got {given}"),
        )
    }

    /// Checks everything, by the engine.
    fn check(&self, py: Python<'_>, given: &Given) -> PyResult<BoundKernel> {
        let mut arguments = Arguments::new();
        for ((slot, value), address) in self.slots.iter().zip(&given.values).zip(&given.addresses) {
            let argument = match value {
                Value::Tensor(facts) => Argument::Tensor(Tensor::new(*address, facts.dtype, &facts.shape)),
                Value::Null => Argument::Null,
                Value::Scalar(scalar) => scalar.clone(),
                Value::Size | Value::Missing => continue,
            };
            arguments = arguments.arg(&slot.name, argument);
        }
        for (name, size) in self.signature.sizes().iter().zip(&given.sizes) {
            arguments = arguments.size(name, *size);
        }
        let entry = self.entry.as_deref();
        let bind = entry.map_or_else(|| self.loaded.bind(), |entry| self.loaded.bind_entry(entry));
        bind.arguments(arguments)
            .finish()
            .map_err(|e| errors::bind(py, &e))
    }

    fn current(
        &self,
        given: &Given,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Current> {
        let Some((slot, origin)) = given.first else {
            return Ok(Current::Default);
        };
        let by_place = self
            .positional
            .iter()
            .position(|at| *at == slot)
            .filter(|at| *at < args.len());
        let object = match by_place {
            Some(at) => Some(args.get_item(at)?),
            None => kwargs
                .map(|k| k.get_item(&self.slots[slot].name))
                .transpose()?
                .flatten(),
        };
        object.map_or(Ok(Current::Default), |object| {
            Current::of(&object.get_type(), origin)
        })
    }

    /// Whether the checks of the call before hold for this one; then its words with this
    /// one's addresses.
    fn as_before(&self, plan: &Plan, given: &Given) -> Option<ArrayVec<u64, MAX_PARAMETERS>> {
        let same = given.devices_known
            && plan.sizes == given.sizes.as_slice()
            && plan.values == given.values.as_slice();
        if !same {
            return None;
        }
        let mut words = ArrayVec::new();
        words.try_extend_from_slice(&plan.words).ok()?;
        for (at, slot) in self.slots.iter().enumerate() {
            let Resolved::Pointer { alignment, .. } = slot.resolved else {
                continue;
            };
            let address = given.addresses[at];
            let tensor = matches!(given.values[at], Value::Tensor(_));
            if tensor && (address == 0 || !address.is_multiple_of(u64::from(alignment))) {
                return None;
            }
            words[at] = address;
        }
        Some(words)
    }

    fn plan(
        &self,
        py: Python<'_>,
        given: &Given,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Arc<Plan>> {
        let bound = self.check(py, given)?;
        let passed = bound.passed(&given.sizes);
        let words = passed.map(|passed| passed.words().to_vec()).unwrap_or_default();
        let plan = Arc::new(Plan {
            values: given.values.to_vec(),
            sizes: given.sizes.to_vec(),
            words,
            current: self.current(given, args, kwargs)?,
            in_struct: self.signature.is_struct(),
        });
        if let Ok(mut held) = self.plan.try_lock() {
            *held = Some(Arc::clone(&plan));
        }
        Ok(plan)
    }

    fn before(&self) -> Option<Arc<Plan>> {
        match self.plan.try_lock() {
            Ok(held) => held.clone(),
            Err(TryLockError::Poisoned(held)) => held.into_inner().clone(),
            // Another thread is at it: this call is checked in full.
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn launch_words(
        &self,
        py: Python<'_>,
        plan: &Plan,
        words: &mut ArrayVec<u64, MAX_PARAMETERS>,
        stream: u64,
    ) -> PyResult<()> {
        let _entered = self.loaded.context().enter().map_err(|e| errors::device(py, e))?;
        let mut pointers: ArrayVec<*mut std::ffi::c_void, MAX_PARAMETERS> = if plan.in_struct {
            std::iter::once(words.as_mut_ptr().cast()).collect()
        } else {
            words
                .iter_mut()
                .map(|word| std::ptr::from_mut(word).cast())
                .collect()
        };
        for at in &self.entries {
            let entry = &self.loaded.entries()[*at];
            let geometry = entry.geometry(&plan.sizes).map_err(|e| errors::launch(py, &e))?;
            // SAFETY: the words are of the entry point's parameters and were checked; the
            // context is current; that the memory lives and is of nobody else meanwhile is
            // the caller's promise, as the documentation of a kernel says.
            let launched = unsafe {
                launch_as(
                    entry,
                    &geometry,
                    How::default(),
                    stream::handle(stream),
                    &mut pointers,
                )
            };
            launched.map_err(|e| errors::launch(py, &e))?;
        }
        Ok(())
    }

    fn call(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let py = args.py();
        let stream = stream::take(kwargs)?;
        let given = self.read(args, kwargs)?;
        let before = self.before();
        let known = before.and_then(|plan| Some((self.as_before(&plan, &given)?, plan)));
        let (mut words, plan) = if let Some(known) = known {
            known
        } else {
            let plan = self.plan(py, &given, args, kwargs)?;
            (plan.words.iter().copied().collect(), plan)
        };
        let stream = match stream {
            Some(stream) => stream,
            None => plan.current.get(py, self.device())?,
        };
        self.launch_words(py, &plan, &mut words, stream)
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
        let py = args.py();
        let stream = stream::take(kwargs)?;
        let given = self.read(args, kwargs)?;
        let bound = self.check(py, &given)?;
        let current = self.current(&given, args, kwargs)?;
        let mut kept: Vec<Py<PyAny>> = args.iter().map(Bound::unbind).collect();
        kept.extend(kwargs.into_iter().flatten().map(|(_, value)| value.unbind()));
        Ok(Prebound {
            bound,
            most: given.sizes.to_vec(),
            current,
            stream,
            device: self.device(),
            _kept: kept,
        })
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

/// A kernel with its values: called with launch sizes only.
#[pyclass(frozen, module = "jitc", name = "BoundKernel", weakref)]
pub(crate) struct Prebound {
    bound: BoundKernel,
    most: Vec<u32>,
    current: Current,
    stream: Option<u64>,
    device: u32,
    _kept: Vec<Py<PyAny>>,
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
            given.extend(self.most.iter().copied());
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
        // SAFETY: as in `Kernel::launch_words`; the tensors are held here.
        let launched = unsafe { self.bound.launch(&given, stream::handle(stream)) };
        launched.map_err(|e| errors::launch(py, &e))
    }

    /// The largest launch sizes that it was bound for, in declared order.
    #[getter]
    fn most(&self) -> Vec<u32> {
        self.most.clone()
    }
}

/// With any launch sizes, for an error that is about something else.
fn sized(arguments: Arguments, signature: &Signature) -> Arguments {
    let sizes = signature.sizes().iter();
    sizes.fold(arguments, |arguments, size| arguments.size(size, 1))
}
