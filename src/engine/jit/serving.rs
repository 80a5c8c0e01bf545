//! A family's rules with every variant that they come to loaded: what a server launches from.
//!
//! Invariant: selecting takes no lock, allocates nothing and asks nobody; a variant that was
//! compiled behind another is seen by the next selection.

use std::sync::Arc;

use super::{Error, Handover, Jit};
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::Context;
use crate::engine::run::dispatch::{DispatchError, Dispatcher, Selected};
use crate::engine::run::load::LoadedKernel;

/// A dispatcher and, for each of its variants, the kernel.
#[derive(Debug)]
pub struct Serving<K = LoadedKernel> {
    dispatcher: Dispatcher,
    kernels: Vec<Handover<K>>,
}

impl<K> Serving<K> {
    /// Of a kernel for each of the dispatcher's variants, in their order; `None` of another
    /// number of kernels.
    #[must_use]
    pub fn new(dispatcher: Dispatcher, kernels: Vec<Handover<K>>) -> Option<Self> {
        (dispatcher.variants().len() == kernels.len()).then_some(Self { dispatcher, kernels })
    }

    /// The kernel to launch for a problem, by its sizes in the order of the family's
    /// `[dispatch]`, and where the choice comes from.
    ///
    /// # Errors
    /// Those of [`Dispatcher::select`].
    #[inline]
    pub fn select(&self, sizes: &[u32]) -> Result<(&Arc<K>, Selected), DispatchError> {
        let selected = self.dispatcher.select(sizes)?;
        Ok((self.kernels[selected.variant].kernel(), selected))
    }

    /// The rules.
    #[must_use]
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// The kernels, in the order of [`Dispatcher::variants`].
    #[must_use]
    pub fn kernels(&self) -> &[Handover<K>] {
        &self.kernels
    }
}

impl Jit {
    /// Prepares and loads every variant that a dispatcher can select: those that are
    /// missing are compiled at once, as many as there are cores; under
    /// [`MissPolicy::Behind`](crate::engine::config::MissPolicy::Behind) those that a more
    /// general variant stands in for are compiled behind it ([`load_behind`](Self::load_behind)).
    ///
    /// # Errors
    /// The first variant, in their order, that cannot be prepared or loaded.
    pub fn serve(self: &Arc<Self>, dispatcher: Dispatcher, context: &Context) -> Result<Serving, Error> {
        let variants = dispatcher.variants();
        let mut kernels = Vec::with_capacity(variants.len());
        for spec in variants {
            kernels.push(self.without_waiting(spec, context)?);
        }
        let waited_for = variants.iter().zip(&kernels).filter(|(_, there)| there.is_none());
        self.prepare_each(waited_for.map(|(spec, _)| spec))?;
        let loaded = |(spec, there): (&KernelSpec, Option<Handover>)| match there {
            Some(handover) => Ok(handover),
            None => self.load(spec, context).map(Handover::of),
        };
        let kernels = variants
            .iter()
            .zip(kernels)
            .map(loaded)
            .collect::<Result<_, _>>()?;
        Ok(Serving { dispatcher, kernels })
    }
}
