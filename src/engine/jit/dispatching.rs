//! A family's own rules under the settings: the dispatchers that they come to.
//!
//! Invariant: what is warmed for a dispatcher, explained of it and served by it is worked
//! out here, so that it is the same.

use super::{Error, Jit};
use crate::engine::config::Config;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::{Constant, NamedFamily};
use crate::engine::run::device::Device;
use crate::engine::run::dispatch::Dispatcher;
use crate::engine::run::tuned::Gpu;

impl Jit {
    /// The dispatchers of a family on a GPU, here or not: one for each variant that the
    /// settings ask for, in their order. Constants that somebody set stay as they are; what
    /// was tuned on such a GPU, as the record beside the cache says, holds over the rules.
    ///
    /// # Errors
    /// Settings that come to no legal variant, and those of [`Dispatcher::new`].
    pub fn dispatchers(&self, named: &NamedFamily, device: &Device) -> Result<Vec<Dispatcher>, Error> {
        let forced = forced(&self.config, named);
        let asked = KernelSpec::expand(named.clone(), &self.config, &[device.arch()])?;
        let record = self.tuned();
        let gpu = Gpu::from(device);
        let mut key = |spec: &KernelSpec| Some(self.describe(spec).ok()?.0.key().hex());
        let mut dispatcher = |asked: &KernelSpec| {
            let mut dispatcher = Dispatcher::new(asked, device, &forced)?;
            for stale in dispatcher.tune_by(&record, asked, &gpu, &forced, &mut key) {
                tracing::warn!("{stale}");
            }
            Ok(dispatcher)
        };
        asked.iter().map(&mut dispatcher).collect()
    }
}

/// Constants that a flag, a variable, a file, a preset or a former name of the family sets.
fn forced<'f>(config: &Config, named: &'f NamedFamily) -> Vec<&'f str> {
    let family = named.family();
    let preset = config.preset(&family.preset_variables);
    let preset = preset.and_then(|name| family.preset(&name.value));
    let former = named.former_name();
    let is_set = |(name, constant): &(&'f String, &'f Constant)| {
        config.constant(name, &constant.variables).is_some()
            || preset.is_some_and(|preset| preset.constants.contains_key(*name))
            || former.is_some_and(|former| former.constants.contains_key(*name))
    };
    let set = family.constants.iter().filter(is_set);
    set.map(|(name, _)| name.as_str()).collect()
}
