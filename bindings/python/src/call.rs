//! Calls: what is given, sorted by parameter, checked and launched.
//!
//! Invariant: a call whose values are of the very types, shapes and device of one before is
//! held against that one, and only its addresses and the numbers that no shape names are new; any
//! other is checked in full, by the engine. A launch keeps the GIL: it waits for nothing.

use std::sync::{Arc, TryLockError};

use arrayvec::ArrayVec;
use jitc::engine::request::dtype::Dtype;
use jitc::engine::request::signature::Resolved;
use jitc::engine::request::template::{MAX_PARAMETERS, MAX_SIZES};
use jitc::engine::run::arguments::{Argument, Arguments};
use jitc::engine::run::bind::BoundKernel;
use jitc::engine::run::launch::{How, launch_as};
use jitc::engine::run::packet::Passed;
use jitc::engine::run::tensor::Tensor;
use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors;
use crate::kernel::{Kernel, Prebound, Slot};
use crate::scalars;
use crate::stream::{self, Current};
use crate::tensors::{self, Facts, View};

/// As many calls are remembered as servers capture batch sizes, about.
const MAX_PLANS: usize = 32;

/// A call that was checked in full.
pub(crate) struct Plan {
    bound: BoundKernel,
    seen: Vec<Seen>,
    current: Current,
}

/// What a parameter was given, but for an address.
enum Seen {
    Tensor {
        facts: Facts,
        alignment: u32,
    },
    /// Nothing, or `None`.
    Null,
    /// A number that no shape names: any will do.
    Number(Dtype),
    /// A number that shapes name.
    Length(Dtype, u64),
    Bytes(Box<[u8]>),
    /// A launch size, which is compared with the other ones.
    Size,
    /// What has to be checked each time.
    Unknown,
}

type Sizes = ArrayVec<u32, MAX_SIZES>;
type Named<'py> = Vec<(String, Bound<'py, PyAny>)>;

/// What a call was given, by parameter and by launch size that no parameter is.
struct Objects<'a, 'py> {
    slots: ArrayVec<Option<Borrowed<'a, 'py, PyAny>>, MAX_PARAMETERS>,
    sizes: ArrayVec<Option<Borrowed<'a, 'py, PyAny>>, MAX_SIZES>,
}

fn named<'py>(kwargs: Option<&Bound<'py, PyDict>>) -> PyResult<Named<'py>> {
    let items = kwargs.into_iter().flatten();
    items.map(|(name, value)| Ok((name.extract()?, value))).collect()
}

impl Plan {
    /// Whether the checks of that call hold for this one; `words` then has its values.
    fn holds_for(&self, objects: &Objects<'_, '_>, words: &mut [u64]) -> bool {
        let all = self.seen.iter().zip(&objects.slots).zip(words);
        for ((seen, object), word) in all {
            match (seen, object) {
                (Seen::Tensor { facts, alignment }, Some(object)) => {
                    let Some(address) = tensors::address_if(object, facts) else {
                        return false;
                    };
                    if address == 0 || address & u64::from(alignment - 1) != 0 {
                        return false;
                    }
                    *word = address;
                }
                (Seen::Size, _) | (Seen::Null, None) => {}
                (Seen::Null, Some(object)) if object.is_none() => {}
                (Seen::Number(dtype), Some(object)) => match scalars::of(object, *dtype) {
                    Ok(Argument::Scalar(_, bits)) => *word = bits,
                    _ => return false,
                },
                (Seen::Length(dtype, before), Some(object)) => match scalars::of(object, *dtype) {
                    Ok(Argument::Scalar(_, bits)) if bits == *before => {}
                    _ => return false,
                },
                (Seen::Bytes(before), Some(object)) => match scalars::bytes(object) {
                    Ok(bytes) if bytes.as_bytes() == &**before => {}
                    _ => return false,
                },
                _ => return false,
            }
        }
        true
    }
}

