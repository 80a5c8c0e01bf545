//! A family's own rules under the settings: the dispatchers that they come to.
//!
//! Invariant: what is warmed for a dispatcher, explained of it and served by it is worked
//! out here, so that it is the same.

use super::{Error, Jit};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::NamedFamily;
use crate::engine::run::device::Device;
use crate::engine::run::dispatch::{DispatchError, Dispatcher};
use crate::engine::run::tuned::{Gpu, Record, Stale};

impl Jit {
    /// The dispatchers of a family on a GPU, here or not: one for each variant that the
    /// settings ask for, in their order. Constants that somebody set stay as they are; what
    /// was tuned on such a GPU, as the record beside the cache says, holds over the rules.
    ///
    /// # Errors
    /// Settings that come to no legal variant, and those of [`Dispatcher::new`].
    pub fn dispatchers(&self, named: &NamedFamily, device: &Device) -> Result<Vec<Dispatcher>, Error> {
        let forced = named.forced(&self.config);
        let asked = KernelSpec::expand(named.clone(), &self.config, &[device.arch()])?;
        let record = self.tuned();
        let dispatcher = |asked: &KernelSpec| {
            let told = &mut |stale: Stale| tracing::warn!("{stale}");
            Ok(self.dispatcher(asked, device, &forced, &record, told)?)
        };
        asked.iter().map(dispatcher).collect()
    }

    /// The dispatcher of one variant with open constants: what a record says was tuned on
    /// such a GPU holds over the family's rules. `told` hears what does not hold any more.
    ///
    /// # Errors
    /// Those of [`Dispatcher::new`].
    pub fn dispatcher(
        &self,
        asked: &KernelSpec,
        device: &Device,
        forced: &[&str],
        record: &Record,
        told: &mut dyn FnMut(Stale),
    ) -> Result<Dispatcher, DispatchError> {
        let mut key = |spec: &KernelSpec| Some(self.describe(spec).ok()?.0.key().hex());
        let mut dispatcher = Dispatcher::new(asked, device, forced)?;
        for stale in dispatcher.tune_by(record, asked, &Gpu::from(device), forced, &mut key) {
            told(stale);
        }
        Ok(dispatcher)
    }
}
