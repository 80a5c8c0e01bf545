//! Values bound to a loaded kernel: checked once, launched again and again.
//!
//! Invariant: after [`Bind::finish`] a launch checks nothing but that its sizes are
//! within what was bound, and every address is stable, so that it can be captured in
//! a graph.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys;

use crate::engine::request::signature::Signature;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::arguments::{Argument, Arguments};
use crate::engine::run::bind_error::{BindError, Mismatch};
use crate::engine::run::device::{Context, DeviceError};
use crate::engine::run::driver_error::DriverError;
use crate::engine::run::launch::{How, LaunchError, Order, launch_as};
use crate::engine::run::load::LoadedKernel;
use crate::engine::run::packet::{Packet, Passed};
use crate::engine::run::tensor::Tensor;
use crate::engine::suggest::did_you_mean;

/// Values on their way to a kernel: nothing is checked before [`finish`](Self::finish).
#[derive(Debug, Clone)]
#[must_use]
pub struct Bind {
    kernel: Arc<LoadedKernel>,
    entry: Option<String>,
    how: How,
    arguments: Arguments,
}

/// A kernel whose parameters were checked: ready to be launched again and again.
#[derive(Debug, Clone)]
pub struct BoundKernel {
    kernel: Arc<LoadedKernel>,
    entries: Range<usize>,
    how: How,
    packet: Packet,
}

impl LoadedKernel {
    /// What an entry point takes; `None` where its family does not declare it, or
    /// where there is no such entry point.
    #[must_use]
    pub fn signature(&self, entry: &str) -> Option<Signature> {
        let declared = self.spec().family().entries.iter().find(|e| e.name == entry)?;
        self.spec().signature(declared)
    }

    /// Begins to bind all of the kernel's entry points, which take one list of
    /// parameters; a launch launches them in declared order.
    pub fn bind(self: &Arc<Self>) -> Bind {
        Bind {
            kernel: Arc::clone(self),
            entry: None,
            how: How::default(),
            arguments: Arguments::new(),
        }
    }

    /// Begins to bind the entry point of this name.
    pub fn bind_entry(self: &Arc<Self>, entry: &str) -> Bind {
        Bind {
            entry: Some(entry.to_owned()),
            ..self.bind()
        }
    }
}

impl Bind {
    /// A parameter's value: a [`Tensor`], perhaps none, or a number of its very type.
    pub fn arg(mut self, name: &str, value: impl Into<Argument>) -> Self {
        self.arguments = self.arguments.arg(name, value);
        self
    }

    /// The largest value of a launch size that the memory has room for.
    pub fn size(mut self, name: &str, most: u32) -> Self {
        self.arguments = self.arguments.size(name, most);
        self
    }

    /// These values, in the place of all before.
    pub fn arguments(self, arguments: Arguments) -> Self {
        Self { arguments, ..self }
    }

    /// How each launch relates to the one before it on its stream.
    pub fn order(mut self, order: Order) -> Self {
        self.how.order = order;
        self
    }

    /// Priority of each launch, in the place of the entry point's and of the stream's: less is
    /// sooner, within what the context has.
    pub fn priority(mut self, priority: i32) -> Self {
        self.how.priority = Some(priority);
        self
    }

    /// Checks everything: names, types, shapes or lengths, alignment, and that the
    /// memory is the GPU's. The context that is current on this thread stays so.
    pub fn finish(self) -> Result<BoundKernel, BindError> {
        let (entries, signature) = self.entries()?;
        let packet = self.arguments.pack(&signature)?;
        let context = self.kernel.context();
        let _entered = context.enter()?;
        for (name, tensor) in self.arguments.tensors() {
            reachable(context, tensor)?.map_err(|mismatch| BindError::Parameter {
                family: signature.family().to_owned(),
                entry: signature.entry().to_owned(),
                parameter: name.to_owned(),
                mismatch: Box::new(mismatch),
            })?;
        }
        Ok(BoundKernel {
            kernel: self.kernel,
            entries,
            how: self.how,
            packet,
        })
    }

    /// The entry points to bind, and the list that they take.
    fn entries(&self) -> Result<(Range<usize>, Signature), BindError> {
        let spec = self.kernel.spec();
        let (family, all) = (&spec.family().name, self.kernel.entries());
        let range = match &self.entry {
            None => 0..all.len(),
            Some(name) => {
                let names = || all.iter().map(crate::engine::run::load::EntryPoint::name);
                let at = names().position(|other| other == name);
                let at = at.ok_or_else(|| BindError::NoEntry {
                    family: family.clone(),
                    entry: name.clone(),
                    hint: did_you_mean(name, names()),
                })?;
                at..at + 1
            }
        };
        let mut first: Option<Signature> = None;
        for entry in &all[range.clone()] {
            let signature = self
                .kernel
                .signature(entry.name())
                .ok_or_else(|| BindError::Undeclared {
                    family: family.clone(),
                    entry: entry.name().to_owned(),
                })?;
            if let Some(first) = &first
                && !first.same_list(&signature)
            {
                return Err(BindError::DifferentLists {
                    family: family.clone(),
                    entry: first.entry().to_owned(),
                    other: entry.name().to_owned(),
                });
            }
            first.get_or_insert(signature);
        }
        match first {
            Some(first) => Ok((range, first)),
            None => Err(BindError::NoEntry {
                family: family.clone(),
                entry: String::new(),
                hint: String::new(),
            }),
        }
    }
}