impl Kernel {
    pub(crate) fn call(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let py = args.py();
        let stream = stream::take(kwargs)?;
        let named = named(kwargs)?;
        let objects = self.sort(args, &named)?;
        let sizes = self.read_sizes(py, &objects)?;
        if let Some(plan) = self.before(&sizes)
            && let Some(mut passed) = plan.bound.passed(&sizes)
            && plan.holds_for(&objects, passed.words_mut())
        {
            return self.launch(py, &plan, &sizes, passed, stream);
        }
        let plan = Arc::new(self.check(py, &objects, &sizes)?);
        self.remember(&plan);
        let passed = plan.bound.passed(&sizes);
        let passed = passed.ok_or_else(|| errors::argument(py, None, "launch sizes from 1".into()))?;
        self.launch(py, &plan, &sizes, passed, stream)
    }

    pub(crate) fn bound(
        &self,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Prebound> {
        let py = args.py();
        let stream = stream::take(kwargs)?;
        let named = named(kwargs)?;
        let objects = self.sort(args, &named)?;
        let sizes = self.read_sizes(py, &objects)?;
        let plan = self.check(py, &objects, &sizes)?;
        let mut kept: Vec<Py<PyAny>> = args.iter().map(Bound::unbind).collect();
        kept.extend(named.iter().map(|(_, value)| value.clone().unbind()));
        Ok(Prebound {
            bound: plan.bound,
            current: plan.current,
            stream,
            device: self.device(),
            _kept: kept,
        })
    }

    /// Sorts a call's arguments by parameter.
    fn sort<'a, 'py>(
        &self,
        args: &'a Bound<'py, PyTuple>,
        named: &'a Named<'py>,
    ) -> PyResult<Objects<'a, 'py>> {
        let py = args.py();
        let mut objects = Objects {
            slots: self.slots.iter().map(|_| None).collect(),
            sizes: self.sizes.iter().map(|_| None).collect(),
        };
        if args.len() > self.positional.len() {
            return Err(self.count(py, args.len()));
        }
        for (slot, object) in self.positional.iter().zip(args.iter_borrowed()) {
            objects.slots[*slot] = Some(object);
        }
        for (name, object) in named {
            let slot = self.slots.iter().position(|slot| slot.name == *name);
            let size = self.signature.sizes().iter().position(|size| size == name);
            let place = match (slot, size) {
                (Some(slot), _) => &mut objects.slots[slot],
                (None, Some(size)) => match self.sizes[size] {
                    Some(slot) => &mut objects.slots[slot],
                    None => &mut objects.sizes[size],
                },
                (None, None) => {
                    // The engine says it with what there is instead.
                    let sizes = self.signature.sizes().iter();
                    let unknown = sizes.fold(Arguments::new(), |all, size| all.size(size, 1));
                    let error = unknown.arg(name, Argument::Null).pack(&self.signature);
                    return Err(
                        error.map_or_else(|e| errors::bind(py, &e), |_| self.wrong(py, name, "unknown"))
                    );
                }
            };
            if place.replace(object.as_borrowed()).is_some() {
                return Err(self.wrong(py, name, "it is given twice"));
            }
        }
        Ok(objects)
    }

    fn read_sizes(&self, py: Python<'_>, objects: &Objects<'_, '_>) -> PyResult<Sizes> {
        let mut sizes = Sizes::new();
        for (size, slot) in self.sizes.iter().enumerate() {
            let given = slot.map_or(objects.sizes[size], |slot| objects.slots[slot]);
            let name = || self.signature.sizes()[size].as_str();
            let number = match given {
                Some(object) => object.extract::<u32>().map_err(|_| {
                    let expected = "expected the launch size, a whole number from 1 to 4294967295";
                    self.wrong(py, name(), expected)
                })?,
                None => return Err(self.wrong(py, name(), "expected the launch size, got nothing")),
            };
            sizes.push(number);
        }
        Ok(sizes)
    }

    /// The call before for these launch sizes.
    fn before(&self, sizes: &[u32]) -> Option<Arc<Plan>> {
        let held = match self.plans.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            // Another thread is at it: this call is checked in full.
            Err(TryLockError::WouldBlock) => return None,
        };
        held.iter().find(|plan| plan.bound.most() == sizes).cloned()
    }

    fn remember(&self, plan: &Arc<Plan>) {
        let Ok(mut held) = self.plans.try_lock() else {
            return;
        };
        held.retain(|old| old.bound.most() != plan.bound.most());
        if held.len() == MAX_PLANS {
            held.remove(0);
        }
        held.push(Arc::clone(plan));
    }

