//! Code of another arch that answers where a request's own is missing.
//!
//! Invariant: every GPU that runs the requested arch runs the code that stands in and has
//! the shared memory that it takes, as far as that is known, and its family does not say that
//! bits depend on the arch. PTX, which the driver compiles, stands in where compiling is
//! allowed, and nothing else does.

use super::{Error, Jit, Prepared};
use crate::engine::build::artifact::Resources;
use crate::engine::build::request::CompileRequest;
use crate::engine::cache::{Provenance, TierName};
use crate::engine::config::ArchMatch;
use crate::engine::request::spec::KernelSpec;

/// The code of another arch that answers a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StandIn {
    /// The requested spec, for the arch that answers.
    pub spec: KernelSpec,
    /// What the cache knows it as.
    pub request: CompileRequest,
    /// The tier that has it.
    pub tier: TierName,
}

impl Jit {
    /// What would answer this request in place of its own code: `None` where that is there,
    /// where [`ArchMatch::Exact`] is in force, or where no tier has code that may stand in.
    /// Changes and tells nothing.
    ///
    /// # Errors
    /// Those of [`Jit::judge`].
    pub fn stand_in(&self, spec: &KernelSpec) -> Result<Option<StandIn>, Error> {
        if self.arch_match == ArchMatch::Exact || spec.family().arch_changes_bits {
            return Ok(None);
        }
        let (own, judged) = self.judge(spec)?;
        let remembered = self.policy.receipt()?.is_none() && self.cache.remembers(own.key());
        if remembered || judged.is_hit() {
            return Ok(None);
        }
        let mut archs = spec.arch().stand_ins();
        if self.arch_match == ArchMatch::Ptx && self.policy.driver_may_compile()? {
            archs.extend(spec.arch().ptx_stand_ins());
        }
        for arch in archs {
            if !spec.family().does(arch) {
                continue;
            }
            let other = spec.for_arch(arch)?;
            let (request, judged) = self.judge(&other)?;
            if judged.is_hit()
                && let Some((entry, tier)) = self.cache.peek_tier(request.key())
                && fits(spec, &other, &entry.manifest().resources)
            {
                return Ok(Some(StandIn {
                    spec: other,
                    request,
                    tier,
                }));
            }
        }
        Ok(None)
    }

    /// The artifact of what stands in for a spec, if anything does and still is there.
    pub(super) fn prepare_stand_in(&self, spec: &KernelSpec) -> Result<Option<Prepared>, Error> {
        let Some(StandIn {
            spec: other, request, ..
        }) = self.stand_in(spec)?
        else {
            return Ok(None);
        };
        let found = match self.policy.receipt()? {
            Some(receipt) => self.cache.lookup_listed(request.key(), &receipt).ok(),
            None => self.cache.lookup(request.key()),
        };
        Ok(found.map(|mut fetched| {
            let arch = other.arch();
            tracing::info!(requested = %spec.arch(), %arch, "code of another arch answers");
            if let Provenance::Hit(tier) = fetched.provenance {
                fetched.provenance = Provenance::Compatible { tier, arch };
            }
            Prepared {
                request,
                fetched,
                stand_in: Some(other),
                own_us: 0,
            }
        }))
    }
}

/// Whether a GPU of the requested arch has the shared memory that each entry point of the
/// other code takes. Where it is not known how much there is, it has not.
fn fits(requested: &KernelSpec, other: &KernelSpec, resources: &[Resources]) -> bool {
    let Some(room) = requested.arch().shared_mem_per_block() else {
        // Of a GPU that nobody knows yet, loading says it.
        return other.arch().is_ptx();
    };
    other.entries().all(|entry| {
        let fixed = resources.iter().find(|r| r.entry == entry.name);
        let fixed = fixed.map_or(0, |r| r.shared_bytes);
        // What only a launch decides is not known to fit.
        let dynamic = other.axis(&entry.shared_mem_bytes).ok();
        let dynamic = dynamic.and_then(|bytes| bytes.fixed()).unwrap_or(u32::MAX);
        dynamic.saturating_add(fixed) <= room
    })
}
