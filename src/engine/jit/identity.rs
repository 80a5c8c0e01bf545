//! Under which compiler's identity the cache is asked.
//!
//! Invariant: a found compiler is asked for last where nothing may be compiled or a bundle
//! is embedded, so that its presence turns no hit into a miss; and an entry is only ever
//! answered under the identity of the compiler that made it, which its key covers.

use std::time::Instant;

use super::{Error, Jit, Prepared, micros};
use crate::engine::build::render::{RenderedSource, preimage};
use crate::engine::build::request::{CompileRequest, RequestParts};
use crate::engine::build::toolchain::{self, ToolchainError};
use crate::engine::cache::{Drift, Fetched, Judged};
use crate::engine::config::{ConfigError, Source, ToolchainChoice};
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::ToolchainIdentity;

/// The identities that a lookup asks for: these in order, and then that of the compiler
/// that was found.
struct Asked {
    named: Vec<ToolchainIdentity>,
    /// Whether to ask for that of the found one, too.
    found: bool,
}

/// How far a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Under identities that are known without looking for a compiler.
    Named,
    /// Under that of the compiler that is found, too.
    Everywhere,
}

impl Jit {
    /// The artifact of a spec, where no compile is needed for it and no receipt required.
    pub(super) fn at_hand(&self, spec: &KernelSpec, look: Look) -> Result<Option<Prepared>, Error> {
        let started = Instant::now();
        // What the driver has to compile first is not at hand.
        if look == Look::Everywhere
            && let Some(stands_in) = self.prepare_stand_in(spec)?
            && !stands_in.request.arch().is_ptx()
        {
            return Ok(Some(stands_in));
        }
        let rendered = self.render(spec)?;
        let asked = self.asked()?;
        let found = asked.found && (look == Look::Everywhere || self.identity.get().is_some());
        let found = self.each(&asked.named, found, &mut |identity| {
            let request = self.request_under(spec, &rendered, identity);
            let fetched = self.cache.lookup_if_there(request.key())?;
            Some((request, fetched))
        })?;
        Ok(found.map(|(request, fetched)| {
            self.policy.answered(spec, &request, &fetched);
            Prepared {
                request,
                fetched,
                stand_in: None,
                own_us: micros(started),
            }
        }))
    }

    /// The request of a spec under the identity of a compiler.
    pub(super) fn request_under(
        &self,
        spec: &KernelSpec,
        rendered: &RenderedSource,
        toolchain: ToolchainIdentity,
    ) -> CompileRequest {
        let constants = spec.constants().iter();
        CompileRequest::new(RequestParts {
            preimage: preimage(spec, rendered, &toolchain, &self.config.compiler_env()),
            family: spec.family().name.clone(),
            constants: constants.map(|(n, v)| (n.clone(), v.to_json())).collect(),
            arch: spec.arch(),
            options: rendered.options.clone(),
            toolchain,
            source: rendered.source.clone(),
            headers: rendered.headers.clone(),
        })
    }

    /// The identity that a lookup asks for first.
    pub(super) fn first_identity(&self) -> Result<ToolchainIdentity, Error> {
        match self.asked()?.named.into_iter().next() {
            Some(identity) => Ok(identity),
            None => self.identity(),
        }
    }

    /// The artifact under the first identity that has it; `None` where none has and it may
    /// be compiled under that of the found compiler.
    pub(super) fn without_compiling(
        &self,
        spec: &KernelSpec,
        rendered: &RenderedSource,
    ) -> Result<Option<(CompileRequest, Fetched)>, Error> {
        let receipt = self.policy.receipt()?;
        let forbidden = receipt.is_some() || self.policy.forbids();
        let (mut first, mut refused) = (None, None);
        let found = self.each_request(spec, rendered, forbidden, &mut |request| {
            let found = match &receipt {
                None => self.cache.lookup_if_there(request.key()),
                Some(receipt) => match self.cache.lookup_listed(request.key(), receipt) {
                    Ok(found) => Some(found),
                    Err(drift) => {
                        more_telling(&mut refused, drift);
                        None
                    }
                },
            };
            first.get_or_insert_with(|| request.clone());
            found
        })?;
        match (found, first) {
            (Some(found), _) => Ok(Some(found)),
            (None, Some(first)) if forbidden => {
                if receipt.is_none() {
                    // Says that it missed, once.
                    self.cache.lookup(first.key());
                }
                Err(self.policy.refusal(&self.cache, spec, &first, refused))
            }
            _ => Ok(None),
        }
    }