    /// Checks everything, by the engine.
    fn check(&self, py: Python<'_>, objects: &Objects<'_, '_>, sizes: &Sizes) -> PyResult<Plan> {
        let (mut arguments, mut seen, mut first) = (Arguments::new(), Vec::new(), None);
        for (slot, object) in self.slots.iter().zip(&objects.slots) {
            let Some(object) = object else {
                // What is missing the engine says.
                seen.push(Seen::Null);
                continue;
            };
            let wrong = |why: String| self.wrong(py, &slot.name, &why);
            let (argument, kind) = match slot.resolved {
                Resolved::Scalar { value: Some(_), .. } => {
                    seen.push(Seen::Size);
                    continue;
                }
                Resolved::Scalar { dtype, .. } => {
                    let scalar = scalars::of(object, dtype).map_err(wrong)?;
                    let kind = match scalar {
                        Argument::Scalar(_, _) if !slot.in_shapes => Seen::Number(dtype),
                        Argument::Scalar(_, bits) => Seen::Length(dtype, bits),
                        _ => Seen::Unknown,
                    };
                    (scalar, kind)
                }
                Resolved::Bytes { .. } => {
                    let bytes = scalars::bytes(object).map_err(wrong)?;
                    let bytes = bytes.as_bytes();
                    (bytes.into(), Seen::Bytes(bytes.into()))
                }
                Resolved::Pointer { .. } if object.is_none() => (Argument::Null, Seen::Null),
                Resolved::Pointer { alignment, .. } => {
                    let View {
                        address,
                        facts,
                        origin,
                        device_known,
                    } = self.tensor(slot, object)?;
                    if first.is_none() {
                        first = Some((object.get_type(), origin));
                    }
                    let tensor = Tensor::new(address, facts.dtype, &facts.shape);
                    let kind = if device_known {
                        Seen::Tensor { facts, alignment }
                    } else {
                        Seen::Unknown
                    };
                    (Argument::Tensor(tensor), kind)
                }
            };
            arguments = arguments.arg(&slot.name, argument);
            seen.push(kind);
        }
        for (name, size) in self.signature.sizes().iter().zip(sizes) {
            arguments = arguments.size(name, *size);
        }
        let entry = self.entry.as_deref();
        let bind = entry.map_or_else(|| self.loaded.bind(), |entry| self.loaded.bind_entry(entry));
        let bound = bind.arguments(arguments).finish();
        let current = first.map(|(class, origin)| Current::of(&class, origin));
        Ok(Plan {
            bound: bound.map_err(|e| errors::bind(py, &e))?,
            seen,
            current: current.transpose()?.unwrap_or(Current::Default),
        })
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
        let by_place = self.positional.iter().map(|at| self.slots[*at].name.as_str());
        let by_place = by_place.collect::<Vec<&str>>().join(", ");
        let (family, entry) = (self.signature.family(), self.signature.entry());
        let takes = self.positional.len();
        let why = format!("{family}: `{entry}` takes {takes} arguments by place ({by_place}), got {given}");
        errors::argument(py, None, why)
    }

    fn launch(
        &self,
        py: Python<'_>,
        plan: &Plan,
        sizes: &[u32],
        mut passed: Passed<'_>,
        stream: Option<u64>,
    ) -> PyResult<()> {
        let stream = match stream {
            Some(stream) => stream,
            None => plan.current.get(py, self.device())?,
        };
        let _entered = self.loaded.context().enter().map_err(|e| errors::device(py, e))?;
        let launched = passed.pointers(|pointers| {
            self.entries.iter().try_for_each(|at| {
                let entry = &self.loaded.entries()[*at];
                let geometry = entry.geometry(sizes)?;
                // SAFETY: the values are of the entry point's parameters and were checked; the
                // context is current; that the memory lives and is of nobody else meanwhile is
                // the caller's promise, as the documentation of a kernel says.
                unsafe { launch_as(entry, &geometry, How::default(), stream::handle(stream), pointers) }
            })
        });
        launched.map_err(|e| errors::launch(py, &e))
    }
}