/// Whether a kernel of this context can read a tensor, as far as the driver knows; the
/// outer error is a driver that cannot be asked.
fn reachable(context: &Context, tensor: &Tensor) -> Result<Result<(), Mismatch>, DeviceError> {
    if tensor.address == 0 {
        return Ok(Ok(()));
    }
    if tensor.context().is_some_and(|own| own != context.id()) {
        return Ok(Err(Mismatch::OtherContext));
    }
    let mut ordinal = 0_i32;
    let which = sys::CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
    // SAFETY: this attribute is an int, which outlives the call; any address may be asked about.
    let known = unsafe { sys::cuPointerGetAttribute((&raw mut ordinal).cast(), which, tensor.address) };
    let device = context.device();
    Ok(match known.result() {
        Ok(()) if ordinal.unsigned_abs() == device.ordinal => Ok(()),
        Ok(()) => Err(Mismatch::OtherDevice {
            expected: device.ordinal,
            found: ordinal.unsigned_abs(),
        }),
        // Nothing that the driver knows.
        Err(reason) if reason.0 == sys::CUresult::CUDA_ERROR_INVALID_VALUE => {
            // Memory of the host's own allocator, which some GPUs read.
            if device.pageable_memory {
                Ok(())
            } else {
                Err(Mismatch::NoMemory {
                    address: tensor.address,
                    reason,
                })
            }
        }
        Err(reason) => return Err(DriverError::of(reason).into()),
    })
}

impl BoundKernel {
    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> &Arc<LoadedKernel> {
        &self.kernel
    }

    /// The same values for a variant that does the same work: the one that takes over from
    /// the bound one, or that one itself.
    ///
    /// # Errors
    /// [`BindError::OtherKernel`], of any other kernel.
    pub fn over(&self, kernel: &Arc<LoadedKernel>) -> Result<Self, BindError> {
        let (own, other) = (self.kernel.spec(), kernel.spec());
        let same_context = self.kernel.context().id() == kernel.context().id();
        if !same_context || !own.takes_what(other) {
            let named = |spec: &KernelSpec| format!("{} {}", spec.family().name, spec.variant());
            return Err(BindError::OtherKernel {
                of: named(own),
                other: named(other),
            });
        }
        Ok(Self {
            kernel: Arc::clone(kernel),
            ..self.clone()
        })
    }

    /// The largest launch sizes that it was bound for, in declared order.
    #[must_use]
    pub fn most(&self) -> &[u32] {
        self.packet.most()
    }

    /// The parameters for a launch of these sizes, for whoever launches in another
    /// way; `None` where the sizes are not within what was bound.
    #[must_use]
    pub fn passed(&self, sizes: &[u32]) -> Option<Passed<'_>> {
        self.packet
            .beyond(sizes)
            .is_none()
            .then(|| self.packet.passed(sizes))
    }

    /// Launches every bound entry point, in order. `sizes`: the launch sizes, in
    /// declared order, each from 1 to what was bound.
    ///
    /// # Safety
    ///
    /// The memory that was bound is alive until the stream is done with it and used
    /// by nobody else meanwhile; what it holds (lengths, indices) is as the family
    /// demands; the stream is of the kernel's context, which is current on this thread.
    pub unsafe fn launch(&self, sizes: &[u32], stream: sys::CUstream) -> Result<(), LaunchError> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_entries(0..self.entries.len(), sizes, stream) }
    }

    /// Launches only these of the bound entry points, in order.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    ///
    /// # Safety
    ///
    /// As for [`launch`](Self::launch); what the entry points left out would have
    /// written was written before.
    pub unsafe fn launch_entries(
        &self,
        which: Range<usize>,
        sizes: &[u32],
        stream: sys::CUstream,
    ) -> Result<(), LaunchError> {
        let entries = &self.kernel.entries()[self.entries.clone()][which];
        if self.kernel.context().is_of_parent() {
            return Err(self.forked());
        }
        if self.packet.beyond(sizes).is_some() {
            return Err(self.beyond(sizes));
        }
        let mut passed = self.packet.passed(sizes);
        passed.pointers(|pointers| {
            entries.iter().try_for_each(|entry| {
                let geometry = entry.geometry(sizes)?;
                // SAFETY: the packet is of the entry point's parameters, which `finish`
                // checked; the rest is the caller's promise.
                unsafe { launch_as(entry, &geometry, self.how, stream, pointers) }
            })
        })
    }

    #[cold]
    fn forked(&self) -> LaunchError {
        let entry = &self.kernel.entries()[self.entries.start];
        LaunchError::Forked {
            entry: entry.name().to_owned(),
        }
    }

    #[cold]
    fn beyond(&self, sizes: &[u32]) -> LaunchError {
        let first = self.kernel.entries().get(self.entries.start);
        let entry = first.map_or_else(String::new, |entry| entry.name().to_owned());
        let most = self.packet.most();
        let names = self.kernel.signature(&entry).map(|s| s.sizes().to_vec());
        let at = self.packet.beyond(sizes).unwrap_or(0);
        match (sizes.get(at), most.get(at), names.unwrap_or_default().get(at)) {
            (Some(asked), Some(most), Some(size)) if sizes.len() == self.packet.most().len() => {
                LaunchError::Size {
                    entry,
                    size: size.clone(),
                    asked: *asked,
                    most: *most,
                }
            }
            _ => LaunchError::SizeCount {
                entry,
                takes: most.len(),
                given: sizes.len(),
            },
        }
    }
}