    /// What [`without_compiling`](Self::without_compiling), or else a compile under the
    /// found identity, would find in the cache.
    pub(super) fn judge_all(
        &self,
        spec: &KernelSpec,
        rendered: &RenderedSource,
    ) -> Result<(CompileRequest, Judged), Error> {
        let receipt = self.policy.receipt()?;
        let asked = self.asked()?;
        let always = receipt.is_some() || self.policy.forbids();
        let mut best: Option<(CompileRequest, Judged)> = None;
        let found = asked.found || !always;
        let hit = self.each(&asked.named, found, &mut |identity| {
            let request = self.request_under(spec, rendered, identity);
            match self.cache.judge(request.key(), receipt.as_deref()) {
                hit @ Judged::Hit { .. } => Some((request, hit)),
                other => {
                    let dull =
                        |j: &Judged| matches!(j, Judged::Absent | Judged::Refused(Drift::NotListed(_)));
                    if best.as_ref().is_none_or(|(_, held)| dull(held) && !dull(&other)) {
                        best = Some((request, other));
                    }
                    None
                }
            }
        })?;
        match hit.or(best) {
            Some((request, Judged::Refused(drift))) => {
                let drift = self.policy.explained(drift, spec)?;
                Ok((request, Judged::Refused(drift)))
            }
            Some(judged) => Ok(judged),
            None => Err(ToolchainError::NotPinned(std::env::consts::ARCH).into()),
        }
    }

    fn each_request(
        &self,
        spec: &KernelSpec,
        rendered: &RenderedSource,
        forbidden: bool,
        look: &mut dyn FnMut(&CompileRequest) -> Option<Fetched>,
    ) -> Result<Option<(CompileRequest, Fetched)>, Error> {
        let asked = self.asked()?;
        // Where it may compile, the walk that compiles asks for the found one.
        self.each(&asked.named, asked.found && forbidden, &mut |identity| {
            let request = self.request_under(spec, rendered, identity);
            let found = look(&request)?;
            Some((request, found))
        })
    }

    fn each<T>(
        &self,
        named: &[ToolchainIdentity],
        found: bool,
        look: &mut dyn FnMut(ToolchainIdentity) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        if let Some(answer) = named.iter().find_map(|identity| look(identity.clone())) {
            return Ok(Some(answer));
        }
        if found {
            let identity = self.identity()?;
            if !named.contains(&identity) {
                return Ok(look(identity));
            }
        }
        Ok(None)
    }

    fn asked(&self) -> Result<Asked, Error> {
        let receipt = self.policy.receipt()?;
        let bundles = || self.cache.tiers().iter().flat_map(|tier| tier.toolchains());
        let held = || {
            let listed = receipt.iter().flat_map(|receipt| receipt.toolchains.clone());
            once_each(listed.chain(bundles()))
        };
        let pinned = || toolchain::pinned_identity();
        let asked = |named, found| Ok(Asked { named, found });
        match &self.asks_for {
            None => {
                let mut named = held();
                if receipt.is_none() && !self.policy.forbids() && named.is_empty() {
                    return asked(Vec::new(), true);
                }
                named.extend(pinned());
                asked(once_each(named), true)
            }
            Some((ToolchainChoice::Found, _)) => asked(Vec::new(), true),
            Some((ToolchainChoice::Pinned, _)) => match pinned() {
                Some(pinned) => asked(vec![pinned], false),
                None => Err(ToolchainError::NotPinned(std::env::consts::ARCH).into()),
            },
            Some((ToolchainChoice::Bundle, _)) => match held() {
                named if named.is_empty() => asked(pinned().into_iter().collect(), false),
                named => asked(named, false),
            },
            Some((ToolchainChoice::Version(version), origin)) => {
                asked(self.of_version(version, origin, held())?, false)
            }
        }
    }

    /// The identities of a version, of all that are known; looked for once.
    fn of_version(
        &self,
        version: &str,
        origin: &Source,
        held: Vec<ToolchainIdentity>,
    ) -> Result<Vec<ToolchainIdentity>, Error> {
        if let Some(known) = self.of_version.get() {
            return Ok(known.clone());
        }
        let is = |identity: &ToolchainIdentity| {
            let rest = identity.version.strip_prefix(version);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let known = held.into_iter().chain(toolchain::pinned_identity());
        let mut named: Vec<_> = known.chain(self.identity().ok()).filter(is).collect();
        for tier in self.cache.tiers() {
            tier.visit(&mut |manifest| {
                if is(&manifest.toolchain) && !named.contains(&manifest.toolchain) {
                    named.push(manifest.toolchain);
                }
            });
        }
        if named.is_empty() {
            return Err(ConfigError::Value {
                name: "toolchain".into(),
                value: version.to_owned(),
                origin: origin.clone(),
                expected:
                    "no receipt, bundle or entry was made by this version, and neither the pinned NVRTC \
                           nor the found one is of it: expected found, pinned, bundle or a version of these"
                        .into(),
            }
            .into());
        }
        Ok(self.of_version.get_or_init(|| once_each(named)).clone())
    }
}

fn once_each(identities: impl IntoIterator<Item = ToolchainIdentity>) -> Vec<ToolchainIdentity> {
    let mut once = Vec::new();
    for identity in identities {
        if !once.contains(&identity) {
            once.push(identity);
        }
    }
    once
}

/// That a key is not listed says the least.
fn more_telling(held: &mut Option<Drift>, drift: Drift) {
    if held
        .as_ref()
        .is_none_or(|held| matches!(held, Drift::NotListed(_)))
    {
        if held.is_some() && matches!(drift, Drift::NotListed(_)) {
            return;
        }
        *held = Some(drift);
    }
}
