//! What dispatchers can ask for on GPUs that need not be here: all that is to be warmed for
//! them.
//!
//! Invariant: whatever a dispatch selects on one of the GPUs, under the same settings, is in
//! the list, and nothing else is.

use std::collections::HashSet;

use crate::engine::config::Source;
use crate::engine::jit::{Error, Jit, UsualArchs};
use crate::engine::request::spec::{KernelSpec, SpecId, check_count};
use crate::engine::request::template::NamedFamily;
use crate::engine::run::device::{self, Device};
use crate::engine::run::dispatch::Dispatcher;
use crate::engine::run::occupancy::{KNOWN_DEVICES, known_devices};
use crate::families::harness;
use crate::measure::MeasureError;

/// The variants of a list of families and GPUs, and what was left out of it, a line each.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Dispatched {
    /// Each once.
    pub specs: Vec<KernelSpec>,
    /// Families and GPUs that do not go together.
    pub notes: Vec<String>,
}

/// What is requested of these families for GPUs by name, or for those that are here: all
/// that the settings ask for on their archs, or just what dispatchers can select there.
///
/// # Errors
/// A GPU that is not known or not here, a flag that names an arch as well, and those of
/// [`dispatched`].
pub fn for_gpus(
    jit: &Jit,
    names: &[String],
    gpus: Option<&str>,
    for_dispatch: bool,
) -> Result<Dispatched, MeasureError> {
    let refused = |reason: String| Err(MeasureError::Request(reason));
    if let Some(Source::Flag(flag)) = jit.config().arch().map(|setting| setting.source) {
        return refused(format!(
            "{flag} beside --gpu or --for-dispatch: a GPU says its arch; leave one out"
        ));
    }
    let devices = match gpus {
        Some(list) => known_devices(list).map_err(|e| MeasureError::Request(format!("--gpu: {e}")))?,
        None => device::here().map_err(Error::Device)?,
    };
    if devices.is_empty() {
        let known = KNOWN_DEVICES.join(", ");
        return refused(format!(
            "--for-dispatch: there is no GPU here: name some by --gpu: {known}"
        ));
    }
    if for_dispatch {
        return dispatched(jit, names, &devices);
    }
    let selection = jit.registry().select(names, jit.config()).map_err(Error::from)?;
    let usual = UsualArchs::named(devices);
    let families = selection
        .families
        .iter()
        .map(|selected| &**selected.named.family());
    let skipped = usual.skipped(families)?;
    let specs = selection.specs_to_warm_for(jit.config(), &usual.archs());
    Ok(Dispatched {
        specs: specs.map_err(Error::from)?,
        notes: selection.notes().chain(skipped).collect(),
    })
}

/// Every variant that the dispatchers of these families, by name, can come to on these
/// GPUs; without a name, of every family that has one.
///
/// # Errors
/// A named family that has no dispatcher, or that cannot do with one of the GPUs; no
/// dispatcher at all; and what the settings do not allow.
pub fn dispatched(jit: &Jit, names: &[String], devices: &[Device]) -> Result<Dispatched, MeasureError> {
    let selection = jit.registry().select(names, jit.config()).map_err(Error::from)?;
    let mut all = Dispatched {
        specs: Vec::new(),
        notes: selection.notes().collect(),
    };
    let mut seen: HashSet<SpecId> = HashSet::new();
    let mut any = false;
    for selected in &selection.families {
        let family = selected.named.family();
        for device in devices {
            if names.is_empty() && !family.does(device.arch()) {
                any |= family.dispatch.is_some();
                let (name, gpu) = (&family.name, &device.name);
                all.notes.push(format!("left out: {name} does not run on {gpu}"));
                continue;
            }
            let Some(specs) = of_family(jit, &selected.named, device)? else {
                if names.is_empty() {
                    break;
                }
                return Err(MeasureError::Request(format!(
                    "`{}` has no dispatcher: expected families with [dispatch] in their TOML, or none named",
                    family.name
                )));
            };
            any = true;
            all.specs
                .extend(specs.into_iter().filter(|spec| seen.insert(spec.id())));
            check_count("all families together", all.specs.len()).map_err(Error::from)?;
        }
    }
    if !any {
        return Err(MeasureError::Request(
            "no family has a dispatcher: expected one with [dispatch] in its TOML".into(),
        ));
    }
    Ok(all)
}

/// The same of one family and GPU; `None` where it has no dispatcher.
fn of_family(
    jit: &Jit,
    named: &NamedFamily,
    device: &Device,
) -> Result<Option<Vec<KernelSpec>>, MeasureError> {
    let family = named.family();
    if family.dispatch.is_none() {
        return harness(&family.name).map_or(Ok(None), |own| own.dispatched(jit, named, device));
    }
    let dispatchers = jit.dispatchers(named, device)?;
    let variants = dispatchers.iter().flat_map(Dispatcher::variants);
    Ok(Some(variants.cloned().collect()))
}
